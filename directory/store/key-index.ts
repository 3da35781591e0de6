/**
 * The index of values: which entries have which key. Keys of new entries wait in memory, over several transactions, and are written in lots: a key of each of a
 * thousand entries touches few more pages of the tree than a key of each of a hundred, and calling a statement costs as much as several rows do.
 *
 *   entries up to `writtenTo`: all their keys are in the table        entries above it: none is; they are taken from the entries at the start
 *
 * So a key for an older entry is written with its transaction, and so is the lot before any key is removed. All that reads adds what waits to what the table
 * gives. Savepoints must not be opened while keys of their transaction wait (`flush`): what is undone with one would take older keys along.
 */
import type { SQLInputValue } from 'node:sqlite';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { attributesOf } from './body-of-row.ts';
import { PackedCache } from './packed-cache.ts';
import type { Statements } from './statements.ts';

/** Index keys are cut here: candidates are looked at anyway. */
export const indexKeyMax = 128;
/** Index lists up to so many entries are remembered. */
const idsCachedMax = 16;
/** Values of an index that are looked at in one piece: a few milliseconds. */
const valuesAtOnce = 20_000;
/** Rows of one statement. */
const rowsAtOnce = 64;
/** Keys of a full lot. */
const lotMax = 4096;
/** Name of the meta value for `writtenTo`; databases of older releases, whose keys never wait, have none. */
export const keysBoundary = 'keysIndexedTo';

/** One key of the index. */
export interface IndexKey {
  /** Canonical attribute name in lower case. */
  readonly attribute: string;
  readonly value: string;
}

/** Keys that wait, of one attribute. */
interface Waiting {
  /** Value and entry in turn. */
  readonly rows: (string | number)[];
  readonly values: Set<string>;
  /** Of `rows`, those that were there at the last commit. */
  committed: number;
}

/** Keys of one attribute, of many entries. */
interface Column {
  readonly attributeId: number;
  readonly values: string[];
  readonly ids: number[];
}

/** See the header of this file. */
export class KeyIndex {
  readonly #statements: Statements;
  readonly #ids: PackedCache;
  /** Undefined for an attribute that no entry has had yet. */
  readonly #attributeIds = new Map<string, number | undefined>();
  #waiting = new Map<number, Waiting>();
  #waitingCount = 0;
  /** What waited at the first writing of the present transaction; for when that is undone. */
  #before: Map<number, Waiting> | undefined;
  readonly #lastId: () => number;
  #writtenTo = 0;
  #committedTo = 0;
  /** Whether keys wait that the start could not find. */
  #isUrgent = false;

  /** @param lastId the last id that an entry was given */
  constructor(statements: Statements, cacheBytes: number, lastId: () => number) {
    this.#statements = statements;
    this.#ids = new PackedCache(cacheBytes);
    this.#lastId = lastId;
  }

  /** Takes up what waited when the database was closed. */
  load(writtenTo: number, keysOf: (attributes: readonly Attribute[]) => readonly IndexKey[]): void {
    this.#writtenTo = writtenTo;
    for (const { id, body } of this.#statements.all('SELECT id, body FROM entry WHERE id > ?', writtenTo))
      this.#wait(keysOf(attributesOf(body as Uint8Array) ?? []), id as number);
    this.committed();
  }

  /** The last entry whose keys are in the table. */
  get writtenTo(): number {
    return this.#writtenTo;
  }

  /** What the remembered lists take, bytes. */
  get cachedBytes(): number {
    return this.#ids.bytes;
  }

  /** Gives an entry keys; inside a transaction, as all that changes. */
  add(keys: readonly IndexKey[], id: number): void {
    if (keys.length === 0) return;
    if (id <= this.#writtenTo) this.#isUrgent = true;
    this.#wait(keys, id);
    if (this.#waitingCount > 2 * lotMax) this.flush();
  }

  /** The same of many entries, each with its keys, attribute and value in turn; they are written at once. */
  addRows(rows: readonly { readonly keys: readonly string[] }[], ids: readonly number[]): void {
    this.flush();
    const hasCached = this.#ids.size > 0;
    const columns = new Map<string, Column>();
    for (let at = 0; at < rows.length; at += 1) {
      const { keys } = rows[at] as (typeof rows)[number];
      const id = ids[at] as number;
      for (let one = 0; one < keys.length; one += 2) {
        const attribute = keys[one] as string;
        const value = keys[one + 1] as string;
        const cut = value.length > indexKeyMax ? value.slice(0, indexKeyMax) : value;
        let column = columns.get(attribute);
        if (column === undefined) {
          column = { attributeId: this.#attributeId(attribute) ?? this.#newAttribute(attribute), values: [], ids: [] };
          columns.set(attribute, column);
        }
        if (hasCached) this.#ids.delete(column.attributeId, cut);
        column.values.push(cut);
        column.ids.push(id);
      }
    }
    for (const column of columns.values()) this.#write(column);
  }

  remove(key: IndexKey, id: number): void {
    const attributeId = this.#attributeId(key.attribute);
    if (attributeId === undefined) return;
    this.flush();
    const value = key.value.slice(0, indexKeyMax);
    this.#ids.delete(attributeId, value);
    this.#statements.run('DELETE FROM indexed WHERE attributeId = ? AND value = ? AND entryId = ?', attributeId, value, id);
  }

  /** Writes the keys that wait. */
  flush(): void {
    if (this.#waitingCount > 0) {
      for (const [attributeId, { rows }] of this.#waiting) {
        // From the most rows of a statement to the fewest, so that there are few statements.
        for (let at = 0, count = rowsAtOnce; at < rows.length; ) {
          while (count * 2 > rows.length - at) count /= 2;
          this.#statements.run(insertRows(count), attributeId, ...rows.slice(at, at + count * 2));
          at += count * 2;
        }
      }
      this.#before ??= this.#waiting;
      this.#empty();
    }
    this.#writtenTo = this.#lastId();
  }

  /** The same at the end of a transaction, when the lot is full or must not wait. */
  flushLot(): void {
    if (this.#isUrgent || this.#waitingCount >= lotMax) this.flush();
  }

  /** What was done since the last commit stays. */
  committed(): void {
    this.#before = undefined;
    this.#committedTo = this.#writtenTo;
    for (const waiting of this.#waiting.values()) waiting.committed = waiting.rows.length;
  }

  /** The present work was undone, before which nothing of its transaction waited. */
  undoWork(): void {
    this.#empty();
    this.#forget();
  }

  /** All since the last commit was undone. */
  undoBatch(): void {
    const before = this.#before ?? this.#waiting;
    this.#before = undefined;
    this.#empty();
    this.#writtenTo = this.#committedTo;
    for (const [attributeId, { rows, committed }] of before) {
      if (committed === 0) continue;
      const kept = rows.slice(0, committed);
      const values = new Set(kept.filter((_, at) => at % 2 === 0) as string[]);
      this.#waiting.set(attributeId, { rows: kept, values, committed });
      this.#waitingCount += committed / 2;
    }
    this.#forget();
  }

  /** Entries with this key, in order of id, above `afterId`, at most `limit`. */
  idsWithKey(key: IndexKey, afterId: number, limit: number): readonly number[] {
    const attributeId = this.#attributeId(key.attribute);
    if (attributeId === undefined) return [];
    const value = key.value.slice(0, indexKeyMax);
    const known = this.#ids.getNumbers(attributeId, value);
    if (known !== undefined) return afterId === 0 && known.length <= limit ? known : known.filter((id) => id > afterId).slice(0, limit);
    const written = this.#statements.numbers(
      'SELECT entryId AS id FROM indexed WHERE attributeId = ? AND value = ? AND entryId > ? ORDER BY entryId LIMIT ?',
      attributeId,
      value,
      afterId,
      limit,
    );
    const ids = together(written, this.#waitingIds(attributeId, afterId, value)).slice(0, limit);
    // Whole lists only, and no empty ones: what is not there is mostly asked for once, by an add.
    if (afterId === 0 && ids.length > 0 && ids.length < limit && ids.length <= idsCachedMax) this.#ids.setNumbers(attributeId, value, ids);
    return ids;
  }

  /** Whether any entry has this value in one of two attributes. */
  hasKeyOf([first, second]: readonly [string, string], value: string): boolean {
    const cut = value.slice(0, indexKeyMax);
    return this.#hasKey(first, cut) || this.#hasKey(second, cut);
  }

  /** Entries with a key that starts so, in order of id; `undefined` when there are more than `limit`. */
  idsWithPrefix(prefix: IndexKey, limit: number): number[] | undefined {
    const attributeId = this.#attributeId(prefix.attribute);
    if (attributeId === undefined) return [];
    const from = prefix.value.slice(0, indexKeyMax);
    const written = this.#statements.numbers(
      'SELECT DISTINCT entryId AS id FROM indexed WHERE attributeId = ? AND value >= ? AND value < ? LIMIT ?',
      attributeId,
      from,
      `${from}\u{10ffff}`,
      limit + 1,
    );
    if (written.length > limit) return undefined;
    const waiting = this.#waitingIdsWhere(attributeId, (value) => value.startsWith(from));
    const ids = together(
      written.sort((a, b) => a - b),
      waiting,
    );
    return ids.length > limit ? undefined : ids;
  }

  /**
   * Entries with a value of this attribute that holds `piece`, page by page; a page may be empty. What is written between two pages may be
   * missed. Values that the index cuts are taken to hold it.
   */
  *idsHolding(attribute: string, piece: string): Generator<number[]> {
    const attributeId = this.#attributeId(attribute);
    if (attributeId === undefined) return;
    const above = 'FROM indexed WHERE attributeId = ? AND (value, entryId) > (?, ?) ORDER BY value, entryId';
    let value = '';
    let id = -1;
    yield this.#waitingIdsWhere(attributeId, (one) => one.includes(piece) || one.length >= indexKeyMax);
    for (;;) {
      yield this.#statements.numbers(
        `SELECT entryId FROM (SELECT value, entryId ${above} LIMIT ${valuesAtOnce}) WHERE instr(value, ?) > 0 OR length(value) >= ${indexKeyMax}`,
        attributeId,
        value,
        id,
        piece,
      );
      const last = this.#statements.get(`SELECT value, entryId ${above} LIMIT 1 OFFSET ${valuesAtOnce - 1}`, attributeId, value, id);
      if (last === undefined) return;
      value = last.value as string;
      id = last.entryId as number;
    }
  }

  #wait(keys: readonly IndexKey[], id: number): void {
    for (const key of keys) {
      const attributeId = this.#attributeId(key.attribute) ?? this.#newAttribute(key.attribute);
      const value = key.value.length > indexKeyMax ? key.value.slice(0, indexKeyMax) : key.value;
      this.#ids.delete(attributeId, value);
      let waiting = this.#waiting.get(attributeId);
      if (waiting === undefined) {
        waiting = { rows: [], values: new Set(), committed: 0 };
        this.#waiting.set(attributeId, waiting);
      }
      waiting.rows.push(value, id);
      waiting.values.add(value);
    }
    this.#waitingCount += keys.length;
  }

  #empty(): void {
    this.#waiting = new Map();
    this.#waitingCount = 0;
    this.#isUrgent = false;
  }

  #forget(): void {
    this.#ids.clear();
    this.#attributeIds.clear();
  }

  /** Entries for which this value waits, in order of id, those above `afterId`. */
  #waitingIds(attributeId: number, afterId: number, value: string): number[] {
    if (this.#waiting.get(attributeId)?.values.has(value) !== true) return [];
    return this.#waitingIdsWhere(attributeId, (one) => one === value).filter((id) => id > afterId);
  }

  #waitingIdsWhere(attributeId: number, isWanted: (value: string) => boolean): number[] {
    const rows = this.#waiting.get(attributeId)?.rows ?? [];
    const ids = new Set<number>();
    for (let at = 0; at < rows.length; at += 2) if (isWanted(rows[at] as string)) ids.add(rows[at + 1] as number);
    return [...ids].sort((a, b) => a - b);
  }

  #write({ attributeId, values, ids }: Column): void {
    for (let at = 0, count = rowsAtOnce; at < values.length; at += count) {
      while (count > values.length - at) count /= 2;
      const first = ids[at] as number;
      // One value of each of so many entries in a row, mostly.
      if (areInRow(ids, at, count)) this.#statements.run(insertInRow(count), attributeId, first, ...values.slice(at, at + count));
      else {
        const rows: SQLInputValue[] = [];
        for (let one = at; one < at + count; one += 1) rows.push(values[one] as string, ids[one] as number);
        this.#statements.run(insertRows(count), attributeId, ...rows);
      }
    }
  }

  #hasKey(attribute: string, value: string): boolean {
    const attributeId = this.#attributeId(attribute);
    if (attributeId === undefined) return false;
    if (this.#waiting.get(attributeId)?.values.has(value) === true) return true;
    return this.#statements.number('SELECT 1 FROM indexed WHERE attributeId = ? AND value = ? LIMIT 1', attributeId, value) !== undefined;
  }

  #attributeId(name: string): number | undefined {
    const known = this.#attributeIds.get(name);
    if (known !== undefined || this.#attributeIds.has(name)) return known;
    const id = this.#statements.number('SELECT id FROM attribute WHERE name = ?', name);
    this.#attributeIds.set(name, id);
    return id;
  }

  #newAttribute(name: string): number {
    const id =
      this.#statements.number('SELECT id FROM attribute WHERE name = ?', name) ??
      this.#statements.run('INSERT INTO attribute (name) VALUES (?)', name);
    this.#attributeIds.set(name, id);
    return id;
  }
}

/** Both lists in one, in order. */
function together(ids: number[], others: readonly number[]): number[] {
  return others.length === 0 ? ids : [...new Set([...ids, ...others])].sort((a, b) => a - b);
}

function areInRow(ids: readonly number[], from: number, count: number): boolean {
  const first = ids[from] as number;
  for (let at = 1; at < count; at += 1) if (ids[from + at] !== first + at) return false;
  return true;
}

const inserts = new Map<number, string>();
const insertsInRow = new Map<number, string>();

/** Rows of one attribute, a value of each of so many entries in a row: its id, the first entry, then the values. */
function insertInRow(count: number): string {
  let text = insertsInRow.get(count);
  if (text === undefined) {
    const rows = Array.from({ length: count }, (_, at) => `(?1, ?2 + ${at}, ?)`);
    text = `INSERT OR IGNORE INTO indexed (attributeId, entryId, value) VALUES ${rows.join(', ')}`;
    insertsInRow.set(count, text);
  }
  return text;
}

/** Rows of one attribute: its id first, then value and entry of each. */
function insertRows(count: number): string {
  let text = inserts.get(count);
  if (text === undefined) {
    text = `INSERT OR IGNORE INTO indexed (attributeId, value, entryId) VALUES ${Array(count).fill('(?1, ?, ?)').join(', ')}`;
    inserts.set(count, text);
  }
  return text;
}
