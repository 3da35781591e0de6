/**
 * The numbered journal of changes: one record for each, written in the transaction that makes the change (entry-store.ts). It says what was
 * changed, not how: a follower is sent the entry as it is now.
 */
import type { Statements } from './statements.ts';
import { uuidToBytes, uuidToText } from './uuid.ts';

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

/** See the header of this file. */
export class Journal {
  readonly #statements: Statements;
  #last = 0;

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
    change: { uuid: string; csn: string },
    entryId: number,
    before: Place | undefined,
    after: Place | undefined,
  ): void {
    this.#last += 1;
    this.#statements.run(
      'INSERT INTO journal (changeNumber, uuid, op, csn, entryId, oldParentId, oldRdn, newParentId, newRdn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
      this.#last,
      uuidToBytes(change.uuid),
      op,
      change.csn,
      entryId,
      before?.parentId ?? null,
      before?.rdn ?? null,
      after?.parentId ?? null,
      after?.rdn ?? null,
    );
  }

  /** Records after `changeNumber`, at most `limit`, in order. */
  after(changeNumber: number, limit: number): JournalRecord[] {
    // Followers ask after every commit, mostly for nothing.
    if (changeNumber >= this.#last) return [];
    return this.#statements
      .all('SELECT * FROM journal WHERE changeNumber > ? ORDER BY changeNumber LIMIT ?', changeNumber, limit)
      .map(toRecord);
  }

  /** The last change number before the first record whose CSN is above `csn`: following from there misses none of them. */
  before(csn: string): number {
    const first = this.#statements.get('SELECT min(changeNumber) AS first FROM journal WHERE csn > ?', csn)?.first as number | null;
    return first === null ? this.#last : first - 1;
  }

  /** Removes records up to `changeNumber`; gives the highest CSN among them. */
  trim(changeNumber: number): string | undefined {
    const highest = this.#statements.get('SELECT max(csn) AS csn FROM journal WHERE changeNumber <= ?', changeNumber)?.csn;
    this.#statements.run('DELETE FROM journal WHERE changeNumber <= ?', changeNumber);
    return (highest as string | null | undefined) ?? undefined;
  }
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
