/**
 * The index of pieces, for attributes that an administrator names: which entries have which three characters in a row in a value. A search for
 * `*part*` then looks at those that have all rows of three of its pieces, where the order of whole values tells nothing.
 *
 *   (attribute, three characters, block of 2048 ids) ──► which of the block: a list of 2 octets each, or 256 octets with a bit each
 *
 * A domain that a thousand addresses share takes one bit of each. What writes change waits in memory for the end of the transaction, so that a
 * row is read and written once for all of them (`flush`, as in key-index.ts). What is given are candidates: hashes stand for characters outside
 * ASCII, and of several values it is not known which has what.
 *
 * An attribute that is named later is filled in steps (`fill`), each a write like others, while the rest goes on: writes keep their part of the index
 * from the start, and to enter what is there already changes nothing. It answers when it is whole. `asOf` is stored with every commit: a release
 * that does not know this index leaves it behind, which shows at the next opening, and it is filled anew.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { attributesOf } from './body-of-row.ts';
import type { IndexKey } from './key-index.ts';
import type { Statements } from './statements.ts';

/** Ids of one row. */
export const blockIds = 2048;
const bitsBytes = blockIds / 8;
/** Values longer than this are not cut up: their entries are candidates of every search. */
const valueMax = 512;
/** Rows of three of a search that are looked up: the rarest. */
const gramsLookedUp = 4;
/** Rows of three of a search that are compared for being rare. */
const gramsCompared = 24;
/** Blocks that are looked up one by one rather than read in a row. */
const singleMax = 64;
/** Changes that wait at most. */
const waitingMax = 65_536;
/** Stands for a value that was not cut up. */
const long = 0;
const begin = '\u0001';
const end = '\u0002';

/** What an entry has in attributes that are cut up: keys of its values. */
export type TextsOf = (attributes: readonly Attribute[], wanted: ReadonlyMap<string, unknown>) => readonly IndexKey[];

/** Pieces of one value, as in a filter; each prepared for comparison. */
export interface Pieces {
  readonly initial: string;
  readonly any: readonly string[];
  readonly final: string;
}

/** One attribute. `filledTo` is the last id that was entered; `undefined` when it is whole. */
interface Kept {
  readonly id: number;
  filledTo: number | undefined;
}

/** See the header of this file. */
export class PieceIndex {
  readonly #statements: Statements;
  readonly #textsOf: TextsOf;
  readonly #kept = new Map<string, Kept>();
  /** By attribute id, rows of three and block: ids within the block, complemented where they go. */
  readonly #waiting = new Map<number, Map<number, Map<number, number[]>>>();
  #waitingCount = 0;

  constructor(statements: Statements, textsOf: TextsOf) {
    this.#statements = statements;
    this.#textsOf = textsOf;
  }

  /** Reads which attributes are kept, from what `state` gave; when it is not of now, all are filled anew. */
  load(state: string | undefined, isOfNow: boolean): void {
    this.#kept.clear();
    for (const part of state === undefined || state === '' ? [] : state.split(' ')) {
      const [name = '', to = ''] = part.split('=');
      this.#kept.set(name, { id: this.#attributeId(name), filledTo: !isOfNow ? 0 : to === 'whole' ? undefined : Number(to) });
    }
  }

  /** Which attributes are kept, and how far. */
  get state(): string {
    return [...this.#kept].map(([name, { filledTo }]) => `${name}=${filledTo ?? 'whole'}`).join(' ');
  }

  /** Attributes that are kept. */
  get names(): string[] {
    return [...this.#kept.keys()];
  }

  get count(): number {
    return this.#kept.size;
  }

  /** The attribute that is filled next. */
  get unfilled(): string | undefined {
    for (const [name, { filledTo }] of this.#kept) if (filledTo !== undefined) return name;
    return undefined;
  }

  /** Whether searches of this attribute are answered. */
  answers(attribute: string): boolean {
    const kept = this.#kept.get(attribute);
    return kept !== undefined && kept.filledTo === undefined;
  }

  /** Says which attributes are wanted; inside a transaction, as all that changes. Those that no longer are lose their index. */
  keep(wanted: ReadonlySet<string>): void {
    for (const [name, { id }] of this.#kept) {
      if (wanted.has(name)) continue;
      this.flush();
      this.#statements.run('DELETE FROM piece WHERE attributeId = ?', id);
      this.#kept.delete(name);
    }
    for (const name of wanted) if (!this.#kept.has(name)) this.#kept.set(name, { id: this.#attributeId(name), filledTo: 0 });
  }

  /** Enters the next `limit` entries of an attribute that is not whole. Returns how many there were. */
  fill(attribute: string, limit: number): number {
    const kept = this.#kept.get(attribute);
    if (kept?.filledTo === undefined) return 0;
    if (kept.filledTo === 0) this.#statements.run('DELETE FROM piece WHERE attributeId = ?', kept.id);
    const rows = this.#statements.all('SELECT id, body FROM entry WHERE id > ? ORDER BY id LIMIT ?', kept.filledTo, limit);
    const wanted = new Map([[attribute, kept]]);
    for (const { id, body } of rows) {
      this.#enter(this.#textsOf(attributesOf(body as Uint8Array) ?? [], wanted), id as number, true);
      kept.filledTo = id as number;
    }
    if (rows.length < limit) kept.filledTo = undefined;
    this.flush();
    return rows.length;
  }

  /** An entry is there, or changed from what it was, or is gone. */
  change(before: readonly Attribute[] | undefined, after: readonly Attribute[] | undefined, id: number): void {
    if (this.#kept.size === 0) return;
    const had = before === undefined ? [] : this.#textsOf(before, this.#kept);
    const has = after === undefined ? [] : this.#textsOf(after, this.#kept);
    const same = new Set(had.map(({ attribute, value }) => `${attribute}=${value}`));
    const isSame = same.size === has.length && has.every(({ attribute, value }) => same.has(`${attribute}=${value}`));
    if (isSame) return;
    this.#enter(had, id, false);
    this.#enter(has, id, true);
  }

  /** Writes what waits. */
  flush(): void {
    if (this.#waitingCount === 0) return;
    for (const [attributeId, grams] of this.#waiting) {
      for (const [gram, blocks] of [...grams].sort(([a], [b]) => a - b)) {
        for (const [block, changes] of blocks) this.#change(attributeId, gram, block, changes);
      }
    }
    this.#waiting.clear();
    this.#waitingCount = 0;
  }

  /** The transaction was undone: forgets what waits. */
  forget(): void {
    this.#waiting.clear();
    this.#waitingCount = 0;
  }

  /**
   * Entries that may have a value with these pieces, in rising order; `undefined` when the index does not tell, e.g. because all pieces are too
   * short, or when there are more than `limit`.
   */
  idsWith(attribute: string, pieces: Pieces, limit: number): number[] | undefined {
    const kept = this.#kept.get(attribute);
    if (kept === undefined || kept.filledTo !== undefined) return undefined;
    this.flush();
    const grams = this.#rarest(kept.id, gramsOfPieces(pieces));
    const [first, ...others] = grams;
    if (first === undefined) return undefined;
    let found = this.#blocksOf(kept.id, first);
    for (const gram of others) {
      if (found.size === 0) break;
      const also = this.#blocksOf(kept.id, gram, found.size > singleMax ? undefined : [...found.keys()]);
      found = both(found, also);
    }
    for (const [block, bits] of this.#blocksOf(kept.id, long)) found.set(block, either(found.get(block), bits));
    return idsOf(found, limit);
  }

  #rarest(attributeId: number, grams: readonly number[]): number[] {
    if (grams.length <= 1) return [...grams];
    const sizes = grams.slice(0, gramsCompared).map((gram) => ({
      gram,
      size:
        this.#statements.number('SELECT ifnull(sum(length(ids)), 0) FROM piece WHERE attributeId = ? AND gram = ?', attributeId, gram) ?? 0,
    }));
    return sizes
      .sort((a, b) => a.size - b.size)
      .slice(0, gramsLookedUp)
      .map(({ gram }) => gram);
  }

  #blocksOf(attributeId: number, gram: number, only?: readonly number[]): Map<number, Uint8Array> {
    const found = new Map<number, Uint8Array>();
    if (only === undefined) {
      const rows = this.#statements.all('SELECT block, ids FROM piece WHERE attributeId = ? AND gram = ?', attributeId, gram);
      for (const { block, ids } of rows) found.set(block as number, bitsOf(ids as Uint8Array));
      return found;
    }
    for (const block of only) {
      const ids = this.#rowOf(attributeId, gram, block);
      if (ids !== undefined) found.set(block, bitsOf(ids));
    }
    return found;
  }

  #rowOf(attributeId: number, gram: number, block: number): Uint8Array | undefined {
    const sql = 'SELECT ids FROM piece WHERE attributeId = ? AND gram = ? AND block = ?';
    return this.#statements.get(sql, attributeId, gram, block)?.ids as Uint8Array | undefined;
  }

  #enter(texts: readonly IndexKey[], id: number, isThere: boolean): void {
    const block = Math.floor(id / blockIds);
    const within = isThere ? id % blockIds : ~(id % blockIds);
    for (const { attribute, value } of texts) {
      const attributeId = this.#kept.get(attribute)?.id;
      if (attributeId === undefined) continue;
      const grams = getOrMake(this.#waiting, attributeId, () => new Map<number, Map<number, number[]>>());
      for (const gram of gramsOfValue(value)) {
        const blocks = getOrMake(grams, gram, () => new Map<number, number[]>());
        getOrMake(blocks, block, () => []).push(within);
        this.#waitingCount += 1;
      }
    }
    if (this.#waitingCount > waitingMax) this.flush();
  }

  #change(attributeId: number, gram: number, block: number, changes: readonly number[]): void {
    const before = this.#rowOf(attributeId, gram, block);
    const bits = before === undefined ? new Uint8Array(bitsBytes) : bitsOf(before);
    for (const change of changes) {
      const at = change < 0 ? ~change : change;
      const bit = 1 << (at & 7);
      if (change < 0) bits[at >> 3] = (bits[at >> 3] as number) & ~bit;
      else bits[at >> 3] = (bits[at >> 3] as number) | bit;
    }
    const ids = packed(bits);
    if (ids.length === 0) {
      if (before !== undefined)
        this.#statements.run('DELETE FROM piece WHERE attributeId = ? AND gram = ? AND block = ?', attributeId, gram, block);
    } else {
      this.#statements.run(
        'INSERT OR REPLACE INTO piece (attributeId, gram, block, ids) VALUES (?, ?, ?, ?)',
        attributeId,
        gram,
        block,
        ids,
      );
    }
  }

  #attributeId(name: string): number {
    return (
      this.#statements.number('SELECT id FROM attribute WHERE name = ?', name) ??
      this.#statements.run('INSERT INTO attribute (name) VALUES (?)', name)
    );
  }
}

/** Every row of three characters of a value, its begin and its end counting as characters. */
export function gramsOfValue(value: string): Set<number> {
  return value.length > valueMax ? new Set([long]) : gramsOf(`${begin}${value}${end}`);
}

function gramsOfPieces({ initial, any, final }: Pieces): number[] {
  const grams = new Set<number>();
  const texts = [initial === '' ? '' : `${begin}${initial}`, ...any, final === '' ? '' : `${final}${end}`];
  for (const text of texts) for (const gram of gramsOf(text)) grams.add(gram);
  return [...grams];
}

/** Three ASCII characters as 21 bits; others as a hash of three above those. */
function gramsOf(text: string): Set<number> {
  const grams = new Set<number>();
  for (let i = 2; i < text.length; i += 1) {
    const a = text.charCodeAt(i - 2);
    const b = text.charCodeAt(i - 1);
    const c = text.charCodeAt(i);
    const isAscii = (a | b | c) < 128;
    grams.add(isAscii ? (a << 14) | (b << 7) | c : 0x20_0000 + ((Math.imul(Math.imul(a, 31) + b, 31) + c) & 0x1f_ffff));
  }
  return grams;
}

/** A bit for each id of a block, out of either form. */
export function bitsOf(ids: Uint8Array): Uint8Array {
  if (ids.length === bitsBytes) return ids;
  const bits = new Uint8Array(bitsBytes);
  for (let i = 0; i + 1 < ids.length; i += 2) {
    const at = (ids[i] as number) | ((ids[i + 1] as number) << 8);
    if (at < blockIds) bits[at >> 3] = (bits[at >> 3] as number) | (1 << (at & 7));
  }
  return bits;
}

/** The shorter of both forms; empty when no bit is set. */
function packed(bits: Uint8Array): Uint8Array {
  const list: number[] = [];
  for (let at = 0; at < blockIds; at += 1) {
    const octet = bits[at >> 3] as number;
    if (octet === 0) at += 7 - (at & 7);
    else if ((octet & (1 << (at & 7))) !== 0) list.push(at & 255, at >> 8);
    if (list.length >= bitsBytes) return bits;
  }
  return Uint8Array.from(list);
}

function both(one: ReadonlyMap<number, Uint8Array>, other: ReadonlyMap<number, Uint8Array>): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  for (const [block, bits] of one) {
    const also = other.get(block);
    if (also === undefined) continue;
    let any = 0;
    const result = bits.map((octet, i) => {
      const rest = octet & (also[i] as number);
      any |= rest;
      return rest;
    });
    if (any !== 0) found.set(block, result);
  }
  return found;
}

function either(one: Uint8Array | undefined, other: Uint8Array): Uint8Array {
  return one === undefined ? other : one.map((octet, i) => octet | (other[i] as number));
}

function idsOf(found: ReadonlyMap<number, Uint8Array>, limit: number): number[] | undefined {
  const ids: number[] = [];
  for (const [block, bits] of [...found].sort(([a], [b]) => a - b)) {
    for (let at = 0; at < blockIds; at += 1) {
      if (((bits[at >> 3] as number) & (1 << (at & 7))) === 0) continue;
      if (ids.length === limit) return undefined;
      ids.push(block * blockIds + at);
    }
  }
  return ids;
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
