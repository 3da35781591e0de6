/**
 * Which entry has an entryUUID. UUIDs come in no order, so writing each into the index as it comes dirties a page of its own, and that page
 * is most of what a commit writes. So the newest ones are kept in memory and written in lots, sorted:
 *
 *   entry.id  1 ────────────── uuidsIndexedTo ──────── newest
 *             in the table `uuid`            in memory, read from the entries at the start
 *
 * The entries hold their UUIDs anyway, so nothing is lost by a crash; the boundary is a meta value of the same commit as the lot.
 *
 * While a directory is filled for the first time nearly every UUID is a new one, and a sieve (uuid-sieve.ts) says so without a look. Nobody
 * asks for those meanwhile, so they are noted as octets and entered among the newest when somebody does.
 */
import type { Statements } from './statements.ts';
import { uuidToBytes } from './uuid.ts';
import { UuidSieve } from './uuid-sieve.ts';

/** UUIDs that are kept in memory before they are written: 2 MB, and some 20 ms to write or to read at a start. */
export const uuidLotMax = 16_384;

/** Name of the boundary among the meta values. */
export const uuidBoundary = 'uuidsIndexedTo';

/** UUIDs that are noted at most: a lot and the batch that fills it. */
const notedMax = 2 * uuidLotMax;
const noOctets = Buffer.alloc(0);

/** What was done to a UUID; in memory they are text of their 16 octets, in the order of the table. */
interface Done {
  readonly key: string;
  readonly before: number | undefined;
}

/** See the header of this file. All but `idOf` inside a transaction. */
export class UuidIndex {
  readonly #statements: Statements;
  #recent = new Map<string, number>();
  /** Knows every UUID that was ever added. Undefined before somebody claims one, null where there are too many to read. */
  #sieve: UuidSieve | null | undefined;
  /** UUIDs that somebody is about to add. */
  readonly #claimed = new Set<string>();
  /** UUIDs noted and not entered yet, of a first fill: the octets one after the other, and the ids. */
  #notedOctets = noOctets;
  #notedIds: number[] = [];
  /** How many of them were committed, and how many were there before the present work. */
  #notedCommitted = 0;
  #notedBefore = 0;
  #boundary = 0;
  /** What was done to `#recent` since the last commit: each UUID with the id that it had before. */
  readonly #done: Done[] = [];
  /** How much of it was done before the present work. */
  #doneBefore = 0;
  /** What was written as a lot in this transaction, and the boundary before. */
  #lot: { readonly recent: Map<string, number>; readonly notedIds: number[]; readonly boundary: number } | undefined;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  /** Reads what is above the boundary, at the start. */
  load(boundary: number): void {
    this.#boundary = boundary;
    const rows = this.#statements.all('SELECT id, uuid FROM entry WHERE id > ?', boundary) as { id: number; uuid: Uint8Array }[];
    this.#recent = new Map(rows.map((row) => [keyOf(row.uuid), row.id]));
  }

  /** The directory has its first content: from now on few UUIDs are new. */
  forgetSieve(): void {
    if (this.#sieve === null) return;
    this.#entered();
    this.#notedOctets = noOctets;
    this.#sieve = null;
  }

  idOf(uuid: string): number | undefined {
    return this.#idOf(uuidToBytes(uuid));
  }

  /** True when no entry has it and nobody else is about to give it to one; then it is the caller's until `settle`. Only ever too careful. */
  claim(octets: Uint8Array): boolean {
    if (this.#sieve === undefined) this.#sieve = this.#boundary > 0 ? null : sieveOf(this.#entered().keys());
    if (this.#sieve !== null) return this.#sieve.add(octets);
    const key = keyOf(octets);
    if (this.#claimed.has(key) || this.#idOf(octets) !== undefined) return false;
    this.#claimed.add(key);
    return true;
  }

  /** The one that claimed it does without. */
  release(octets: Uint8Array): void {
    this.#claimed.delete(keyOf(octets));
  }

  /** What was claimed has been added, or will not be. */
  settle(): void {
    this.#claimed.clear();
  }

  /** Adds one that was claimed, under an id above all others. */
  addClaimed(octets: Uint8Array, id: number): void {
    const count = this.#notedIds.length;
    if (this.#sieve === undefined || this.#sieve === null || count === notedMax) {
      this.#change(keyOf(octets), id);
      return;
    }
    if (this.#notedOctets.length === 0) this.#notedOctets = Buffer.allocUnsafeSlow(notedMax * 16);
    this.#notedIds.push(id);
    const noted = this.#notedOctets;
    for (let at = 0, to = count * 16; at < 16; at += 1, to += 1) noted[to] = octets[at] as number;
  }

  add(octets: Uint8Array, id: number): void {
    this.#sieve?.add(octets);
    if (id > this.#boundary) this.#change(keyOf(octets), id);
    else this.#statements.run('INSERT OR REPLACE INTO uuid (uuid, entryId) VALUES (?, ?)', octets, id);
  }

  remove(uuid: string, id: number): void {
    const octets = uuidToBytes(uuid);
    if (id > this.#boundary) this.#change(keyOf(octets), undefined);
    else this.#statements.run('DELETE FROM uuid WHERE uuid = ?', octets);
  }

  /** The work before has stayed. */
  keep(): void {
    this.#doneBefore = this.#done.length;
    this.#notedBefore = this.#notedIds.length;
  }

  /** The present work is undone. */
  undoWork(): void {
    this.#undoTo(this.#doneBefore);
    this.#notedIds.length = this.#notedBefore;
  }

  /** All since the last commit is undone. */
  undoBatch(): void {
    if (this.#lot !== undefined) {
      this.#recent = this.#lot.recent;
      this.#notedIds = this.#lot.notedIds;
      this.#boundary = this.#lot.boundary;
      this.#lot = undefined;
    }
    this.#undoTo(0);
    this.#doneBefore = 0;
    this.#notedIds.length = this.#notedCommitted;
    this.#notedBefore = this.#notedCommitted;
  }

  committed(): void {
    this.#done.length = 0;
    this.#doneBefore = 0;
    this.#notedCommitted = this.#notedIds.length;
    this.#notedBefore = this.#notedCommitted;
    this.#lot = undefined;
  }

  /** Writes the lot when it is full; gives the new boundary then. */
  writeFullLot(lastEntryId: number): number | undefined {
    if (this.#recent.size + this.#notedIds.length < uuidLotMax) return undefined;
    this.#statements.run(
      'INSERT OR REPLACE INTO uuid (uuid, entryId) SELECT uuid, id FROM entry WHERE id > ? ORDER BY uuid, id',
      this.#boundary,
    );
    this.#lot = { recent: this.#recent, notedIds: this.#notedIds, boundary: this.#boundary };
    this.#recent = new Map();
    this.#notedIds = [];
    this.#boundary = lastEntryId;
    return lastEntryId;
  }

  // What was noted goes among the newest, as if it had been entered at once.
  #entered(): Map<string, number> {
    const ids = this.#notedIds;
    if (ids.length === 0) return this.#recent;
    const doneBefore: Done[] = [];
    for (const [at, id] of ids.entries()) {
      const key = keyOf(this.#notedOctets.subarray(at * 16, at * 16 + 16));
      const done = { key, before: this.#recent.get(key) };
      if (at >= this.#notedBefore) this.#done.push(done);
      else if (at >= this.#notedCommitted) doneBefore.push(done);
      this.#recent.set(key, id);
    }
    this.#done.splice(this.#doneBefore, 0, ...doneBefore);
    this.#doneBefore += doneBefore.length;
    this.#notedIds = [];
    this.#notedCommitted = 0;
    this.#notedBefore = 0;
    return this.#recent;
  }

  #undoTo(count: number): void {
    for (let one = this.#done.length; one > count; one -= 1) {
      const { key, before } = this.#done.pop() as Done;
      if (before === undefined) this.#recent.delete(key);
      else this.#recent.set(key, before);
    }
  }

  #change(key: string, id: number | undefined): void {
    const recent = this.#entered();
    this.#done.push({ key, before: recent.get(key) });
    if (id === undefined) recent.delete(key);
    else recent.set(key, id);
  }

  #idOf(octets: Uint8Array): number | undefined {
    return this.#entered().get(keyOf(octets)) ?? this.#statements.number('SELECT entryId FROM uuid WHERE uuid = ?', octets);
  }
}

function sieveOf(keys: Iterable<string>): UuidSieve {
  const sieve = new UuidSieve();
  for (const key of keys) sieve.add(Buffer.from(key, 'latin1'));
  return sieve;
}

function keyOf(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength).toString('latin1');
}
