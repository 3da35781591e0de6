/**
 * The numbered journal of changes: one record for each, written in the transaction that makes the change (entry-store.ts). It says what was
 * changed, not how: a follower is sent the entry as it is now.
 *
 * Records wait in memory for the end of the transaction and are written together; who reads writes them first.
 */
import type { SQLInputValue } from 'node:sqlite';
import type { Statements } from './statements.ts';
import { uuidToText } from './uuid.ts';

export type ChangeKind = 'add' | 'modify' | 'rename' | 'delete';

/** One record of the journal. */
export interface JournalRecord {
  readonly changeNumber: number;
  readonly uuid: string;
  readonly op: ChangeKind;
  readonly csn: string;
  readonly entryId: number;
  readonly oldParentId: number | undefined;
  readonly oldRdn: string | undefined;
  readonly newParentId: number | undefined;
  readonly newRdn: string | undefined;
}

/** Where an entry is or was. */
interface Place {
  readonly parentId: number;
  readonly rdn: string;
}

/** Records of one statement. */
const recordsAtOnce = 32;
const columns = 9;
/** Records that wait at most. */
const waitingMax = 1024;

/** See the header of this file. */
export class Journal {
  readonly #statements: Statements;
  #last = 0;
  /** Columns of records that are not written yet, one after the other. */
  #waiting: SQLInputValue[] = [];

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  /** Number of the last change; 0 before the first. Set from the meta values at the start and when changes are undone. */
  get last(): number {
    return this.#last;
  }

  set last(changeNumber: number) {
    this.#last = changeNumber;
  }

  record(
    op: ChangeKind,
    change: { readonly uuid: Uint8Array; readonly csn: string },
    entryId: number,
    before: Place | undefined,
    after: Place | undefined,
  ): void {
    this.#last += 1;
    this.#waiting.push(
      this.#last,
      change.uuid,
      op,
      change.csn,
      entryId,
      before?.parentId ?? null,
      before?.rdn ?? null,
      after?.parentId ?? null,
      after?.rdn ?? null,
    );
    if (this.#waiting.length >= waitingMax * columns) this.flush();
  }

  /** Writes the records that wait; inside their transaction. */
  flush(): void {
    if (this.#waiting.length === 0) return;
    const values = this.#waiting;
    this.#waiting = [];
    for (let at = 0, count = recordsAtOnce; at < values.length; at += count * columns) {
      while (count * columns > values.length - at) count /= 2;
      this.#statements.run(insertRecords(count), ...values.slice(at, at + count * columns));
    }
  }

  /** The transaction was undone: forgets what waits. */
  forget(): void {
    this.#waiting = [];
  }

  /** Records after `changeNumber`, at most `limit`, in order. */
  after(changeNumber: number, limit: number): JournalRecord[] {
    // Followers ask after every commit, mostly for nothing.
    if (changeNumber >= this.#last) return [];
    this.flush();
    return this.#statements
      .all('SELECT * FROM journal WHERE changeNumber > ? ORDER BY changeNumber LIMIT ?', changeNumber, limit)
      .map(toRecord);
  }

  /** The last change number before the first record whose CSN is above `csn`: following from there misses none of them. */
  before(csn: string): number {
    this.flush();
    const first = this.#statements.get('SELECT min(changeNumber) AS first FROM journal WHERE csn > ?', csn)?.first as number | null;
    return first === null ? this.#last : first - 1;
  }

  /** Removes records up to `changeNumber`; gives the highest CSN among them. */
  trim(changeNumber: number): string | undefined {
    this.flush();
    const highest = this.#statements.get('SELECT max(csn) AS csn FROM journal WHERE changeNumber <= ?', changeNumber)?.csn;
    this.#statements.run('DELETE FROM journal WHERE changeNumber <= ?', changeNumber);
    return (highest as string | null | undefined) ?? undefined;
  }
}

const inserts = new Map<number, string>();

function insertRecords(count: number): string {
  let text = inserts.get(count);
  if (text === undefined) {
    const row = `(${Array(columns).fill('?').join(', ')})`;
    text = `INSERT INTO journal (changeNumber, uuid, op, csn, entryId, oldParentId, oldRdn, newParentId, newRdn) VALUES ${Array(count).fill(row).join(', ')}`;
    inserts.set(count, text);
  }
  return text;
}

function toRecord(row: Record<string, unknown>): JournalRecord {
  return {
    changeNumber: row.changeNumber as number,
    uuid: uuidToText(row.uuid as Uint8Array),
    op: row.op as ChangeKind,
    csn: row.csn as string,
    entryId: row.entryId as number,
    oldParentId: (row.oldParentId as number | null) ?? undefined,
    oldRdn: (row.oldRdn as string | null) ?? undefined,
    newParentId: (row.newParentId as number | null) ?? undefined,
    newRdn: (row.newRdn as string | null) ?? undefined,
  };
}
