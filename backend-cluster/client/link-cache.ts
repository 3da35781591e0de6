/**
 * Connections to one member that one service has, or that several share; the Guide's connection cache.
 *
 *   asked for ──► one has room: taken at once (hit); if it is busy, another is dialled meanwhile for those who come next
 *             ──► none is there, or all are full: dialled and waited for (miss), up to `connectionsMax`; then refused for the time being
 *
 * A connection takes no more sessions and is closed with its last one when its numbers are used up, when limits were lowered, or when its service
 * has gone over to other connections. One that nothing uses for `unusedKeptMs` is closed, but for the oldest, so that the next session need not wait.
 * Nothing here is done for each message, and nothing is made for each session.
 */
import type { MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { LinkConnection } from '#backend-cluster/client/link-connection.ts';
import type { CacheLimits } from '#backend-cluster/client/link-settings.ts';
import type { Clock, Timer } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';

/** Between two looks at connections that are to be closed once nothing uses them. */
const leavingLookMs = 1_000;
/** Bounds of the time between two looks for unused ones, which else is a quarter of `unusedKeptMs`. */
const lookMsMin = 250;
const lookMsMax = 60_000;
const fullLogEveryMs = 60_000;

/** The member that connections are to. */
export interface CacheOwner {
  readonly member: MemberAddress;
  readonly clock: Clock;
  /** Why nothing may be dialled at the moment. */
  barred(): PlatformError | undefined;
  /** Resolves once the connection was given to `add`. */
  connect(cache: LinkCache): Promise<LinkConnection>;
  reached(): void;
  failed(error: PlatformError): void;
}

/** See the header of this file. */
export class LinkCache {
  /** A service's name, or `shared`. */
  readonly name: string;
  readonly #owner: CacheOwner;
  #limits: CacheLimits;
  #log: Logger;
  #isRetired = false;
  /** Oldest first. */
  #links: LinkConnection[] = [];
  /** Take no more sessions. */
  readonly #leaving = new Set<LinkConnection>();
  /** Unused when last looked at, and since when. */
  readonly #unused = new Map<LinkConnection, { readonly sinceMs: number; readonly requests: number }>();
  #dialling: Promise<LinkConnection> | undefined;
  #look: Timer | undefined;
  #fullLoggedAtMs = Number.NEGATIVE_INFINITY;
  /** So far. */
  dialled = 0;
  closedUnused = 0;

  constructor(name: string, owner: CacheOwner, limits: CacheLimits, log: Logger) {
    this.name = name;
    this.#owner = owner;
    this.#limits = limits;
    this.#log = log;
  }

  get log(): Logger {
    return this.#log;
  }
  get isDialling(): boolean {
    return this.#dialling !== undefined;
  }
  get connections(): number {
    return this.#links.length + this.#leaving.size;
  }
  get sessions(): number {
    let sessions = 0;
    for (const link of this.#links) sessions += link.channelCount;
    for (const link of this.#leaving) sessions += link.channelCount;
    return sessions;
  }

  /** Goes by these from now on. A retired cache is in use again. */
  configure(limits: CacheLimits, log: Logger): void {
    this.#isRetired = false;
    this.#limits = limits;
    this.#log = log;
    this.#unused.clear();
    for (const link of this.#links.splice(limits.connectionsMax)) this.#leaving.add(link);
    this.#look?.cancel();
    this.#look = undefined;
    this.#planLook();
  }

  /** Nobody asks here any more: its connections end with their sessions. */
  retire(): void {
    this.#isRetired = true;
    for (const link of this.#links.splice(0)) this.#leaving.add(link);
    this.#planLook();
  }

  /** The connection for the next session, when there is one with room. */
  best(): LinkConnection | undefined {
    const { sessionsPerConnection, connectionsMax, unusedKeptMs } = this.#limits;
    let best: LinkConnection | undefined;
    let hasSpent = false;
    for (const link of this.#links) {
      if (!link.hasRoom) {
        hasSpent ||= link.isSpent;
        continue;
      }
      // Filled up in turn, the others fall out of use; shared out evenly none ever would.
      if (unusedKeptMs > 0 && !link.isCongested && link.inUse < sessionsPerConnection) return link;
      if (best === undefined || score(link) < score(best)) best = link;
    }
    if (hasSpent) this.#letSpentGo();
    if (best === undefined) return undefined;
    const isBusy = best.isCongested || best.inUse >= sessionsPerConnection;
    if (isBusy && this.#links.length < connectionsMax && this.#dialling === undefined) {
      // The next session will find it; this one does not wait.
      this.dial().catch(() => {});
    }
    return best;
  }

  /** Where `best` finds none. Rejects with `LIMIT_CONNECTIONS` when there may be no more of them, or with why none could be made. */
  async another(): Promise<LinkConnection> {
    const { connectionsMax } = this.#limits;
    // Many may wait for one connection, and not all find room on it.
    for (let dials = 0; dials <= connectionsMax; dials += 1) {
      if (this.#dialling === undefined && this.#links.length >= connectionsMax) break;
      const dialled = await this.dial();
      // The limits may have changed meanwhile, so that it is not among those that take more.
      const link = this.best() ?? (dialled.hasRoom ? dialled : undefined);
      if (link !== undefined) return link;
    }
    throw this.#full();
  }

  dial(): Promise<LinkConnection> {
    if (this.#dialling !== undefined) return this.#dialling;
    const barred = this.#owner.barred();
    if (barred !== undefined) return Promise.reject(barred);
    const dialledAtMs = this.#owner.clock.monotonicMs();
    const dialling = this.#owner.connect(this).then(
      (link) => {
        this.#dialling = undefined;
        this.#owner.reached();
        return link;
      },
      (thrown: unknown) => {
        this.#dialling = undefined;
        // Who concludes from it that the member is dead must know from when it is: a process may have been started since.
        const { code, message, fields, cause } = asPlatformError(thrown);
        const error = new PlatformError(code, message, { fields: { ...fields, dialledAtMs }, cause });
        this.#owner.failed(error);
        throw error;
      },
    );
    this.#dialling = dialling;
    return dialling;
  }

  add(link: LinkConnection): void {
    this.dialled += 1;
    if (this.#isRetired || this.#links.length >= this.#limits.connectionsMax) this.#leaving.add(link);
    else this.#links.push(link);
    this.#log.debug({ ...this.#fields(), connections: this.connections }, `link connection to ${this.#owner.member.name} made`);
    this.#planLook();
  }

  /** It is gone; `false` when it was none of these. */
  remove(link: LinkConnection): boolean {
    this.#unused.delete(link);
    const index = this.#links.indexOf(link);
    if (index >= 0) this.#links.splice(index, 1);
    return this.#leaving.delete(link) || index >= 0;
  }

  close(error: PlatformError): void {
    this.#look?.cancel();
    for (const link of [...this.#links, ...this.#leaving]) link.close(error);
  }

  #letSpentGo(): void {
    this.#links = this.#links.filter((link) => {
      if (link.isSpent) this.#leaving.add(link);
      return !link.isSpent;
    });
    this.#planLook();
  }

  #full(): PlatformError {
    const { member, clock } = this.#owner;
    const option = this.name === 'shared' ? 'interCluster.connectionsMax' : `interCluster.${this.name}.connectionsMax`;
    const error = new PlatformError(
      'LIMIT_CONNECTIONS',
      `all ${this.#links.length} link connections to ${member.name} are full, and ${option} allows no more; raise it, or add frontends or members`,
    );
    if (clock.monotonicMs() - this.#fullLoggedAtMs >= fullLogEveryMs) {
      this.#fullLoggedAtMs = clock.monotonicMs();
      this.#log.warn({ ...this.#fields(), errCode: error.code }, error.message);
    }
    return error;
  }

  #planLook(): void {
    if (this.#look !== undefined) return;
    const { unusedKeptMs } = this.#limits;
    const forUnused =
      unusedKeptMs > 0 && this.#links.length > 1
        ? Math.min(lookMsMax, Math.max(lookMsMin, Math.round(unusedKeptMs / 4)))
        : Number.POSITIVE_INFINITY;
    const waitMs = Math.min(forUnused, this.#leaving.size > 0 ? leavingLookMs : Number.POSITIVE_INFINITY);
    if (waitMs === Number.POSITIVE_INFINITY) return;
    this.#look = this.#owner.clock.after(waitMs, () => {
      this.#look = undefined;
      for (const link of [...this.#leaving]) if (link.inUse === 0) this.#closeUnused(link, 'it takes no more sessions');
      if (this.#limits.unusedKeptMs > 0) this.#closeLongUnused();
      this.#planLook();
    });
  }

  #closeLongUnused(): void {
    const { unusedKeptMs } = this.#limits;
    const nowMs = this.#owner.clock.monotonicMs();
    for (const link of this.#links.slice(1)) {
      const seen = this.#unused.get(link);
      if (link.inUse > 0) this.#unused.delete(link);
      else if (seen?.requests !== link.requests) this.#unused.set(link, { sinceMs: nowMs, requests: link.requests });
      else if (nowMs - seen.sinceMs >= unusedKeptMs) this.#closeUnused(link, `unused for ${Math.round(nowMs - seen.sinceMs)} ms`);
    }
  }

  #closeUnused(link: LinkConnection, why: string): void {
    this.remove(link);
    this.closedUnused += 1;
    link.close(new PlatformError('NET_CLOSED', `this server closes the connection: ${why}`));
    this.#log.debug({ ...this.#fields(), connections: this.connections }, `link connection to ${this.#owner.member.name} closed: ${why}`);
  }

  #fields(): { peer: string; protocol: string } {
    return { peer: this.#owner.member.name, protocol: this.name };
  }
}

// Congested connections last, then the one with fewest sessions or calls.
function score(link: LinkConnection): number {
  return link.inUse + (link.isCongested ? 1_000_000 : 0);
}
