/**
 * `LinkClient`: kept connections to members, shared by all sessions and calls of this process.
 *
 * Per member there is a small pool. One connection is enough for dialogue; another is dialled when the ones there are full or congested
 * by bulk transfer, so that a session seldom waits behind a download. A member that cannot be reached is left alone for a back-off that
 * doubles up to `backoffMsMax`, and is then dialled again in the background as long as somebody wanted it lately: `health` tells the
 * chooser before a client has to wait.
 */
import type { LinkClient, MemberAddress, MemberHealth } from '#backend-cluster/client/cluster-client.ts';
import { LinkConnection } from '#backend-cluster/client/link-connection.ts';
import { checkPeer, isLoopback, type LinkTlsPems } from '#backend-cluster/client/link-tls.ts';
import type { Timer } from '#common/clock.ts';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import { jitteredMs } from '#common/random.ts';
import { frameTypes } from '#protocol/link/frames.ts';
import { commonVersion, helloOf, type LinkRole, type LinkStatus, parseHello, parseLinkStatus } from '#protocol/link/hello.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';

/** Connections to one member. */
export const connectionsPerMemberMax = 8;
/** Sessions on one connection before another one is dialled. */
const comfortableChannels = 2_048;
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
  readonly ports: Pick<Ports, 'clock' | 'random' | 'network' | 'log'>;
}

/** Makes the process's link client. Nothing is dialled before somebody asks. */
export function createLinkClient(options: LinkClientOptions): LinkClient {
  return new Links(options);
}

class Links implements LinkClient {
  readonly #options: LinkClientOptions & { readonly incarnation: string };
  readonly #peers = new Map<string, Peer>();
  #isClosed = false;

  constructor(options: LinkClientOptions) {
    this.#options = { ...options, incarnation: options.incarnation ?? options.ports.random.bytes(8).toString('hex') };
  }

  async openSession(member: MemberAddress, request: OpenSession) {
    const { message, channel } = await this.#peer(member).use((link) => link.open(request, openTimeoutMs));
    const answer = parseAnswer(message, member);
    return { answer, channel: answer.outcome === 'opened' ? channel : undefined };
  }

  async call(member: MemberAddress, method: string, params: unknown, timeoutMs = callTimeoutMs): Promise<unknown> {
    const answer = await this.#peer(member).use((link) => link.call({ method, params }, timeoutMs));
    if (answer.ok === true) return answer.result;
    throw errorFromPeer(answer, member);
  }

  health(member: MemberAddress): MemberHealth {
    return this.#peers.get(keyOf(member))?.health() ?? { member, state: 'unknown', load: 0, lastError: undefined };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  #peer(member: MemberAddress): Peer {
    if (this.#isClosed) throw new PlatformError('NET_CLOSED', 'the link client is closed');
    const key = keyOf(member);
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      peer = new Peer(member, this.#options);
      this.#peers.set(key, peer);
    }
    return peer;
  }
}

/** The connections to one member. */
class Peer {
  readonly #member: MemberAddress;
  readonly #options: LinkClientOptions & { readonly incarnation: string };
  #links: LinkConnection[] = [];
  #dialling: Promise<LinkConnection> | undefined;
  #status: LinkStatus | undefined;
  /** Sessions opened since the member last reported, so that a burst spreads over members. */
  #openedSince = 0;
  #lastError: PlatformError | undefined;
  #failures = 0;
  #notBeforeMs = 0;
  #wantedAtMs = 0;
  #redial: Timer | undefined;
  #isClosed = false;

  constructor(member: MemberAddress, options: LinkClientOptions & { readonly incarnation: string }) {
    this.#member = member;
    this.#options = options;
  }

  async use<T>(ask: (link: LinkConnection) => Promise<T>): Promise<T> {
    const clock = this.#options.ports.clock;
    this.#wantedAtMs = clock.monotonicMs();
    const link = this.#best() ?? (await this.#dial());
    this.#openedSince += 1;
    return ask(link);
  }

  health(): MemberHealth {
    const isUp = this.#links.some((link) => link.isOpen);
    // One that failed stays down while it is dialled anew: dialling a stopped process takes as long as dialling may take.
    const isWaiting = this.#dialling !== undefined || this.#options.ports.clock.monotonicMs() < this.#notBeforeMs;
    const isDown = !isUp && this.#lastError !== undefined && isWaiting;
    return {
      member: this.#member,
      state: isUp ? (this.#status?.state === 'draining' ? 'draining' : 'up') : isDown ? 'down' : 'unknown',
      load: this.#load(),
      lastError: this.#lastError?.message,
    };
  }

  /** A member of twice the weight takes twice as much before it counts as loaded. */
  #load(): number {
    const { sessions = 0, openAccounts = 0, weight = 100 } = this.#status ?? {};
    return Math.round(((sessions + openAccounts + this.#openedSince) * 100) / weight);
  }

  close(): void {
    this.#isClosed = true;
    this.#redial?.cancel();
    for (const link of [...this.#links]) link.close(new PlatformError('NET_CLOSED', 'this server closes the link'));
  }

  #best(): LinkConnection | undefined {
    const usable = this.#links.filter((link) => link.hasRoom);
    if (usable.length === 0) return undefined;
    const best = usable.reduce((a, b) => (score(b) < score(a) ? b : a));
    const isBusy = best.isCongested || best.channelCount >= comfortableChannels;
    if (isBusy && this.#links.length < connectionsPerMemberMax && this.#dialling === undefined) {
      // The next session will find it; this one does not wait.
      this.#dial().catch(() => {});
    }
    return best;
  }

  #dial(): Promise<LinkConnection> {
    if (this.#dialling !== undefined) return this.#dialling;
    const { clock } = this.#options.ports;
    // Old news while it waits, and said to be: see `#failed`.
    if (this.#lastError !== undefined && clock.monotonicMs() < this.#notBeforeMs) return Promise.reject(this.#lastError);
    const dialledAtMs = clock.monotonicMs();
    const dialling = this.#connect().then(
      (link) => {
        this.#dialling = undefined;
        this.#failures = 0;
        this.#lastError = undefined;
        return link;
      },
      (thrown: unknown) => {
        this.#dialling = undefined;
        // Who concludes from it that the member is dead must know from when it is: a process may have been started since.
        const { code, message, fields, cause } = asPlatformError(thrown);
        const error = new PlatformError(code, message, { fields: { ...fields, dialledAtMs }, cause });
        this.#failed(error);
        throw error;
      },
    );
    this.#dialling = dialling;
    return dialling;
  }

  async #connect(): Promise<LinkConnection> {
    const { name, role, cluster, incarnation, linkVersionMax, tls, ports } = this.#options;
    const { host, port } = this.#member;
    if (tls === undefined && !isLoopback(host)) {
      throw new PlatformError(
        'LINK_REFUSED',
        `${this.#member.name} is at ${host}, not on this machine, and no link TLS is configured; add link: {caFile, certFile, keyFile}`,
      );
    }
    const connection = await ports.network.connect({
      host,
      port,
      timeoutMs: connectTimeoutMs,
      ...(tls === undefined ? {} : { tls: { ...tls, serverName: this.#member.name } }),
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
            throw new PlatformError('LINK_REFUSED', `${this.#member.name} refused the link: ${String(message.message).slice(0, 300)}`);
          }
          const theirs = parseHello(message);
          if (theirs.role !== 'backend-cluster' || theirs.name !== this.#member.name) {
            throw new PlatformError(
              'LINK_REFUSED',
              `expected member ${this.#member.name} at ${host}:${port} and found ${theirs.role} ${theirs.name}; correct its address`,
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
          this.#links.push(link);
          resolve(link);
        },
        status: (message) => {
          this.#status = parseLinkStatus(message);
          this.#openedSince = 0;
        },
        closed: (error) => {
          reject(error);
          this.#lost(link, error, ports.clock.monotonicMs() - connectedAtMs >= steadyMs);
        },
      });
      link.sendJson(frameTypes.hello, 0, mine);
    });
  }

  #lost(link: LinkConnection, error: PlatformError, wasSteady: boolean): void {
    const wasOpen = this.#links.includes(link);
    this.#links = this.#links.filter((other) => other !== link);
    if (!wasOpen || this.#isClosed || this.#links.length > 0) return;
    this.#status = undefined;
    this.#openedSince = 0;
    this.#options.ports.log.info({ peer: this.#member.name, errCode: error.code }, `link to ${this.#member.name} lost: ${error.message}`);
    this.#failed(error, wasSteady);
  }

  #failed(error: PlatformError, isAtOnce = false): void {
    const { clock, random, log } = this.#options.ports;
    this.#lastError = error;
    this.#failures += 1;
    const pauseMs = jitteredMs(random, Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(this.#failures - 1, 10)));
    // Most links break because the process at the other end is gone, and the refused connection says so.
    const waitMs = isAtOnce ? 0 : pauseMs;
    this.#notBeforeMs = clock.monotonicMs() + waitMs;
    if (this.#failures === 5)
      log.warn({ peer: this.#member.name, errCode: error.code }, `cannot reach ${this.#member.name}: ${messageOf(error)}`);
    this.#redial?.cancel();
    if (this.#isClosed || clock.monotonicMs() - this.#wantedAtMs > interestMs) return;
    this.#redial = clock.after(isAtOnce ? 0 : waitMs + 1, () => {
      if (this.#links.length === 0 && !this.#isClosed) this.#dial().catch(() => {});
    });
    this.#options.unreachable?.(this.#member.name);
  }
}

// Congested connections last, then the one with fewest sessions.
function score(link: LinkConnection): number {
  return link.channelCount + (link.isCongested ? 1_000_000 : 0);
}

function keyOf(member: MemberAddress): string {
  return `${member.name} ${member.host}:${member.port}`;
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
