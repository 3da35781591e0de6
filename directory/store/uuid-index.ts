/**
 * Which entry has an entryUUID. UUIDs come in no order, so writing each into the index as it comes dirties a page of its own, and that page
 * is most of what a commit writes. So the newest ones are kept in memory and written in lots, sorted:
 *
 *   entry.id  1 ────────────── uuidsIndexedTo ──────── newest
 *             in the table `uuid`            in memory, read from the entries at the start
 *
 * The entries hold their UUIDs anyway, so nothing is lost by a crash; the boundary is a meta value of the same commit as the lot.
 */
import type { Statements } from './statements.ts';
import { uuidToBytes, uuidToText } from './uuid.ts';

/** UUIDs that are kept in memory before they are written: 2 MB, and some 20 ms to write or to read at a start. */
export const uuidLotMax = 16_384;

/** UUIDs of a lot that one statement writes. */
const rowsAtOnce = 64;

/** Name of the boundary among the meta values. */
export const uuidBoundary = 'uuidsIndexedTo';

interface Done {
  readonly uuid: string;
  readonly before: number | undefined;
}

/** See the header of this file. All but `idOf` inside a transaction. */
export class UuidIndex {
  readonly #statements: Statements;
  #recent = new Map<string, number>();
  #boundary = 0;
  /** What was done to `#recent` since the last commit: each UUID with the id that it had before. */
  readonly #done: Done[] = [];
  /** How much of it was done before the present work. */
  #doneBefore = 0;
  /** What was written as a lot in this transaction, and the boundary before. */
  #lot: { readonly recent: Map<string, number>; readonly boundary: number } | undefined;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  /** Reads what is above the boundary, at the start. */
  load(boundary: number): void {
    this.#boundary = boundary;
    const rows = this.#statements.all('SELECT id, uuid FROM entry WHERE id > ?', boundary) as { id: number; uuid: Uint8Array }[];
    this.#recent = new Map(rows.map((row) => [uuidToText(row.uuid), row.id]));
  }

  idOf(uuid: string): number | undefined {
    return this.#recent.get(uuid) ?? this.#statements.number('SELECT entryId FROM uuid WHERE uuid = ?', uuidToBytes(uuid));
  }

  add(uuid: string, id: number): void {
    if (id > this.#boundary) {
      this.#change(uuid, id);
      return;
    }
    this.#statements.run('INSERT OR REPLACE INTO uuid (uuid, entryId) VALUES (?, ?)', uuidToBytes(uuid), id);
  }

  remove(uuid: string, id: number): void {
    if (id > this.#boundary) this.#change(uuid, undefined);
    else this.#statements.run('DELETE FROM uuid WHERE uuid = ?', uuidToBytes(uuid));
  }

  /** The work before has stayed. */
  keep(): void {
    this.#doneBefore = this.#done.length;
  }

  /** The present work is undone. */
  undoWork(): void {
    this.#undoTo(this.#doneBefore);
  }

  /** All since the last commit is undone. */
  undoBatch(): void {
    if (this.#lot !== undefined) {
      this.#recent = this.#lot.recent;
      this.#boundary = this.#lot.boundary;
      this.#lot = undefined;
    }
    this.#undoTo(0);
    this.#doneBefore = 0;
  }

  committed(): void {
    this.#done.length = 0;
    this.#doneBefore = 0;
    this.#lot = undefined;
  }

  /** Writes the lot when it is full; gives the new boundary then. */
  writeFullLot(lastEntryId: number): number | undefined {
    if (this.#recent.size < uuidLotMax) return undefined;
    const lot = [...this.#recent].sort(([a], [b]) => (a < b ? -1 : 1));
    for (let at = 0, count = rowsAtOnce; at < lot.length; at += count) {
      while (count > lot.length - at) count /= 2;
      const values = lot.slice(at, at + count).flatMap(([uuid, id]) => [uuidToBytes(uuid), id]);
      this.#statements.run(`INSERT OR REPLACE INTO uuid (uuid, entryId) VALUES ${Array(count).fill('(?, ?)').join(', ')}`, ...values);
    }
    this.#lot = { recent: this.#recent, boundary: this.#boundary };
    this.#recent = new Map();
    this.#boundary = lastEntryId;
    return lastEntryId;
  }

  #undoTo(count: number): void {
    for (let one = this.#done.length; one > count; one -= 1) {
      const { uuid, before } = this.#done.pop() as Done;
      if (before === undefined) this.#recent.delete(uuid);
      else this.#recent.set(uuid, before);
    }
  }

  #change(uuid: string, id: number | undefined): void {
    this.#done.push({ uuid, before: this.#recent.get(uuid) });
    if (id === undefined) this.#recent.delete(uuid);
    else this.#recent.set(uuid, id);
  }
}
