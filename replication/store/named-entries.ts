/**
 * Entries of one directory that are told apart by a mark: who was named in a refresh and who was there before, or what a comparison has found
 * equal so far. UUIDs with a mark and eight bytes each, few in memory and many in a file.
 *
 *   up to `inMemoryMax` ──► a table in memory (25 bytes a slot)
 *   beyond              ──► all in a file of the state directory
 *
 * It lives no longer than the refresh it is for. An interrupted one begins anew, and has to: the next present phase names every entry again
 * (RFC 4533 §3.3.2), and a mark of the one before would keep an entry that was deleted between the two. So nothing is flushed, and what an
 * earlier run left is thrown away.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { UuidTable } from '#directory/client/uuid-table.ts';
import { uuidFromBytes } from '#protocol/ldap/controls.ts';

/** UUIDs that are kept in memory: 3 MB. More at a time would hold up everything else while they go to the file. */
const inMemoryMax = 65_536;
/** Memory for pages of the file. */
const pagesKb = 8192;
/** Writes that share a transaction, so that the file's journal stays small. */
const writesMax = 65_536;

/** See the header of this file. */
export class NamedEntries implements Disposable {
  readonly #path: string | undefined;
  readonly #max: number;
  #table: UuidTable | undefined = new UuidTable();
  #file: MarkFile | undefined;

  /** @param path of the file; without one everything stays in memory */
  constructor(path?: string, max = inMemoryMax) {
    this.#path = path;
    this.#max = max;
  }

  get size(): number {
    return this.#table?.size ?? this.#file?.count('') ?? 0;
  }

  /** Whether they have gone to the file. */
  get isInFile(): boolean {
    return this.#file !== undefined;
  }

  /** Adds it, marked, if it is new; marks it in any case. True when it was new. */
  mark(uuid: string): boolean {
    if (this.#table === undefined) return this.#use((file) => file.mark(uuid));
    const isNew = this.#table.mark(uuid);
    this.#spillIfMany();
    return isNew;
  }

  /** Adds it without a mark if it is new; keeps eight bytes with it in any case. */
  put(uuid: string, high: number, low: number): void {
    if (this.#table === undefined) {
      this.#use((file) => file.put(uuid, high, low));
      return;
    }
    this.#table.put(uuid, high, low);
    this.#spillIfMany();
  }

  isMarked(uuid: string): boolean {
    return this.#table === undefined ? this.#use((file) => file.isMarked(uuid)) : this.#table.isMarked(uuid);
  }

  /** Whether the entry is there with these eight bytes. */
  hasFingerprint(uuid: string, high: number, low: number): boolean {
    return this.#table === undefined
      ? this.#use((file) => file.hasFingerprint(uuid, high, low))
      : this.#table.hasFingerprint(uuid, high, low);
  }

  /** How many have no mark. */
  countUnmarked(): number {
    return this.#table === undefined ? this.#use((file) => file.count('WHERE marked = 0')) : this.#table.countUnmarked();
  }

  /** Those without a mark, so many at a time; those of the lots handed out may be marked or put meanwhile, and none added. */
  *unmarked(lotSize: number): Generator<readonly string[]> {
    if (this.#table !== undefined) {
      let lot: string[] = [];
      for (const uuid of this.#table.unmarked()) {
        lot.push(uuid);
        if (lot.length < lotSize) continue;
        yield lot;
        lot = [];
      }
      if (lot.length > 0) yield lot;
      return;
    }
    let lot: readonly string[] = [];
    do {
      const after = lot.at(-1);
      lot = this.#use((file) => file.unmarkedAfter(after, lotSize));
      if (lot.length > 0) yield lot;
    } while (lot.length === lotSize);
  }

  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
    this.#file = undefined;
    this.#table = new UuidTable();
  }

  #spillIfMany(): void {
    const table = this.#table;
    const path = this.#path;
    if (table === undefined || path === undefined || table.size <= this.#max) return;
    this.#file = guarded(path, () => new MarkFile(path));
    for (const { uuid, isMarked, high, low } of table.all()) this.#use((file) => file.add(uuid, isMarked, high, low));
    this.#table = undefined;
  }

  #use<T>(use: (file: MarkFile) => T): T {
    const file = this.#file;
    if (file === undefined) throw new PlatformError('BUG_UNEXPECTED', 'entries of a refresh are asked for after its end');
    return guarded(file.path, () => use(file));
  }
}

function guarded<T>(path: string, use: () => T): T {
  try {
    return use();
  } catch (error) {
    throw new PlatformError(
      'CONFIG_UNREADABLE',
      `${path}, which holds the entries of this refresh or comparison, cannot be used: ${messageOf(error)}. See to room and rights in the state directory; a refresh is tried again`,
      { cause: error },
    );
  }
}

/** The same in a file. */
class MarkFile implements Disposable {
  readonly path: string;
  readonly #database: DatabaseSync;
  readonly #statements: Readonly<Record<'add' | 'mark' | 'put' | 'isMarked' | 'has' | 'unmarked', StatementSync>>;
  /** Of the entry in hand; a statement copies it. */
  readonly #key = Buffer.alloc(16);
  #writes = 0;

  constructor(path: string) {
    this.path = path;
    this.#database = new DatabaseSync(path);
    // A crash leaves a file that nobody reads.
    this.#database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF');
    this.#database.exec(`PRAGMA cache_size = -${pagesKb}; PRAGMA user_version = 1; DROP TABLE IF EXISTS named`);
    this.#database.exec(
      'CREATE TABLE named (uuid BLOB PRIMARY KEY, high INTEGER NOT NULL, low INTEGER NOT NULL, marked INTEGER NOT NULL) WITHOUT ROWID; BEGIN',
    );
    const prepare = (sql: string): StatementSync => this.#database.prepare(sql);
    this.#statements = {
      add: prepare('INSERT INTO named (uuid, high, low, marked) VALUES (?, ?, ?, ?)'),
      mark: prepare('UPDATE named SET marked = 1 WHERE uuid = ?'),
      put: prepare(
        'INSERT INTO named (uuid, high, low, marked) VALUES (?, ?, ?, 0) ON CONFLICT (uuid) DO UPDATE SET high = excluded.high, low = excluded.low',
      ),
      isMarked: prepare('SELECT 1 FROM named WHERE uuid = ? AND marked = 1'),
      has: prepare('SELECT 1 FROM named WHERE uuid = ? AND high = ? AND low = ?'),
      unmarked: prepare('SELECT uuid FROM named WHERE marked = 0 AND uuid > ? ORDER BY uuid LIMIT ?'),
    };
  }

  add(uuid: string, isMarked: boolean, high: number, low: number): void {
    this.#statements.add.run(this.#keyOf(uuid), high, low, isMarked ? 1 : 0);
    this.#wrote();
  }

  mark(uuid: string): boolean {
    const isNew = Number(this.#statements.mark.run(this.#keyOf(uuid)).changes) === 0;
    if (isNew) this.add(uuid, true, 0, 0);
    else this.#wrote();
    return isNew;
  }

  put(uuid: string, high: number, low: number): void {
    this.#statements.put.run(this.#keyOf(uuid), high >>> 0, low >>> 0);
    this.#wrote();
  }

  isMarked(uuid: string): boolean {
    return this.#statements.isMarked.get(this.#keyOf(uuid)) !== undefined;
  }

  hasFingerprint(uuid: string, high: number, low: number): boolean {
    return this.#statements.has.get(this.#keyOf(uuid), high >>> 0, low >>> 0) !== undefined;
  }

  unmarkedAfter(uuid: string | undefined, limit: number): string[] {
    const after = uuid === undefined ? Buffer.alloc(0) : this.#keyOf(uuid);
    return this.#statements.unmarked.all(after, limit).map((row) => uuidFromBytes(Buffer.from(row.uuid as Uint8Array)));
  }

  count(where: string): number {
    return Number(this.#database.prepare(`SELECT count(*) AS entries FROM named ${where}`).get()?.entries);
  }

  /** Gives the room on the disk back as well. */
  [Symbol.dispose](): void {
    try {
      this.#database.exec('COMMIT; DROP TABLE named; VACUUM');
    } finally {
      this.#database.close();
    }
  }

  // Text that is no UUID is zeros, as in `uuidToBytes`.
  #keyOf(uuid: string): Buffer {
    if (this.#key.write(uuid.replaceAll('-', ''), 'hex') !== 16) this.#key.fill(0);
    return this.#key;
  }

  #wrote(): void {
    this.#writes += 1;
    if (this.#writes % writesMax === 0) this.#database.exec('COMMIT; BEGIN');
  }
}
