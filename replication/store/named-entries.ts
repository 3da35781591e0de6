/**
 * Who was named in a refresh, and who was there before: UUIDs with a mark and eight bytes each, few in memory and many in a file.
 *
 *   up to `inMemoryMax` ──► a table in memory (25 bytes a slot)
 *   beyond              ──► all in a file of the state directory, a mark being the number of the round it was made in
 *
 * It lives no longer than its refresh, which an interruption begins anew (RFC 4533 §3.3): nothing is flushed, and what an earlier run left
 * is thrown away.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { UuidTable } from '#directory/client/uuid-table.ts';
import { uuidToBytes } from '#protocol/ldap/controls.ts';

/** UUIDs that are kept in memory: 13 MB. */
const inMemoryMax = 262_144;
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
    return this.#table?.size ?? this.#file?.size ?? 0;
  }

  /** Whether they have gone to the file. */
  get isInFile(): boolean {
    return this.#file !== undefined;
  }

  /** Adds it, marked, if it is new; marks it in any case. True when it was new. */
  mark(uuid: string): boolean {
    if (this.#table === undefined) return this.#use((file) => file.mark(uuid));
    const isNew = this.#table.mark(uuid);
    if (isNew && this.#path !== undefined && this.#table.size > this.#max) this.#spill(this.#table, this.#path);
    return isNew;
  }

  isMarked(uuid: string): boolean {
    return this.#table === undefined ? this.#use((file) => file.isMarked(uuid)) : this.#table.isMarked(uuid);
  }

  /** Eight bytes kept with an entry; zeros at first. The entry must be there. */
  setFingerprint(uuid: string, high: number, low: number): void {
    if (this.#table === undefined) this.#use((file) => file.setFingerprint(uuid, high, low));
    else this.#table.setFingerprint(uuid, high, low);
  }

  /** Whether the entry is there with this fingerprint. */
  hasFingerprint(uuid: string, high: number, low: number): boolean {
    return this.#table === undefined
      ? this.#use((file) => file.hasFingerprint(uuid, high, low))
      : this.#table.hasFingerprint(uuid, high, low);
  }

  /** Takes every mark away. */
  clearMarks(): void {
    if (this.#table === undefined) this.#use((file) => file.clearMarks());
    else this.#table.clearMarks();
  }

  /** How many have no mark. */
  countUnmarked(): number {
    return this.#table === undefined ? this.#use((file) => file.countUnmarked()) : this.#table.countUnmarked();
  }

  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
    this.#file = undefined;
    this.#table = new UuidTable();
  }

  #spill(table: UuidTable, path: string): void {
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
      `${path}, which holds who was named in this refresh, cannot be used: ${messageOf(error)}. See to room and rights in the state directory; the refresh is tried again`,
      { cause: error },
    );
  }
}

/** The same in a file. */
class MarkFile implements Disposable {
  readonly path: string;
  size = 0;
  readonly #database: DatabaseSync;
  readonly #statements: Readonly<Record<'add' | 'mark' | 'round' | 'set' | 'has' | 'count', StatementSync>>;
  #round = 1;
  #writes = 0;

  constructor(path: string) {
    this.path = path;
    this.#database = new DatabaseSync(path);
    // A crash leaves a file that nobody reads.
    this.#database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF');
    this.#database.exec(`PRAGMA cache_size = -${pagesKb}; PRAGMA user_version = 1; DROP TABLE IF EXISTS named`);
    this.#database.exec(
      'CREATE TABLE named (uuid BLOB PRIMARY KEY, high INTEGER NOT NULL, low INTEGER NOT NULL, round INTEGER NOT NULL) WITHOUT ROWID; BEGIN',
    );
    const prepare = (sql: string): StatementSync => this.#database.prepare(sql);
    this.#statements = {
      add: prepare('INSERT INTO named (uuid, high, low, round) VALUES (?, ?, ?, ?)'),
      mark: prepare('UPDATE named SET round = ? WHERE uuid = ?'),
      round: prepare('SELECT round FROM named WHERE uuid = ?'),
      set: prepare('UPDATE named SET high = ?, low = ? WHERE uuid = ?'),
      has: prepare('SELECT 1 FROM named WHERE uuid = ? AND high = ? AND low = ?'),
      count: prepare('SELECT count(*) AS unmarked FROM named WHERE round <> ?'),
    };
  }

  add(uuid: string, isMarked: boolean, high: number, low: number): void {
    this.#statements.add.run(uuidToBytes(uuid), high, low, isMarked ? this.#round : 0);
    this.size += 1;
    this.#wrote();
  }

  mark(uuid: string): boolean {
    const bytes = uuidToBytes(uuid);
    const isNew = Number(this.#statements.mark.run(this.#round, bytes).changes) === 0;
    if (isNew) this.add(uuid, true, 0, 0);
    else this.#wrote();
    return isNew;
  }

  isMarked(uuid: string): boolean {
    return this.#statements.round.get(uuidToBytes(uuid))?.round === this.#round;
  }

  setFingerprint(uuid: string, high: number, low: number): void {
    this.#statements.set.run(high >>> 0, low >>> 0, uuidToBytes(uuid));
    this.#wrote();
  }

  hasFingerprint(uuid: string, high: number, low: number): boolean {
    return this.#statements.has.get(uuidToBytes(uuid), high >>> 0, low >>> 0) !== undefined;
  }

  clearMarks(): void {
    this.#round += 1;
  }

  countUnmarked(): number {
    return Number(this.#statements.count.get(this.#round)?.unmarked);
  }

  /** Gives the room on the disk back as well. */
  [Symbol.dispose](): void {
    try {
      this.#database.exec('COMMIT; DROP TABLE named; VACUUM');
    } finally {
      this.#database.close();
    }
  }

  #wrote(): void {
    this.#writes += 1;
    if (this.#writes % writesMax === 0) this.#database.exec('COMMIT; BEGIN');
  }
}
