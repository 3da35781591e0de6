/**
 * One piece of the route index: an open-addressing table of 64-bit hashes, ten bytes a slot, in memory that threads can share.
 *
 *   header 16 bytes: sequence, used | hashes: 8 bytes a slot (low, high) | values: 2 bytes a slot, 0 = free
 *
 * One thread writes; any may read. The sequence number is odd while a slot is being written, so that a reader in another thread notices
 * and looks again. A segment never changes its size: a fuller one is copied to a larger one, or to two (route-index.ts), in well under a
 * millisecond for the sizes kept here.
 */

/** Slots from which a segment is split in two instead of being made larger. */
export const segmentSlotsMax = 16_384;
const slotsMin = 16;
const headerBytes = 16;
/** Share of slots used at which a segment is replaced. Linear probing then looks at 4 slots for a hit and 26 for a miss on average. */
const loadMax = 0.86;
/** Looks that a reader in another thread takes at a segment that is being written before it takes what it saw. */
const looksMax = 64;

/** See the header of this file. */
export class RouteSegment {
  readonly memory: SharedArrayBuffer;
  readonly slots: number;
  /** Bits of `high`, from the top, that all hashes here have in common. */
  readonly depth: number;
  readonly #header: Int32Array;
  readonly #hashes: Uint32Array;
  readonly #values: Uint16Array;

  /** Over memory that `allocate` made, in this thread or another. */
  constructor(memory: SharedArrayBuffer, depth: number) {
    this.memory = memory;
    this.depth = depth;
    this.slots = (memory.byteLength - headerBytes) / 10;
    this.#header = new Int32Array(memory, 0, 4);
    this.#hashes = new Uint32Array(memory, headerBytes, this.slots * 2);
    this.#values = new Uint16Array(memory, headerBytes + this.slots * 8, this.slots);
  }

  /** An empty segment with room for `count` hashes. */
  static allocate(count: number, depth: number): RouteSegment {
    const slots = Math.max(slotsMin, Math.ceil(count / (loadMax / 1.125)));
    return new RouteSegment(new SharedArrayBuffer(headerBytes + slots * 10), depth);
  }

  get used(): number {
    return this.#header[1] as number;
  }

  /** Whether one more hash needs a larger segment first. */
  get isFull(): boolean {
    return this.used + 1 > this.slots * loadMax;
  }

  /** Value of a hash, 0 when it is not here. For the thread that writes. */
  find(low: number, high: number): number {
    const slot = this.#slotOf(low, high);
    return slot < 0 ? 0 : (this.#values[slot] as number);
  }

  /** As `find`, for other threads. */
  findShared(low: number, high: number): number {
    for (let look = 0; ; look += 1) {
      const before = Atomics.load(this.#header, 0);
      const value = this.find(low, high);
      if (look >= looksMax || ((before & 1) === 0 && Atomics.load(this.#header, 0) === before)) return value;
    }
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
    this.#begin();
    this.#hashes[slot * 2] = low;
    this.#hashes[slot * 2 + 1] = high;
    this.#values[slot] = value;
    this.#header[1] = this.used + 1;
    this.#finish();
    return 0;
  }

  /** Takes a hash out; its value before, or 0. */
  remove(low: number, high: number): number {
    let hole = this.#slotOf(low, high);
    if (hole < 0) return 0;
    const { slots } = this;
    const before = this.#values[hole] as number;
    this.#begin();
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
    this.#header[1] = this.used - 1;
    this.#finish();
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

  #slotOf(low: number, high: number): number {
    const { slots } = this;
    let slot = home(low, slots);
    // Another thread may be writing: what is read may be torn, and must not lead round for ever.
    for (let left = slots; left > 0 && this.#values[slot] !== 0; left -= 1) {
      if (this.#hashes[slot * 2] === low && this.#hashes[slot * 2 + 1] === high) return slot;
      slot = slot + 1 === slots ? 0 : slot + 1;
    }
    return -1;
  }

  #begin(): void {
    Atomics.add(this.#header, 0, 1);
  }

  #finish(): void {
    Atomics.add(this.#header, 0, 1);
  }
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
