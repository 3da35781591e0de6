/**
 * Group commit: the writes of one turn of the event loop join one transaction, and one flush to the disk makes all of them durable. While
 * each turn brings more of them, the commit waits for the next, a few times: what a flush costs is shared by more.
 *
 *   write ──► work ─┐
 *   write ──► work ─┼─► a turn without writes: COMMIT ──► log flushed, beside the event loop ──► all promises settle
 *   write ──► work ─┘                                └─► meanwhile the next batch does its works; its COMMIT waits for that
 *              └ refused after it had written: ROLLBACK, and all works of the turn run again, each within a savepoint of its own
 *
 * What always holds: a promise resolves after its work is on the disk and never before; a refused work leaves nothing behind and does
 * not disturb its neighbours; when the commit itself fails (disk full), every work of the batch is refused and undone.
 * A savepoint doubles what a write costs, because SQLite copies each page that it touches, and nearly every work is refused before it writes
 * or not at all. So a work must be able to run twice: it may change the store and nothing else.
 *
 * Reads on the same database see the open transaction, and what is not on the disk yet, so readers first wait for `settled()`. They and those
 * who follow the store find nothing of the next batch: it does not begin while somebody waits, or while anybody follows, until they have read.
 *
 * A `relaxed` work is the exception to the first sentence: it is committed, visible and safe from a crash of the process when its promise
 * resolves, and safe from a loss of power once a later work that is not relaxed is (docs/adr/0010-replica-durability.md). The log of the
 * database is in order, so what is on the disk is always everything up to some commit. A `shown` work brings those before it to the disk: its
 * promise waits for that, and readers, who see relaxed works anyway, do not.
 *
 * When the flush fails nobody can tell what of the log is on the disk: its works are refused, although readers see them, and all later ones
 * until the server is started anew and has read what there is.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { DiskSync } from '#common/files/disk-sync.ts';

/** Turns that a commit waits for at most, and works that it does not wait with. */
const turnsMax = 8;
const worksMax = 512;

/** When the promise of a work resolves, and from when on it is seen: see the header of this file. */
export type WriteKind = 'durable' | 'shown' | 'relaxed';

interface Member {
  /** Runs the work and gives what settles its promise once that is durable. Throws what the work throws. */
  readonly run: () => () => void;
  readonly reject: (failure: Error) => void;
  readonly kind: WriteKind;
  outcome: () => void;
}

interface Batch {
  readonly members: Member[];
  readonly done: Promise<void>;
  readonly settle: () => void;
  /** Whether each work gets a savepoint. */
  isCareful: boolean;
  /** Whether it waits only for the flush of the one before. */
  isDue: boolean;
  /** Whether all that it holds may be seen while it is flushed. */
  isShown: boolean;
  /** Whether somebody waits for it, to read. */
  isAwaited: boolean;
}

/** See the header of this file. */
export class GroupCommit {
  readonly #database: DatabaseSync;
  readonly #hooks: CommitHooks;
  readonly #log: LogSync;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #savepoint: StatementSync;
  readonly #release: StatementSync;
  /** Does its works. */
  #batch: Batch | undefined;
  /** Committed, and not on the disk yet. */
  #flushing: Batch | undefined;
  /** Of the next batch, which must not begin yet. */
  #held: Member[] = [];
  /** Whether those who waited have their turn. */
  #isReading = false;
  #commits = 0;
  #failure: Error | undefined;

  /**
   * @param database in WAL mode and locked, so that its log is the same file until it is closed; or in memory
   * @param log brings that file to the disk
   */
  constructor(database: DatabaseSync, hooks: CommitHooks, log: LogSync = logOf(database)) {
    this.#database = database;
    this.#hooks = hooks;
    this.#log = log;
    this.#begin = database.prepare('BEGIN IMMEDIATE');
    this.#commit = database.prepare('COMMIT');
    this.#savepoint = database.prepare('SAVEPOINT work');
    this.#release = database.prepare('RELEASE work');
  }

  /** Commits so far; shows how well writes are grouped. */
  get commits(): number {
    return this.#commits;
  }

  /** Runs `work` in the present transaction or the next one; settles as `kind` says. A throw from `work` undoes it alone. */
  write<T>(work: () => T, kind: WriteKind = 'durable'): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const run = (): (() => void) => {
        const value = work();
        return () => resolve(value);
      };
      const member: Member = { run, reject, kind, outcome: () => {} };
      if (this.#mustWait(kind)) {
        this.#held.push(member);
        return;
      }
      // Nothing is gained by waiting for others where no flush is shared, and readers of the replica wait meanwhile.
      const isAlone = kind !== 'durable' && this.#batch === undefined;
      this.#join(member);
      if (!isAlone || this.#batch === undefined) return;
      if (kind === 'relaxed') this.#end(this.#batch, this.#commitNow(this.#batch));
      else if (this.#flushing === undefined) this.#commitAndFlush(this.#batch);
    });
  }

  /** Resolves once nothing that is uncommitted, or not on the disk, is in the database; `undefined` when nothing is. */
  settled(): Promise<void> | undefined {
    const last = this.#batch ?? (this.#flushing?.isShown === true ? undefined : this.#flushing);
    if (last !== undefined) last.isAwaited = true;
    return last?.done;
  }

  /** Commits all that was asked for, without waiting for the end of a turn, and returns when it is on the disk. */
  flush(): void {
    for (;;) {
      if (this.#flushing !== undefined) this.#flushed(this.#flushing, this.#flushNow());
      else if (this.#batch !== undefined) this.#commitAndFlush(this.#batch);
      else if (this.#held.length > 0) this.#beginHeld();
      else return;
    }
  }

  /** Does that, and lets the log go. */
  close(): void {
    this.flush();
    this.#log.close();
  }

  #mustWait(kind: WriteKind): boolean {
    if (this.#batch !== undefined) return false;
    if (this.#isReading || this.#held.length > 0) return true;
    return kind !== 'relaxed' && this.#flushing !== undefined && (this.#flushing.isAwaited || this.#hooks.isFollowed());
  }

  #join(member: Member): void {
    if (this.#failure !== undefined) {
      member.reject(this.#failure);
      return;
    }
    try {
      this.#batch ??= this.#open();
    } catch (error) {
      member.reject(writeFailure(error));
      return;
    }
    this.#batch.members.push(member);
    if (member.kind === 'durable') this.#batch.isShown = false;
    this.#run(this.#batch, member);
  }

  #open(): Batch {
    this.#begin.run();
    const { promise: done, resolve: settle } = Promise.withResolvers<void>();
    const batch: Batch = { members: [], done, settle, isCareful: false, isDue: false, isShown: true, isAwaited: false };
    this.#commitAfter(batch, 0, turnsMax);
    return batch;
  }

  #commitAfter(batch: Batch, seen: number, turns: number): void {
    setImmediate(() => {
      if (batch !== this.#batch) return;
      const count = batch.members.length;
      if (this.#flushing !== undefined) batch.isDue = true;
      else if (count === 1 || count === seen || count >= worksMax || turns === 0) this.#commitAndFlush(batch);
      else this.#commitAfter(batch, count, turns - 1);
    });
  }

  #commitAndFlush(batch: Batch): void {
    const failure = this.#commitNow(batch);
    if (failure !== undefined) {
      this.#end(batch, failure);
      return;
    }
    this.#flushing = batch;
    this.#log.start((why) => {
      if (batch === this.#flushing) this.#flushed(batch, why);
    });
  }

  #flushNow(): Error | undefined {
    try {
      this.#log.now();
      return undefined;
    } catch (error) {
      return error instanceof Error ? error : new Error(messageOf(error));
    }
  }

  #flushed(batch: Batch, why: Error | undefined): void {
    this.#flushing = undefined;
    if (why !== undefined) {
      const seen = `the disk did not take what was written (${messageOf(why)}): no write is possible until the disk is in order and this server is started again`;
      this.#failure = new PlatformError('DIR_BUSY', `${seen}; reads go on`, { cause: why });
    }
    this.#end(batch, this.#failure);
    if (this.#batch?.isDue === true) this.#commitAndFlush(this.#batch);
  }

  /** The batch is over for the database. Returns why it was undone instead. */
  #commitNow(batch: Batch): Error | undefined {
    if (batch === this.#batch) this.#batch = undefined;
    try {
      if (this.#failure !== undefined) throw this.#failure;
      if (!this.#database.isTransaction) throw new Error('the transaction was ended by an earlier failure');
      this.#hooks.beforeCommit();
      this.#commit.run();
      this.#commits += 1;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      this.#hooks.undone('batch');
      return writeFailure(error);
    }
    this.#hooks.committed();
    return undefined;
  }

  #end(batch: Batch, failure: Error | undefined): void {
    // Followers go first: what they are told is on its way to others, an answer is there when it arrives.
    if (failure === undefined) this.#hooks.durable();
    for (const member of batch.members) {
      if (failure === undefined) member.outcome();
      else member.reject(failure);
    }
    batch.settle();
    if (this.#isReading || (!batch.isAwaited && this.#held.length === 0)) return;
    this.#isReading = true;
    setImmediate(() => {
      this.#isReading = false;
      this.#beginHeld();
    });
  }

  #beginHeld(): void {
    for (const member of this.#held.splice(0)) this.#join(member);
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

/** See disk-sync.ts. */
export type LogSync = Pick<DiskSync, 'start' | 'now' | 'close'>;

function logOf(database: DatabaseSync): LogSync {
  const file = database.location();
  return new DiskSync(file === null ? undefined : `${file}-wal`);
}

/** What the store does around a commit. */
export interface CommitHooks {
  /** A work begins; `isCareful` when a savepoint is about to be opened for it. */
  begin(isCareful: boolean): void;
  /** Whether the present work has written. */
  hasWritten(): boolean;
  /** Last statements of the transaction. */
  beforeCommit(): void;
  /** What was written stays, and is on its way to the disk. */
  committed(): void;
  /** It is there; promises are settled next. */
  durable(): void;
  /** Whether others than those who wait for `settled` read what was committed. */
  isFollowed(): boolean;
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
