/**
 * Virtual time and the only source of turns: everything outside the product's own promises happens as an event of this queue, one at a
 * time, each followed by all the promises that it let settle. So a seed decides everything, and the trace of events is its fingerprint.
 */
import { createHash } from 'node:crypto';
import { type Random, randomFrom } from '#common/random.ts';

/** What the product left to the event loop (`setImmediate`, a compressor's thread) comes between so many events. */
const eventsPerTurn = 64;
/** Of the trace, before it is hashed: numbers of events, and characters. */
const unhashedNumbers = 8_192;
const unhashedChars = 65_536;
/** Stands among the numbers for a text. */
const textMark = -1;

/**
 * Runs every promise that can settle, and what follows from it, within this turn of the event loop. A turn for each event would be the
 * documented way to the same end, and takes a third of a simulation's time.
 */
const settleAll = (process as unknown as { _tickCallback(): void })._tickCallback;

/** An event that may be called off. */
export interface Event {
  readonly atMs: number;
  readonly order: number;
  /** Its kind, of which there are few. */
  readonly what: string;
  /** What it concerns, e.g. a path. */
  readonly on: string | undefined;
  happen: (() => void) | undefined;
}

/** Repeatable chance (mulberry32), with the words that a simulation needs. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 bits. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** From `low` up to `high`, evenly. */
  between(low: number, high: number): number {
    return low + ((high - low) * this.next()) / 2 ** 32;
  }

  /** An integer below `bound`. */
  below(bound: number): number {
    return Math.floor(this.between(0, bound));
  }

  /** True in `share` of the cases. */
  is(share: number): boolean {
    return this.next() < share * 2 ** 32;
  }

  pick<T>(from: readonly T[]): T {
    if (from.length === 0) throw new Error('there is nothing to pick from');
    return from[this.below(from.length)] as T;
  }

  /** Another stream, so that one part's draws do not move another's. */
  fork(): Chance {
    return new Chance(this.next() ^ 0x9e3779b9);
  }

  /** As the product is given chance. */
  port(): Random {
    return randomFrom((count) => {
      const bytes = Buffer.alloc(count);
      for (let i = 0; i < count; i += 1) bytes[i] = this.next() & 0xff;
      return bytes;
    });
  }
}

/** See the header of this file. */
export class World {
  readonly chance: Chance;
  nowMs = 0;
  events = 0;
  /** Called after each event and what followed from it. */
  afterEach: () => void = () => {};
  readonly #heap: Event[] = [];
  readonly #hash = createHash('sha256');
  /** A kind is hashed as text once, and is a number from then on: numbers cost a tenth of what the text of each event does. */
  readonly #kinds = new Map<string, number>();
  readonly #numbers = new Float64Array(unhashedNumbers);
  #numberCount = 0;
  #text = '';
  #order = 0;

  constructor(seed: number) {
    this.chance = new Chance(seed);
  }

  /** Has something happen in `delayMs`; `what`, and what it is `on`, go into the trace. */
  after(delayMs: number, what: string, happen: () => void, on?: string): Event {
    this.#order += 1;
    const event: Event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order, what, on, happen };
    this.#push(event);
    return event;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.after(ms, 'wake', resolve));
  }

  /** Lets everything happen that is due until then. */
  runUntil(endMs: number, isOver: () => boolean = () => false): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = (): void => {
        try {
          for (let count = 0; count < eventsPerTurn; count += 1) {
            if (isOver() || !this.#happenNext(endMs)) {
              resolve();
              return;
            }
          }
        } catch (error) {
          reject(error);
          return;
        }
        setImmediate(go);
      };
      // Never from within a promise's turn: nothing could settle there.
      setImmediate(go);
    });
  }

  /** False when nothing is due. */
  #happenNext(endMs: number): boolean {
    const event = this.#heap[0];
    if (event === undefined || event.atMs > endMs) {
      this.nowMs = Math.max(this.nowMs, endMs);
      return false;
    }
    this.#pop();
    if (event.happen === undefined) return true;
    this.nowMs = event.atMs;
    this.events += 1;
    this.#trace(event);
    event.happen();
    settleAll();
    this.afterEach();
    return true;
  }

  /** Adds to the trace what happened within an event. */
  note(text: string): void {
    this.#text += text;
    this.#text += '\n';
    this.#number(textMark);
  }

  /** Of all that has happened; may be asked once. */
  trace(): string {
    this.#hashAll();
    return this.#hash.digest('hex').slice(0, 16);
  }

  #trace({ atMs, what, on }: Event): void {
    let kind = this.#kinds.get(what);
    if (kind === undefined) {
      kind = this.#kinds.size;
      this.#kinds.set(what, kind);
      this.note(what);
    }
    this.#number(atMs);
    this.#number(kind);
    if (on !== undefined) this.note(on);
  }

  #number(value: number): void {
    this.#numbers[this.#numberCount] = value;
    this.#numberCount += 1;
    if (this.#numberCount === unhashedNumbers || this.#text.length >= unhashedChars) this.#hashAll();
  }

  // The marks say where among the numbers each text stood.
  #hashAll(): void {
    this.#hash.update(this.#numbers.subarray(0, this.#numberCount)).update(this.#text);
    this.#numberCount = 0;
    this.#text = '';
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above] as Event;
      if (!isBefore(event, parent)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1] as Event, heap[below] as Event)) below += 1;
      if (!isBefore(heap[below] as Event, last)) break;
      heap[at] = heap[below] as Event;
      at = below;
    }
    heap[at] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
