/**
 * One replica's changes in the order received: many entries side by side, one entry's changes one after the other, and nothing below an
 * entry before the entry itself. It holds at most `queuedMax` changes, or so many octets of them; the source waits for room, and with it
 * the master.
 *
 *   received ──► [ a b c d e … ] ──► up to 64 at a time, or in batches ──► acknowledged: the longest prefix that is done
 *
 * A replica of our own takes batches, which it applies in their order; what it refuses of a batch is done by itself once everything sent
 * before and after it has been answered. New entries of a first load come in blocks, encoded as the master sent them: a block is one thing in
 * the queue that counts as many, and is done when all that was refused of it is. Other replicas take blocks as batches, and nothing else.
 *
 * When the replica is lost, what was under way counts as not done and is done again on the next connection.
 */
import type { Clock } from '#common/clock.ts';
import { isWithin, normalizeDnText, splitDn } from '#protocol/ldap/dn.ts';
import { decodeImages, type EncodedImages, type Image } from '#protocol/ldap/image-batch.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
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
  /** With `isCheck`: it gave its name to an entry of the master. */
  readonly wasDisplaced?: boolean;
  /** Name that a deleted entry had, where the master says it. */
  readonly lastDn?: string;
  /** Instead of one entry: many new ones; `uuid` is empty then. */
  readonly block?: EncodedImages;
}

/** A change in the pipeline. */
export interface Queued extends Change {
  readonly number: number;
  /** Roughly, what it holds. */
  readonly bytes: number;
  isDone: boolean;
  /** Its batch was refused by the replica as far as it is concerned: what counts is the master's state when it is done by itself. */
  isRefused: boolean;
  /** Settles, never rejects, when its present attempt is over. */
  running: Promise<void> | undefined;
  /** Of a block: how many of its changes are still to be done by themselves. */
  partsLeft?: number;
  /** The block that it is a part of. */
  readonly of?: Queued;
}

/** How a replica takes many changes at a time. */
export interface Batches extends Partial<Disposable> {
  /** What goes in them: blocks only, or everything but what asks for the master's state. */
  readonly of: 'blocks' | 'changes';
  /** Sends several changes or one block; gives the places of what was refused. */
  readonly send: (changes: readonly Queued[]) => Promise<readonly number[]>;
}

export const queuedMax = 4096;
/** Octets of them, roughly: reached first where entries are larger than usual, as with photographs. */
export const queuedBytesMax = 16_777_216;
export const runningMax = 64;
/** Changes and, roughly, bytes of one batch; batches under way. */
export const batchMax = 256;
export const batchBytesMax = 262_144;
const batchesMax = 4;
/** Entries of one block: a commit of the replica costs as much as some twenty of them, and keeps other clients waiting for some 10 ms. */
export const blockMax = 768;

/** See the header of this file. */
export class Pipeline {
  readonly #clock: Clock;
  readonly #onAcknowledged: (changes: readonly Queued[]) => void;
  #queue: Queued[] = [];
  /** Changes in it. */
  #count = 0;
  /** Octets in it. */
  #bytes = 0;
  #lastNumber = 0;
  /** Queued and not done, by entry, in order. */
  #byUuid = new Map<string, Queued[]>();
  /** Under way, by normalised name, in order; with the name of each, for deletions `undefined`. */
  #byDn = new Map<string, Queued[]>();
  #dnKeys = new WeakMap<Queued, string>();
  /** The only change under way that has a name; it is entered under that when there is another. */
  #unnamed: Queued | undefined;
  /** Of blocks, by themselves under way. */
  readonly #parts = new Set<Queued>();
  #waiters: (() => void)[] = [];

  constructor(clock: Clock, onAcknowledged: (changes: readonly Queued[]) => void) {
    this.#clock = clock;
    this.#onAcknowledged = onAcknowledged;
  }

  /** Changes that the replica has not acknowledged. */
  get backlog(): number {
    return this.#count;
  }

  /** Number of the last change that was pushed. */
  get lastNumber(): number {
    return this.#lastNumber;
  }

  /** Age of the oldest of them, milliseconds. */
  get lagMs(): number {
    const oldest = this.#queue[0];
    return oldest === undefined ? 0 : this.#clock.monotonicMs() - oldest.receivedMs;
  }

  get hasRoom(): boolean {
    return this.#count < queuedMax && this.#bytes < queuedBytesMax;
  }

  push(change: Change): void {
    this.#lastNumber += 1;
    const bytes = bytesOf(change);
    const queued: Queued = { ...change, number: this.#lastNumber, bytes, isDone: false, isRefused: false, running: undefined };
    this.#queue.push(queued);
    this.#count += countOf(queued);
    this.#bytes += bytes;
    if (queued.uuid !== '') append(this.#byUuid, queued.uuid, queued);
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
    this.#count = 0;
    this.#bytes = 0;
    this.#byUuid.clear();
    this.#byDn.clear();
    this.#unnamed = undefined;
    this.#wake();
  }

  /**
   * Applies what comes until `signal` aborts or something fails, which rejects once nothing is under way any more. `apply` does one change by
   * itself: what does not go in batches, what of those was refused, and changes that ask for the master's state (`isCheck`).
   */
  async run(apply: (change: Queued) => Promise<void>, signal: AbortSignal, batches?: Batches): Promise<void> {
    const crew = new Crew(
      apply,
      signal,
      (change) => this.#finish(change),
      () => this.#wake(),
    );
    let failure: { readonly error: unknown } | undefined;
    let underWay = 0;
    let started = 0;
    const refused: Queued[] = [];
    this.#forgetParts();
    const onAbort = (): void => this.#wake();
    signal.addEventListener('abort', onAbort, { once: true });
    const send = async (batch: readonly Queued[], to: Batches): Promise<void> => {
      underWay += 1;
      try {
        const sent = batch.filter((one) => one.uuid !== '' || one.block !== undefined);
        const places = await to.send(sent);
        // What came after a batch that failed comes again behind it.
        if (failure !== undefined) return;
        if (places.length > 0) {
          const [first] = sent;
          const changes = first?.block === undefined ? sent : this.#partsOf(first, places.length);
          for (const at of places) {
            const one = changes[at] as Queued;
            one.isRefused = true;
            refused.push(one);
          }
        }
        this.#finishAll(batch);
      } catch (error) {
        failure ??= { error };
      } finally {
        underWay -= 1;
        this.#wake();
      }
    };
    const startNext = (): boolean => {
      const next = this.#nextAfter(started);
      if (next === undefined) return false;
      // Batches wait for changes by themselves as those wait for the batches.
      if (batches !== undefined && (batches.of === 'blocks' ? next.block !== undefined : !isAlone(next))) {
        if (crew.count > 0 || underWay >= batchesMax) return false;
        const batch = this.#batchAfter(started);
        started = (batch.at(-1) as Queued).number;
        void send(batch, batches);
        return true;
      }
      if (underWay > 0 || crew.count >= runningMax) return false;
      started = next.number;
      const parts = next.block === undefined ? [next] : this.#partsOf(next, next.block.count);
      for (const part of parts) crew.start(part, this.#enter(part));
      return true;
    };
    try {
      for (;;) {
        failure ??= crew.failure;
        if (failure !== undefined || signal.aborted) {
          if (underWay === 0 && crew.count === 0) {
            if (failure !== undefined) throw failure.error;
            return;
          }
        } else {
          // In their order and side by side.
          while (underWay === 0 && refused.length > 0 && crew.count < runningMax) {
            const next = refused.shift() as Queued;
            crew.start(next, this.#enter(next));
          }
          if (refused.length === 0) while (startNext());
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
    if (this.#queue[0] === change) return;
    this.#nameUnnamed();
    const key = normalizeDnText(dn) ?? dn;
    for (const other of [...this.#queue]) {
      if (other.number >= change.number) return;
      const otherKey = this.#dnKeys.get(other);
      const isBelow = otherKey !== undefined && otherKey !== key && isWithin(otherKey, key);
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

  // What can go in one batch: a block, or changes up to one that goes by itself.
  #batchAfter(number: number): Queued[] {
    const batch: Queued[] = [];
    let bytes = 0;
    for (let last = number; batch.length < batchMax && bytes < batchBytesMax; last = (batch.at(-1) as Queued).number) {
      const next = this.#nextAfter(last);
      if (next === undefined || (batch.length > 0 && (next.block !== undefined || isAlone(next) !== isAlone(batch[0] as Queued)))) break;
      batch.push(next);
      if (next.block !== undefined) break;
      bytes += next.bytes;
    }
    return batch;
  }

  // Enters a change that is to be applied by itself; gives what must be done before it: the change before it of the same entry, and the
  // last of each name on its way up. They are under way or done, being earlier.
  #enter(change: Queued): Queued[] {
    const before: Queued[] = [];
    const consider = (list: readonly Queued[] | undefined): void => {
      for (const other of list ?? []) if (other.number < change.number && other.running !== undefined) before.push(other);
    };
    if (change.of !== undefined) {
      append(this.#byUuid, change.uuid, change);
      this.#parts.add(change);
    }
    if (change.uuid !== '') consider(this.#byUuid.get(change.uuid));
    if (change.entry === undefined) return before;
    this.#nameUnnamed();
    if (this.#byDn.size === 0) this.#unnamed = change;
    else for (let key = this.#name(change) ?? ''; key !== ''; key = splitDn(key)?.parent ?? '') consider(this.#byDn.get(key));
    return before;
  }

  #nameUnnamed(): void {
    if (this.#unnamed !== undefined) this.#name(this.#unnamed);
    this.#unnamed = undefined;
  }

  #name(change: Queued): string | undefined {
    const known = this.#dnKeys.get(change);
    const dnKey = known ?? normalizeDnText(change.entry?.dn ?? '');
    if (known !== undefined || dnKey === undefined) return dnKey;
    this.#dnKeys.set(change, dnKey);
    append(this.#byDn, dnKey, change);
    return dnKey;
  }

  // The changes of a block by themselves; it is done when so many of them are.
  #partsOf(block: Queued, countsDone: number): Queued[] {
    block.partsLeft = countsDone;
    const images = decodeImages(block.block as EncodedImages);
    return images.map((image, at) => {
      const { uuid, dn = '', attributes = [] } = image as Image & { readonly attributes?: readonly Attribute[] };
      const { isNew, cookie, receivedMs } = block;
      const number = block.number + (at + 1) / (images.length + 1);
      const part: Queued = {
        ...{ uuid, entry: { dn, attributes }, isNew, cookie, receivedMs, number, of: block },
        ...{ bytes: 0, isDone: false, isRefused: false, running: undefined },
      };
      return part;
    });
  }

  // Those of the last attempt: their blocks are taken up again as a whole.
  #forgetParts(): void {
    for (const part of this.#parts) this.#leave(part);
  }

  #finish(change: Queued): void {
    change.isDone = true;
    this.#leave(change);
    const { of } = change;
    if (of !== undefined) {
      of.partsLeft = (of.partsLeft ?? 1) - 1;
      of.isDone = of.partsLeft === 0;
    }
    this.#acknowledge();
  }

  #finishAll(changes: readonly Queued[]): void {
    for (const change of changes) {
      if (change.isRefused || (change.partsLeft ?? 0) > 0) continue;
      change.isDone = true;
      this.#leave(change);
    }
    this.#acknowledge();
  }

  #leave(change: Queued): void {
    this.#parts.delete(change);
    if (this.#unnamed === change) this.#unnamed = undefined;
    remove(this.#byUuid, change.uuid, change);
    const dnKey = this.#dnKeys.get(change);
    if (dnKey !== undefined) remove(this.#byDn, dnKey, change);
  }

  #acknowledge(): void {
    let count = 0;
    while (count < this.#queue.length && (this.#queue[count] as Queued).isDone) count += 1;
    if (count === 0) return;
    const done = this.#queue.splice(0, count);
    for (const one of done) {
      this.#count -= countOf(one);
      this.#bytes -= one.bytes;
    }
    this.#onAcknowledged(done);
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }
}

function countOf({ block }: Change): number {
  return block?.count ?? 1;
}

function bytesOf({ entry, block }: Change): number {
  if (block !== undefined) return block.octets.length;
  if (entry === undefined) return 64;
  if (entry.attributesBer !== undefined) return 64 + entry.attributesBer.length;
  let bytes = 64;
  for (const { values } of entry.attributes) for (const value of values) bytes += value.length + 16;
  return bytes;
}

// What counts for these is the master's state when their turn has come, which the replica cannot know.
function isAlone(change: Queued): boolean {
  return change.isCheck === true || change.isRefused;
}

/** Changes that are applied each by itself, side by side. */
class Crew {
  failure: { readonly error: unknown } | undefined;
  count = 0;
  readonly #apply: (change: Queued) => Promise<void>;
  readonly #signal: AbortSignal;
  readonly #done: (change: Queued) => void;
  readonly #moved: () => void;

  constructor(apply: (change: Queued) => Promise<void>, signal: AbortSignal, done: (change: Queued) => void, moved: () => void) {
    this.#apply = apply;
    this.#signal = signal;
    this.#done = done;
    this.#moved = moved;
  }

  get mayStart(): boolean {
    return this.failure === undefined && !this.#signal.aborted;
  }

  /** Applies a change once those before it are over. */
  start(change: Queued, before: readonly Queued[]): void {
    this.count += 1;
    change.running = (async () => {
      try {
        if (before.length > 0) await Promise.all(before.map((one) => one.running));
        if (this.mayStart) {
          if (change.uuid !== '') await this.#apply(change);
          this.#done(change);
        }
      } catch (error) {
        this.failure ??= { error };
      } finally {
        change.running = undefined;
        this.count -= 1;
        this.#moved();
      }
    })();
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
