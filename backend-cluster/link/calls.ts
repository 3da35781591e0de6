/**
 * Calls that come over the link, by name, and who may make them.
 *
 *   cluster.*                          members of this cluster only: the Controller's and its backups' business
 *   accounts.create, rename, remove    the admin API, directory servers (provisioning), members
 *   store.*                            the admin API, members: what operators ask of the store; the Controller does it
 *   members.*, settings.*              the admin API and members: an operator's business
 *   accounts.where-is, status          everybody on the link
 *   authenticate (.login), scram.salt  everybody on the link: a login judged for submission; what a SCRAM exchange begins with
 *   sessions.bye                       the frontend whose session it is
 *   sessions.collect                   members of this cluster: a session that was handed over
 */

import type { LoginCheck } from '#backend-cluster/accounts/check-login.ts';
import type { AccountWhereabouts } from '#backend-cluster/client/cluster-client.ts';
import type { ClusterStatus } from '#backend-cluster/client/status.ts';
import type { Controller } from '#backend-cluster/controller/controller.ts';
import type { Upkeep } from '#backend-cluster/controller/upkeep.ts';
import { type AccountUuid, parseAccountUuid, printable } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, clusterOf, parseMemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import {
  type AuthenticateParams,
  type AuthenticateResult,
  authenticateLoginMethod,
  authenticateMethod,
  byeMethod,
  collectMethod,
  type LinkLogin,
  type ScramSalt,
  scramSaltMethod,
} from '#protocol/link/messages.ts';
import { isLinkLogin, type LinkPeer } from './server.ts';

/** What the calls work on. */
export interface CallsOptions {
  readonly cluster: ClusterName;
  readonly controller: Controller;
  readonly logins: LoginCheck;
  /** `isLocal`: only what this member knows itself. */
  whereIs(uuid: AccountUuid, isLocal: boolean): Promise<AccountWhereabouts>;
  clusterStatus(): ClusterStatus;
  /** State of a session that this member has handed over. */
  collect(ticket: string, frontend: string): object;
  /** Ends a session that came through this frontend; `false` when there is none. */
  byeSession(sessionId: string, frontend: string, text: string): boolean;
  readonly upkeep: Upkeep;
  readonly log: Logger;
}

const operations = new Set(['accounts.create', 'accounts.rename', 'accounts.remove', 'accounts.restore']);
const storeCalls = new Set(['store.stat', 'store.scrub', 'store.check', 'store.repair']);
const operationTimeoutMs = 30_000;
/** A large account is read as a whole. */
const storeTimeoutMs = 600_000;
const passwordLengthMax = 4_096;
const byeLengthMax = 200;
const sessionIdLengthMax = 100;

/** Makes the answerer. */
export function createCalls(options: CallsOptions): (peer: LinkPeer, method: string, params: unknown) => Promise<unknown> {
  return async (peer, method, given) => {
    const params = typeof given === 'object' && given !== null ? (given as Record<string, unknown>) : {};
    if (method.startsWith('cluster.')) {
      // The name is proved by certificate (or both are on loopback), so the cluster it belongs to is as well.
      if (peer.role !== 'backend-cluster' || clusterOf(parseMemberName(peer.name)) !== options.cluster) {
        throw new PlatformError(
          'LINK_REFUSED',
          `${peer.role} ${peer.name} is no member of ${options.cluster} and may not call ${printable(method)}`,
        );
      }
      return options.controller.call(method, params);
    }
    if (operations.has(method) || storeCalls.has(method)) {
      if (peer.role === 'frontend') throw new PlatformError('LINK_REFUSED', `frontend ${peer.name} may not call ${method}`);
      return options.controller.ask(
        'cluster.run',
        { method, params },
        { timeoutMs: storeCalls.has(method) ? storeTimeoutMs : operationTimeoutMs, isOnce: true },
      );
    }
    if (options.upkeep.knows(method)) {
      if (peer.role !== 'operate' && peer.role !== 'backend-cluster') {
        throw new PlatformError('LINK_REFUSED', `${peer.role} ${peer.name} may not call ${method}`);
      }
      return options.upkeep.run(method, params);
    }
    if (method === 'accounts.where-is') return options.whereIs(parseAccountUuid(String(params.uuid)), params.isLocal === true);
    if (method === collectMethod) {
      if (peer.role !== 'backend-cluster' || clusterOf(parseMemberName(peer.name)) !== options.cluster) {
        throw new PlatformError(
          'LINK_REFUSED',
          `${peer.role} ${peer.name} is no member of ${options.cluster} and may not take its sessions over`,
        );
      }
      return options.collect(String(params.ticket), String(params.frontend));
    }
    if (method === byeMethod) {
      return { ended: options.byeSession(String(params.sessionId), peer.name, printable(String(params.text)).slice(0, byeLengthMax)) };
    }
    if (method === authenticateMethod || method === authenticateLoginMethod) return authenticate(options, peer, params);
    if (method === scramSaltMethod) return scramSalt(options.logins, params);
    if (method === 'status') return options.clusterStatus();
    throw new PlatformError('LINK_PROTOCOL', `the call ${printable(method)} is unknown to this release`);
  };
}

async function authenticate(
  { logins, log }: CallsOptions,
  { name: peer }: LinkPeer,
  params: Record<string, unknown>,
): Promise<AuthenticateResult> {
  const { uuid, name, password, login: shown, sessionId, client } = params as unknown as AuthenticateParams;
  const isWell = typeof password === 'string' && password.length <= passwordLengthMax && (shown === undefined || isLinkLogin(shown));
  if (typeof uuid !== 'string' || typeof name !== 'string' || !isWell) {
    throw new PlatformError('LINK_PROTOCOL', 'a request to verify a login is malformed');
  }
  const login: LinkLogin = shown ?? { mechanism: 'PLAIN', authorizationId: '', authenticationId: name, password };
  const fields = {
    ...(typeof sessionId === 'string' ? { sessionId: printable(sessionId).slice(0, sessionIdLengthMax) } : {}),
    ...{ protocol: 'submission', account: printable(name), clientIp: printable(String(client?.address)), tls: client?.tls === true, peer },
  };
  try {
    const record = await logins.find({ uuid, name }, login);
    const serverSignature = await logins.verify(record, name, login);
    log.info(fields, 'login verified');
    return { ok: true, name: record.name, ...(serverSignature === undefined ? {} : { serverSignature }) };
  } catch (error) {
    log.info({ ...fields, errCode: asPlatformError(error).code }, 'login refused');
    throw error;
  }
}

async function scramSalt(logins: LoginCheck, params: Record<string, unknown>): Promise<ScramSalt> {
  const { uuid, name } = params;
  if (typeof uuid !== 'string' || typeof name !== 'string') throw new PlatformError('LINK_PROTOCOL', 'a request for a salt is malformed');
  return logins.saltOf({ uuid, name });
}
