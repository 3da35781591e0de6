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
import { backup, type DatabaseSync, type SQLInputValue } from 'node:sqlite';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { BoundedCache } from './bounded-cache.ts';
import { openDatabase } from './database.ts';
import { encodeBody } from './entry-body.ts';
import { GroupCommit } from './group-commit.ts';
import { type EntryRow, packedRow, RowEntry, rowBytes } from './row-entry.ts';
import { uuidToBytes, uuidToText } from './uuid.ts';

/** Parent of the suffix entry. */
export const rootId = 0;
/** Index keys are cut here: candidates are looked at anyway. */
export const indexKeyMax = 128;
const ancestorsCachedMax = 100_000;
/** Memory for rows that were read, bytes; names and index lists get a quarter of it each. */
const defaultCacheBytes = 128 * 1_048_576;
/** Index lists up to so many entries are remembered. */
const idsCachedMax = 16;

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

/** One key of the index. */
export interface IndexKey {
  /** Canonical attribute name in lower case. */
  readonly attribute: string;
  readonly value: string;
}

export type ChangeKind = 'add' | 'modify' | 'rename' | 'delete';

/** One record of the journal. */
export interface JournalRecord {
  readonly changeNumber: number;
  readonly uuid: string;
  readonly op: ChangeKind;
  readonly csn: string;
  readonly entryId: number;
  readonly oldParentId: number | undefined;
  readonly oldRdn: string | undefined;
  readonly newParentId: number | undefined;
  readonly newRdn: string | undefined;
}

/** Everything of an entry that a write gives. */
export type EntryContent = Omit<StoredEntry, 'id'>;

/** What the store asks about an entry's attributes. */
export interface EntryFunctions {
  /** Index keys. */
  keysOf(attributes: readonly Attribute[]): readonly IndexKey[];
  /** Names of the counters in which the entry counts. */
  talliesOf(attributes: readonly Attribute[]): readonly string[];
}

/** See the header of this file. */
export class EntryStore implements Disposable {
  readonly #database: DatabaseSync;
  readonly #commit: GroupCommit;
  readonly #keysOf: EntryFunctions['keysOf'];
  readonly #talliesOf: EntryFunctions['talliesOf'];
  readonly #statements = new Map<string, ReturnType<DatabaseSync['prepare']>>();
  readonly #attributeIds = new Map<string, number>();
  readonly #ancestors = new Map<number, { readonly parentId: number; readonly dn: string }>();
  readonly #onCommit = new Set<() => void>();
  readonly #rows: BoundedCache<number, EntryRow>;
  readonly #children: BoundedCache<string, number>;
  readonly #keyIds: BoundedCache<string, readonly number[]>;
  #meta = new Map<string, string>();
  #metaChanged = new Set<string>();
  /** Counters as of this transaction, those of them that it changed, and what the present work adds to them. */
  readonly #tallies = new Map<string, number>();
  readonly #talliesChanged = new Set<string>();
  readonly #talliesOfWork = new Map<string, number>();
  /** Whether the present work has changed anything that is remembered. */
  #hasChanged = false;

  /** @param functions must not change while a database lives, or it must be reindexed */
  constructor(path: string, functions: EntryFunctions, cacheBytes = defaultCacheBytes) {
    this.#database = openDatabase(path);
    this.#keysOf = functions.keysOf;
    this.#talliesOf = functions.talliesOf;
    this.#rows = new BoundedCache(cacheBytes, rowBytes);
    this.#children = new BoundedCache(cacheBytes / 4, () => 150);
    this.#keyIds = new BoundedCache(cacheBytes / 4, (ids) => 200 + ids.length * 8);
    this.#commit = new GroupCommit(this.#database, {
      beforeCommit: () => {
        this.#mergeTallies();
        this.#writeMeta();
      },
      committed: () => {
        for (const listener of this.#onCommit) listener();
      },
      undone: (what) => this.#forget(what),
    });
    this.#readMeta();
  }

  /** Runs `work` in this turn's transaction, see group-commit.ts. What it set of the meta values is undone with it. */
  write<T>(work: () => T, isRelaxed = false): Promise<T> {
    return this.#commit.write(() => {
      this.#mergeTallies();
      this.#hasChanged = false;
      const before = new Map(this.#meta);
      try {
        return work();
      } catch (error) {
        this.#meta = before;
        throw error;
      }
    }, isRelaxed);
  }

  /** Resolves once no uncommitted change is visible; `undefined` when none is now. */
  settled(): Promise<void> | undefined {
    return this.#commit.settled();
  }

  /** Calls `listener` after each commit, until the returned function is called. */
  onCommit(listener: () => void): () => void {
    this.#onCommit.add(listener);
    return () => this.#onCommit.delete(listener);
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
    this.#meta.set(name, value);
    this.#metaChanged.add(name);
  }

  // --- reading

  byId(id: number): StoredEntry | undefined {
    let row = this.#rows.get(id);
    if (row === undefined) {
      const found = this.#get('SELECT * FROM entry WHERE id = ?', id) as EntryRow | undefined;
      if (found === undefined) return undefined;
      row = packedRow(found);
      this.#rows.set(id, row);
    }
    return new RowEntry(row);
  }

  byUuid(uuid: string): StoredEntry | undefined {
    const id = this.#get('SELECT id FROM entry WHERE uuid = ?', uuidToBytes(uuid))?.id as number | undefined;
    return id === undefined ? undefined : this.byId(id);
  }

  hasUuid(uuid: string): boolean {
    return this.#get('SELECT 1 FROM entry WHERE uuid = ?', uuidToBytes(uuid)) !== undefined;
  }

  child(parentId: number, rdnNorm: string): StoredEntry | undefined {
    const id = this.childId(parentId, rdnNorm);
    return id === undefined ? undefined : this.byId(id);
  }

  childId(parentId: number, rdnNorm: string): number | undefined {
    const name = `${parentId}/${rdnNorm}`;
    const known = this.#children.get(name);
    if (known !== undefined) return known;
    const id = this.#get('SELECT id FROM entry WHERE parentId = ? AND rdnNorm = ?', parentId, rdnNorm)?.id as number | undefined;
    if (id !== undefined) this.#children.set(name, id);
    return id;
  }

  hasChildren(id: number): boolean {
    return this.#get('SELECT 1 FROM entry WHERE parentId = ? LIMIT 1', id) !== undefined;
  }

  /** Children in order of id, those above `afterId`, at most `limit`. */
  childIds(parentId: number, afterId: number, limit: number): number[] {
    return this.#ids('SELECT id FROM entry WHERE parentId = ? AND id > ? ORDER BY id LIMIT ?', parentId, afterId, limit);
  }

  /** `baseId` and all below it, in order of id; `undefined` when there are more than `limit`. */
  subtreeIds(baseId: number, limit: number): number[] | undefined {
    const ids = this.#ids(
      'WITH RECURSIVE sub(id) AS (SELECT ? UNION ALL SELECT entry.id FROM sub JOIN entry ON entry.parentId = sub.id) SELECT id FROM sub LIMIT ?',
      baseId,
      limit + 1,
    );
    return ids.length > limit ? undefined : ids.sort((a, b) => a - b);
  }

  /** All entries in order of id, those above `afterId`, at most `limit`. */
  idsAfter(afterId: number, limit: number): number[] {
    return this.#ids('SELECT id FROM entry WHERE id > ? ORDER BY id LIMIT ?', afterId, limit);
  }

  /** Entries with this key, in order of id, above `afterId`, at most `limit`. */
  idsWithKey(key: IndexKey, afterId: number, limit: number): number[] {
    const attributeId = this.#attributeId(key.attribute, false);
    if (attributeId === undefined) return [];
    const value = key.value.slice(0, indexKeyMax);
    const name = `${attributeId}/${value}`;
    const known = this.#keyIds.get(name);
    if (known !== undefined) return known.filter((id) => id > afterId).slice(0, limit);
    const ids = this.#ids(
      'SELECT entryId AS id FROM indexed WHERE attributeId = ? AND value = ? AND entryId > ? ORDER BY entryId LIMIT ?',
      attributeId,
      value,
      afterId,
      limit,
    );
    // Whole lists only.
    if (afterId === 0 && ids.length < limit && ids.length <= idsCachedMax) this.#keyIds.set(name, ids);
    return ids;
  }

  /** Entries with a key that starts so, in order of id; `undefined` when there are more than `limit`. */
  idsWithPrefix(prefix: IndexKey, limit: number): number[] | undefined {
    const attributeId = this.#attributeId(prefix.attribute, false);
    if (attributeId === undefined) return [];
    const from = prefix.value.slice(0, indexKeyMax);
    const ids = this.#ids(
      'SELECT DISTINCT entryId AS id FROM indexed WHERE attributeId = ? AND value >= ? AND value < ? LIMIT ?',
      attributeId,
      from,
      `${from}\u{10ffff}`,
      limit + 1,
    );
    return ids.length > limit ? undefined : ids.sort((a, b) => a - b);
  }

  /** A counter of entries, see `EntryFunctions.talliesOf`; `entries` counts all. */
  tally(name: string): number {
    let count = this.#tallies.get(name);
    if (count === undefined) {
      count = (this.#get('SELECT count FROM tally WHERE name = ?', name)?.count as number | undefined) ?? 0;
      this.#tallies.set(name, count);
    }
    return count + (this.#talliesOfWork.get(name) ?? 0);
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
    return this.#prepare('SELECT * FROM journal WHERE changeNumber > ? ORDER BY changeNumber LIMIT ?')
      .all(changeNumber, limit)
      .map(toRecord);
  }

  /** Number of the last change; 0 before the first. */
  lastChangeNumber(): number {
    return (this.#get("SELECT seq FROM sqlite_sequence WHERE name = 'journal'")?.seq as number | undefined) ?? 0;
  }

  /** The last change number before the first record whose CSN is above `csn`: following from there misses none of them. */
  changeNumberBefore(csn: string): number {
    const first = this.#get('SELECT min(changeNumber) AS first FROM journal WHERE csn > ?', csn)?.first as number | null | undefined;
    return first === null || first === undefined ? this.lastChangeNumber() : first - 1;
  }

  /** Removes records up to `changeNumber`; inside `write` only. Returns the highest CSN among them. */
  trimJournal(changeNumber: number): string | undefined {
    const highest = this.#get('SELECT max(csn) AS csn FROM journal WHERE changeNumber <= ?', changeNumber)?.csn as
      | string
      | null
      | undefined;
    this.#run('DELETE FROM journal WHERE changeNumber <= ?', changeNumber);
    return highest ?? undefined;
  }

  // --- writing, inside `write` only

  add(content: EntryContent): StoredEntry {
    const id = this.#insert(content);
    for (const key of this.#keysOf(content.attributes)) this.#addKey(key, id);
    this.#record('add', content, id, undefined, content);
    return { ...content, id };
  }

  /**
   * Adds an entry while a database is filled for the first time, before anybody follows it: without a record in the journal, and with keys
   * that enter the index in `finishFilling`, sorted, so that they fill its pages.
   */
  fill(content: EntryContent): void {
    const id = this.#insert(content);
    for (const { attribute, value } of this.#keysOf(content.attributes)) {
      const attributeId = this.#attributeId(attribute, true) as number;
      this.#run('INSERT INTO filled (attributeId, value, entryId) VALUES (?, ?, ?)', attributeId, value.slice(0, indexKeyMax), id);
    }
  }

  /** Before the first `fill`; outside of `write`. */
  beginFilling(): void {
    this.#database.exec(
      'CREATE TEMP TABLE IF NOT EXISTS filled (attributeId INTEGER NOT NULL, value TEXT NOT NULL, entryId INTEGER NOT NULL)',
    );
  }

  /** Indexes what was filled in; inside `write`. */
  finishFilling(): void {
    this.#run('INSERT OR IGNORE INTO indexed SELECT attributeId, value, entryId FROM filled ORDER BY attributeId, value, entryId');
    this.#run('DELETE FROM filled');
    this.#keyIds.clear();
  }

  #insert(content: EntryContent): number {
    const { parentId, rdnNorm, rdn, uuid, csn, attributes } = content;
    this.#hasChanged = true;
    const inserted = this.#run(
      'INSERT INTO entry (parentId, rdnNorm, rdn, uuid, csn, body) VALUES (?, ?, ?, ?, ?, ?)',
      parentId,
      rdnNorm,
      rdn,
      uuidToBytes(uuid),
      csn,
      encodeBody(attributes),
    );
    for (const name of ['entries', ...this.#talliesOf(attributes)]) this.#count(name, 1);
    return Number(inserted.lastInsertRowid);
  }

  /** Replaces content, RDN and parent of an entry; `before` is what was read in this same transaction. */
  replace(op: 'modify' | 'rename', before: StoredEntry, content: EntryContent): StoredEntry {
    const { parentId, rdnNorm, rdn, csn, attributes } = content;
    this.#touch(before);
    this.#run(
      'UPDATE entry SET parentId = ?, rdnNorm = ?, rdn = ?, uuid = ?, csn = ?, body = ? WHERE id = ?',
      parentId,
      rdnNorm,
      rdn,
      uuidToBytes(content.uuid),
      csn,
      encodeBody(attributes),
      before.id,
    );
    const had = new Map(this.#keysOf(before.attributes).map((key) => [`${key.attribute}=${key.value}`, key]));
    for (const key of this.#keysOf(attributes)) {
      if (!had.delete(`${key.attribute}=${key.value}`)) this.#addKey(key, before.id);
    }
    for (const key of had.values()) this.#removeKey(key, before.id);
    const counted = this.#talliesOf(before.attributes);
    const counts = this.#talliesOf(attributes);
    for (const name of counted) if (!counts.includes(name)) this.#count(name, -1);
    for (const name of counts) if (!counted.includes(name)) this.#count(name, 1);
    if (op === 'rename' && this.#ancestors.has(before.id)) this.#ancestors.clear();
    this.#record(op, content, before.id, before, content);
    return { ...content, id: before.id };
  }

  remove(before: StoredEntry, csn: string): void {
    this.#touch(before);
    this.#run('DELETE FROM entry WHERE id = ?', before.id);
    for (const key of this.#keysOf(before.attributes)) this.#removeKey(key, before.id);
    for (const name of ['entries', ...this.#talliesOf(before.attributes)]) this.#count(name, -1);
    this.#ancestors.delete(before.id);
    this.#record('delete', { uuid: before.uuid, csn }, before.id, before, undefined);
  }

  /** Copies the database as of its last commit to a new file, while reads and writes go on. */
  async backupTo(path: string): Promise<void> {
    await backup(this.#database, path, { rate: 1000 });
  }

  /** Writes what is open and closes the file. */
  [Symbol.dispose](): void {
    this.#commit.flush();
    this.#onCommit.clear();
    this.#statements.clear();
    this.#database.close();
  }

  // --- inside

  #record(
    op: ChangeKind,
    change: { uuid: string; csn: string },
    entryId: number,
    before: Pick<StoredEntry, 'parentId' | 'rdn'> | undefined,
    after: Pick<StoredEntry, 'parentId' | 'rdn'> | undefined,
  ): void {
    this.#run(
      'INSERT INTO journal (uuid, op, csn, entryId, oldParentId, oldRdn, newParentId, newRdn) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      uuidToBytes(change.uuid),
      op,
      change.csn,
      entryId,
      before?.parentId ?? null,
      before?.rdn ?? null,
      after?.parentId ?? null,
      after?.rdn ?? null,
    );
  }

  #count(name: string, by: number): void {
    this.#talliesOfWork.set(name, (this.#talliesOfWork.get(name) ?? 0) + by);
  }

  // The work before has stayed: what it counted is part of the transaction.
  #mergeTallies(): void {
    for (const name of this.#talliesOfWork.keys()) {
      this.#tallies.set(name, this.tally(name));
      this.#talliesChanged.add(name);
    }
    this.#talliesOfWork.clear();
  }

  #addKey(key: IndexKey, id: number): void {
    const attributeId = this.#attributeId(key.attribute, true) as number;
    const value = key.value.slice(0, indexKeyMax);
    this.#keyIds.delete(`${attributeId}/${value}`);
    this.#run('INSERT OR IGNORE INTO indexed (attributeId, value, entryId) VALUES (?, ?, ?)', attributeId, value, id);
  }

  #removeKey(key: IndexKey, id: number): void {
    const attributeId = this.#attributeId(key.attribute, true) as number;
    const value = key.value.slice(0, indexKeyMax);
    this.#keyIds.delete(`${attributeId}/${value}`);
    this.#run('DELETE FROM indexed WHERE attributeId = ? AND value = ? AND entryId = ?', attributeId, value, id);
  }

  #touch(before: StoredEntry): void {
    this.#hasChanged = true;
    this.#rows.delete(before.id);
    this.#children.delete(`${before.parentId}/${before.rdnNorm}`);
  }

  // What was undone may have been read, and remembered, by the very work that wrote it.
  #forget(undone: 'work' | 'batch'): void {
    this.#talliesOfWork.clear();
    if (undone === 'batch') {
      this.#tallies.clear();
      this.#talliesChanged.clear();
      this.#readMeta();
    } else if (!this.#hasChanged) {
      return;
    }
    this.#rows.clear();
    this.#children.clear();
    this.#keyIds.clear();
    this.#ancestors.clear();
    this.#attributeIds.clear();
  }

  #attributeId(name: string, create: boolean): number | undefined {
    const known = this.#attributeIds.get(name);
    if (known !== undefined) return known;
    let id = this.#get('SELECT id FROM attribute WHERE name = ?', name)?.id as number | undefined;
    if (id === undefined && create) id = Number(this.#run('INSERT INTO attribute (name) VALUES (?)', name).lastInsertRowid);
    if (id !== undefined) this.#attributeIds.set(name, id);
    return id;
  }

  #ancestor(id: number): { readonly parentId: number; readonly dn: string } {
    const known = this.#ancestors.get(id);
    if (known !== undefined) return known;
    const row = this.#get('SELECT parentId, rdn FROM entry WHERE id = ?', id) as { parentId: number; rdn: string } | undefined;
    if (row === undefined) throw new Error(`entry ${id} is named as a parent and does not exist`);
    const node = { parentId: row.parentId, dn: this.dnOf(row) };
    if (this.#ancestors.size >= ancestorsCachedMax) this.#ancestors.clear();
    this.#ancestors.set(id, node);
    return node;
  }

  #readMeta(): void {
    const rows = this.#prepare('SELECT name, value FROM meta').all() as { name: string; value: string }[];
    this.#meta = new Map(rows.map((row) => [row.name, row.value]));
  }

  #writeMeta(): void {
    for (const name of this.#metaChanged) {
      this.#run(
        'INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value',
        name,
        this.#meta.get(name) ?? '',
      );
    }
    this.#metaChanged.clear();
    for (const name of this.#talliesChanged) {
      this.#run(
        'INSERT INTO tally (name, count) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET count = excluded.count',
        name,
        this.tally(name),
      );
    }
    this.#talliesChanged.clear();
  }

  #prepare(sql: string): ReturnType<DatabaseSync['prepare']> {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #get(sql: string, ...values: SQLInputValue[]) {
    return this.#prepare(sql).get(...values);
  }

  #run(sql: string, ...values: SQLInputValue[]) {
    return this.#prepare(sql).run(...values);
  }

  #ids(sql: string, ...values: SQLInputValue[]): number[] {
    return this.#prepare(sql)
      .all(...values)
      .map((row) => row.id as number);
  }
}

function toRecord(row: Record<string, unknown>): JournalRecord {
  return {
    changeNumber: row.changeNumber as number,
    uuid: uuidToText(row.uuid as Uint8Array),
    op: row.op as ChangeKind,
    csn: row.csn as string,
    entryId: row.entryId as number,
    oldParentId: (row.oldParentId as number | null) ?? undefined,
    oldRdn: (row.oldRdn as string | null) ?? undefined,
    newParentId: (row.newParentId as number | null) ?? undefined,
    newRdn: (row.newRdn as string | null) ?? undefined,
  };
}
