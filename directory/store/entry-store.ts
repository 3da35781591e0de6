/**
 * The tree of entries in one database: entries, their indexes and the journal of changes, always changed together in one transaction
 * (group-commit.ts), so a reader of the journal can trust what it finds in the entries.
 *
 * - An entry knows its parent's id and its own RDN; its DN is put together from its parents. Renaming a container therefore writes one row.
 * - Candidates come out of the index as ids, superset of what matches: the caller looks at each entry itself.
 * - Rows, names and short index lists that were read are remembered, up to `cacheBytes`; a write forgets what it touches, and one that is
 *   undone forgets everything.
 * - `contextCsn` (the state of the whole tree) is durable in the same commit as the change that moves it.
 *
 * Nothing here knows LDAP rules: directory/server decides what may be written, and gives keys and normalised names.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { attributesOf } from './body-of-row.ts';
import { copyDatabase } from './copy-database.ts';
import { openDatabase } from './database.ts';
import { encodeBody } from './entry-body.ts';
import type { EntryFunctions } from './entry-functions.ts';
import { EntryReader } from './entry-reader.ts';
import { GroupCommit, type WriteKind } from './group-commit.ts';
import { Journal, type JournalRecord } from './journal.ts';
import { changeKeys, mayChangeKeys } from './key-changes.ts';
import { type IndexKey, KeyIndex, keysBoundary } from './key-index.ts';
import { insertRows, type NewRow } from './new-rows.ts';
import { PieceIndex } from './piece-index.ts';
import { Statements } from './statements.ts';
import { Tallies } from './tallies.ts';
import { TimeIndex } from './time-index.ts';
import { uuidToBytes } from './uuid.ts';
import { UuidIndex, uuidBoundary } from './uuid-index.ts';

/** Parent of the suffix entry. */
export const rootId = 0;
const ancestorsCachedMax = 100_000;
/**
 * Memory for what was read, bytes: three eighths for rows, an eighth each for what answers showed of them, names and index lists. The last quarter is for
 * pages of the file (`pagesBytesMax`).
 */
export const defaultCacheBytes = 256 * 1_048_576;

/** An entry as stored. */
export interface StoredEntry {
  readonly id: number;
  readonly parentId: number;
  /** As written by the client; for the suffix entry the whole suffix. */
  readonly rdn: string;
  readonly rdnNorm: string;
  readonly uuid: string;
  readonly csn: string;
  /** User attributes and the stored operational ones; not entryUUID and entryCSN, which are the columns above. */
  readonly attributes: readonly Attribute[];
}

/** What an answer shows of an entry. */
export interface ShownEntry extends Pick<StoredEntry, 'id' | 'parentId' | 'rdn'> {
  /** Good until the next entry is looked at. */
  readonly octets: Buffer;
}

/** An entry as its row, with its attributes as they are stored (entry-body.ts). */
export interface RawEntry extends Pick<StoredEntry, 'id' | 'parentId'> {
  /** Of many entries. The 16 octets of this one's UUID come first, then its CSN, its RDN and its body; where each starts, and the end. */
  readonly octets: Buffer;
  readonly uuidStart: number;
  readonly csnStart: number;
  readonly rdnStart: number;
  readonly bodyStart: number;
  readonly end: number;
}

/** Everything of an entry that a write gives. */
export type EntryContent = Omit<StoredEntry, 'id'>;

/** See the header of this file. */
export class EntryStore implements Disposable {
  readonly #database: DatabaseSync;
  readonly #commit: GroupCommit;
  readonly #keysOf: EntryFunctions['keysOf'];
  readonly #talliesOf: EntryFunctions['talliesOf'];
  readonly #statements: Statements;
  readonly #journal: Journal;
  readonly #uuids: UuidIndex;
  readonly #keys: KeyIndex;
  readonly #ancestors = new Map<number, { readonly parentId: number; readonly dn: string }>();
  readonly #onCommit = new Set<() => void>();
  readonly #reader: EntryReader;
  #meta = new Map<string, string>();
  readonly #metaChanged = new Set<string>();
  /** What the meta values that the present work set were before. */
  readonly #metaBefore = new Map<string, string | undefined>();
  #lastEntryId = 0;
  /** Change number before the present work. */
  #changeBefore = 0;
  readonly #tallies: Tallies;
  /** Entries in order of time, where the functions of this store tell times. */
  readonly times: TimeIndex | undefined;
  /** Pieces of the values of some attributes. */
  readonly pieces: PieceIndex;
  /** Whether the present work has changed anything that is remembered. */
  #hasChanged = false;

  /** @param functions must not change while a database lives, or it must be reindexed */
  constructor(path: string, functions: EntryFunctions, cacheBytes = defaultCacheBytes) {
    this.#database = openDatabase(path, cacheBytes / 4);
    this.#statements = new Statements(this.#database);
    this.#journal = new Journal(this.#statements);
    this.#tallies = new Tallies(this.#statements);
    this.#uuids = new UuidIndex(this.#statements);
    this.#keysOf = functions.keysOf;
    this.#talliesOf = functions.talliesOf;
    this.#reader = new EntryReader(this.#statements, { rows: (cacheBytes / 8) * 3, shown: cacheBytes / 8, names: cacheBytes / 8 });
    this.#keys = new KeyIndex(this.#statements, cacheBytes / 8, () => this.#lastEntryId);
    this.pieces = new PieceIndex(this.#statements, functions.piecesOf ?? (() => []));
    const { timesOf } = functions;
    this.times =
      timesOf === undefined
        ? undefined
        : new TimeIndex({
            statements: this.#statements,
            journal: this.#journal,
            timesOf,
            entryOf: (id) => this.byId(id),
            lastId: () => this.#lastEntryId,
            journalFrom: () => (this.meta('floorCsn') === undefined ? undefined : Number(this.meta('trimmedTo') ?? 0)),
          });
    this.#commit = new GroupCommit(this.#database, {
      begin: (isCareful) => {
        this.#tallies.keep();
        this.#hasChanged = false;
        this.#metaBefore.clear();
        this.#uuids.keep();
        this.#changeBefore = this.#journal.last;
        if (!isCareful) return;
        this.#keys.flush();
        this.#writeRows();
      },
      hasWritten: () => this.#hasChanged,
      beforeCommit: () => {
        this.#keys.flushLot();
        this.#writeRows();
        this.#tallies.keep();
        const boundary = this.#uuids.writeFullLot(this.#lastEntryId);
        if (boundary !== undefined) this.setMeta(uuidBoundary, String(boundary));
        this.#writeMeta();
      },
      committed: () => {
        this.#uuids.committed();
        this.#keys.committed();
      },
      durable: () => {
        for (const listener of this.#onCommit) listener();
      },
      isFollowed: () => this.#onCommit.size > 0,
      undone: (what) => this.#forget(what),
    });
    try {
      this.#readMeta();
      this.pieces.load(this.meta('pieces'), this.meta('piecesAsOf') === this.#asOf);
      this.#uuids.load(Number(this.meta(uuidBoundary) ?? 0));
      this.#keys.load(Number(this.meta(keysBoundary) ?? this.#lastEntryId), this.#keysOf);
    } catch (error) {
      this.#database.close();
      throw error;
    }
  }

  /**
   * Runs `work` in this turn's transaction, see group-commit.ts: it may run twice. What it set of the meta values is undone with it.
   */
  write<T>(work: () => T, kind?: WriteKind): Promise<T> {
    return this.#commit.write(work, kind);
  }

  /** Resolves once no change is visible that must not be yet; `undefined` when none is now. */
  settled(): Promise<void> | undefined {
    return this.#commit.settled();
  }

  /** Calls `listener` each time that something committed has become durable, until the returned function is called. */
  onCommit(listener: () => void): () => void {
    this.#onCommit.add(listener);
    return () => this.#onCommit.delete(listener);
  }

  /**
   * Memory that the caches take, and the order of times once somebody asked for it, bytes: what was allocated, not an estimate. Pages of the file come
   * to at most `pagesBytesMax` beside it.
   */
  get cachedBytes(): number {
    return this.#reader.bytes + this.#keys.cachedBytes + (this.times?.bytes ?? 0);
  }

  get commits(): number {
    return this.#commit.commits;
  }

  /** A small named value that is kept with the tree. */
  meta(name: string): string | undefined {
    return this.#meta.get(name);
  }

  metaNames(): string[] {
    return [...this.#meta.keys()];
  }

  /** Sets a named value; inside `write` only. */
  setMeta(name: string, value: string): void {
    if (!this.#metaBefore.has(name)) this.#metaBefore.set(name, this.#meta.get(name));
    this.#meta.set(name, value);
    this.#metaChanged.add(name);
  }

  // --- reading

  byId(id: number): StoredEntry | undefined {
    return this.#reader.byId(id);
  }

  /** The same for an entry that is asked for again and again, as the domain above many accounts is: its attributes stay decoded. */
  byIdOften(id: number): StoredEntry | undefined {
    return this.#reader.byIdOften(id);
  }

  /** What an answer shows of an entry; `make` gives it when the last who looked was shown something else. `by` stands for what is shown. */
  shown(id: number, by: number, make: (entry: StoredEntry) => Buffer): ShownEntry | undefined {
    return this.#reader.shown(id, by, make);
  }

  byUuid(uuid: string): StoredEntry | undefined {
    const id = this.#uuids.idOf(uuid);
    return id === undefined ? undefined : this.byId(id);
  }

  hasUuid(uuid: string): boolean {
    return this.#uuids.idOf(uuid) !== undefined;
  }

  child(parentId: number, rdnNorm: string): StoredEntry | undefined {
    const id = this.childId(parentId, rdnNorm);
    return id === undefined ? undefined : this.byId(id);
  }

  /** The same for one that is asked for again and again, see `byIdOften`. */
  childOften(parentId: number, rdnNorm: string): StoredEntry | undefined {
    const id = this.childId(parentId, rdnNorm);
    return id === undefined ? undefined : this.byIdOften(id);
  }

  childId(parentId: number, rdnNorm: string): number | undefined {
    return this.#reader.childId(parentId, rdnNorm);
  }

  hasChildren(id: number): boolean {
    return this.#statements.number('SELECT 1 FROM entry WHERE parentId = ? LIMIT 1', id) !== undefined;
  }

  /** Children in order of id, those above `afterId`, at most `limit`. */
  childIds(parentId: number, afterId: number, limit: number): number[] {
    return this.#statements.numbers('SELECT id FROM entry WHERE parentId = ? AND id > ? ORDER BY id LIMIT ?', parentId, afterId, limit);
  }

  /** `baseId` and all below it, in order of id; `undefined` when there are more than `limit`. */
  subtreeIds(baseId: number, limit: number): number[] | undefined {
    const ids = this.#statements.numbers(
      'WITH RECURSIVE sub(id) AS (SELECT ? UNION ALL SELECT entry.id FROM sub JOIN entry ON entry.parentId = sub.id) SELECT id FROM sub LIMIT ?',
      baseId,
      limit + 1,
    );
    return ids.length > limit ? undefined : ids.sort((a, b) => a - b);
  }

  /** All entries in order of id, those above `afterId`, at most `limit`. */
  idsAfter(afterId: number, limit: number): number[] {
    return this.#statements.numbers('SELECT id FROM entry WHERE id > ? ORDER BY id LIMIT ?', afterId, limit);
  }

  /** All entries in order of id, those above `afterId`, at most `limit`, fewer where they are large; for those who read everything once, so nothing is remembered of them. */
  rawAfter(afterId: number, limit: number): RawEntry[] {
    return this.#reader.rawAfter(afterId, limit);
  }

  /** Entries with this key, in order of id, above `afterId`, at most `limit`. */
  idsWithKey(key: IndexKey, afterId: number, limit: number): readonly number[] {
    return this.#keys.idsWithKey(key, afterId, limit);
  }

  /** Whether any entry has this value in one of two attributes. */
  hasKeyOf(attributes: readonly [string, string], value: string): boolean {
    return this.#keys.hasKeyOf(attributes, value);
  }

  /** Entries with a key that starts so, in order of id; `undefined` when there are more than `limit`. */
  idsWithPrefix(prefix: IndexKey, limit: number): number[] | undefined {
    return this.#keys.idsWithPrefix(prefix, limit);
  }

  /** Entries with a value of this attribute that holds `piece`, page by page, see key-index.ts. */
  idsHolding(attribute: string, piece: string): Generator<number[]> {
    return this.#keys.idsHolding(attribute, piece);
  }

  /** Entries with a change in the journal whose CSN is `from` to `to`, both too, in order of id; `undefined` when there are more than `limit`. */
  idsChangedWithin(from: string, to: string | undefined, limit: number): number[] | undefined {
    this.#journal.flush();
    const sql = 'SELECT DISTINCT entryId FROM journal WHERE csn >= ? AND csn <= ? LIMIT ?';
    const ids = this.#statements.numbers(sql, from, to ?? '~', limit + 1);
    return ids.length > limit ? undefined : ids.sort((a, b) => a - b);
  }

  /** A counter of entries, see `EntryFunctions.talliesOf`; `entries` counts all. */
  tally(name: string): number {
    return this.#tallies.get(name);
  }

  /** The DN, put together from the parents. */
  dnOf(entry: Pick<StoredEntry, 'parentId' | 'rdn'>): string {
    return entry.parentId === rootId ? entry.rdn : `${entry.rdn},${this.#ancestor(entry.parentId).dn}`;
  }

  /** Whether `entry` is `baseId` or below it. */
  isWithin(entry: Pick<StoredEntry, 'id' | 'parentId'>, baseId: number): boolean {
    if (entry.id === baseId) return true;
    for (let id = entry.parentId; id !== rootId; id = this.#ancestor(id).parentId) {
      if (id === baseId) return true;
    }
    return false;
  }

  // --- the journal

  /** Records after `changeNumber`, at most `limit`, in order. */
  journalAfter(changeNumber: number, limit: number): JournalRecord[] {
    return this.#journal.after(changeNumber, limit);
  }

  /** Number of the last change; 0 before the first. */
  lastChangeNumber(): number {
    return this.#journal.last;
  }

  /** The last change number before the first record whose CSN is above `csn`: following from there misses none of them. */
  changeNumberBefore(csn: string): number {
    return this.#journal.before(csn);
  }

  /** Removes records up to `changeNumber`; inside `write` only. Returns the highest CSN among them. */
  trimJournal(changeNumber: number): string | undefined {
    this.#hasChanged = true;
    return this.#journal.trim(changeNumber);
  }

  // --- writing, inside `write` only

  /** `isJournalled` is false while nobody can follow yet: the journal begins with `floorCsn`; `fillCsn` is the highest CSN that it does not know. */
  add(content: EntryContent, isJournalled = true): StoredEntry {
    const { parentId, rdnNorm, rdn, uuid, csn, attributes } = content;
    this.#hasChanged = true;
    this.#reader.wasAdded();
    this.#lastEntryId += 1;
    const id = this.#lastEntryId;
    const octets = uuidToBytes(uuid);
    const sql = 'INSERT INTO entry (id, parentId, rdnNorm, rdn, uuid, csn, body) VALUES (?, ?, ?, ?, ?, ?, ?)';
    this.#statements.run(sql, id, parentId, rdnNorm, rdn === rdnNorm ? null : rdn, octets, csn, encodeBody(attributes));
    this.#uuids.add(octets, id);
    this.#tallies.count(['entries', ...this.#talliesOf(attributes)], 1);
    this.#keys.add(this.#keysOf(attributes), id);
    this.pieces.change(undefined, attributes, id);
    if (isJournalled) this.#journal.record('add', { uuid: octets, csn }, id, undefined, content);
    else this.#noteUnjournalled(csn);
    return { ...content, id };
  }

  /** True when certainly no entry has that UUID: then it is kept for a row of the next `addRows`. */
  claimUuid(octets: Uint8Array): boolean {
    return this.#uuids.claim(octets);
  }

  /** A UUID that was claimed is not for a row after all. */
  releaseUuid(octets: Uint8Array): void {
    this.#uuids.release(octets);
  }

  /** The first content is whole: UUIDs that come from now on are mostly known ones. */
  firstContentIsWhole(): void {
    this.#uuids.forgetSieve();
  }

  /** Adds many entries, whose UUIDs were claimed, by few statements; gives the places of those that were left out because their name is taken. */
  addRows(rows: readonly NewRow[], isJournalled: boolean): readonly number[] {
    this.#hasChanged = true;
    this.#reader.wasAdded();
    const first = this.#lastEntryId + 1;
    this.#lastEntryId += rows.length;
    const added = insertRows(this.#statements, rows, first);
    const leftOut: number[] = [];
    let stored = rows;
    let ids = Array.from(rows, (_, at) => first + at);
    if (added < rows.length) {
      const present = new Set(this.#statements.numbers('SELECT id FROM entry WHERE id >= ? AND id <= ?', first, this.#lastEntryId));
      for (const at of rows.keys()) if (!present.has(first + at)) leftOut.push(at);
      stored = rows.filter((_, at) => present.has(first + at));
      ids = ids.filter((id) => present.has(id));
    }
    // One that came alone is a change, not part of a load.
    if (rows.length === 1 && added === 1) this.#reader.keep(first, rows[0] as NewRow);
    this.#tallies.count(['entries'], stored.length);
    for (let at = 0, from = 0; at < stored.length; at += 1) {
      const { uuid, tallies } = stored[at] as NewRow;
      this.#uuids.addClaimed(uuid, ids[at] as number);
      // Those that count alike stand together.
      if (tallies === stored[at + 1]?.tallies) continue;
      this.#tallies.count(tallies, at + 1 - from);
      from = at + 1;
    }
    this.#uuids.settle();
    this.#keys.addRows(stored, ids);
    if (this.pieces.count > 0) {
      for (const [at, { body }] of stored.entries()) this.pieces.change(undefined, attributesOf(body), ids[at] as number);
    }
    if (isJournalled) {
      for (const [at, row] of stored.entries()) this.#journal.record('add', row, ids[at] as number, undefined, row);
    } else if (stored.length > 0) this.#noteUnjournalled(stored.reduce((highest, { csn }) => (csn > highest ? csn : highest), ''));
    return leftOut;
  }

  /** Replaces content, RDN and parent of an entry; `before` is what was read in this same transaction. */
  replace(op: 'modify' | 'rename', before: StoredEntry, content: EntryContent): StoredEntry {
    const { parentId, rdnNorm, rdn, csn, attributes } = content;
    this.#touch(before);
    this.#reader.wasAdded();
    const body = encodeBody(attributes);
    const octets = uuidToBytes(content.uuid);
    const shownRdn = rdn === rdnNorm ? null : rdn;
    // The indexes of what is named here are written anew, whether it changes or not.
    if (parentId !== before.parentId || content.uuid !== before.uuid) {
      const sql = 'UPDATE entry SET parentId = ?, rdnNorm = ?, rdn = ?, uuid = ?, csn = ?, body = ? WHERE id = ?';
      this.#statements.run(sql, parentId, rdnNorm, shownRdn, octets, csn, body, before.id);
    } else if (rdnNorm !== before.rdnNorm || rdn !== before.rdn) {
      const sql = 'UPDATE entry SET rdnNorm = ?, rdn = ?, csn = ?, body = ? WHERE id = ?';
      this.#statements.run(sql, rdnNorm, shownRdn, csn, body, before.id);
    } else this.#statements.run('UPDATE entry SET csn = ?, body = ? WHERE id = ?', csn, body, before.id);
    if (content.uuid !== before.uuid) {
      this.#uuids.remove(before.uuid, before.id);
      this.#uuids.add(octets, before.id);
    }
    this.#reader.keep(before.id, { parentId, rdnNorm, rdn, uuid: octets, csn, body });
    // A name is in the index, always.
    if (op === 'rename' || mayChangeKeys(this.#keysOf, before.attributes, attributes))
      changeKeys(this.#keys, this.#keysOf, before.attributes, attributes, before.id);
    this.pieces.change(before.attributes, attributes, before.id);
    this.#tallies.count(this.#talliesOf(before.attributes), -1);
    this.#tallies.count(this.#talliesOf(attributes), 1);
    if (op === 'rename' && this.#ancestors.has(before.id)) this.#ancestors.clear();
    this.#journal.record(op, { uuid: octets, csn }, before.id, before, content);
    return { ...content, id: before.id };
  }

  remove(before: StoredEntry, csn: string): void {
    this.#touch(before);
    this.#statements.run('DELETE FROM entry WHERE id = ?', before.id);
    this.#uuids.remove(before.uuid, before.id);
    for (const key of this.#keysOf(before.attributes)) this.#keys.remove(key, before.id);
    this.pieces.change(before.attributes, undefined, before.id);
    this.#tallies.count(['entries', ...this.#talliesOf(before.attributes)], -1);
    this.#ancestors.delete(before.id);
    this.#journal.record('delete', { uuid: uuidToBytes(before.uuid), csn }, before.id, before, undefined);
  }

  /** Says which attributes have an index of pieces; inside `write` only. */
  keepPieces(wanted: ReadonlySet<string>): void {
    this.#hasChanged = true;
    this.pieces.keep(wanted);
    this.setMeta('pieces', this.pieces.state);
  }

  /** Enters the next entries into an index of pieces that is not whole; inside `write` only. Returns how many. */
  fillPieces(attribute: string, limit: number): number {
    this.#hasChanged = true;
    const count = this.pieces.fill(attribute, limit);
    this.setMeta('pieces', this.pieces.state);
    return count;
  }

  /** Copies the database as of its last commit to a new file, while reads and writes go on. */
  async backupTo(path: string): Promise<void> {
    await copyDatabase(this.#database, path, () => this.#commit.settled());
  }

  /** Writes all into the file itself, so that it needs and leaves no log beside it; the file stays locked. Nothing may be written after it. */
  leaveLog(): void {
    this.#commit.flush();
    this.#database.exec('PRAGMA journal_mode = DELETE');
  }

  /** Writes what is open and closes the file. */
  [Symbol.dispose](): void {
    this.#commit.close();
    this.#onCommit.clear();
    this.#statements.clear();
    this.#database.close();
  }

  // --- inside

  #noteUnjournalled(csn: string): void {
    if (csn > (this.meta('fillCsn') ?? '')) this.setMeta('fillCsn', csn);
  }

  #touch(before: StoredEntry): void {
    this.#hasChanged = true;
    this.#reader.forget(before);
  }

  // What was undone may have been read, and remembered, by the very work that wrote it.
  #forget(undone: 'work' | 'batch'): void {
    this.#reader.wasAdded();
    if (undone === 'batch') {
      this.#tallies.undoBatch();
      this.#readMeta();
      this.#uuids.undoBatch();
    } else {
      this.#tallies.undoWork();
      for (const [name, value] of this.#metaBefore) {
        if (value !== undefined) this.#meta.set(name, value);
        else if (this.#meta.delete(name)) this.#metaChanged.delete(name);
      }
      this.#metaBefore.clear();
      if (!this.#hasChanged) return;
      this.#uuids.undoWork();
      this.#journal.last = this.#changeBefore;
    }
    // A work that had written was undone with its savepoint, before which nothing waited: what waits is its own.
    this.#uuids.settle();
    if (undone === 'batch') this.#keys.undoBatch();
    else this.#keys.undoWork();
    this.#journal.forget();
    this.pieces.forget();
    this.pieces.load(this.meta('pieces'), true);
    this.#reader.clear();
    this.#ancestors.clear();
  }

  #ancestor(id: number): { readonly parentId: number; readonly dn: string } {
    const known = this.#ancestors.get(id);
    if (known !== undefined) return known;
    const row = this.#statements.get('SELECT parentId, ifnull(rdn, rdnNorm) AS rdn FROM entry WHERE id = ?', id) as
      | { parentId: number; rdn: string }
      | undefined;
    if (row === undefined) throw new Error(`entry ${id} is named as a parent and does not exist`);
    const node = { parentId: row.parentId, dn: this.dnOf(row) };
    if (this.#ancestors.size >= ancestorsCachedMax) this.#ancestors.clear();
    this.#ancestors.set(id, node);
    return node;
  }

  /** Pieces and journal records are written by statements for many. */
  #writeRows(): void {
    this.pieces.flush();
    this.#journal.flush();
  }

  /** Tells what this release wrote last from what another one, which does not know all indexes, wrote after it. */
  get #asOf(): string {
    return `${this.#lastEntryId}/${this.#journal.last}`;
  }

  #readMeta(): void {
    const rows = this.#statements.all('SELECT name, value FROM meta') as { name: string; value: string }[];
    this.#meta = new Map(rows.map((row) => [row.name, row.value]));
    this.#metaChanged.clear();
    this.#metaBefore.clear();
    this.#lastEntryId = Number(this.#meta.get('lastEntryId') ?? 0);
    this.#journal.last = Number(this.#meta.get('lastChangeNumber') ?? 0);
  }

  #writeMeta(): void {
    // Ids and change numbers are never given out again, not even those of the last entry and of a trimmed journal.
    const counters = { lastEntryId: this.#lastEntryId, lastChangeNumber: this.#journal.last };
    for (const [name, value] of Object.entries(counters)) {
      if (Number(this.#meta.get(name) ?? 0) !== value) this.setMeta(name, String(value));
    }
    if (this.#meta.get(keysBoundary) !== `${this.#keys.writtenTo}`) this.setMeta(keysBoundary, `${this.#keys.writtenTo}`);
    if (this.pieces.count > 0) {
      this.setMeta('pieces', this.pieces.state);
      this.setMeta('piecesAsOf', this.#asOf);
    }
    for (const name of this.#metaChanged) {
      this.#statements.run(
        'INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value',
        name,
        this.#meta.get(name) ?? '',
      );
    }
    this.#metaChanged.clear();
    this.#tallies.write();
  }
}
