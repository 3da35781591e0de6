/**
 * Follows the directory (RFC 4533, refreshAndPersist): every change of the entries that routing and clusters care for, as it happens.
 *
 *   connecting ──► refreshing ──► following ──┐      a server is lost: the next of the list, with jittered back-off;
 *        ▲              │                     │      every so often the servers before the current one are tried again
 *        └── frozen ◄───┴─────────────────────┘      (what is known stays known: frozen routes are still routes)
 *
 * What holds: a `put` and a `remove` are reported in the order the server sent them; `refreshed` means that everything before it is the
 * whole content. The cookie is good for the server that gave it only, so a switch means a full refresh, and what that refresh does not
 * name is reported as `remove`. One that would remove more than half of what is known (and more than 20 entries), or all of it however
 * little that is, is not believed: a directory restored empty must not empty the routes.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { jitteredMs } from '#common/random.ts';
import { type DirectoryPorts, openBound, type ResolvedAccess } from '#directory/client/access.ts';
import { AccountLane } from '#directory/client/account-lane.ts';
import { archipelagoNames, recordAttributes, routeAttributes } from '#directory/client/attribute-names.ts';
import type { DirectoryChange, FollowedContent, FollowedPosition, FollowerStatus, ResumableFollower } from '#directory/client/directory.ts';
import { keepAlive } from '#directory/client/keep-alive.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { accountNameOf, recordFromEntry } from '#directory/client/records-from-entry.ts';
import { isRefreshRequired, type SyncEvent, syncEvents } from '#directory/client/sync-session.ts';
import { UuidTable } from '#directory/client/uuid-table.ts';
import { equal, or } from '#protocol/ldap/filter.ts';

/** What to follow, and who is told. */
export interface FollowOptions {
  readonly access: Pick<ResolvedAccess, 'urls' | 'suffix' | 'bindDn' | 'password' | 'ca' | 'timeoutMs' | 'names'>;
  /** Read `userPassword` too; for those who verify passwords. */
  readonly withPasswords: boolean;
  /** Called in order, never while another call runs. */
  readonly onChange: (change: DirectoryChange) => void;
  /**
   * Where the one who follows keeps its own account of what exists; then `remove` is reported also for what it never knew, and of an entry
   * only what routing needs is read: records have no status, quota, display name or `entryCSN`. Subsets are reported to such a follower only.
   */
  readonly content?: FollowedContent;
  /** Where to go on; only with `content` that holds everything up to there. */
  readonly from?: FollowedPosition | undefined;
  /** All but accounts. */
  readonly withoutAccounts?: boolean;
  readonly ports: DirectoryPorts;
}

const backoffFirstMs = 200;
const backoffMaxMs = 10_000;
/** How often the servers before the current one are tried. */
const returnMs = 30_000;
/** A server whose refresh was not believed is left alone for so long. */
const distrustMs = 60_000;
const removedFloor = 20;
const removedShareMax = 0.5;

/** Starts following. Dispose of the follower to stop. */
export function followDirectory(options: FollowOptions): ResumableFollower {
  return new Follower(options);
}

class Follower implements ResumableFollower {
  readonly #options: FollowOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #known = new UuidTable();
  /** Normalised by the server, compared as sent: a domain's children are not resent when it is renamed. */
  readonly #domainDns = new Map<string, string>();
  readonly #firstRefresh = Promise.withResolvers<void>();
  readonly #distrustedUntilMs = new Map<string, number>();
  #state: FollowerStatus['state'] = 'connecting';
  #server: string;
  #connection: LdapConnection | undefined;
  #lastHeardMs: number;
  #cookie: { readonly url: string; readonly value: Buffer } | undefined;
  #refreshedOnce = false;
  #changes = 0;
  #lastError: string | undefined;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.#server = options.access.urls[0] ?? '';
    this.#lastHeardMs = options.ports.clock.monotonicMs();
    if (options.from !== undefined) {
      const { url, cookie } = options.from;
      if (cookie !== undefined) this.#cookie = { url, value: cookie };
      for (const [uuid, dn] of options.from.domainDns) this.#domainDns.set(uuid, dn);
      // What the snapshot held is believed before what a server says without it.
      this.#refreshedOnce = true;
    }
    // A follower stopped before its first refresh has nobody left to tell.
    this.#firstRefresh.promise.catch(() => {});
    this.#running = this.#run();
  }

  status(): FollowerStatus {
    const nowMs = this.#options.ports.clock.monotonicMs();
    return {
      server: this.#server,
      state: this.#state,
      refreshedOnce: this.#refreshedOnce,
      silentMs: Math.round(this.#connection?.isOpen === true ? this.#connection.silentMs : nowMs - this.#lastHeardMs),
      changes: this.#changes,
      lastError: this.#lastError,
    };
  }

  position(): FollowedPosition | undefined {
    if (this.#cookie === undefined || !this.#refreshedOnce) return undefined;
    return { url: this.#cookie.url, cookie: this.#cookie.value, domainDns: [...this.#domainDns] as [AccountUuid, string][] };
  }

  refresh(): void {
    this.#cookie = undefined;
    this.#connection?.destroy('everything is read anew');
  }

  async whenRefreshed(signal?: AbortSignal): Promise<void> {
    if (signal === undefined) return this.#firstRefresh.promise;
    signal.throwIfAborted();
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([this.#firstRefresh.promise, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#connection?.destroy();
    await this.#running;
    this.#firstRefresh.reject(new PlatformError('DIR_UNAVAILABLE', 'the follower was stopped before its first refresh'));
  }

  async #run(): Promise<void> {
    const { ports, access } = this.#options;
    let backoffMs = backoffFirstMs;
    let next = 0;
    while (!this.#stop.signal.aborted) {
      const url = access.urls[next % access.urls.length] as string;
      const wasFollowing = await this.#followOne(url, next % access.urls.length);
      if (this.#stop.signal.aborted) return;
      this.#state = this.#refreshedOnce ? 'frozen' : 'connecting';
      if (wasFollowing === 'return') {
        next = 0;
        continue;
      }
      // A server that worked until now is worth one more try at once: it may just have restarted, and its cookie is still good.
      if (wasFollowing === 'worked') backoffMs = backoffFirstMs;
      else next += 1;
      // Once round the list without success: wait longer each time.
      if (wasFollowing === 'worked' || next % access.urls.length === 0) {
        await sleep(ports.clock, jitteredMs(ports.random, backoffMs), this.#stop.signal);
        backoffMs = Math.min(backoffMaxMs, backoffMs * 2);
      }
    }
  }

  /** `worked`: was lost after a refresh; `return`: left because a server before it is back. */
  async #followOne(url: string, index: number): Promise<'failed' | 'worked' | 'return'> {
    const { ports, access } = this.#options;
    const log = ports.log.child({ component: 'directory-follower', peer: url });
    if ((this.#distrustedUntilMs.get(url) ?? 0) > ports.clock.monotonicMs()) return 'failed';
    this.#server = url;
    let isFollowing = false;
    let isReturning = false;
    let connection: LdapConnection | undefined;
    const stopTimers: (() => void)[] = [];
    try {
      connection = await openBound(url, access, ports);
      if (this.#stop.signal.aborted) return 'failed';
      this.#connection = connection;
      if (this.#state === 'connecting' || this.#refreshedOnce) this.#state = 'refreshing';
      stopTimers.push(keepAlive(connection, ports.clock));
      if (index > 0) {
        stopTimers.push(
          this.#watchForReturn(index, () => {
            isReturning = true;
            connection?.destroy('a server before it in the list is back');
          }),
        );
      }
      const cookie = this.#cookie?.url === url ? this.#cookie.value : undefined;
      await this.#consume(connection, url, cookie, () => {
        isFollowing = true;
      });
    } catch (error) {
      if (this.#stop.signal.aborted) return 'failed';
      if (isReturning) {
        log.info({}, 'going back to a directory server earlier in the list');
        return 'return';
      }
      this.#lastError = messageOf(error);
      if (isRefreshRequired(error) || error instanceof DomainRenamed || error instanceof PresentPhase) {
        this.#cookie = undefined;
        log.info({ reason: messageOf(error) }, 'full refresh of the directory');
        return 'worked';
      }
      if (error instanceof RefreshNotBelieved) {
        this.#cookie = undefined;
        this.#distrustedUntilMs.set(url, ports.clock.monotonicMs() + jitteredMs(ports.random, distrustMs));
        log.error({ errCode: error.code }, error.message);
      } else {
        log.warn({ errCode: error instanceof PlatformError ? error.code : undefined, state: this.#state }, this.#lastError);
      }
    } finally {
      for (const stop of stopTimers) stop();
      this.#lastHeardMs = ports.clock.monotonicMs() - (connection?.silentMs ?? 0);
      connection?.destroy();
      this.#connection = undefined;
    }
    return isFollowing ? 'worked' : 'failed';
  }

  async #consume(connection: LdapConnection, url: string, cookie: Buffer | undefined, onFollowing: () => void): Promise<void> {
    const { access, withPasswords, content } = this.#options;
    const names = access.names ?? archipelagoNames;
    this.#known.clearMarks();
    if (cookie === undefined) content?.beginRefresh();
    const lane = content === undefined ? undefined : this.#laneTo(content);
    const classes = [
      names.domainClass,
      names.clusterClass,
      ...(content === undefined ? [] : [names.subsetClass]),
      ...(this.#options.withoutAccounts === true ? [] : [names.accountClass]),
    ];
    const events = syncEvents(connection, {
      baseDn: access.suffix,
      filter: or(...classes.map((name) => equal('objectClass', name))),
      attributes: content === undefined ? recordAttributes(names, withPasswords) : routeAttributes(names),
      cookie,
      ...(lane === undefined ? {} : { takeEarly: (bytes, start, end) => lane.take(bytes, start, end) }),
    });
    let isRefreshed = false;
    // A cookie seen during a refresh covers only part of it; it counts at its end.
    let latest = cookie;
    for await (const event of events) {
      if (event.cookie !== undefined) latest = event.cookie;
      this.#apply(event, isRefreshed, cookie !== undefined);
      if (event.type === 'refreshed') {
        isRefreshed = true;
        this.#state = 'following';
        this.#refreshedOnce = true;
        this.#lastError = undefined;
        onFollowing();
        this.#report({ type: 'refreshed', cookie: latest });
        this.#firstRefresh.resolve();
      }
      if (isRefreshed && latest !== undefined) this.#cookie = { url, value: Buffer.from(latest) };
    }
  }

  #laneTo(content: FollowedContent): AccountLane {
    return new AccountLane(this.#options.access.names ?? archipelagoNames, (name, hostServer, addresses) => {
      this.#changes += 1;
      this.#told(() => content.putAccount(name, hostServer, addresses));
    });
  }

  #apply(event: SyncEvent, isRefreshed: boolean, hadCookie: boolean): void {
    switch (event.type) {
      case 'entry':
        this.#put(event);
        return;
      case 'present':
        if (this.#options.content !== undefined) throw new PresentPhase(this.#server);
        for (const uuid of event.uuids) {
          // One that is not known here was passed over as unusable when it came.
          if (this.#known.has(uuid)) this.#known.mark(uuid);
        }
        return;
      case 'delete':
        for (const uuid of event.uuids) this.#remove(uuid, event.dn);
        return;
      case 'refreshed':
        if (event.unnamedAreGone && !isRefreshed) this.#removeUnnamed(hadCookie);
        return;
      default:
    }
  }

  #put(event: Extract<SyncEvent, { type: 'entry' }>): void {
    const { access, ports } = this.#options;
    const made = recordFromEntry(event, { uuid: event.uuid, ...(access.names === undefined ? {} : { names: access.names }) });
    if (made.outcome !== 'record') {
      if (made.outcome === 'unusable') ports.log.warn({ component: 'directory-follower', peer: this.#server }, made.detail);
      // It may have been usable before.
      this.#remove(event.uuid);
      return;
    }
    const { record } = made;
    if (this.#options.content === undefined) this.#known.mark(record.uuid);
    this.#changes += 1;
    this.#report({ type: 'put', record });
    if (record.kind !== 'domain') return;
    const before = this.#domainDns.get(record.uuid);
    this.#domainDns.set(record.uuid, record.dn);
    if (before !== undefined && before !== record.dn) throw new DomainRenamed(before, record.dn);
  }

  #remove(uuid: string, dn?: string): void {
    this.#domainDns.delete(uuid);
    if (this.#options.content === undefined && !this.#known.delete(uuid)) return;
    this.#changes += 1;
    const name = dn === undefined ? undefined : accountNameOf(dn, this.#options.access.names);
    this.#report({ type: 'remove', uuid: uuid as AccountUuid, ...(name === undefined ? {} : { name }) });
  }

  #removeUnnamed(hadCookie: boolean): void {
    const { content } = this.#options;
    if (content !== undefined) {
      // A provider that has nothing to tell may end a present phase without naming anybody: with a cookie that names nothing as gone.
      if (hadCookie) throw new PresentPhase(this.#server);
      const { gone, known } = content.unnamed;
      const isBelieved = !this.#refreshedOnce || isCredible(gone, known);
      content.endRefresh(isBelieved);
      if (!isBelieved) throw new RefreshNotBelieved(this.#server, gone, known);
      return;
    }
    const count = this.#known.countUnmarked();
    if (count === 0) return;
    if (this.#refreshedOnce && !isCredible(count, this.#known.size)) {
      throw new RefreshNotBelieved(this.#server, count, this.#known.size);
    }
    for (const uuid of [...this.#known.unmarked()]) this.#remove(uuid);
  }

  #report(change: DirectoryChange): void {
    this.#told(() => this.#options.onChange(change));
  }

  #told(tell: () => void): void {
    try {
      tell();
    } catch (error) {
      // The one who is told must not end the following for all; what it failed at is for the log.
      this.#options.ports.log.error({ component: 'directory-follower' }, `a directory change could not be taken in: ${messageOf(error)}`);
    }
  }

  #watchForReturn(index: number, onBack: () => void): () => void {
    const { ports, access } = this.#options;
    let isTrying = false;
    const timer = ports.clock.every(jitteredMs(ports.random, returnMs), () => {
      if (isTrying || this.#state !== 'following') return;
      isTrying = true;
      this.#firstThatAnswers(access.urls.slice(0, index)).then((found) => {
        isTrying = false;
        if (found) onBack();
      });
    });
    return () => timer.cancel();
  }

  async #firstThatAnswers(urls: readonly string[]): Promise<boolean> {
    const { ports, access } = this.#options;
    for (const url of urls) {
      if ((this.#distrustedUntilMs.get(url) ?? 0) > ports.clock.monotonicMs()) continue;
      try {
        await using connection = await openBound(url, access, ports);
        if (connection.isOpen) return true;
      } catch (error) {
        ports.log.debug({ component: 'directory-follower', peer: url }, `still away: ${messageOf(error)}`);
      }
    }
    return false;
  }
}

/** A domain's entry has another DN: its accounts have other names now, and providers do not send them again. */
class DomainRenamed extends Error {
  constructor(before: string, after: string) {
    super(`domain "${before}" is now "${after}"`);
  }
}

/** A provider that names what is unchanged by UUID: of no use to those who keep no UUIDs. */
class PresentPhase extends Error {
  constructor(server: string) {
    super(`${server} goes on from the cookie by naming what is unchanged`);
  }
}

/** Whether a refresh may leave out so many of the entries that are known. */
function isCredible(gone: number, known: number): boolean {
  return gone === 0 || (gone < known && (gone <= removedFloor || gone <= known * removedShareMax));
}

class RefreshNotBelieved extends PlatformError {
  constructor(server: string, count: number, known: number) {
    super(
      'DIR_REFUSED',
      `${server} no longer has ${count} of ${known} entries known here; that is not believed, routes stay as they are. Check that server: was it restored empty?`,
    );
  }
}
