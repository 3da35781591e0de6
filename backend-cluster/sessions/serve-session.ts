/**
 * What a member answers when a frontend asks it to serve a session.
 *
 *   who hosts the account? ─► another cluster: `moved`
 *        │ this one            another member has it open: `at`, before any password is looked at
 *        ▼
 *   is the login right? ─► no: `refused`
 *        ▼
 *   open it (Controller, storage) ─► somebody was faster: `at`
 *        ▼
 *   `opened`, and the protocol server takes the channel
 */
import type { Authenticator } from '#backend-cluster/accounts/authenticate.ts';
import type { HostedAccounts } from '#backend-cluster/accounts/hosted-accounts.ts';
import type { Locator } from '#backend-cluster/accounts/locate.ts';
import type { AccountRegistry } from '#backend-cluster/accounts/registry.ts';
import type { MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { LinkPeer, SessionDecision } from '#backend-cluster/link/server.ts';
import { type AccountUuid, printable, tryParseAccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';
import type { SessionServer } from './session.ts';
import type { SessionRegistry } from './session-registry.ts';

/** A protocol that sessions may speak. */
export interface SessionProtocol {
  readonly serve: SessionServer;
  /** What it offers after login, for the frontend's answer. */
  readonly capabilities: readonly string[];
}

/** What serving sessions takes. */
export interface ServeSessionOptions {
  readonly protocols: Readonly<Record<'imap' | 'pop3', SessionProtocol>>;
  readonly locator: Locator;
  readonly registry: AccountRegistry;
  readonly authenticator: Authenticator;
  readonly hosted: HostedAccounts;
  readonly sessions: SessionRegistry;
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
      const log = failure.kind === 'auth' ? options.log.info : failure.kind === 'bug' ? options.log.error : options.log.warn;
      log(
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
  if (service !== 'imap' && service !== 'pop3')
    throw new PlatformError('LINK_PROTOCOL', `the service ${printable(service)} is unknown to this release`);
  const uuid = tryParseAccountUuid(account?.uuid ?? '');
  if (uuid === undefined || login === undefined)
    throw new PlatformError('LINK_PROTOCOL', `a session for ${service} needs account and login`);

  const located = await options.locator.byUuid(uuid);
  if (located.where === 'elsewhere') {
    return { answer: { outcome: 'moved', ...(located.hostServer === undefined ? {} : { hostServer: located.hostServer }) } };
  }
  if (located.where === 'here' && !options.hosted.isOpen(uuid)) {
    const host = await options.hostElsewhere(uuid);
    if (host !== undefined) return at(host);
  }
  const record = located.where === 'here' ? located.record : undefined;
  await options.authenticator.verify(record, login);
  const acquired = await options.hosted.acquire(uuid);
  if (acquired.outcome === 'at') return at(acquired.host);

  const { protocols, registry, sessions, clock, random } = options;
  const accountName = () => registry.find(uuid)?.name ?? (record as NonNullable<typeof record>).name;
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
      };
      const context = {
        sessionId: request.sessionId,
        account: acquired.account,
        accountName,
        clientAddress: request.client.address,
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
