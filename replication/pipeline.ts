/**
 * One replica's changes in the order received: many entries side by side, one entry's changes one after the other, and nothing below an
 * entry before the entry itself. It holds at most `queuedMax` changes; the source waits for room, and with it the master.
 *
 *   received ──► [ a b c d e … ] ──► up to 64 at a time ──► acknowledged: the longest prefix that is done
 *
 * When the replica is lost, what was under way counts as not done and is done again on the next connection.
 */
import type { Clock } from '#common/clock.ts';
import { isWithin, normalizeDnText, splitDn } from '#protocol/ldap/dn.ts';
import type { EntryImage } from '#replication/decide.ts';

/** One thing received from the master. `cookie`: all up to and including this is known under it. */
export interface Change {
  readonly uuid: string;
  /** `undefined`: deleted, or nothing but a cookie when `uuid` is empty too. */
  readonly entry: EntryImage | undefined;
  /** The replica is not expected to have the entry. */
  readonly isNew: boolean;
  readonly cookie: Buffer | undefined;
  readonly receivedMs: number;
  /** What counts is the master's state when its turn has come; `entry` tells no more than the name. */
  readonly isCheck?: boolean;
  /** Name that a deleted entry had, where the master says it. */
  readonly lastDn?: string;
}

/** A change in the pipeline. */
export interface Queued extends Change {
  readonly number: number;
  /** Normalised name; `undefined` for deletions. */
  readonly dnKey: string | undefined;
  isDone: boolean;
  /** Settles, never rejects, when its present attempt is over. */
  running: Promise<void> | undefined;
}

export const queuedMax = 4096;
export const runningMax = 64;

/** See the header of this file. */
export class Pipeline {
  readonly #clock: Clock;
  readonly #onAcknowledged: (changes: readonly Queued[]) => void;
  #queue: Queued[] = [];
  #lastNumber = 0;
  /** Queued and not done, by entry and by name, in order. */
  #byUuid = new Map<string, Queued[]>();
  #byDn = new Map<string, Queued[]>();
  #waiters: (() => void)[] = [];

  constructor(clock: Clock, onAcknowledged: (changes: readonly Queued[]) => void) {
    this.#clock = clock;
    this.#onAcknowledged = onAcknowledged;
  }

  /** Changes that the replica has not acknowledged. */
  get backlog(): number {
    return this.#queue.length;
  }

  /** Age of the oldest of them, milliseconds. */
  get lagMs(): number {
    const oldest = this.#queue[0];
    return oldest === undefined ? 0 : this.#clock.monotonicMs() - oldest.receivedMs;
  }

  get hasRoom(): boolean {
    return this.#queue.length < queuedMax;
  }

  push(change: Change): void {
    this.#lastNumber += 1;
    const dnKey = change.entry === undefined ? undefined : normalizeDnText(change.entry.dn);
    const queued: Queued = { ...change, number: this.#lastNumber, dnKey, isDone: false, running: undefined };
    this.#queue.push(queued);
    if (queued.uuid !== '') append(this.#byUuid, queued.uuid, queued);
    if (dnKey !== undefined) append(this.#byDn, dnKey, queued);
    this.#wake();
  }

  /** Resolves when something was pushed, done or acknowledged. */
  moved(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Wakes those who wait in `moved`, for reasons of the caller's own. */
  wake(): void {
    this.#wake();
  }

  /** Resolves once everything pushed until now is acknowledged; whoever aborts the signal calls `wake`. */
  async passed(signal: AbortSignal): Promise<void> {
    const last = this.#lastNumber;
    while ((this.#queue[0]?.number ?? Number.POSITIVE_INFINITY) <= last) {
      signal.throwIfAborted();
      await this.moved();
    }
  }

  /** Throws everything away; for a start from the checkpoint. */
  clear(): void {
    this.#queue = [];
    this.#byUuid.clear();
    this.#byDn.clear();
    this.#wake();
  }

  /**
   * Applies what comes until `signal` aborts or `apply` fails, which rejects once nothing is under way any more.
   */
  async run(apply: (change: Queued) => Promise<void>, signal: AbortSignal): Promise<void> {
    let failure: { readonly error: unknown } | undefined;
    let runningCount = 0;
    let started = 0;
    const onAbort = (): void => this.#wake();
    signal.addEventListener('abort', onAbort, { once: true });
    const start = (change: Queued): void => {
      const before = this.#mustWaitFor(change);
      runningCount += 1;
      change.running = (async () => {
        try {
          if (before.length > 0) await Promise.all(before.map((one) => one.running));
          if (failure === undefined && !signal.aborted) {
            if (change.uuid !== '') await apply(change);
            this.#finish(change);
          }
        } catch (error) {
          failure ??= { error };
        } finally {
          change.running = undefined;
          runningCount -= 1;
          this.#wake();
        }
      })();
    };
    try {
      for (;;) {
        if (failure === undefined && !signal.aborted) {
          while (runningCount < runningMax) {
            const next = this.#nextAfter(started);
            if (next === undefined) break;
            started = next.number;
            start(next);
          }
        } else if (runningCount === 0) {
          if (failure !== undefined) throw failure.error;
          return;
        }
        await this.moved();
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Resolves when all that was received before `change` is done, or no longer under way. */
  async earlierDone(change: Queued): Promise<void> {
    for (const other of [...this.#queue]) {
      if (other.number >= change.number) return;
      if (!other.isDone && other.running !== undefined) await other.running;
    }
  }

  /** Resolves when all that was received before `change` for entries below that name is done, or no longer under way. */
  async earlierBelowDone(change: Queued, dn: string): Promise<void> {
    const key = normalizeDnText(dn) ?? dn;
    for (const other of [...this.#queue]) {
      if (other.number >= change.number) return;
      const isBelow = other.dnKey !== undefined && other.dnKey !== key && isWithin(other.dnKey, key);
      if (isBelow && !other.isDone && other.running !== undefined) await other.running;
    }
  }

  /** Waits for that entry's change before `change`; false when there is none. */
  async pendingBefore(change: Queued, uuid: string): Promise<boolean> {
    const earlier = this.#byUuid.get(uuid)?.filter((one) => one.number < change.number && !one.isDone) ?? [];
    await Promise.all(earlier.map((one) => one.running));
    return earlier.length > 0;
  }

  /** Whether a change of that entry is queued or under way. */
  isPending(uuid: string): boolean {
    return this.#byUuid.has(uuid);
  }

  isPendingLater(change: Queued, uuid: string): boolean {
    return this.#byUuid.get(uuid)?.some((one) => one.number > change.number && !one.isDone) ?? false;
  }

  #nextAfter(number: number): Queued | undefined {
    const first = this.#queue[0];
    if (first === undefined) return undefined;
    // Numbers in the queue have no gaps.
    for (let at = Math.max(0, number + 1 - first.number); at < this.#queue.length; at += 1) {
      const change = this.#queue[at] as Queued;
      if (!change.isDone) return change;
    }
    return undefined;
  }

  // The change before it of the same entry, and the last of each name on its way up: they are under way or done, being earlier.
  #mustWaitFor(change: Queued): Queued[] {
    const before: Queued[] = [];
    const consider = (list: readonly Queued[] | undefined): void => {
      for (const other of list ?? []) if (other.number < change.number && other.running !== undefined) before.push(other);
    };
    if (change.uuid !== '') consider(this.#byUuid.get(change.uuid));
    if (change.dnKey === undefined) return before;
    for (let key = change.dnKey; key !== ''; key = splitDn(key)?.parent ?? '') consider(this.#byDn.get(key));
    return before;
  }

  #finish(change: Queued): void {
    change.isDone = true;
    remove(this.#byUuid, change.uuid, change);
    if (change.dnKey !== undefined) remove(this.#byDn, change.dnKey, change);
    let count = 0;
    while (count < this.#queue.length && (this.#queue[count] as Queued).isDone) count += 1;
    if (count > 0) this.#onAcknowledged(this.#queue.splice(0, count));
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }
}

function append(map: Map<string, Queued[]>, key: string, change: Queued): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [change]);
  else list.push(change);
}

function remove(map: Map<string, Queued[]>, key: string, change: Queued): void {
  const list = map.get(key);
  if (list === undefined) return;
  const rest = list.filter((one) => one !== change);
  if (rest.length === 0) map.delete(key);
  else map.set(key, rest);
}
