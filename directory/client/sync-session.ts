/**
 * One refreshAndPersist search (RFC 4533 §3.4) read as plain events. Both the follower (frontends, clusters) and replication stand on it.
 *
 *   entries, presents, deletes …  then `refreshed` once, then entries and deletes as they happen, each with a cookie now and then
 *
 * What the provider may say in different ways comes out in one: state controls, Sync Id Sets and the end of each phase. `refreshed` says
 * whether everything that was not named in the refresh is gone (`unnamedAreGone`): always when no cookie was given, and after a
 * present phase (§3.3.1); never after a delete phase alone (§3.3.2).
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { isNumbered, numberedChanges, readMissed } from '#directory/client/numbered-changes.ts';
import type { SearchItem, SearchOptions } from '#directory/client/search-stream.ts';
import {
  controlOids,
  findControl,
  makeSyncRequest,
  manageDsaIt,
  readSyncDone,
  readSyncInfo,
  readSyncState,
  type Uuids,
} from '#protocol/ldap/controls.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';

/** What the provider reports. */
export type SyncEvent =
  | {
      readonly type: 'entry';
      readonly isAdd: boolean;
      readonly uuid: string;
      readonly dn: string;
      readonly attributes: readonly Attribute[];
      readonly attributesBer?: Buffer | undefined;
      readonly cookie: Buffer | undefined;
    }
  /** Unchanged, and still there. */
  | { readonly type: 'present'; readonly uuids: Uuids; readonly cookie: Buffer | undefined }
  /** `dn`: the name it had, where it is a single entry. */
  | { readonly type: 'delete'; readonly uuids: Uuids; readonly dn?: string; readonly cookie: Buffer | undefined }
  | { readonly type: 'refreshed'; readonly unnamedAreGone: boolean; readonly cookie: Buffer | undefined }
  | { readonly type: 'cookie'; readonly cookie: Buffer };

/** What to follow. */
export interface SyncOptions {
  readonly baseDn: string;
  readonly filter: Filter;
  readonly attributes: readonly string[];
  /** From where; `undefined` for everything. */
  readonly cookie: Buffer | undefined;
  /** See `SearchOptions`. */
  readonly takeEarly?: SearchOptions['takeEarly'];
  readonly roomEarly?: SearchOptions['roomEarly'];
}

/** Whether the provider cannot go on from our cookie (e-syncRefreshRequired): ask again without one. */
export function isRefreshRequired(error: unknown): boolean {
  return resultCodeOf(error) === resultCodes.syncRefreshRequired;
}

/** Runs the search until the connection ends or the provider ends it, which throws; leaving the loop ends the search. */
export async function* syncEvents(connection: LdapConnection, options: SyncOptions): AsyncGenerator<SyncEvent, never, undefined> {
  const lists = syncEventLists(connection, options);
  try {
    for (;;) yield* (await lists.next()).value;
  } finally {
    await lists.return(undefined as never);
  }
}

/** The same in lists: what has come since the last one. */
export async function* syncEventLists(
  connection: LdapConnection,
  options: SyncOptions,
): AsyncGenerator<readonly SyncEvent[], never, undefined> {
  const control = makeSyncRequest({ mode: 'refreshAndPersist', cookie: options.cookie, reloadHint: false });
  const { baseDn, filter, attributes, takeEarly, roomEarly } = options;
  const early = { ...(takeEarly === undefined ? {} : { takeEarly }), ...(roomEarly === undefined ? {} : { roomEarly }) };
  const search = connection.search({ baseDn, scope: 'sub', filter, attributes, timeoutMs: 0, ...early }, [control, manageDsaIt]);
  const phase: Phase = { unnamedAreGone: options.cookie === undefined, refreshed: false, mayBeNew: true };
  const lists = search.lists();
  try {
    for (;;) {
      const { value: items } = await lists.next();
      if (items === undefined) break;
      const wasRefreshed = phase.refreshed;
      const events = toEvents(items, phase, connection.url);
      const end = phase.refreshed && !wasRefreshed ? events.find(({ type }) => type === 'refreshed') : undefined;
      if (end?.cookie === undefined || !isNumbered(end.cookie)) {
        yield events;
        continue;
      }
      const after = events.indexOf(end) + 1;
      yield events.slice(0, after);
      const missed = options.cookie === undefined ? undefined : changedSince(connection, options, end.cookie);
      yield* numberedChanges(connection.url, end.cookie, eventsOf(lists, phase, connection.url, events.slice(after)), missed);
      break;
    }
  } finally {
    // Not waited for: one that is read at this moment ends with its next item or with the connection.
    void lists.return();
  }
  throw new PlatformError('DIR_UNAVAILABLE', `${connection.url} ended the synchronization search; it should persist`);
}

async function* eventsOf(
  lists: AsyncIterable<readonly SearchItem[]>,
  phase: Phase,
  server: string,
  first: readonly SyncEvent[] = [],
): AsyncGenerator<readonly SyncEvent[], void, undefined> {
  if (first.length > 0) yield first;
  for await (const items of lists) yield toEvents(items, phase, server);
}

/** What changed after a refresh that ended at that cookie, to now: asked for beside the search that persists. */
async function changedSince(connection: LdapConnection, options: SyncOptions, cookie: Buffer): Promise<readonly SyncEvent[]> {
  const { baseDn, filter, attributes } = options;
  const control = makeSyncRequest({ mode: 'refreshOnly', cookie, reloadHint: false });
  // Without a limit of time: it waits with the connection while the stream's reader is slow.
  const search = connection.search({ baseDn, scope: 'sub', filter, attributes, timeoutMs: 0 }, [control, manageDsaIt]);
  const phase: Phase = { unnamedAreGone: false, refreshed: true, mayBeNew: false };
  const missed = await readMissed(connection.url, eventsOf(search.lists(), phase, connection.url));
  const until = readSyncDone(findControl(search.done?.controls ?? [], controlOids.syncDone)?.value)?.cookie;
  return until === undefined ? missed : [...missed, { type: 'cookie', cookie: until }];
}

interface Phase {
  unnamedAreGone: boolean;
  refreshed: boolean;
  /** What is sent as added may be new to us. */
  readonly mayBeNew: boolean;
}

function toEvents(items: readonly SearchItem[], phase: Phase, server: string): SyncEvent[] {
  return items.flatMap((item) => eventOf(item, phase, server) ?? []);
}

function eventOf(item: SearchItem, phase: Phase, server: string): SyncEvent | undefined {
  if (item.kind === 'reference') return undefined;
  if (item.kind === 'entry') {
    const state = readSyncState(findControl(item.controls, controlOids.syncState)?.value);
    if (state === undefined) {
      throw new PlatformError(
        'PROTO_SYNTAX',
        `${server} sent "${item.dn}" without a sync state control; is content synchronization enabled?`,
      );
    }
    const cookie = given(state.cookie);
    if (state.state === 'present') return { type: 'present', uuids: [state.uuid], cookie };
    if (state.state === 'delete') return { type: 'delete', uuids: [state.uuid], dn: item.dn, cookie };
    const { dn, attributesBer } = item;
    const isAdd = state.state === 'add' && phase.mayBeNew;
    if (attributesBer !== undefined) return new LazySyncEntry(isAdd, state.uuid, cookie, item, attributesBer);
    return { type: 'entry', isAdd, uuid: state.uuid, dn, attributes: item.attributes, cookie };
  }
  if (item.oid !== controlOids.syncInfo) return undefined;
  const info = readSyncInfo(item.value);
  if (info === undefined) throw new PlatformError('PROTO_SYNTAX', `${server} sent a malformed Sync Info message`);
  const cookie = given(info.cookie);
  switch (info.kind) {
    case 'newCookie':
      return cookie === undefined ? undefined : { type: 'cookie', cookie };
    case 'syncIdSet':
      return { type: info.refreshDeletes ? 'delete' : 'present', uuids: info.uuids, cookie };
    default: {
      if (info.kind === 'refreshPresent') phase.unnamedAreGone = true;
      if (phase.refreshed || !info.refreshDone) {
        // A present phase may be followed by a delete phase; its cookie counts once the refresh is whole.
        return phase.refreshed && cookie !== undefined ? { type: 'cookie', cookie } : undefined;
      }
      phase.refreshed = true;
      return { type: 'refreshed', unnamedAreGone: phase.unnamedAreGone, cookie };
    }
  }
}

// An empty one stands for no state: to go on from it would be to ask for everything without hearing of what is gone.
function given(cookie: Buffer | undefined): Buffer | undefined {
  return cookie?.length === 0 ? undefined : cookie;
}

type SearchEntry = Extract<SearchItem, { kind: 'entry' }>;

/** An entry whose attributes are taken apart when somebody looks at them. */
class LazySyncEntry {
  readonly type = 'entry';
  readonly isAdd: boolean;
  readonly uuid: string;
  readonly dn: string;
  readonly cookie: Buffer | undefined;
  readonly attributesBer: Buffer;
  readonly #item: SearchEntry;

  constructor(isAdd: boolean, uuid: string, cookie: Buffer | undefined, item: SearchEntry, attributesBer: Buffer) {
    this.isAdd = isAdd;
    this.uuid = uuid;
    this.dn = item.dn;
    this.cookie = cookie;
    this.attributesBer = attributesBer;
    this.#item = item;
  }

  get attributes(): readonly Attribute[] {
    return this.#item.attributes;
  }
}
