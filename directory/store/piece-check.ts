/**
 * Whether the index of pieces (piece-index.ts) agrees with the entries: they are given in order of id, and each block of them is compared with
 * its rows when it is whole. Memory does not grow with the entries.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { EntryFunctions } from './entry-functions.ts';
import { bitsOf, blockIds, gramsOfValue } from './piece-index.ts';

/** See the header of this file. */
export class PieceCheck {
  readonly #database: DatabaseSync;
  readonly #functions: EntryFunctions;
  /** Attribute ids of the indexes that are whole, by attribute. */
  readonly #checked = new Map<string, number>();
  readonly #wrong = new Map<string, number>();
  /** Rows that agreed with their block. */
  #rows = 0;
  #block = 0;
  /** By attribute and then rows of three: ids of the block. */
  #expected = new Map<string, Map<number, Set<number>>>();

  constructor(database: DatabaseSync, functions: EntryFunctions, lastId: number) {
    this.#database = database;
    this.#functions = functions;
    const meta = (name: string): unknown => database.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.value;
    if (meta('piecesAsOf') !== `${lastId}/${String(meta('lastChangeNumber') ?? 0)}`) return;
    for (const part of String(meta('pieces') ?? '').split(' ')) {
      const [name = '', state] = part.split('=');
      const id = database.prepare('SELECT id FROM attribute WHERE name = ?').get(name)?.id;
      if (state === 'whole' && id !== undefined) this.#checked.set(name, id as number);
    }
  }

  /** The next entry. */
  entry(id: number, attributes: readonly Attribute[]): void {
    const block = Math.floor(id / blockIds);
    if (block !== this.#block) {
      this.#compare();
      this.#block = block;
    }
    for (const { attribute, value } of this.#functions.piecesOf?.(attributes, this.#checked) ?? []) {
      const grams = this.#expected.get(attribute) ?? new Map<number, Set<number>>();
      this.#expected.set(attribute, grams);
      for (const gram of gramsOfValue(value)) {
        const ids = grams.get(gram) ?? new Set<number>();
        grams.set(gram, ids.add(id % blockIds));
      }
    }
  }

  /** After the last entry: what is wrong, a sentence each. */
  problems(): string[] {
    this.#compare();
    const problems = [...this.#wrong].map(
      ([attribute, rows]) => `the substring index of ${attribute} differs from the entries in ${rows} rows; run reindex`,
    );
    let rows = 0;
    for (const id of this.#checked.values()) {
      rows += this.#database.prepare('SELECT count(*) AS count FROM piece WHERE attributeId = ?').get(id)?.count as number;
    }
    if (rows > this.#rows) problems.push(`the substring index holds ${rows - this.#rows} rows that no entry accounts for; run reindex`);
    return problems;
  }

  #compare(): void {
    const row = this.#database.prepare('SELECT ids FROM piece WHERE attributeId = ? AND gram = ? AND block = ?');
    for (const [attribute, grams] of this.#expected) {
      for (const [gram, ids] of grams) {
        const stored = row.get(this.#checked.get(attribute) as number, gram, this.#block)?.ids as Uint8Array | undefined;
        if (stored !== undefined) this.#rows += 1;
        if (stored === undefined || !isSame(bitsOf(stored), ids)) this.#wrong.set(attribute, (this.#wrong.get(attribute) ?? 0) + 1);
      }
    }
    this.#expected = new Map();
  }
}

function isSame(bits: Uint8Array, ids: ReadonlySet<number>): boolean {
  let count = 0;
  for (let at = 0; at < blockIds; at += 1) {
    if (((bits[at >> 3] as number) & (1 << (at & 7))) === 0) continue;
    count += 1;
    if (!ids.has(at)) return false;
  }
  return count === ids.size;
}
