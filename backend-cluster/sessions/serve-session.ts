/**
 * What a member answers when a frontend asks it to serve a session.
 *
 *   who hosts the account? ─► another cluster: `moved`
 *        │ this one            another member has it open: `at`, before any password is looked at
 *        ▼
 *   is the name its name, and the password right? ─► no: `refused`
 *        ▼
 *   open it (Controller, storage) ─► somebody was faster: `at`
 *        ▼
 *   `opened`, and the protocol server takes the channel
 */
import type { LoginCheck } from '#backend-cluster/accounts/check-login.ts';
import type { Acquired, HostedAccounts } from '#backend-cluster/accounts/hosted-accounts.ts';
import type { AccountRegistry } from '#backend-cluster/accounts/registry.ts';
import type { MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { LinkPeer, SessionDecision } from '#backend-cluster/link/server.ts';
import { type AccountUuid, printable } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';
import { type ParkedSession, parkedAs } from './handovers.ts';
import type { SessionServer } from './session.ts';
import type { SessionFacts, SessionRegistry } from './session-registry.ts';

/** A protocol that sessions may speak. */
export interface SessionProtocol {
  readonly serve: SessionServer;
  /** What it offers after login, for the frontend's answer. */
  readonly capabilities: readonly string[];
}

/** Those that a member serves. */
export type SessionProtocols = Readonly<Record<SessionService, SessionProtocol>>;
type SessionService = 'imap' | 'pop3' | 'managesieve';

/** What serving sessions takes. */
export interface ServeSessionOptions {
  readonly protocols: SessionProtocols;
  readonly registry: AccountRegistry;
  readonly logins: LoginCheck;
  readonly hosted: HostedAccounts;
  readonly sessions: SessionRegistry;
  /** State of a session that another member has handed over. Rejects as a call does. */
  collect(from: NonNullable<OpenSession['resume']>, frontend: string): Promise<ParkedSession>;
  /** Another member that has the account open, if the Controller says so at once. */
  hostElsewhere(uuid: AccountUuid): Promise<MemberAddress | undefined>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** Makes the answerer. */
export function createSessionServing(options: ServeSessionOptions): (peer: LinkPeer, request: OpenSession) => Promise<SessionDecision> {
  const logins = options.metrics.counter('archipelago_member_logins_total', 'Requests to serve a session after login, by answer.', [
    'protocol',
    'outcome',
  ]);
  return async (peer, request) => {
    const outcomeOf = (answer: OpenSessionAnswer): string => (answer.outcome === 'refused' ? answer.code : answer.outcome);
    try {
      const decision = await decide(options, peer, request);
      logins.add({ protocol: request.service, outcome: outcomeOf(decision.answer) });
      return decision;
    } catch (error) {
      const failure = asPlatformError(error);
      logins.add({ protocol: request.service, outcome: failure.code });
      const level = failure.kind === 'auth' || failure.kind === 'moved' ? 'info' : failure.kind === 'bug' ? 'error' : 'warn';
      options.log[level](
        {
          sessionId: request.sessionId,
          protocol: request.service,
          account: printable(request.account?.name ?? ''),
          clientIp: request.client.address,
          peer: peer.name,
          outcome: 'refused',
          errCode: failure.code,
        },
        `session refused: ${failure.message}`,
      );
      return { answer: { outcome: 'refused', code: failure.code, kind: failure.kind, message: failure.message } };
    }
  };
}

async function decide(options: ServeSessionOptions, peer: LinkPeer, request: OpenSession): Promise<SessionDecision> {
  const { service, account, login } = request;
  if (service !== 'imap' && service !== 'pop3' && service !== 'managesieve')
    throw new PlatformError('LINK_PROTOCOL', `the service ${printable(service)} is unknown to this release`);
  if (request.resume !== undefined) return resume(options, peer, request, service);
  if (account === undefined || login === undefined)
    throw new PlatformError('LINK_PROTOCOL', `a session for ${service} needs account and login`);

  let record: AccountRecord;
  try {
    record = await options.logins.find(account, login);
  } catch (error) {
    const { code, fields } = asPlatformError(error);
    if (code !== 'LINK_MOVED') throw error;
    const { hostServer } = fields;
    return { answer: { outcome: 'moved', ...(typeof hostServer === 'string' ? { hostServer } : {}) } };
  }
  const { uuid } = record;
  if (!options.hosted.isOpen(uuid)) {
    const host = await options.hostElsewhere(uuid);
    if (host !== undefined) return at(host);
  }
  const serverSignature = await options.logins.verify(record, account.name, login);
  const acquired = await options.hosted.acquire(uuid);
  if (acquired.outcome === 'at') return at(acquired.host);

  const decision = serving(options, peer, request, service, record, acquired, undefined);
  if (serverSignature === undefined || decision.answer.outcome !== 'opened') return decision;
  return { ...decision, answer: { ...decision.answer, serverSignature } };
}

/** Goes on with a session that another member has handed over: its frontend logged it in there. */
async function resume(
  options: ServeSessionOptions,
  peer: LinkPeer,
  request: OpenSession,
  service: SessionService,
): Promise<SessionDecision> {
  const parked = await options.collect(request.resume as NonNullable<OpenSession['resume']>, peer.name);
  const record = options.registry.find(parked.uuid);
  if (record === undefined || parked.service !== parkedAs(service)) {
    throw new PlatformError('LINK_NOT_HERE', `the session handed over is not of an account that is known here`);
  }
  if (record.status !== 'active') throw new PlatformError('AUTH_ACCOUNT_LOCKED', `${record.name} is ${record.status}`);
  if (!options.hosted.isOpen(parked.uuid)) {
    const host = await options.hostElsewhere(parked.uuid);
    if (host !== undefined) return at(host);
  }
  const acquired = await options.hosted.acquire(parked.uuid);
  if (acquired.outcome === 'at') return at(acquired.host);
  return serving(options, peer, request, service, record, acquired, parked.state);
}

function serving(
  options: ServeSessionOptions,
  peer: LinkPeer,
  request: OpenSession,
  service: SessionService,
  record: AccountRecord,
  acquired: Extract<Acquired, { outcome: 'here' }>,
  state: unknown,
): SessionDecision {
  const { protocols, registry, sessions, clock, random } = options;
  const { uuid } = record;
  const accountName = () => registry.find(uuid)?.name ?? record.name;
  const log = options.log.child({ sessionId: request.sessionId, protocol: service });
  return {
    answer: { outcome: 'opened', capabilities: protocols[service].capabilities, accountName: accountName() },
    abandon: acquired.release,
    serve: (channel) => {
      const facts = {
        sessionId: request.sessionId,
        service,
        uuid,
        accountName,
        clientAddress: request.client.address,
        frontend: peer.name,
        mover: request.canMove === true && 'endWith' in channel ? (channel as unknown as SessionFacts['mover']) : undefined,
      };
      const context = {
        sessionId: request.sessionId,
        account: acquired.account,
        refresh: acquired.refresh,
        accountName,
        clientAddress: request.client.address,
        resume: state,
        clock,
        random,
        log,
      };
      sessions.serve(facts, (ended) => protocols[service].serve(channel, context, ended), acquired.release);
    },
  };
}

function at(host: MemberAddress): SessionDecision {
  return { answer: { outcome: 'at', member: host.name, host: host.host, port: host.port } };
}
