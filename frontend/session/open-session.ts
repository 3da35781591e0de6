/**
 * Logins and deliveries over the link: what the listeners of all protocols ask for once they have a name and a password, or a cluster.
 *
 * What always holds: a client hears `auth` only when a member refused the password or the master knows no such account, and the two
 * look and time alike (guard/login-guard.ts); whatever else goes wrong is temporary. A password leaves here only over the link.
 */
import { createHmac } from 'node:crypto';
import type { LinkClient, MemberAddress, SessionChannel } from '#backend-cluster/client/cluster-client.ts';
import { type AccountName, type DomainName, parseAccountName, printable, tryParseAccountName } from '#common/account-name.ts';
import { sleep } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, parseMemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Connection } from '#common/network/network.ts';
import { scramSaltBytes } from '#common/passwords/scram-keys.ts';
import type { Secret } from '#common/secret.ts';
import type { ClusterMember } from '#directory/client/records.ts';
import type { ForeignAccount, ForeignClusters } from '#frontend/foreign/foreign-clusters.ts';
import type { AddressRules } from '#frontend/guard/address-rules.ts';
import { clientGroup } from '#frontend/guard/client-group.ts';
import type { LoginGuard } from '#frontend/guard/login-guard.ts';
import type { Delivery, MailLogin, MailLoginResult } from '#frontend/listeners/smtp-contract.ts';
import { LastHosts } from '#frontend/routing/last-hosts.ts';
import type { AccountRoute, AccountRouter } from '#frontend/routing/route-account.ts';
import type { Routes } from '#frontend/routing/routes.ts';
import { findHost } from '#frontend/routing/topology.ts';
import type { CountPlace } from '#frontend/subset/symmetric.ts';
import {
  type AuthenticateParams,
  type AuthenticateResult,
  authenticateLoginMethod,
  authenticateMethod,
  byeMethod,
  type LinkService,
  type OpenSession,
  type ScramSalt,
  scramSaltMethod,
} from '#protocol/link/messages.ts';
import { type Credentials, linkLoginOf, type SaslSettings } from './credentials.ts';
import { type MemberStep, type Reached, type ReachOptions, reachMember } from './reach-member.ts';

/** The client, as members are told of it. */
export type ClientFacts = OpenSession['client'];

/** What a session may be of. */
export type MailService = 'imap' | 'pop3' | 'managesieve';

/** A login to an account's mail. */
export interface LoginRequest {
  readonly service: MailService;
  readonly sessionId: string;
  /** As the client gave it: short or full. */
  readonly loginName: string;
  /** Domain of a short name; the frontend's own default where it is missing. */
  readonly defaultDomain?: DomainName | undefined;
  readonly credentials: Credentials;
  readonly client: ClientFacts;
}

/** What a SCRAM exchange begins with, real or made up, or why that cannot be said now. */
export type SaltAnswer =
  | { readonly ok: true; readonly salt: string; readonly iterations: number }
  | { readonly ok: false; readonly error: PlatformError };

/** A session that a member serves from now on. */
export interface OpenedSession {
  readonly channel: SessionChannel;
  /** What the member's protocol server offers. */
  readonly capabilities: readonly string[];
  /** The account's name now. */
  readonly accountName: string;
  /** Of SCRAM: for the client to check that the server knows the account's keys. */
  readonly serverSignature?: string;
  /** What a foreign server has said already after its login; it goes to the client first. */
  readonly early?: Buffer;
  /** To be called once the session is over. */
  ended?(): void;
}

/** A session between two members. */
export interface MovedSession {
  readonly service: MailService;
  readonly sessionId: string;
  readonly client: ClientFacts;
  readonly accountName: string;
  readonly cluster: ClusterName;
  /** Who handed it over. */
  readonly member: string;
  readonly ticket: string;
}

/** What became of a login. When it failed, delays against guessing have been served, and `error.kind` decides the answer. */
export type LoginResult =
  | (OpenedSession & { readonly ok: true; readonly cluster: ClusterName; readonly member: string })
  | {
      readonly ok: false;
      readonly error: PlatformError;
      /** The name that was tried, when there is such an account: what is no account's name may be a password typed in the wrong place. */
      readonly accountName: string | undefined;
      readonly cluster: string | undefined;
      readonly member: string | undefined;
    };

/** Logins so far, for the status page. */
export interface LoginCounts {
  /** A right password. */
  ok: number;
  /** A wrong name or password. */
  failed: number;
  /** Anything else: temporary refusals and limits. */
  refused: number;
}

/** What the opener is made of. */
export interface SessionOpenerOptions {
  /** This frontend's name. */
  readonly name: string;
  readonly defaultDomain: DomainName | undefined;
  readonly routes: Routes;
  readonly router: AccountRouter;
  readonly link: LinkClient;
  readonly foreign: ForeignClusters;
  readonly guard: LoginGuard;
  readonly rules?: AddressRules;
  readonly countPlace?: CountPlace;
  readonly sasl?: SaslSettings;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'log' | 'metrics'>;
}

type RoutedAccount = Extract<AccountRoute, { kind: 'routed' }>;

/** What a login asks of whoever has the account. */
interface LoginQuestion<T> {
  member(member: MemberAddress, uuid: string, name: AccountName, hops: number): Promise<MemberStep<T>>;
  foreign(account: ForeignAccount): Promise<{ readonly value: T; readonly host: ClusterMember }>;
}

/** Time for a member to verify a password without opening a session, milliseconds. */
const authenticateTimeoutMs = 10_000;
const byeTimeoutMs = 3_000;
/** Least time to the answer what a SCRAM exchange begins with: longer than it takes to ask the master for an account or a member for its keys. */
const saltFloorMs = 50;

/** See the header of this file. */
export class SessionOpener {
  readonly counts: LoginCounts = { ok: 0, failed: 0, refused: 0 };
  readonly lastHosts: LastHosts;
  readonly #options: SessionOpenerOptions;
  readonly #reach: ReachOptions;
  readonly #logins: ReturnType<Ports['metrics']['counter']>;
  readonly #moves: ReturnType<Ports['metrics']['counter']>;
  readonly #durations: ReturnType<Ports['metrics']['histogram']>;

  constructor(options: SessionOpenerOptions) {
    this.#options = options;
    const { clock, random, log, metrics } = options.ports;
    this.lastHosts = new LastHosts(clock);
    this.#reach = { link: options.link, clock, random, log };
    this.#logins = metrics.counter('archipelago_frontend_logins_total', 'Logins, by protocol and outcome.', ['protocol', 'outcome']);
    this.#moves = metrics.counter('archipelago_frontend_session_moves_total', 'Sessions that went on at another member, by outcome.', [
      'protocol',
      'outcome',
    ]);
    this.#durations = metrics.histogram(
      'archipelago_frontend_login_duration_seconds',
      'Time from password to answer, without delays against guessing.',
      ['protocol'],
    );
  }

  /** Logs a client in and opens its session. Never rejects. */
  async open(request: LoginRequest): Promise<LoginResult> {
    const { service, sessionId, credentials, client } = request;
    const reached = await this.#login<OpenedSession>(service, request, {
      member: async (member, uuid, name, hops) => {
        const { answer, channel } = await this.#options.link.openSession(member, {
          ...this.#opening(service, sessionId, client, hops),
          canMove: service === 'imap' || service === 'pop3',
          account: { uuid, name },
          login: linkLoginOf(name, credentials),
        });
        // A member of an earlier release does not know this kind of login or session; another one may.
        if (answer.outcome === 'refused' && answer.code === 'LINK_PROTOCOL') throw new PlatformError('LINK_PROTOCOL', answer.message);
        if (answer.outcome !== 'opened') return stepOf(answer);
        if (channel === undefined) throw new PlatformError('LINK_PROTOCOL', `${member.name} opened a session without a channel`);
        this.lastHosts.opened(name, member.name, hops > 0);
        const { capabilities, accountName, serverSignature } = answer;
        const value = { channel, capabilities, accountName, ...(serverSignature === undefined ? {} : { serverSignature }) };
        return { kind: 'done', value };
      },
      foreign: async (account) => {
        const session = await this.#options.foreign.openSession(account, service, { sessionId, credentials, client });
        const { connection: channel, host } = session;
        return { value: { ...session, channel, accountName: account.name }, host };
      },
    });
    if (!reached.ok) {
      const { error, cluster, member } = reached;
      const accountName =
        cluster === undefined ? undefined : tryParseAccountName(request.loginName, request.defaultDomain ?? this.#options.defaultDomain);
      return { ok: false, error, accountName, cluster: cluster?.name, member: member?.name };
    }
    this.#options.countPlace?.(reached.cluster.name, reached.member.name);
    return { ok: true, ...reached.value, cluster: reached.cluster.name, member: reached.member.name };
  }

  /**
   * Goes on with a session that a member has handed over, at whichever member of its cluster takes it. `undefined` when none does; never
   * rejects.
   */
  async resume(session: MovedSession): Promise<{ readonly channel: SessionChannel; readonly member: string } | undefined> {
    const cluster = this.#options.routes.topology.clusters.get(session.cluster);
    const from = cluster?.members.find(({ name }) => name === session.member);
    if (cluster === undefined || from === undefined) return undefined;
    const { service, sessionId, client, accountName: name, ticket } = session;
    const resume = { member: from.name, host: from.host, port: from.port, ticket };
    const reached = await reachMember<SessionChannel>(this.#reach, {
      route: { kind: 'routed', uuid: undefined, cluster, source: 'index' },
      ask: async (member, _uuid, hops) => {
        const request = { ...this.#opening(service, sessionId, client, hops), canMove: true, account: { uuid: '', name }, resume };
        const { answer, channel } = await this.#options.link.openSession(member, request);
        if (answer.outcome !== 'opened') return stepOf(answer);
        if (channel === undefined) throw new PlatformError('LINK_PROTOCOL', `${member.name} opened a session without a channel`);
        return { kind: 'done', value: channel };
      },
    });
    const outcome = reached.ok ? 'ok' : 'failed';
    this.#moves.add({ protocol: service, outcome });
    if (reached.ok) return { channel: reached.value, member: reached.member.name };
    this.#options.ports.log.warn({ sessionId, errCode: reached.error.code }, `session could not go on elsewhere: ${reached.error.message}`);
    return undefined;
  }

  /** Verifies a submission client's password. Never rejects. */
  async authenticate(login: MailLogin): Promise<MailLoginResult> {
    const { credentials, client, sessionId } = login;
    const reached = await this.#login<{ name: AccountName; serverSignature?: string }>('submission', login, {
      member: (member, uuid, name) =>
        this.#call(async () => {
          const isPassword = credentials.kind === 'password';
          const shown = isPassword ? { password: credentials.password.reveal() } : { password: '', login: linkLoginOf(name, credentials) };
          const params: AuthenticateParams = { uuid, name, ...shown, sessionId, client };
          const method = isPassword ? authenticateMethod : authenticateLoginMethod;
          const answer = await this.#options.link.call(member, method, params, authenticateTimeoutMs);
          const { name: itsName, serverSignature } = (answer ?? {}) as Partial<AuthenticateResult>;
          const value = { name: parseAccountName(typeof itsName === 'string' ? itsName : name) };
          return typeof serverSignature === 'string' ? { ...value, serverSignature } : value;
        }),
      foreign: async (account) => ({ value: { name: account.name }, host: await this.#options.foreign.authenticate(account, login) }),
    });
    if (reached.ok) return { ok: true, ...reached.value };
    // SMTP has an answer of its own for an address that does not exist, which a stranger's login must not bring out.
    const error =
      reached.error.kind === 'not-found'
        ? new PlatformError('AUTH_FAILED', reached.error.message, { cause: reached.error })
        : reached.error;
    return { ok: false, error };
  }

  /**
   * What a SCRAM exchange with the account begins with. An account that does not exist, or has no keys, gets a salt of its own that is always the same,
   * and the answer takes the same time: who asks learns nothing of accounts. Never rejects.
   */
  async scramSalt(login: Pick<LoginRequest, 'loginName' | 'defaultDomain' | 'client'>): Promise<SaltAnswer> {
    const { clock } = this.#options.ports;
    const scram = this.#options.sasl?.scram;
    if (scram === undefined) return { ok: false, error: new PlatformError('BUG_UNEXPECTED', 'SCRAM is not offered here') };
    const startedAtMs = clock.monotonicMs();
    const address = tryParseAccountName(login.loginName, login.defaultDomain ?? this.#options.defaultDomain);
    const reached: Reached<ScramSalt> | undefined =
      address === undefined
        ? undefined
        : await this.#ask<ScramSalt>(address, await this.#options.router.route(address), {
            member: (member, uuid, name) =>
              this.#call(
                async () => (await this.#options.link.call(member, scramSaltMethod, { uuid, name }, authenticateTimeoutMs)) as ScramSalt,
              ),
            // A foreign server keeps its own keys, and its exchange would be another.
            foreign: async ({ cluster }) => ({ value: {}, host: cluster.members[0] as ClusterMember }),
          });
    await sleep(clock, Math.max(0, saltFloorMs - (clock.monotonicMs() - startedAtMs)));
    if (reached !== undefined && !reached.ok && !isWrongLogin(reached.error)) return { ok: false, error: reached.error };
    const { salt, iterations } = reached?.ok === true ? reached.value : {};
    if (typeof salt === 'string' && typeof iterations === 'number') return { ok: true, salt, iterations };
    const madeUp = createHmac('sha256', scram.secret.reveal())
      .update(`scram salt ${address ?? login.loginName}`)
      .digest();
    return { ok: true, salt: madeUp.subarray(0, scramSaltBytes).toString('base64'), iterations: scram.iterations };
  }

  /** Opens an LMTP channel to a ready member of the cluster. Rejects with `ROUTE_*`, `NET_*`, `LINK_*` or what the member refused with. */
  async openDelivery(name: ClusterName): Promise<Delivery> {
    const host = findHost(this.#options.routes.topology, name);
    if (host === undefined) throw new PlatformError('ROUTE_UNKNOWN_CLUSTER', `${name} is no cluster of the topology (any more)`);
    const { cluster, pinned } = host;
    if (cluster.foreign !== undefined) {
      if (pinned === undefined) throw new PlatformError('FOREIGN_NO_HOST', `no host of the foreign cluster ${name} takes mail now`);
      return this.#options.foreign.openDelivery(cluster, pinned);
    }
    const sessionId = this.newSessionId();
    const reached = await reachMember<Connection>(this.#reach, {
      route: { kind: 'routed', uuid: undefined, cluster, source: 'index' },
      ask: async (member, _uuid, hops) => {
        const request = this.#opening('lmtp', sessionId, { address: '', port: 0, tls: false }, hops);
        const { answer, channel } = await this.#options.link.openSession(member, request);
        if (answer.outcome !== 'opened') return stepOf(answer);
        if (channel === undefined) throw new PlatformError('LINK_PROTOCOL', `${member.name} opened a delivery without a channel`);
        return { kind: 'done', value: channel };
      },
    });
    if (!reached.ok) throw reached.error;
    return { connection: reached.value, isGreeted: false };
  }

  /** Has a member end one of our sessions in its protocol's words; `false` when it could not be asked. Never rejects. */
  async bye(session: {
    readonly sessionId: string;
    readonly cluster: ClusterName;
    readonly member: string;
    readonly text: string;
  }): Promise<boolean> {
    const { sessionId, text } = session;
    const member = this.#options.routes.topology.clusters.get(session.cluster)?.members.find(({ name }) => name === session.member);
    if (member === undefined) return false;
    try {
      const answer = (await this.#options.link.call(member, byeMethod, { sessionId, text }, byeTimeoutMs)) as { ended?: unknown };
      return answer.ended === true;
    } catch {
      return false;
    }
  }

  /** A name for a session that no other session of the installation has: on every log line of every server. */
  newSessionId(): string {
    return this.#options.ports.random.bytes(9).toString('base64url');
  }

  async #login<T>(
    protocol: string,
    login: Pick<LoginRequest, 'loginName' | 'credentials' | 'defaultDomain' | 'client'>,
    ask: LoginQuestion<T>,
  ): Promise<Reached<T>> {
    const { clock } = this.#options.ports;
    const { guard, router } = this.#options;
    const { loginName, defaultDomain, credentials } = login;
    const given = tryParseAccountName(loginName, defaultDomain ?? this.#options.defaultDomain);
    // A token may be all that a client gives; then failures count for nobody's account.
    const isNameless = loginName === '' && credentials.kind === 'token';
    const account = given ?? (isNameless ? `token-from-${clientGroup(login.client.address)}` : printable(loginName));
    const from = clientGroup(login.client.address);
    // An allowed address is never delayed or refused; what it fails at still counts for the account.
    const isAllowed = this.#options.rules?.find(login.client.address)?.verdict === 'allow';
    const delayMs = isAllowed ? 0 : guard.before(from, account);
    if (delayMs === 'refused') {
      const error = new PlatformError(
        'LIMIT_LOGINS',
        `${login.client.address} had too many failed logins; it is heard again after some minutes`,
      );
      return this.#counted(protocol, { ok: false, error, cluster: undefined, member: undefined });
    }
    if (delayMs > 0) await sleep(clock, delayMs);
    const startedAtMs = clock.monotonicMs();
    let reached: Reached<T>;
    try {
      const address = isNameless ? await this.#ownerOf(credentials.token, defaultDomain) : given;
      if (address === undefined) throw new PlatformError('AUTH_FAILED', 'the login name is no account name');
      reached = await this.#ask(address, await router.route(address), ask);
    } catch (thrown) {
      reached = { ok: false, error: asPlatformError(thrown), cluster: undefined, member: undefined };
    }
    const tookMs = clock.monotonicMs() - startedAtMs;
    this.#durations.observe({ protocol }, tookMs / 1000);
    if (reached.ok) guard.succeeded(from, account);
    else if (isWrongLogin(reached.error)) await sleep(clock, guard.failed(from, account, tookMs));
    return this.#counted(protocol, reached);
  }

  /** A question by a call. What the member said of the account is an answer; what kept it from being asked is not. */
  async #call<T>(ask: () => Promise<T>): Promise<MemberStep<T>> {
    try {
      return { kind: 'done', value: await ask() };
    } catch (thrown) {
      const error = asPlatformError(thrown);
      if (error.kind === 'bug' || (error.kind !== 'moved' && /^(NET|LINK)_/.test(error.code))) throw error;
      return { kind: 'refused', error };
    }
  }

  #ask<T>(address: AccountName, found: AccountRoute, ask: LoginQuestion<T>): Promise<Reached<T>> {
    if (found.kind === 'routed' && found.cluster.foreign !== undefined) return this.#askForeign(address, found, ask);
    return reachMember<T>(this.#reach, {
      route: found,
      likely: this.lastHosts.find(address),
      reread: () => this.#options.router.routeByMaster(address),
      ask: (member, uuid, hops) => ask.member(member, uuid, address, hops),
    });
  }

  async #askForeign<T>(address: AccountName, found: RoutedAccount, ask: LoginQuestion<T>): Promise<Reached<T>> {
    // All of an account's addresses lead to one host, so its own name must be known.
    const route = found.name === undefined ? await this.#options.router.routeWithUuid(address) : found;
    if (route.kind !== 'routed' || route.cluster.foreign === undefined) return this.#ask(address, route, ask);
    const { cluster, pinned, name } = route;
    if (name === undefined) {
      const why = `the host of ${cluster.name} for ${address} goes by the account's own name, which no directory server can be asked for now`;
      return { ok: false, error: new PlatformError('DIR_UNAVAILABLE', why), cluster, member: undefined };
    }
    try {
      const { value, host } = await ask.foreign({ cluster, pinned, name });
      return { ok: true, value, cluster, member: host };
    } catch (thrown) {
      return { ok: false, error: asPlatformError(thrown), cluster, member: undefined };
    }
  }

  async #ownerOf(token: Secret<string>, defaultDomain: DomainName | undefined): Promise<AccountName | undefined> {
    const owner = await this.#options.sasl?.tokens?.verifier.accountOf(token);
    return owner === undefined ? undefined : tryParseAccountName(owner, defaultDomain ?? this.#options.defaultDomain);
  }

  #counted<T>(protocol: string, reached: Reached<T>): Reached<T> {
    const outcome = reached.ok ? 'ok' : isWrongLogin(reached.error) ? 'failed' : 'refused';
    this.counts[outcome] += 1;
    this.#logins.add({ protocol, outcome });
    return reached;
  }

  #opening(service: LinkService, sessionId: string, client: ClientFacts, hops: number): OpenSession {
    return { service, sessionId, client, from: this.#options.name, hops };
  }
}

/** A wrong name or password, which are the same to the one who asks. */
export function isWrongLogin(error: PlatformError): boolean {
  return error.kind === 'auth' || error.kind === 'not-found';
}

function stepOf(answer: Exclude<Awaited<ReturnType<LinkClient['openSession']>>['answer'], { outcome: 'opened' }>): MemberStep<never> {
  if (answer.outcome === 'moved') return { kind: 'moved' };
  if (answer.outcome === 'refused') return { kind: 'refused', error: new PlatformError(answer.code, answer.message) };
  return { kind: 'at', member: { name: parseMemberName(answer.member), host: answer.host, port: answer.port } };
}
