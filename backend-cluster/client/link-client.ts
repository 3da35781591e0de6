/**
 * `LinkClient`: kept connections to members, shared by all sessions and calls of this process, or by those of one service (link-settings.ts).
 *
 * Per member there is a small cache of them (link-cache.ts). One connection is enough for dialogue; another is dialled when the ones there are full or
 * congested by bulk transfer, so that a session seldom waits behind a download. A member that cannot be reached is left alone for a back-off that
 * doubles up to `backoffMsMax`, and is then dialled again in the background as long as somebody wanted it lately: `health` tells the
 * chooser before a client has to wait.
 */
import type { LinkClient, MemberAddress, MemberHealth } from '#backend-cluster/client/cluster-client.ts';
import { type CacheOwner, LinkCache } from '#backend-cluster/client/link-cache.ts';
import { LinkConnection } from '#backend-cluster/client/link-connection.ts';
import { showLinkUse } from '#backend-cluster/client/link-metrics.ts';
import {
  type CacheLimits,
  type CarriedService,
  type LinkSettings,
  linkSettingsOf,
  serviceOfCall,
} from '#backend-cluster/client/link-settings.ts';
import { checkPeer, isLoopback, type LinkTlsPems } from '#backend-cluster/client/link-tls.ts';
import type { LinkUse } from '#backend-cluster/client/status.ts';
import type { Clock, Timer } from '#common/clock.ts';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs } from '#common/random.ts';
import { frameTypes } from '#protocol/link/frames.ts';
import { commonVersion, helloOf, type LinkRole, type LinkStatus, parseHello, parseLinkStatus } from '#protocol/link/hello.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';

const connectTimeoutMs = 3_000;
const openTimeoutMs = 20_000;
const callTimeoutMs = 10_000;
const backoffMsMin = 100;
const backoffMsMax = 3_000;
/** A link that has lasted so long is dialled anew at once when it breaks; one that breaks sooner after a pause, like one that cannot be made. */
const steadyMs = 3_000;
/** A member that nobody asked for in this time is no longer dialled in the background. */
const interestMs = 300_000;

/** What a link client is made of. */
export interface LinkClientOptions {
  /** This server's full name; the certificate's SAN must hold it. */
  readonly name: string;
  readonly role: LinkRole;
  /** Members: their own cluster and incarnation. */
  readonly cluster?: string;
  readonly incarnation?: string;
  /** See `helloOf`. */
  readonly linkVersionMax?: number | undefined;
  /** Missing: in clear, to loopback addresses only. */
  readonly tls: LinkTlsPems | undefined;
  /** Told when the last link to a member broke, and when none could be made; asking the member then gives the latest news of it. */
  readonly unreachable?: (member: MemberName) => void;
  /** Connections, and how much of them is logged; may be changed by `configure`. */
  readonly settings?: LinkSettings;
  /** Without `metrics` none are shown. */
  readonly ports: Pick<Ports, 'clock' | 'random' | 'network' | 'log'> & Partial<Pick<Ports, 'metrics'>>;
}

/** Makes the process's link client. Nothing is dialled before somebody asks. */
export function createLinkClient(options: LinkClientOptions): LinkClient {
  return new Links(options);
}

type PeerOptions = LinkClientOptions & { readonly incarnation: string };

class Links implements LinkClient {
  readonly #options: PeerOptions;
  /** By the member's name; one that was given another address is another peer. */
  readonly #peers = new Map<MemberName, Peer[]>();
  #settings: LinkSettings;
  #isClosed = false;

  constructor(options: LinkClientOptions) {
    this.#options = { ...options, incarnation: options.incarnation ?? options.ports.random.bytes(8).toString('hex') };
    this.#settings = options.settings ?? linkSettingsOf();
    if (options.ports.metrics !== undefined) showLinkUse(options.ports.metrics, () => this.#allPeers());
  }

  async openSession(member: MemberAddress, request: OpenSession) {
    const ask = (link: LinkConnection) => link.open(request, openTimeoutMs);
    const { message, channel } = await this.#peer(member).use(request.service, request.sessionId, ask);
    const answer = parseAnswer(message, member);
    return { answer, channel: answer.outcome === 'opened' ? channel : undefined };
  }

  async call(member: MemberAddress, method: string, params: unknown, timeoutMs = callTimeoutMs): Promise<unknown> {
    const answer = await this.#peer(member).use(serviceOfCall(method), method, (link) => link.call({ method, params }, timeoutMs));
    if (answer.ok === true) return answer.result;
    throw errorFromPeer(answer, member);
  }

  health(member: MemberAddress): MemberHealth {
    return this.#find(member)?.health() ?? { member, state: 'unknown', load: 0, lastError: undefined };
  }

  configure(settings: LinkSettings): void {
    this.#settings = settings;
    for (const peer of this.#allPeers()) peer.configure(settings);
  }

  use(): readonly LinkUse[] {
    return this.#allPeers().flatMap((peer) => peer.report());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const peer of this.#allPeers()) peer.close();
    this.#peers.clear();
  }

  #peer(member: MemberAddress): Peer {
    if (this.#isClosed) throw new PlatformError('NET_CLOSED', 'the link client is closed');
    const known = this.#find(member);
    if (known !== undefined) return known;
    const peer = new Peer(member, this.#options, this.#settings);
    this.#peers.set(member.name, [...(this.#peers.get(member.name) ?? []), peer]);
    return peer;
  }

  // Twice for each log-in: no key is put together for it.
  #find({ name, host, port }: MemberAddress): Peer | undefined {
    for (const peer of this.#peers.get(name) ?? []) if (peer.member.host === host && peer.member.port === port) return peer;
    return undefined;
  }

  #allPeers(): Peer[] {
    return [...this.#peers.values()].flat();
  }
}

/** What one service has asked of one member. */
interface ServiceUse {
  cache: LinkCache;
  /** Set where its sessions and calls are logged: every one, or those that failed. */
  log: Logger | undefined;
  hits: number;
  misses: number;
  refused: number;
}

/** One member: its state as far as it is known here, and the connections to it. */
class Peer implements CacheOwner {
  readonly member: MemberAddress;
  readonly clock: Clock;
  readonly #options: PeerOptions;
  #settings: LinkSettings;
  /** By name; a cache that is out of use stays, for what it has counted. */
  readonly #caches = new Map<string, LinkCache>();
  readonly #uses: Partial<Record<CarriedService, ServiceUse>> = {};
  /** Asked last, and dialled anew when no connection is left. */
  #wanted: LinkCache | undefined;
  #status: LinkStatus | undefined;
  /** Sessions opened since the member last reported, so that a burst spreads over members. */
  #openedSince = 0;
  #lastError: PlatformError | undefined;
  #failures = 0;
  #notBeforeMs = 0;
  #wantedAtMs = 0;
  #redial: Timer | undefined;
  #isClosed = false;

  constructor(member: MemberAddress, options: PeerOptions, settings: LinkSettings) {
    this.member = member;
    this.clock = options.ports.clock;
    this.#options = options;
    this.#settings = settings;
  }

  use<T>(service: CarriedService, what: string, ask: (link: LinkConnection) => Promise<T>): Promise<T> {
    this.#wantedAtMs = this.clock.monotonicMs();
    const use = this.#uses[service] ?? this.#firstUse(service);
    this.#wanted = use.cache;
    const asked = (link: LinkConnection): Promise<T> => {
      this.#openedSince += 1;
      return use.log === undefined ? ask(link) : this.#logged(use.log, service, what, ask(link), 'answered');
    };
    const link = use.cache.best();
    if (link === undefined) return this.#another(use, service, what).then(asked);
    use.hits += 1;
    return asked(link);
  }

  async #another(use: ServiceUse, service: CarriedService, what: string): Promise<LinkConnection> {
    try {
      const found = use.cache.another();
      const link = await (use.log === undefined ? found : this.#logged(use.log, service, what, found, 'was reached'));
      use.misses += 1;
      return link;
    } catch (error) {
      use.refused += 1;
      throw error;
    }
  }

  configure(settings: LinkSettings): void {
    this.#settings = settings;
    const wanted = new Set<LinkCache>();
    for (const [service, use] of Object.entries(this.#uses) as [CarriedService, ServiceUse][]) {
      use.cache = this.#cacheOf(service);
      use.log = this.#sessionLogOf(service);
      wanted.add(use.cache);
    }
    for (const cache of this.#caches.values()) {
      if (wanted.has(cache)) cache.configure(this.#limitsOf(cache.name), this.#logOf(cache.name));
      else cache.retire();
    }
    if (this.#wanted !== undefined && !wanted.has(this.#wanted)) this.#wanted = [...wanted][0];
  }

  health(): MemberHealth {
    const isUp = this.#isConnected;
    // One that failed stays down while it is dialled anew: dialling a stopped process takes as long as dialling may take.
    const isDown = !isUp && this.#lastError !== undefined && (this.#isDialling || this.clock.monotonicMs() < this.#notBeforeMs);
    return {
      member: this.member,
      state: isUp ? (this.#status?.state === 'draining' ? 'draining' : 'up') : isDown ? 'down' : 'unknown',
      load: this.#load(),
      lastError: this.#lastError?.message,
    };
  }

  caches(): Iterable<LinkCache> {
    return this.#caches.values();
  }

  report(): LinkUse[] {
    return (Object.entries(this.#uses) as [CarriedService, ServiceUse][]).map(([service, { cache, hits, misses, refused }]) => ({
      member: this.member.name,
      service,
      isShared: cache.name === 'shared',
      connections: cache.connections,
      sessions: cache.sessions,
      hits,
      misses,
      refused,
    }));
  }

  close(): void {
    this.#isClosed = true;
    this.#redial?.cancel();
    for (const cache of this.#caches.values()) cache.close(new PlatformError('NET_CLOSED', 'this server closes the link'));
  }

  barred(): PlatformError | undefined {
    // Old news while it waits, and said to be: see `LinkCache.dial`.
    return this.#lastError !== undefined && this.clock.monotonicMs() < this.#notBeforeMs ? this.#lastError : undefined;
  }

  reached(): void {
    this.#failures = 0;
    this.#lastError = undefined;
  }

  async connect(cache: LinkCache): Promise<LinkConnection> {
    const { name, role, cluster, incarnation, linkVersionMax, tls, ports } = this.#options;
    const { host, port } = this.member;
    if (tls === undefined && !isLoopback(host)) {
      throw new PlatformError(
        'LINK_REFUSED',
        `${this.member.name} is at ${host}, not on this machine, and no link TLS is configured; add link: {caFile, certFile, keyFile}`,
      );
    }
    const connection = await ports.network.connect({
      host,
      port,
      timeoutMs: connectTimeoutMs,
      ...(tls === undefined ? {} : { tls: { ...tls, serverName: this.member.name } }),
    });
    if (this.#isClosed) {
      connection.destroy();
      throw new PlatformError('NET_CLOSED', 'the link client is closed');
    }
    const mine = helloOf({ name, role, cluster, incarnation, linkVersionMax });
    const connectedAtMs = ports.clock.monotonicMs();
    return new Promise((resolve, reject) => {
      const link: LinkConnection = new LinkConnection(connection, ports.clock, 'dialler', {
        hello: (message, isRefusal) => {
          if (isRefusal) {
            throw new PlatformError('LINK_REFUSED', `${this.member.name} refused the link: ${String(message.message).slice(0, 300)}`);
          }
          const theirs = parseHello(message);
          if (theirs.role !== 'backend-cluster' || theirs.name !== this.member.name) {
            throw new PlatformError(
              'LINK_REFUSED',
              `expected member ${this.member.name} at ${host}:${port} and found ${theirs.role} ${theirs.name}; correct its address`,
            );
          }
          checkPeer({ name: theirs.name, role: theirs.role, address: isLoopback(host) ? '127.0.0.1' : host, tls: connection.tls });
          if (commonVersion(mine, theirs) === undefined) {
            throw new PlatformError(
              'LINK_REFUSED',
              `${theirs.name} speaks link versions ${theirs.versionMin} to ${theirs.versionMax} only`,
            );
          }
          link.opened();
          cache.add(link);
          resolve(link);
        },
        status: (message) => {
          this.#status = parseLinkStatus(message);
          this.#openedSince = 0;
        },
        closed: (error) => {
          reject(error);
          this.#lost(cache, link, error, ports.clock.monotonicMs() - connectedAtMs >= steadyMs);
        },
      });
      link.sendJson(frameTypes.hello, 0, mine);
    });
  }

  failed(error: PlatformError, isAtOnce = false): void {
    const { random } = this.#options.ports;
    const log = (this.#wanted ?? this.#options.ports).log;
    this.#lastError = error;
    this.#failures += 1;
    const pauseMs = jitteredMs(random, Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(this.#failures - 1, 10)));
    // Most links break because the process at the other end is gone, and the refused connection says so.
    const waitMs = isAtOnce ? 0 : pauseMs;
    this.#notBeforeMs = this.clock.monotonicMs() + waitMs;
    if (this.#failures === 5)
      log.warn({ peer: this.member.name, errCode: error.code }, `cannot reach ${this.member.name}: ${messageOf(error)}`);
    this.#redial?.cancel();
    if (this.#isClosed || this.clock.monotonicMs() - this.#wantedAtMs > interestMs) return;
    this.#redial = this.clock.after(isAtOnce ? 0 : waitMs + 1, () => {
      if (!this.#isConnected && !this.#isClosed) this.#wanted?.dial().catch(() => {});
    });
    this.#options.unreachable?.(this.member.name);
  }

  #lost(cache: LinkCache, link: LinkConnection, error: PlatformError, wasSteady: boolean): void {
    if (!cache.remove(link) || this.#isClosed) return;
    const fields = { peer: this.member.name, protocol: cache.name, errCode: error.code };
    if (this.#isConnected) {
      cache.log.debug(fields, `link connection to ${this.member.name} lost, others are left: ${error.message}`);
      return;
    }
    this.#status = undefined;
    this.#openedSince = 0;
    cache.log.info(fields, `link to ${this.member.name} lost: ${error.message}`);
    this.failed(error, wasSteady);
  }

  get #isConnected(): boolean {
    for (const cache of this.#caches.values()) if (cache.connections > 0) return true;
    return false;
  }

  get #isDialling(): boolean {
    for (const cache of this.#caches.values()) if (cache.isDialling) return true;
    return false;
  }

  /** A member of twice the weight takes twice as much before it counts as loaded. */
  #load(): number {
    const { sessions = 0, openAccounts = 0, weight = 100 } = this.#status ?? {};
    return Math.round(((sessions + openAccounts + this.#openedSince) * 100) / weight);
  }

  #firstUse(service: CarriedService): ServiceUse {
    const use = { cache: this.#cacheOf(service), log: this.#sessionLogOf(service), hits: 0, misses: 0, refused: 0 };
    this.#uses[service] = use;
    return use;
  }

  #cacheOf(service: CarriedService): LinkCache {
    const name = this.#settings.own[service] === undefined ? 'shared' : service;
    let cache = this.#caches.get(name);
    if (cache === undefined) {
      cache = new LinkCache(name, this, this.#limitsOf(name), this.#logOf(name));
      this.#caches.set(name, cache);
    }
    return cache;
  }

  #limitsOf(name: string): CacheLimits {
    return this.#settings.own[name as CarriedService] ?? this.#settings.shared;
  }

  #logOf(name: string): Logger {
    const { shared, ...own } = this.#settings.logLevels;
    const level = own[name as CarriedService] ?? shared;
    const { log } = this.#options.ports;
    return level === undefined ? log : (log.atLevel?.(level) ?? log);
  }

  #sessionLogOf(service: CarriedService): Logger | undefined {
    const { logLevels } = this.#settings;
    const level = logLevels[service] ?? logLevels.shared;
    return level === 'trace' || level === 'debug' ? this.#logOf(service) : undefined;
  }

  async #logged<T>(log: Logger, protocol: CarriedService, what: string, asked: Promise<T>, done: string): Promise<T> {
    const startedAtMs = this.clock.monotonicMs();
    const { name: peer } = this.member;
    const about = protocol === 'calls' || protocol === 'submission' ? { method: what } : { sessionId: what };
    try {
      const answer = await asked;
      log.trace({ peer, protocol, ...about, durationMs: this.clock.monotonicMs() - startedAtMs }, `${peer} ${done} over the link`);
      return answer;
    } catch (thrown) {
      const { code: errCode, message } = asPlatformError(thrown);
      const fields = { peer, protocol, ...about, errCode, durationMs: this.clock.monotonicMs() - startedAtMs };
      log.debug(fields, `${peer} could not be asked over the link: ${message}`);
      throw thrown;
    }
  }
}

function parseAnswer(message: Record<string, unknown>, member: MemberAddress): OpenSessionAnswer {
  const { outcome, capabilities, accountName, host, port, code } = message;
  const isWell =
    outcome === 'opened'
      ? Array.isArray(capabilities) && typeof accountName === 'string'
      : outcome === 'at'
        ? typeof message.member === 'string' && typeof host === 'string' && Number.isInteger(port)
        : outcome === 'moved' || (outcome === 'refused' && typeof code === 'string');
  if (!isWell) throw new PlatformError('LINK_PROTOCOL', `${member.name} answered in a way that this release does not understand`);
  // A code of a newer release keeps its kind, which is what the client is told by.
  if (outcome === 'refused' && !(String(code) in errorCatalogue))
    return { ...message, code: 'BUG_UNEXPECTED' } as unknown as OpenSessionAnswer;
  return message as unknown as OpenSessionAnswer;
}

/** The member's own error, as it came over the link. */
function errorFromPeer(answer: Record<string, unknown>, member: MemberAddress): PlatformError {
  const code = typeof answer.code === 'string' && answer.code in errorCatalogue ? (answer.code as ErrorCode) : 'BUG_UNEXPECTED';
  const text = typeof answer.message === 'string' ? answer.message.slice(0, 1000) : 'no reason given';
  return new PlatformError(code, text, { fields: { member: member.name } });
}
