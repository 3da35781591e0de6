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

/** Name of the boundary among the meta values. */
export const uuidBoundary = 'uuidsIndexedTo';

/** See the header of this file. All but `idOf` inside a transaction. */
export class UuidIndex {
  readonly #statements: Statements;
  #recent = new Map<string, number>();
  #boundary = 0;
  /** What the present work did to `#recent`: the id that each UUID had before. */
  readonly #before = new Map<string, number | undefined>();
  /** The same for all works before it since the last commit. */
  readonly #beforeBatch = new Map<string, number | undefined>();
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
    if (this.#before.size === 0) return;
    for (const [uuid, id] of this.#before) if (!this.#beforeBatch.has(uuid)) this.#beforeBatch.set(uuid, id);
    this.#before.clear();
  }

  /** The present work is undone. */
  undoWork(): void {
    this.#restore(this.#before);
  }

  /** All since the last commit is undone. */
  undoBatch(): void {
    this.#restore(this.#before);
    if (this.#lot !== undefined) {
      this.#recent = this.#lot.recent;
      this.#boundary = this.#lot.boundary;
      this.#lot = undefined;
    }
    this.#restore(this.#beforeBatch);
  }

  committed(): void {
    this.#before.clear();
    this.#beforeBatch.clear();
    this.#lot = undefined;
  }

  /** Writes the lot when it is full; gives the new boundary then. */
  writeFullLot(lastEntryId: number): number | undefined {
    if (this.#recent.size < uuidLotMax) return undefined;
    const lot = [...this.#recent].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [uuid, id] of lot) this.#statements.run('INSERT OR REPLACE INTO uuid (uuid, entryId) VALUES (?, ?)', uuidToBytes(uuid), id);
    this.#lot = { recent: this.#recent, boundary: this.#boundary };
    this.#recent = new Map();
    this.#boundary = lastEntryId;
    return lastEntryId;
  }

  #restore(before: Map<string, number | undefined>): void {
    for (const [uuid, id] of before) {
      if (id === undefined) this.#recent.delete(uuid);
      else this.#recent.set(uuid, id);
    }
    before.clear();
  }

  #change(uuid: string, id: number | undefined): void {
    if (!this.#before.has(uuid)) this.#before.set(uuid, this.#recent.get(uuid));
    if (id === undefined) this.#recent.delete(uuid);
    else this.#recent.set(uuid, id);
  }
}
