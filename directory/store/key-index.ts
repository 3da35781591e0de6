/**
 * The index of values: which entries have which key. New keys wait in memory for the end of the transaction and are written by few statements
 * with many rows, because calling a statement costs as much as several rows do.
 *
 * What waits is found by the two look-ups that adds make of each other, `hasKeyOf` and `idsWithKey` with a key that nobody has; every other
 * reading writes it first. Savepoints must not be opened while keys wait (`flush`): what is undone with one would take older keys along.
 */
import type { SQLInputValue } from 'node:sqlite';
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
/** Keys that wait at most. */
const waitingMax = 4096;

/** One key of the index. */
export interface IndexKey {
  /** Canonical attribute name in lower case. */
  readonly attribute: string;
  readonly value: string;
}

/** Keys that wait, of one attribute. */
interface Waiting {
  /** Value and entry in turn. */
  readonly rows: SQLInputValue[];
  readonly values: Set<string>;
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
  readonly #waiting = new Map<number, Waiting>();
  #waitingCount = 0;

  constructor(statements: Statements, cacheBytes: number) {
    this.#statements = statements;
    this.#ids = new PackedCache(cacheBytes);
  }

  /** What the remembered lists take, bytes. */
  get cachedBytes(): number {
    return this.#ids.bytes;
  }

  /** Gives an entry keys; inside a transaction, as all that changes. */
  add(keys: readonly IndexKey[], id: number): void {
    for (const key of keys) {
      const attributeId = this.#attributeId(key.attribute) ?? this.#newAttribute(key.attribute);
      const value = key.value.length > indexKeyMax ? key.value.slice(0, indexKeyMax) : key.value;
      this.#ids.delete(attributeId, value);
      let waiting = this.#waiting.get(attributeId);
      if (waiting === undefined) {
        waiting = { rows: [], values: new Set() };
        this.#waiting.set(attributeId, waiting);
      }
      waiting.rows.push(value, id);
      waiting.values.add(value);
    }
    this.#waitingCount += keys.length;
    if (this.#waitingCount > waitingMax) this.flush();
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
    if (this.#waitingCount === 0) return;
    for (const [attributeId, { rows, values }] of this.#waiting) {
      // From the most rows of a statement to the fewest, so that there are few statements.
      for (let at = 0, count = rowsAtOnce; at < rows.length; ) {
        while (count * 2 > rows.length - at) count /= 2;
        this.#statements.run(insertRows(count), attributeId, ...rows.slice(at, at + count * 2));
        at += count * 2;
      }
      rows.length = 0;
      values.clear();
    }
    this.#waitingCount = 0;
  }

  /** The transaction was undone: forgets what waits and what was remembered. */
  forget(): void {
    this.#waiting.clear();
    this.#waitingCount = 0;
    this.#ids.clear();
    this.#attributeIds.clear();
  }

  /** Entries with this key, in order of id, above `afterId`, at most `limit`. */
  idsWithKey(key: IndexKey, afterId: number, limit: number): readonly number[] {
    const attributeId = this.#attributeId(key.attribute);
    if (attributeId === undefined) return [];
    const value = key.value.slice(0, indexKeyMax);
    const known = this.#ids.getNumbers(attributeId, value);
    if (known !== undefined) return afterId === 0 && known.length <= limit ? known : known.filter((id) => id > afterId).slice(0, limit);
    if (this.#waiting.get(attributeId)?.values.has(value) === true) this.flush();
    const ids = this.#statements.numbers(
      'SELECT entryId AS id FROM indexed WHERE attributeId = ? AND value = ? AND entryId > ? ORDER BY entryId LIMIT ?',
      attributeId,
      value,
      afterId,
      limit,
    );
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
    this.flush();
    const from = prefix.value.slice(0, indexKeyMax);
    const ids = this.#statements.numbers(
      'SELECT DISTINCT entryId AS id FROM indexed WHERE attributeId = ? AND value >= ? AND value < ? LIMIT ?',
      attributeId,
      from,
      `${from}\u{10ffff}`,
      limit + 1,
    );
    return ids.length > limit ? undefined : ids.sort((a, b) => a - b);
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
    for (;;) {
      this.flush();
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
