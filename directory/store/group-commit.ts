/**
 * Group commit: every write of one turn of the event loop joins one transaction, and one flush to the disk makes all of them durable.
 *
 *   write ──► SAVEPOINT, work, RELEASE ─┐
 *   write ──► SAVEPOINT, work, RELEASE ─┼─► end of the turn: COMMIT (fsync) ──► all promises settle
 *   write ──► ... refused: ROLLBACK TO ─┘
 *
 * What always holds: a promise resolves after its work is on the disk and never before; a refused work leaves nothing behind and does
 * not disturb its neighbours; when the commit itself fails (disk full), every work of the turn is refused and undone.
 * Reads on the same database see the open transaction, so readers first wait for `settled()`.
 *
 * A `relaxed` work is the exception to the first sentence: it is committed, visible and safe from a crash of the process when its promise
 * resolves, and safe from a loss of power once a later work that is not relaxed is (docs/adr/0010-replica-durability.md). The log of the
 * database is in order, so what is on the disk is always everything up to some commit.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';

interface Batch {
  readonly isRelaxed: boolean;
  readonly settle: ((failure: Error | undefined) => void)[];
  readonly done: Promise<void>;
}

/** See the header of this file. */
export class GroupCommit {
  readonly #database: DatabaseSync;
  readonly #hooks: CommitHooks;
  readonly #savepoint: StatementSync;
  readonly #release: StatementSync;
  #batch: Batch | undefined;
  #commits = 0;
  #isRelaxedNow = false;

  constructor(database: DatabaseSync, hooks: CommitHooks) {
    this.#database = database;
    this.#hooks = hooks;
    this.#savepoint = database.prepare('SAVEPOINT work');
    this.#release = database.prepare('RELEASE work');
  }

  /** Commits so far; shows how well writes are grouped. */
  get commits(): number {
    return this.#commits;
  }

  /** Runs `work` in this turn's transaction; settles when that is durable. A throw from `work` undoes it alone. */
  write<T>(work: () => T, isRelaxed = false): Promise<T> {
    let batch: Batch;
    try {
      // Whether a commit is flushed is settled before its transaction begins.
      if (!isRelaxed && this.#batch?.isRelaxed === true) this.flush();
      batch = this.#open(isRelaxed);
    } catch (error) {
      return Promise.reject(writeFailure(error));
    }
    return new Promise<T>((resolve, reject) => {
      let outcome: () => void;
      try {
        // A neighbour's failure may have ended the transaction; a savepoint of its own would commit what is refused below.
        if (!this.#database.isTransaction) throw new PlatformError('DIR_BUSY', 'an earlier write of this moment failed; try again');
        this.#savepoint.run();
        const value = work();
        this.#release.run();
        outcome = () => resolve(value);
      } catch (error) {
        this.#undo();
        const failure = writeFailure(error);
        outcome = () => reject(failure);
      }
      // A refusal waits too: it may rest on what a neighbour wrote in this very turn.
      batch.settle.push((failure) => (failure === undefined ? outcome() : reject(failure)));
    });
  }

  /** Resolves once nothing uncommitted is in the database; at once when nothing is. */
  settled(): Promise<void> | undefined {
    return this.#batch?.done;
  }

  /** Commits what is open now, without waiting for the end of the turn. */
  flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    let failure: Error | undefined;
    try {
      if (!this.#database.isTransaction) throw new Error('the transaction was ended by an earlier failure');
      this.#hooks.beforeCommit();
      this.#database.exec('COMMIT');
      this.#commits += 1;
    } catch (error) {
      failure = writeFailure(error);
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      this.#hooks.undone('batch');
    }
    for (const settle of batch.settle) settle(failure);
    if (failure === undefined) this.#hooks.committed();
  }

  #open(isRelaxed: boolean): Batch {
    if (this.#batch !== undefined) return this.#batch;
    if (isRelaxed !== this.#isRelaxedNow) {
      this.#database.exec(`PRAGMA synchronous = ${isRelaxed ? 'NORMAL' : 'FULL'}`);
      this.#isRelaxedNow = isRelaxed;
    }
    this.#database.exec('BEGIN IMMEDIATE');
    const settle: Batch['settle'] = [];
    const done = new Promise<void>((resolve) => settle.push(() => resolve()));
    const batch = { isRelaxed, settle, done };
    this.#batch = batch;
    setImmediate(() => {
      if (this.#batch === batch) this.flush();
    });
    return batch;
  }

  // Some failures of SQLite (SQLITE_FULL, SQLITE_IOERR) end the whole transaction by themselves; flush then refuses the whole batch.
  #undo(): void {
    if (this.#database.isTransaction) this.#database.exec('ROLLBACK TO work; RELEASE work');
    this.#hooks.undone('work');
  }
}

/** What the store does around a commit. */
export interface CommitHooks {
  /** Last statements of the transaction. */
  beforeCommit(): void;
  /** The transaction is durable and its promises are settled. */
  committed(): void;
  /** One work or the whole batch was rolled back: forget what memory holds of it. */
  undone(what: 'work' | 'batch'): void;
}

const sqliteFull = 13;

function writeFailure(error: unknown): Error {
  const number = error instanceof Error && 'errcode' in error ? (error as Error & { errcode: unknown }).errcode : undefined;
  if (number === undefined) return error instanceof Error ? error : new PlatformError('BUG_UNEXPECTED', messageOf(error));
  if (number === sqliteFull) {
    return new PlatformError('DIR_BUSY', 'the disk of the data directory is full: no write is possible until space is made; reads go on', {
      cause: error,
    });
  }
  return new PlatformError('DIR_BUSY', `the database refused a write (SQLite ${String(number)}): ${messageOf(error)}`, { cause: error });
}
