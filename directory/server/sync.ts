/**
 * The provider's side of content synchronization (RFC 4533): every follower reads the journal at its own pace.
 *
 *   no cookie, or one that is too old ──► full refresh: all entries, then refreshPresent (what was not named is gone)
 *   cookie within the journal         ──► delta: UUIDs that went, entries that changed, then refreshDelete
 *   refreshAndPersist                 ──► then, after each commit, the journal from there on
 *
 * - Nothing is queued for a follower: its position is a change number. A follower that does not read is waited for, and cut after a while.
 * - Entries are sent as they are now, which may be later than the change that is being reported; sending one twice does no harm.
 * - A renamed container is followed by all that is below it, because a consumer may hold whole DNs. Only after the last of them goes a cookie
 *   that covers the rename.
 */
import { type Clock, withTimeout } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import {
  controlOids,
  encodeSyncInfo,
  findControl,
  makeSyncDone,
  makeSyncState,
  readSyncRequest,
  type SyncInfo,
} from '#protocol/ldap/controls.ts';
import type { SearchRequest } from '#protocol/ldap/messages.ts';
import { isService } from '../access/access.ts';
import { allows, type View } from '../access/view.ts';
import { makeCookie, readCookie, type SyncCookie } from '../changelog/cookie.ts';
import { Refusal } from '../schema/refusal.ts';
import { type RawEntry, rootId, type StoredEntry } from '../store/entry-store.ts';
import type { JournalRecord } from '../store/journal.ts';
import { compileFilter, type Matcher } from './filter-match.ts';
import { requireEntry, targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import { isInScope, nextTurn } from './search.ts';
import { compileSelection, type Selection } from './selection.ts';
import { ShortRefresh } from './short-refresh.ts';
import type { Tree } from './tree.ts';

const pageSize = 256;
/** A delta of more changes than this becomes a full refresh. */
const deltaChangesMax = 200_000;
/** UUIDs in one syncIdSet. */
const uuidsPerSet = 500;
/** A follower that does not read for so long is cut. */
const stalledMax = 60_000;

const noParent: { readonly id: number; readonly dn: Buffer } = { id: -1, dn: Buffer.alloc(0) };

/** What the followers share. */
export interface SyncContext {
  readonly tree: Tree;
  readonly clock: Clock;
  /** Called when a follower enters and leaves the persist phase. */
  counted(by: 1 | -1): void;
}

/** Runs a search with the sync request control to its end; a persistent one ends by abandon or with the connection. */
export async function followChanges(context: SyncContext, request: SearchRequest, operation: Operation): Promise<void> {
  const { tree } = context;
  const control = readSyncRequest(findControl(operation.controls, controlOids.syncRequest)?.value);
  if (control === undefined) throw new Refusal('protocolError', 'the sync request control is malformed (RFC 4533 §2.2)');
  if (!isService(operation.who)) throw new Refusal('insufficientAccessRights', 'only the services of the installation may follow changes');
  await tree.store.settled();
  // A half-filled replica would tell its followers that accounts are gone.
  if (!tree.isFilled) throw new Refusal('unavailable', 'this replica has not been filled by replication yet; follow another server');
  const follower = new Follower(context, request, operation);
  const given = control.cookie ?? Buffer.alloc(0);
  const cookie = given.length === 0 ? undefined : readCookie(given);
  follower.rid = cookie?.rid;
  const from = cookie === undefined ? undefined : positionOf(tree, cookie);
  // OpenLDAP's first request holds its replica number and no state: that is no cookie.
  const holdsState = given.length > 0 && (cookie === undefined || cookie.csn !== undefined || cookie.changeNumber !== undefined);
  if (holdsState && from === undefined && control.reloadHint) {
    throw new Refusal('syncRefreshRequired', 'the cookie is unknown here or older than the journal; refresh without one');
  }
  const persists = control.mode === 'refreshAndPersist';
  const at = await (from === undefined ? follower.refreshAll(persists) : follower.refreshFrom(from, persists));
  if (persists && !operation.signal.aborted) await follower.persist(at);
}

// The change number after which to go on; `undefined` when a full refresh is needed.
function positionOf(tree: Tree, cookie: SyncCookie): number | undefined {
  const { store } = tree;
  const last = store.lastChangeNumber();
  let from: number | undefined;
  if (cookie.databaseId === store.meta('databaseId') && cookie.changeNumber !== undefined && cookie.changeNumber <= last) {
    from = cookie.changeNumber;
    // A master that was restored from a backup counts on from there: the same number stands for another, later change.
    const [record] = store.journalAfter(from - 1, 1);
    if (tree.mode === 'master' && cookie.csn !== undefined && record?.changeNumber === from && record.csn > cookie.csn) return undefined;
  } else if (cookie.csn !== undefined) {
    const floor = store.meta('floorCsn');
    // Above our own state: the consumer has seen a server that is ahead of this one, or another history.
    if (floor === undefined || cookie.csn < floor || cookie.csn > tree.contextCsn) return undefined;
    from = store.changeNumberBefore(cookie.csn);
  }
  if (from === undefined || from < Number(store.meta('trimmedTo') ?? 0) || last - from > deltaChangesMax) return undefined;
  return from;
}

class Follower {
  readonly #context: SyncContext;
  readonly #tree: Tree;
  readonly #operation: Operation;
  readonly #request: SearchRequest;
  readonly #base: StoredEntry;
  readonly #view: View;
  readonly #matches: Matcher;
  readonly #selection: Selection;
  readonly #short: ShortRefresh | undefined;
  /** What stands behind the RDN of entries below the parent of the last one. */
  #parent = noParent;
  /** CSN of the last cookie. */
  #csnTold = '';
  rid: string | undefined;

  constructor(context: SyncContext, request: SearchRequest, operation: Operation) {
    this.#context = context;
    this.#tree = context.tree;
    this.#operation = operation;
    this.#request = request;
    const { view } = operation;
    this.#view = view;
    this.#base = requireEntry(this.#tree, view, this.#tree.parseName(request.baseDn));
    this.#matches = compileFilter(this.#tree.schema, request.filter, (key) => view.decide('search', key));
    this.#selection = compileSelection(this.#tree.schema, request.attributes, request.typesOnly, (key) => view.decide('read', key));
    this.#short = ShortRefresh.of(operation.id, request, this.#tree.schema, view, this.#selection, this.#matches);
  }

  /** All entries, parents before children. Returns the change number that the content holds at least. */
  async refreshAll(persists: boolean): Promise<number> {
    const { store } = this.#tree;
    const at = store.lastChangeNumber();
    const cookie = this.#cookie(at);
    // Parents with a higher id than a child (it was moved there) are sent when the child is.
    const early = new Set<number>();
    const send = (entry: StoredEntry): void => {
      if (early.delete(entry.id)) return;
      if (entry.parentId > entry.id && entry.parentId !== rootId && !early.has(entry.parentId)) {
        const parent = store.byId(entry.parentId);
        if (parent !== undefined) {
          send(parent);
          early.add(parent.id);
        }
      }
      if (this.#isMatching(entry)) this.#sendEntry(entry, 'add', undefined);
    };
    const short = this.#short;
    for (let last = 0; ; ) {
      const page = store.rawAfter(last, pageSize);
      for (const row of page) {
        last = row.id;
        if (short !== undefined && row.parentId < row.id && early.size === 0 && this.#sendShortly(short, row)) continue;
        this.#sendGathered();
        const entry = store.byId(row.id);
        if (entry !== undefined) send(entry);
      }
      this.#sendGathered();
      // Renamed meanwhile, perhaps.
      this.#parent = noParent;
      if (page.length === 0) break;
      if (!(await this.#breathe())) return at;
    }
    if (persists) this.#sendInfo({ kind: 'refreshPresent', cookie, refreshDone: true });
    else this.#sendDone(cookie, false);
    return at;
  }

  /** What changed since a change number. */
  async refreshFrom(from: number, persists: boolean): Promise<number> {
    const { store } = this.#tree;
    const at = store.lastChangeNumber();
    const cookie = this.#cookie(at);
    const changed = new Set<string>();
    let position = from;
    while (position < at) {
      for (const record of store.journalAfter(position, pageSize)) {
        position = record.changeNumber;
        changed.add(record.uuid);
        for await (const entry of this.#below(record)) changed.add(entry.uuid);
      }
      if (!(await this.#breathe())) return at;
    }
    let gone: string[] = [];
    const present: string[] = [];
    for (const uuid of changed) {
      const entry = store.byUuid(uuid);
      if (entry !== undefined && this.#isMatching(entry)) present.push(uuid);
      else gone.push(uuid);
      if (gone.length === uuidsPerSet) {
        this.#sendInfo({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids: gone });
        gone = [];
        if (!(await this.#breathe())) return at;
      }
    }
    if (gone.length > 0) this.#sendInfo({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids: gone });
    for (const [i, uuid] of present.entries()) {
      const entry = store.byUuid(uuid);
      if (entry !== undefined) this.#sendEntry(entry, 'add', undefined);
      if (i % pageSize === pageSize - 1 && !(await this.#breathe())) return at;
    }
    if (persists) this.#sendInfo({ kind: 'refreshDelete', cookie, refreshDone: true });
    else this.#sendDone(cookie, true);
    return at;
  }

  /** Reports the journal from `from` on, until the operation is given up. */
  async persist(from: number): Promise<void> {
    const { store } = this.#tree;
    const { signal } = this.#operation;
    let position = from;
    let wake: () => void = () => {};
    let hasNews = true;
    const stop = store.onCommit(() => {
      hasNews = true;
      wake();
    });
    const aborted = (): void => wake();
    signal.addEventListener('abort', aborted, { once: true });
    this.#context.counted(1);
    try {
      while (!signal.aborted) {
        if (!hasNews) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
          continue;
        }
        hasNews = false;
        for (let records = store.journalAfter(position, pageSize); records.length > 0; records = store.journalAfter(position, pageSize)) {
          for (const record of records) {
            await this.#report(record);
            position = record.changeNumber;
          }
          // Somebody waits to see the change elsewhere, and whoever made it has not been answered yet.
          this.#operation.flush();
          if (!(await this.#breathe())) return;
        }
        // The state may move without an answer: a change that does not match, or the replicator's word on what it has applied.
        if (this.#tree.contextCsn !== this.#csnTold) this.#sendInfo({ kind: 'newCookie', cookie: this.#cookie(position) });
      }
    } finally {
      stop();
      signal.removeEventListener('abort', aborted);
      this.#context.counted(-1);
    }
  }

  async #report(record: JournalRecord): Promise<void> {
    const entry = this.#tree.store.byUuid(record.uuid);
    const cookie = this.#cookie(record.changeNumber, this.#tree.mode === 'master' ? record.csn : this.#tree.contextCsn);
    if (entry === undefined || !this.#isMatching(entry)) {
      // An entry that was added and does not match was never sent; all others may have been.
      if (record.op !== 'add') this.#sendDelete(record, cookie);
      return;
    }
    const hasBelow = record.op === 'rename' && this.#tree.store.hasChildren(entry.id);
    this.#sendEntry(entry, record.op === 'add' ? 'add' : 'modify', hasBelow ? undefined : cookie);
    if (!hasBelow) return;
    for await (const below of this.#below(record)) {
      if (this.#isMatching(below)) this.#sendEntry(below, 'modify', undefined);
    }
    this.#sendInfo({ kind: 'newCookie', cookie });
  }

  /** Entries below a renamed one, parents first. */
  async *#below(record: JournalRecord): AsyncGenerator<StoredEntry> {
    const { store } = this.#tree;
    if (record.op !== 'rename') return;
    const parents = [record.entryId];
    for (let parent = parents.shift(); parent !== undefined; parent = parents.shift()) {
      for (
        let page = store.childIds(parent, 0, pageSize);
        page.length > 0;
        page = store.childIds(parent, page.at(-1) as number, pageSize)
      ) {
        for (const id of page) {
          const entry = store.byId(id);
          if (entry === undefined) continue;
          yield entry;
          if (store.hasChildren(id)) parents.push(id);
        }
        if (!(await this.#breathe())) return;
      }
    }
  }

  #isMatching(entry: StoredEntry): boolean {
    if (!isInScope(this.#tree, this.#request, this.#base, entry)) return false;
    const target = targetOf(this.#tree, entry);
    return allows(this.#view.decide('read', 'entry'), target) && this.#matches(this.#tree.attributesOf(entry, true), target) === true;
  }

  #sendEntry(entry: StoredEntry, state: 'add' | 'modify', cookie: Buffer | undefined): void {
    const shown = this.#tree.attributesOf(entry, this.#selection.wantsOperational);
    const attributes = this.#selection.select(shown, targetOf(this.#tree, entry));
    this.#operation.send({ type: 'searchResultEntry', dn: this.#tree.store.dnOf(entry), attributes }, [
      makeSyncState({ state, uuid: entry.uuid, cookie }),
    ]);
  }

  /** `false`: the entry is to go the other way. */
  #sendShortly(short: ShortRefresh, row: RawEntry): boolean {
    const shown = short.show(row);
    if (shown === 'slow') return false;
    if (shown === 'other' || !isInScope(this.#tree, this.#request, this.#base, row)) return true;
    if (row.parentId !== this.#parent.id) this.#parent = { id: row.parentId, dn: Buffer.from(this.#tree.store.dnOf({ ...row, rdn: '' })) };
    const { dn } = this.#parent;
    if (!short.hasRoomBelow(dn, row)) {
      this.#sendGathered();
      if (!short.hasRoomBelow(dn, row)) return false;
    }
    short.add(row, dn);
    return true;
  }

  #sendGathered(): void {
    const answers = this.#short?.take();
    if (answers !== undefined) this.#operation.sendEncoded(answers);
  }

  #sendDelete(record: JournalRecord, cookie: Buffer): void {
    const parent = record.oldParentId === undefined ? undefined : this.#tree.store.byId(record.oldParentId);
    const dn = parent === undefined ? (record.oldRdn ?? '') : `${record.oldRdn},${this.#tree.store.dnOf(parent)}`;
    this.#operation.send({ type: 'searchResultEntry', dn, attributes: [] }, [
      makeSyncState({ state: 'delete', uuid: record.uuid, cookie }),
    ]);
  }

  #sendInfo(info: SyncInfo): void {
    this.#operation.send({ type: 'intermediateResponse', oid: controlOids.syncInfo, value: encodeSyncInfo(info) });
  }

  #sendDone(cookie: Buffer, refreshDeletes: boolean): void {
    this.#operation.send({ type: 'searchResultDone', resultCode: 0, matchedDn: '', diagnosticMessage: '' }, [
      makeSyncDone({ cookie, refreshDeletes }),
    ]);
  }

  #cookie(changeNumber: number, csn = this.#tree.contextCsn): Buffer {
    this.#csnTold = csn;
    return makeCookie({ rid: this.rid, csn, databaseId: this.#tree.store.meta('databaseId') ?? '0', changeNumber });
  }

  // Lets others have their turn and waits for a follower that does not read; false when the operation was given up.
  async #breathe(): Promise<boolean> {
    const room = this.#operation.writable();
    if (room !== undefined) {
      await withTimeout(this.#context.clock, stalledMax, room, () => {
        return new PlatformError('LIMIT_CONNECTIONS', `a follower did not read for ${stalledMax / 1000} s`);
      });
    } else {
      await nextTurn();
    }
    await this.#tree.store.settled();
    // What may be seen is another since then; the follower learns it by a refresh.
    if (this.#operation.view !== this.#view) throw new Refusal('syncRefreshRequired', 'the access rules have changed; refresh');
    return !this.#operation.signal.aborted;
  }
}
