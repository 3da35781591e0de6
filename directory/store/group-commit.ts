/**
 * Group commit: the writes of one turn of the event loop join one transaction, and one flush to the disk makes all of them durable. While
 * each turn brings more of them, the commit waits for the next, a few times: what a flush costs is shared by more.
 *
 *   write ──► work ─┐
 *   write ──► work ─┼─► a turn without writes: COMMIT (fsync) ──► all promises settle
 *   write ──► work ─┘
 *              └ refused after it had written: ROLLBACK, and all works of the turn run again, each within a savepoint of its own
 *
 * What always holds: a promise resolves after its work is on the disk and never before; a refused work leaves nothing behind and does
 * not disturb its neighbours; when the commit itself fails (disk full), every work of the turn is refused and undone.
 * A savepoint doubles what a write costs, because SQLite copies each page that it touches, and nearly every work is refused before it writes
 * or not at all. So a work must be able to run twice: it may change the store and nothing else.
 * Reads on the same database see the open transaction, so readers first wait for `settled()`.
 *
 * A `relaxed` work is the exception to the first sentence: it is committed, visible and safe from a crash of the process when its promise
 * resolves, and safe from a loss of power once a later work that is not relaxed is (docs/adr/0010-replica-durability.md). The log of the
 * database is in order, so what is on the disk is always everything up to some commit.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';

/** Turns that a commit waits for at most, and works that it does not wait with. */
const turnsMax = 8;
const worksMax = 512;

interface Member {
  /** Runs the work and gives what settles its promise once that is durable. Throws what the work throws. */
  readonly run: () => () => void;
  readonly reject: (failure: Error) => void;
  outcome: () => void;
}

interface Batch {
  readonly isRelaxed: boolean;
  readonly members: Member[];
  readonly done: Promise<void>;
  readonly settle: () => void;
  /** Whether each work gets a savepoint. */
  isCareful: boolean;
}

/** See the header of this file. */
export class GroupCommit {
  readonly #database: DatabaseSync;
  readonly #hooks: CommitHooks;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #savepoint: StatementSync;
  readonly #release: StatementSync;
  #batch: Batch | undefined;
  #commits = 0;
  #isRelaxedNow = false;
  /** Whether there were relaxed works: somebody waits to see them, so the next one finds the database ready for it. */
  #isRelaxedOften = false;

  constructor(database: DatabaseSync, hooks: CommitHooks) {
    this.#database = database;
    this.#hooks = hooks;
    this.#begin = database.prepare('BEGIN IMMEDIATE');
    this.#commit = database.prepare('COMMIT');
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
      const run = (): (() => void) => {
        const value = work();
        return () => resolve(value);
      };
      const member: Member = { run, reject, outcome: () => {} };
      batch.members.push(member);
      this.#run(batch, member);
      // Nothing is gained by waiting for others where no flush is shared, and readers of the replica wait meanwhile.
      if (batch.isRelaxed) this.flush();
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
      this.#commit.run();
      this.#commits += 1;
    } catch (error) {
      failure = writeFailure(error);
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      this.#hooks.undone('batch');
    }
    // Followers go first: what they are told is on its way to others, an answer is there when it arrives.
    if (failure === undefined) this.#hooks.committed();
    for (const member of batch.members) {
      if (failure === undefined) member.outcome();
      else member.reject(failure);
    }
    batch.settle();
    if (this.#isRelaxedOften && !this.#isRelaxedNow) {
      try {
        this.#beReadyFor(true);
      } catch {
        // The next relaxed work tries again, and is refused when that fails.
      }
    }
  }

  #open(isRelaxed: boolean): Batch {
    if (this.#batch !== undefined) return this.#batch;
    if (isRelaxed !== this.#isRelaxedNow) this.#beReadyFor(isRelaxed);
    this.#isRelaxedOften ||= isRelaxed;
    this.#begin.run();
    const { promise: done, resolve: settle } = Promise.withResolvers<void>();
    const batch: Batch = { isRelaxed, members: [], done, settle, isCareful: false };
    this.#batch = batch;
    // A relaxed work commits itself.
    if (!isRelaxed) this.#commitAfter(batch, 0, turnsMax);
    return batch;
  }

  #beReadyFor(isRelaxed: boolean): void {
    this.#database.exec(`PRAGMA synchronous = ${isRelaxed ? 'NORMAL' : 'FULL'}`);
    this.#isRelaxedNow = isRelaxed;
  }

  #commitAfter(batch: Batch, seen: number, turns: number): void {
    setImmediate(() => {
      if (batch !== this.#batch) return;
      const count = batch.members.length;
      if (count === 1 || count === seen || count >= worksMax || turns === 0) this.flush();
      else this.#commitAfter(batch, count, turns - 1);
    });
  }

  // A refusal waits for the commit too: it may rest on what a neighbour wrote in this very turn.
  #run(batch: Batch, member: Member): void {
    try {
      // A neighbour's failure may have ended the transaction: SQLITE_FULL and SQLITE_IOERR do. What is written now would commit by itself.
      if (!this.#database.isTransaction) throw new PlatformError('DIR_BUSY', 'an earlier write of this moment failed; try again');
      this.#hooks.begin(batch.isCareful);
      if (batch.isCareful) this.#savepoint.run();
      member.outcome = member.run();
      if (batch.isCareful) this.#release.run();
    } catch (error) {
      const failure = writeFailure(error);
      member.outcome = () => member.reject(failure);
      if (!this.#database.isTransaction) {
        this.#hooks.undone('batch');
      } else if (!this.#hooks.hasWritten()) {
        this.#hooks.undone('work');
      } else if (batch.isCareful) {
        this.#database.exec('ROLLBACK TO work');
        this.#hooks.undone('work');
      } else {
        this.#runAgain(batch);
        return;
      }
      if (batch.isCareful && this.#database.isTransaction) this.#release.run();
    }
  }

  #runAgain(batch: Batch): void {
    this.#database.exec('ROLLBACK');
    this.#hooks.undone('batch');
    batch.isCareful = true;
    try {
      this.#begin.run();
    } catch (error) {
      // Without a transaction every work below is refused, and at the end of the turn the batch.
      for (const member of batch.members) member.outcome = () => member.reject(writeFailure(error));
      return;
    }
    for (const member of batch.members) this.#run(batch, member);
  }
}

/** What the store does around a commit. */
export interface CommitHooks {
  /** A work begins; `isCareful` when a savepoint is about to be opened for it. */
  begin(isCareful: boolean): void;
  /** Whether the present work has written. */
  hasWritten(): boolean;
  /** Last statements of the transaction. */
  beforeCommit(): void;
  /** The transaction is durable; its promises are settled next. */
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
