/**
 * One piece of the route index: an open-addressing table of 64-bit hashes, ten bytes a slot, in one block of memory.
 *
 *   hashes: 8 bytes a slot (low, high) | values: 2 bytes a slot, 0 = free
 *
 * A segment never changes its size: a fuller one is copied to a larger one, or to two (route-index.ts), in well under a millisecond for the
 * sizes kept here.
 */

import type { SegmentMemory } from './segment-memory.ts';

/** Slots from which a segment is split in two instead of being made larger. */
export const segmentSlotsMax = 16_384;
const slotsMin = 16;
/** Share of slots used at which a segment is replaced. Linear probing then looks at 4 slots for a hit and 26 for a miss on average. */
const loadMax = 0.86;

/** See the header of this file. */
export class RouteSegment {
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly slots: number;
  /** Bits of `high`, from the top, that all hashes here have in common. */
  readonly depth: number;
  readonly #hashes: Uint32Array;
  readonly #values: Uint16Array;

  #used = 0;

  /** Over memory that a segment had before, also in an earlier process, or of zeros. */
  constructor(memory: Uint8Array<ArrayBuffer>, depth: number) {
    this.memory = memory;
    this.depth = depth;
    this.slots = memory.byteLength / 10;
    this.#hashes = new Uint32Array(memory.buffer, memory.byteOffset, this.slots * 2);
    this.#values = new Uint16Array(memory.buffer, memory.byteOffset + this.slots * 8, this.slots);
    for (const value of this.#values) if (value !== 0) this.#used += 1;
  }

  /** An empty segment with room for `count` hashes. */
  static allocate(count: number, depth: number, memory: SegmentMemory): RouteSegment {
    const slots = Math.max(slotsMin, Math.ceil(count / (loadMax / 1.125)));
    return new RouteSegment(memory.allocate(slots * 10), depth);
  }

  get used(): number {
    return this.#used;
  }

  /** Whether one more hash needs a larger segment first. */
  get isFull(): boolean {
    return this.used + 1 > this.slots * loadMax;
  }

  /** Value of a hash, 0 when it is not here. */
  find(low: number, high: number): number {
    return findIn(this.#hashes, this.#values, this.slots, low, high);
  }

  /** Puts or replaces a value other than 0; the caller has looked at `isFull`. Returns the value before. */
  put(low: number, high: number, value: number): number {
    const { slots } = this;
    let slot = home(low, slots);
    for (; this.#values[slot] !== 0; slot = slot + 1 === slots ? 0 : slot + 1) {
      if (this.#hashes[slot * 2] !== low || this.#hashes[slot * 2 + 1] !== high) continue;
      const before = this.#values[slot] as number;
      this.#values[slot] = value;
      return before;
    }
    this.#hashes[slot * 2] = low;
    this.#hashes[slot * 2 + 1] = high;
    this.#values[slot] = value;
    this.#used += 1;
    return 0;
  }

  /** Takes a hash out; its value before, or 0. */
  remove(low: number, high: number): number {
    let hole = slotOf(this.#hashes, this.#values, this.slots, low, high);
    if (hole < 0) return 0;
    const { slots } = this;
    const before = this.#values[hole] as number;
    // Backward shift: whoever stands after the hole and may stand in it moves into it, so that no probe ends early.
    for (let at = next(hole, slots); this.#values[at] !== 0; at = next(at, slots)) {
      const wanted = home(this.#hashes[at * 2] as number, slots);
      if (distance(wanted, at, slots) < distance(hole, at, slots)) continue;
      this.#hashes[hole * 2] = this.#hashes[at * 2] as number;
      this.#hashes[hole * 2 + 1] = this.#hashes[at * 2 + 1] as number;
      this.#values[hole] = this.#values[at] as number;
      hole = at;
    }
    this.#values[hole] = 0;
    this.#used -= 1;
    return before;
  }

  /** Calls `take` for every hash here. */
  each(take: (low: number, high: number, value: number) => void): void {
    for (let slot = 0; slot < this.slots; slot += 1) {
      const value = this.#values[slot] as number;
      if (value !== 0) take(this.#hashes[slot * 2] as number, this.#hashes[slot * 2 + 1] as number, value);
    }
  }

  /** Replaces every value by what `change` makes of it; not by 0. */
  changeAll(change: (value: number) => number): void {
    for (let slot = 0; slot < this.slots; slot += 1) {
      const value = this.#values[slot] as number;
      if (value !== 0) this.#values[slot] = change(value);
    }
  }
}

/** Value of a hash in a segment's memory, 0 when it is not there. Looks at every slot once at most, whatever they hold. */
export function findIn(hashes: Uint32Array, values: Uint16Array, slots: number, low: number, high: number): number {
  const slot = slotOf(hashes, values, slots, low, high);
  return slot < 0 ? 0 : (values[slot] as number);
}

function slotOf(hashes: Uint32Array, values: Uint16Array, slots: number, low: number, high: number): number {
  let slot = home(low, slots);
  for (let looked = 0; looked < slots && values[slot] !== 0; looked += 1) {
    if (hashes[slot * 2] === low && hashes[slot * 2 + 1] === high) return slot;
    slot = next(slot, slots);
  }
  return -1;
}

function home(low: number, slots: number): number {
  return Math.floor((low * slots) / 0x1_0000_0000);
}

function next(slot: number, slots: number): number {
  return slot + 1 === slots ? 0 : slot + 1;
}

function distance(from: number, to: number, slots: number): number {
  return to >= from ? to - from : to - from + slots;
}
