/**
 * Fills a database file that nobody else uses, faster than the store that serves (entry-store.ts) may: no transaction log, and every index
 * made at the end from sorted rows, so that pages are written once and full. A load that is broken off leaves a file to throw away.
 *
 *   insert ──► entry                           ┌─► entryName, entryParent, uuid
 *   key    ──► scratch file, as they come ─────┴─► indexed, sorted          (finish)
 *              a table for each attribute
 *
 * Names and UUIDs that are there twice show when their index is made; the first one stays. Memory does not grow with the entries: SQLite
 * sorts in files beside the database.
 */
import { dirname } from 'node:path';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { attributesOf } from './body-of-row.ts';
import { entryIndexes, openDatabase } from './database.ts';
import type { EntryFunctions } from './entry-functions.ts';
import { rootId } from './entry-store.ts';
import { indexKeyMax, keysBoundary } from './key-index.ts';
import { Statements } from './statements.ts';
import { uuidBoundary } from './uuid-index.ts';

/** Memory for pages, which are written one after the other; each of the sorts takes as much, three at a time. */
const pagesBytes = 16 * 1_048_576;

/** An entry as it goes into the file. */
export interface LoadedRow {
  readonly parentId: number;
  readonly rdnNorm: string;
  readonly rdn: string;
  /** 16 octets. */
  readonly uuid: Uint8Array;
  readonly csn: string;
  readonly body: Uint8Array;
}

/** Index keys and entries written by one statement: each call costs as much as several rows, and each value that is handed over half as much. */
const keysAtOnce = 64;
const rowsAtOnce = 16;

/** Why an entry that was loaded does not stay. */
export interface DroppedRow {
  readonly dn: string;
  readonly why: 'name' | 'uuid' | 'parent';
}

/** Steps of `finish`, for those who wait. */
export type LoadStep = 'names' | 'uuids' | 'index';

/** See the header of this file. */
export class BulkLoad implements Disposable {
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  readonly #functions: EntryFunctions;
  readonly #tallies = new Map<string, number>();
  readonly #keys = new Map<string, WaitingKeys>();
  #lastId: number;
  /** Entries that are not written yet; the last one has the last id. */
  #rows: LoadedRow[] = [];
  #inserted = 0;
  #hasNames = true;

  /** @param scratch a file that may be overwritten; the caller removes it */
  constructor(path: string, scratch: string, functions: EntryFunctions) {
    this.#functions = functions;
    this.#database = openDatabase(path, pagesBytes);
    this.#statements = new Statements(this.#database);
    const sortIn = dirname(path).replaceAll("'", "''");
    this.#database.exec(
      `PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store_directory = '${sortIn}'; PRAGMA threads = 2`,
    );
    this.#database.exec(
      `ATTACH '${scratch.replaceAll("'", "''")}' AS scratch; PRAGMA scratch.journal_mode = OFF; PRAGMA scratch.synchronous = OFF`,
    );
    this.#database.exec(`BEGIN;
      CREATE TABLE scratch.claim (address TEXT NOT NULL, entryId INTEGER NOT NULL);
      DROP INDEX entryName; DROP INDEX entryParent`);
    this.#hasNames = false;
    for (const row of this.#statements.all('SELECT name, count FROM tally')) this.#tallies.set(row.name as string, row.count as number);
    for (const row of this.#statements.all('SELECT id, name FROM attribute')) this.#newKeys(row.name as string, row.id as number);
    const number = (name: string): number | undefined =>
      this.#statements.number('SELECT CAST(value AS INTEGER) FROM meta WHERE name = ?', name);
    this.#lastId = number('lastEntryId') ?? 0;
    // Those whose keys are in no table yet.
    for (const { id, body } of this.#statements.all('SELECT id, body FROM entry WHERE id > ?', number(keysBoundary) ?? this.#lastId)) {
      for (const { attribute, value } of functions.keysOf(attributesOf(body as Uint8Array) ?? []))
        this.key(attribute, value.slice(0, indexKeyMax), id as number);
    }
  }

  /** Adds an entry and gives its id. */
  insert(row: LoadedRow): number {
    this.#lastId += 1;
    this.#rows.push(row);
    // A name that is taken shows at once where names are indexed.
    if (this.#hasNames || this.#rows.length === rowsAtOnce) this.#writeRows();
    this.#inserted += 1;
    return this.#lastId;
  }

  /** Gives an entry an index key, at most `indexKeyMax` long. */
  key(attribute: string, value: string, id: number): void {
    const keys =
      this.#keys.get(attribute) ?? this.#newKeys(attribute, this.#statements.run('INSERT INTO attribute (name) VALUES (?)', attribute));
    keys.values.push(value);
    keys.ids.push(id);
    if (keys.values.length === keysAtOnce) this.#writeKeys(keys);
  }

  /** Counts an entry. */
  tally(name: string, by: number): void {
    this.#tallies.set(name, (this.#tallies.get(name) ?? 0) + by);
  }

  /** Notes an address of an entry that somebody else may have; read back by `claimedAddresses` when all are there. */
  claim(address: string, id: number): void {
    this.#statements.run('INSERT INTO scratch.claim (address, entryId) VALUES (?, ?)', address, id);
  }

  /** The entry of that name below `parentId`. Asked for the first time, names are indexed, and what comes after pays for it. */
  childId(parentId: number, rdnNorm: string, dropped: (row: DroppedRow) => void): number | undefined {
    this.#indexNames(dropped);
    return this.#statements.number('SELECT id FROM entry WHERE parentId = ? AND rdnNorm = ?', parentId, rdnNorm);
  }

  /** Whether names are indexed, so that an entry of a name that is taken must not be inserted. */
  get hasNames(): boolean {
    return this.#hasNames;
  }

  /** Makes the indexes, and the counters and meta values durable-to-be; the file is a whole database from then on. */
  finish(meta: Readonly<Record<string, string>>, handlers: { dropped(row: DroppedRow): void; step(step: LoadStep): void }): void {
    handlers.step('names');
    this.#indexNames(handlers.dropped);
    handlers.step('uuids');
    this.#database.exec('DELETE FROM uuid');
    this.#indexUuids(handlers.dropped);
    handlers.step('index');
    this.#writeAllKeys();
    for (const { attributeId } of [...this.#keys.values()].sort((a, b) => a.attributeId - b.attributeId)) {
      this.#database.exec(
        `INSERT OR IGNORE INTO indexed SELECT ${attributeId}, value, entryId FROM ${keyTable(attributeId)} ORDER BY value, entryId`,
      );
    }
    const values = {
      ...meta,
      lastEntryId: String(this.#lastId),
      [uuidBoundary]: String(this.#lastId),
      [keysBoundary]: String(this.#lastId),
    };
    for (const [name, value] of Object.entries(values)) {
      this.#statements.run('INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)', name, value);
    }
    this.tally('entries', this.#inserted);
    for (const [name, count] of this.#tallies) {
      this.#statements.run('INSERT OR REPLACE INTO tally (name, count) VALUES (?, ?)', name, count);
    }
    this.#database.exec('COMMIT');
  }

  [Symbol.dispose](): void {
    this.#statements.clear();
    this.#database.close();
  }

  #writeRows(): void {
    const rows = this.#rows;
    const [first] = rows;
    if (first === undefined) return;
    this.#rows = [];
    const values: SQLInputValue[] = [this.#lastId - rows.length + 1];
    // Accounts of one domain, written as they are compared, are nearly all there is.
    if (rows.every((row) => row.parentId === first.parentId && row.rdn === row.rdnNorm)) {
      values.push(first.parentId);
      for (const { rdnNorm, uuid, csn, body } of rows) values.push(rdnNorm, uuid, csn, body);
      this.#statements.run(insertAlike(rows.length), ...values);
      return;
    }
    for (const { parentId, rdnNorm, rdn, uuid, csn, body } of rows)
      values.push(parentId, rdnNorm, rdn === rdnNorm ? null : rdn, uuid, csn, body);
    this.#statements.run(insertRows(rows.length), ...values);
  }

  #newKeys(attribute: string, attributeId: number): WaitingKeys {
    const keys = { attributeId, values: [], ids: [] };
    this.#keys.set(attribute, keys);
    this.#database.exec(`CREATE TABLE ${keyTable(attributeId)} (value TEXT NOT NULL, entryId INTEGER NOT NULL)`);
    return keys;
  }

  #writeKeys(keys: WaitingKeys): void {
    const { attributeId, values, ids } = keys;
    const [first] = ids;
    if (first === undefined) return;
    keys.values = [];
    keys.ids = [];
    // One value of each of so many entries in a row, mostly.
    if (ids.every((id, i) => id === first + i)) this.#statements.run(insertKeysInRow(attributeId, values.length), first, ...values);
    else this.#statements.run(insertKeys(attributeId, values.length), ...values.flatMap((value, i) => [ids[i] as number, value]));
  }

  #writeAllKeys(): void {
    for (const keys of this.#keys.values()) this.#writeKeys(keys);
  }

  #indexNames(dropped: (row: DroppedRow) => void): void {
    if (this.#hasNames) return;
    this.#hasNames = true;
    this.#writeRows();
    const [names, parents] = entryIndexes;
    this.#database.exec(parents);
    try {
      this.#database.exec(names);
    } catch {
      this.#drop(
        'name',
        'SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY parentId, rdnNorm ORDER BY id) AS n FROM entry) WHERE n > 1',
        dropped,
      );
      this.#database.exec(names);
    }
  }

  #indexUuids(dropped: (row: DroppedRow) => void): void {
    const fill = 'INSERT OR IGNORE INTO uuid SELECT uuid, id FROM entry ORDER BY uuid, id';
    this.#database.exec(fill);
    const [entries, uuids] = ['entry', 'uuid'].map((table) => this.#statements.number(`SELECT count(*) FROM ${table}`));
    if (entries === uuids) return;
    this.#drop('uuid', 'SELECT entry.id FROM entry JOIN uuid ON uuid.uuid = entry.uuid WHERE uuid.entryId <> entry.id', dropped);
    // What stood below a dropped entry went with it.
    this.#database.exec(`DELETE FROM uuid; ${fill}`);
  }

  /** Takes entries out again, with all below them. */
  #drop(why: DroppedRow['why'], ids: string, dropped: (row: DroppedRow) => void): void {
    this.#writeAllKeys();
    for (const id of this.#statements.numbers(ids)) this.#dropTree(id, why, dropped);
    for (const table of ['scratch.claim', ...[...this.#keys.values()].map(({ attributeId }) => keyTable(attributeId))])
      this.#database.exec(`DELETE FROM ${table} WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = entryId)`);
  }

  #dropTree(id: number, why: DroppedRow['why'], dropped: (row: DroppedRow) => void): void {
    const row = this.#statements.get('SELECT parentId, ifnull(rdn, rdnNorm) AS rdn, body FROM entry WHERE id = ?', id);
    if (row === undefined) return;
    dropped({ dn: this.#dnOf(row.parentId as number, row.rdn as string), why });
    for (const child of this.#statements.numbers('SELECT id FROM entry WHERE parentId = ?', id)) this.#dropTree(child, 'parent', dropped);
    this.#statements.run('DELETE FROM entry WHERE id = ?', id);
    const attributes = attributesOf(row.body as Uint8Array) ?? [];
    for (const name of ['entries', ...this.#functions.talliesOf(attributes)]) this.tally(name, -1);
  }

  #dnOf(parentId: number, rdn: string): string {
    let dn = rdn;
    for (let id = parentId; id !== rootId; ) {
      const row = this.#statements.get('SELECT parentId, ifnull(rdn, rdnNorm) AS rdn FROM entry WHERE id = ?', id);
      if (row === undefined) break;
      dn = `${dn},${String(row.rdn)}`;
      id = row.parentId as number;
    }
    return dn;
  }
}

/** Keys of one attribute that are not written yet. */
interface WaitingKeys {
  readonly attributeId: number;
  values: string[];
  ids: number[];
}

function keyTable(attributeId: number): string {
  return `scratch.key${attributeId}`;
}

const statements = new Map<string, string>();

function statement(name: string, make: () => string): string {
  let text = statements.get(name);
  if (text === undefined) {
    text = make();
    statements.set(name, text);
  }
  return text;
}

function rowsOf(count: number, row: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => `(${row(i)})`).join(', ');
}

/** Entries of any kind: the first id, then six values of each. */
function insertRows(count: number): string {
  return statement(`rows ${count}`, () => `${intoEntry} ${rowsOf(count, (i) => `?1 + ${i}, ?, ?, ?, ?, ?, ?`)}`);
}

/** Entries below one parent, whose RDNs are their keys: the first id, the parent, then four values of each. */
function insertAlike(count: number): string {
  return statement(`alike ${count}`, () => `${intoEntry} ${rowsOf(count, (i) => `?1 + ${i}, ?2, ?, NULL, ?, ?, ?`)}`);
}

const intoEntry = 'INSERT INTO entry (id, parentId, rdnNorm, rdn, uuid, csn, body) VALUES';

function insertKeys(attributeId: number, count: number): string {
  return statement(
    `keys ${attributeId} ${count}`,
    () => `INSERT INTO ${keyTable(attributeId)} (entryId, value) VALUES ${rowsOf(count, () => '?, ?')}`,
  );
}

/** One key of each entry in a row: the first id, then the values. Parameters with numbers of their own would cost a look through all of them. */
function insertKeysInRow(attributeId: number, count: number): string {
  return statement(
    `row ${attributeId} ${count}`,
    () => `INSERT INTO ${keyTable(attributeId)} (entryId, value) VALUES ${rowsOf(count, (i) => `?1 + ${i}, ?`)}`,
  );
}

/** Addresses claimed during a load, in pages; each page is given with the entries' ids. */
export function* claimedAddresses(scratch: string, pageSize: number): Generator<{ address: string; id: number }[]> {
  using database = new DatabaseSync(scratch);
  const statement = database.prepare('SELECT rowid AS row, address, entryId AS id FROM claim WHERE rowid > ? ORDER BY rowid LIMIT ?');
  for (let last = 0; ; ) {
    const page = statement.all(last, pageSize) as { row: number; address: string; id: number }[];
    if (page.length === 0) return;
    last = page.at(-1)?.row ?? last;
    yield page;
  }
}
