/**
 * The master's change stream for one replica (RFC 4533), turned into changes for its pipeline.
 *
 *   cookie good ──► what changed since ──► `refreshed` ──► changes as they happen
 *   no cookie   ──► read the replica's UUIDs and CSNs ──► the whole content, equal entries passed over ──► delete what was not named
 *
 * A deletion met during a refresh waits for its end: entries that left a deleted container come after it. What a refresh would delete
 * is counted first, and refused above the limit. The cookie received with a change travels with it through the pipeline.
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { type SyncEvent, syncEventLists } from '#directory/client/sync-session.ts';
import { ImageEncoder, LazyImage } from '#protocol/ldap/image-batch.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import { findSyncEntry, readSyncChange } from '#protocol/ldap/sync-entry.ts';
import { inReplicaForm, masterUuidAttributes, uuidOfEntry } from '#replication/master-entry.ts';
import { batchBytesMax, blockMax, type Pipeline } from '#replication/pipeline.ts';
import type { Progress } from '#replication/progress.ts';
import type { Replica } from '#replication/replica.ts';
import { type Doomed, type FoundDoomed, findDoomed, type ReplicaIndex, readReplicaIndex } from '#replication/resync.ts';
import type { Scope } from '#replication/scope.ts';
import { NamedEntries } from '#replication/store/named-entries.ts';

/** What a run of the stream needs. */
export interface SourceContext {
  readonly replicaName: string;
  readonly suffix: string;
  readonly scope: Scope;
  /** The replica's scope was another: an equal CSN does not mean equal content. */
  readonly comparesContent: () => boolean;
  readonly clock: Clock;
  readonly log: Logger;
  readonly pipeline: Pipeline;
  readonly signal: AbortSignal;
  /** Throws where the refresh would delete `count` of the replica's `total` entries and may not. */
  readonly checkDeletes: (count: number, total: number) => void;
  /** The replica, once it is connected. */
  readonly replica: () => Promise<Replica>;
  /** Entries that the replica may lack because it refuses them. */
  readonly refusedEntries: () => number;
  readonly onPhase: (phase: 'refreshing' | 'following') => void;
  /** Told what comes in the refresh, and how far it is. */
  readonly progress: Pick<Progress, 'read' | 'entry' | 'named' | 'step'>;
  /** The cookie that a new run starts from if this one ends now. */
  readonly onReceived: (cookie: Buffer) => void;
  /** File for who was named in a refresh, should there be many. */
  readonly namedFile: string | undefined;
  /** Entries known to be gone at the master whose deletion is still to come. */
  readonly doomed: Doomed;
  /** Entries of the replica that gave way to one of the master since last asked, and have no name of their own yet. */
  readonly takeDisplaced: () => readonly string[];
  /** Whether, since last asked, an entry with others below it got another name during a refresh. */
  readonly takeContainerMoved: () => boolean;
}

/** The replica lacks entries that the master believes it has: the cookie lied, everything must be compared. */
export class ReplicaDiverged extends Error {}

/** Reads the stream until its connection or the replica's fails, which rejects. */
export async function runSource(connection: LdapConnection, cookie: Buffer | undefined, context: SourceContext): Promise<never> {
  context.onPhase('refreshing');
  context.doomed.clear();
  context.takeContainerMoved();
  using named = new NamedEntries(context.namedFile);
  let index: ReplicaIndex | undefined;
  let takesBlocks = false;
  if (cookie === undefined) {
    await drained(context);
    const replica = await context.replica();
    index = await readReplicaIndex(replica, named, () => context.progress.read());
    takesBlocks = context.scope.key === '';
    context.log.info({ entries: index.table.size }, 'comparing the whole replica with the master');
  }
  context.progress.step('receiving');
  const refresh = new Refresh(context, index, named, takesBlocks);
  refresh.latest = cookie;
  await checkShowsUuids(connection, context.suffix);
  const root = await connection.readEntry('', ['vendorName']);
  const isOf389 = /\b389\b/.test(textOf(root?.attributes ?? [], 'vendorName') ?? '');
  const lists = syncEventLists(connection, {
    baseDn: context.suffix,
    filter: context.scope.filter,
    attributes: isOf389 ? [...context.scope.selection, ...masterUuidAttributes] : context.scope.selection,
    cookie,
    ...(isOf389 ? {} : { takeEarly: refresh.takeEarly, roomEarly: refresh.roomEarly }),
  });
  for await (const list of lists) {
    for (const received of list) {
      context.signal.throwIfAborted();
      const event = isOf389 && received.type === 'entry' ? from389(received) : received;
      // Copied: the bytes received are not kept for the sake of a cookie.
      if (event.cookie !== undefined) refresh.latest = Buffer.from(event.cookie);
      const { latest } = refresh;
      if (refresh.isOver && event.type === 'delete') await pushDeletes(context, event, latest);
      else if (refresh.isOver) pushChange(context, event, latest);
      else if (event.type !== 'refreshed') refresh.take(event);
      else {
        await refresh.finish(event.unnamedAreGone);
        context.signal.throwIfAborted();
        if (latest !== undefined) pushCookie(context, latest);
      }
      if (refresh.isOver && latest !== undefined) context.onReceived(latest);
      if (!context.pipeline.hasRoom) await room(context);
    }
  }
  throw new PlatformError('DIR_UNAVAILABLE', `${connection.url} ended the stream`);
}

// The stream names entries without that right as well; replicas would give them UUIDs of their own, and know none of them again.
async function checkShowsUuids(master: LdapConnection, suffix: string): Promise<void> {
  const top = await master.readEntry(suffix, masterUuidAttributes);
  if (top === undefined || uuidOfEntry(top.attributes) !== '') return;
  throw new PlatformError(
    'DIR_DENIED',
    `the master ${master.url} does not show the entryUUID of "${suffix}"; give our identity there the right to read it, of every entry`,
  );
}

type EntryEvent = Extract<SyncEvent, { type: 'entry' }>;

// 389 Directory Server sends a renamed entry without its operational attributes: it is read again when its turn has come.
function from389(event: EntryEvent): EntryEvent | (EntryEvent & { readonly isPartial: true }) {
  const isWhole = event.attributes.some((one) => one.type.toLowerCase() === 'createtimestamp');
  const entry = inReplicaForm(event, event.uuid);
  return isWhole ? entry : { ...entry, isPartial: true };
}

/** The time from the start of a stream to its `refreshed`. */
class Refresh {
  isOver = false;
  /** The cookie that came last. */
  latest: Buffer | undefined;
  readonly #context: SourceContext;
  readonly #index: ReplicaIndex | undefined;
  /** Who was named; with an index, its table: who was there and has no mark at the end is gone at the master. */
  readonly #named: NamedEntries;
  /** Nothing can be gone of a replica that was empty. */
  readonly #mustMark: boolean;
  /** New entries go in blocks: to a replica that is given everything, when all that it has was read. */
  readonly #takesBlocks: boolean;
  /** New entries that wait to be a block. */
  readonly #encoder = new ImageEncoder();

  constructor(context: SourceContext, index: ReplicaIndex | undefined, named: NamedEntries, takesBlocks: boolean) {
    this.#takesBlocks = takesBlocks;
    this.#context = context;
    this.#index = index;
    this.#named = named;
    this.#mustMark = index === undefined || index.table.size > 0;
  }

  take(event: Exclude<SyncEvent, { type: 'refreshed' }>): void {
    switch (event.type) {
      case 'entry': {
        this.#context.progress.entry();
        // In an index every entry of the replica is there already.
        const isNew = !this.#mustMark || (this.#named.mark(event.uuid) && this.#index !== undefined);
        if (this.#context.doomed.size > 0) this.#context.doomed.delete(event.uuid);
        if (isNew && this.#takeIntoBlock(event)) return;
        if (this.#isCurrent(event)) return;
        this.#pushBlock();
        pushEntry(this.#context, event, isNew, undefined);
        return;
      }
      case 'present':
        this.#context.progress.named(event.uuids.length);
        for (const uuid of event.uuids) this.#named.mark(uuid);
        return;
      case 'delete':
        this.#context.progress.named(event.uuids.length);
        for (const uuid of event.uuids) this.#context.doomed.add(uuid);
        return;
      default:
    }
  }

  async finish(unnamedAreGone: boolean): Promise<void> {
    this.#context.progress.step('ending');
    this.#pushBlock();
    await this.#finish(unnamedAreGone);
    this.isOver = true;
    this.#named[Symbol.dispose]();
    this.#context.onPhase('following');
  }

  /** The first load of an empty replica: its entries are known to be new before they are taken apart. */
  readonly takeEarly = (bytes: Buffer, start: number, end: number): boolean => {
    const { doomed, signal } = this.#context;
    if (this.isOver) return this.#takeChange(bytes, start, end);
    if (this.#mustMark || !this.#takesBlocks || doomed.size > 0 || signal.aborted) return false;
    const places = findSyncEntry(bytes, start, end);
    if (places === undefined) return false;
    this.#context.progress.entry();
    this.#encoder.addFound(bytes, places);
    if (this.#encoder.count === blockMax || this.#encoder.bytes >= batchBytesMax) this.#pushBlock();
    return true;
  };

  readonly roomEarly = (): Promise<void> | undefined => {
    const { pipeline, signal } = this.#context;
    if (pipeline.hasRoom || signal.aborted) return undefined;
    return room(this.#context).catch(() => {});
  };

  // A single change is on its way to the replica before the reader of this stream would have heard of it.
  #takeChange(bytes: Buffer, start: number, end: number): boolean {
    const { pipeline, signal, scope, onReceived } = this.#context;
    if (signal.aborted || !pipeline.hasRoom || scope.key !== '') return false;
    const change = readSyncChange(bytes, start, end);
    if (change === undefined) return false;
    const { state, cookie } = change;
    const image = new LazyImage(change.uuidOctets, change.dn, change.attributesBer);
    if (cookie !== undefined) this.latest = cookie;
    if (state === 'delete') pushDelete(this.#context, image.uuid, cookie, image.dn);
    else pushEntry(this.#context, image, state === 'add', cookie);
    if (this.latest !== undefined) onReceived(this.latest);
    return true;
  }

  // It goes as it came, and nothing is made of it here.
  #takeIntoBlock(event: EntryEvent): boolean {
    if (!this.#takesBlocks || event.attributesBer === undefined || 'isPartial' in event) return false;
    this.#encoder.add({ uuid: event.uuid, dn: event.dn, attributes: [], attributesBer: event.attributesBer });
    if (this.#encoder.count === blockMax || this.#encoder.bytes >= batchBytesMax) this.#pushBlock();
    return true;
  }

  #pushBlock(): void {
    if (this.#encoder.count === 0) return;
    const receivedMs = this.#context.clock.monotonicMs();
    this.#context.pipeline.push({ uuid: '', entry: undefined, isNew: true, cookie: undefined, receivedMs, block: this.#encoder.take() });
  }

  #isCurrent(event: EntryEvent): boolean {
    if (!this.#mustMark || this.#index === undefined || this.#context.comparesContent()) return false;
    return this.#index.isCurrent(event.uuid, event.dn, event.attributes);
  }

  async #finish(unnamedAreGone: boolean): Promise<void> {
    const context = this.#context;
    await drained(context);
    for (const uuid of context.takeDisplaced()) {
      // By now everybody has the name that the master gives; one without has none there.
      if (!context.doomed.has(uuid)) pushCheck(context, uuid, !unnamedAreGone);
      await room(context);
    }
    await drained(context);
    try {
      await this.#deleteDoomed(unnamedAreGone);
    } finally {
      // Who was named is forgotten after this: nobody is gone for not having been.
      context.doomed.clear();
    }
    // A refresh names entries in no order of time: one may have been put below a name whose owner changed behind it, and went along.
    if (context.takeContainerMoved())
      throw new ReplicaDiverged('a container changed its name during the refresh: names are compared once more');
  }

  async #deleteDoomed(unnamedAreGone: boolean): Promise<void> {
    const context = this.#context;
    const { doomed, replicaName } = context;
    const told = doomed.size;
    if (unnamedAreGone) doomed.addUnnamed((uuid) => this.#named.isMarked(uuid));
    const mayBeUnnamed = unnamedAreGone && (this.#index === undefined || (this.#mustMark && this.#named.countUnmarked() > 0));
    if (!mayBeUnnamed && told <= 2) {
      await this.#deleteAll([...doomed]);
      return;
    }
    let found: FoundDoomed | undefined;
    // What is too much for the memory goes in turns, and each turn that comes to its end makes it less.
    for (let left = Number.POSITIVE_INFINITY; found === undefined || found.uuids.length < found.doomed; left = found.doomed) {
      const isFirst = found === undefined;
      found = await findDoomed(await context.replica(), this.#named, doomed);
      if (unnamedAreGone && this.#index === undefined && found.named + context.refusedEntries() < this.#named.size)
        throw new ReplicaDiverged(`${replicaName} lacks entries that the master takes for known there`);
      if (isFirst) context.checkDeletes(found.doomed, found.total);
      if (found.doomed >= left) break;
      await this.#deleteAll(found.uuids);
    }
  }

  async #deleteAll(uuids: readonly string[]): Promise<void> {
    for (const uuid of uuids) {
      pushDelete(this.#context, uuid, undefined);
      await room(this.#context);
    }
    await drained(this.#context);
  }
}

function pushChange(context: SourceContext, event: SyncEvent, latest: Buffer | undefined): void {
  const cookie = event.cookie === undefined ? undefined : latest;
  if (event.type === 'entry') pushEntry(context, event, event.isAdd, cookie);
  else if (cookie !== undefined) pushCookie(context, cookie);
}

// One message may name a million.
async function pushDeletes(
  context: SourceContext,
  event: Extract<SyncEvent, { type: 'delete' }>,
  latest: Buffer | undefined,
): Promise<void> {
  const { uuids, dn } = event;
  const cookie = event.cookie === undefined ? undefined : latest;
  let left = uuids.length;
  for (const uuid of uuids) {
    if (!context.pipeline.hasRoom) await room(context);
    left -= 1;
    pushDelete(context, uuid, left === 0 ? cookie : undefined, dn);
  }
}

function pushEntry(
  context: SourceContext,
  event: Pick<EntryEvent, 'uuid' | 'dn' | 'attributes' | 'attributesBer'>,
  isNew: boolean,
  cookie: Buffer | undefined,
): void {
  const receivedMs = context.clock.monotonicMs();
  const change = { uuid: event.uuid, entry: context.scope.trim(event), isNew, cookie, receivedMs };
  context.pipeline.push('isPartial' in event ? { ...change, isCheck: true } : change);
}

function pushDelete(context: SourceContext, uuid: string, cookie: Buffer | undefined, lastDn?: string): void {
  const receivedMs = context.clock.monotonicMs();
  context.pipeline.push({ uuid, entry: undefined, isNew: false, cookie, receivedMs, ...(lastDn === undefined ? {} : { lastDn }) });
}

function pushCheck(context: SourceContext, uuid: string, wasDisplaced: boolean): void {
  const receivedMs = context.clock.monotonicMs();
  context.pipeline.push({ uuid, entry: undefined, isNew: false, cookie: undefined, receivedMs, isCheck: true, wasDisplaced });
}

function pushCookie(context: SourceContext, cookie: Buffer): void {
  context.pipeline.push({ uuid: '', entry: undefined, isNew: false, cookie, receivedMs: context.clock.monotonicMs() });
}

async function room(context: SourceContext): Promise<void> {
  context.signal.throwIfAborted();
  while (!context.pipeline.hasRoom) {
    await context.pipeline.moved();
    context.signal.throwIfAborted();
  }
}

async function drained(context: SourceContext): Promise<void> {
  context.signal.throwIfAborted();
  while (context.pipeline.backlog > 0) {
    await context.pipeline.moved();
    context.signal.throwIfAborted();
  }
}
