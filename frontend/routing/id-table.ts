/**
 * An open-addressing table of 32-bit ids, found by a 32-bit hash that the owner can recompute from the id. It holds nothing else: four
 * bytes a slot, linear probing, at most three quarters full.
 *
 * It doubles in steps: the larger table takes all new ids at once, and every later insertion or removal moves a few dozen old slots over. Moving
 * goes run by run (a run is what stands between two empty slots), so that no probe ever crosses a place that was already emptied. The table never shrinks.
 */

const slotsMovedPerStep = 64;
const slotsMin = 1024;

/** See the header of this file. Ids are 0 to 2^32 - 2; an id must not be inserted twice. */
export class IdTable {
  readonly #hashOf: (id: number) => number;
  #slots = new Uint32Array(slotsMin);
  #old: Uint32Array | undefined;
  /** An empty slot of the old table, everything before which (from `#oldStart` on) has been moved. */
  #oldCursor = 0;
  #oldLeft = 0;
  #count = 0;

  constructor(hashOf: (id: number) => number) {
    this.#hashOf = hashOf;
  }

  /** Ids held. */
  get count(): number {
    return this.#count;
  }

  /** Bytes of the tables. */
  get bytes(): number {
    return this.#slots.byteLength + (this.#old?.byteLength ?? 0);
  }

  insert(id: number): void {
    this.#step();
    if (this.#old === undefined && this.#count + 1 > this.#slots.length * 0.75) this.#grow();
    place(this.#slots, id, this.#hashOf(id));
    this.#count += 1;
  }

  /** Removes an id; `false` when it was not there. */
  remove(id: number): boolean {
    this.#step();
    const hash = this.#hashOf(id);
    const isFound = this.#removeFrom(this.#slots, id, hash) || (this.#old !== undefined && this.#removeFrom(this.#old, id, hash));
    if (isFound) this.#count -= 1;
    return isFound;
  }

  /**
   * Walks the ids whose hash may be `hash`, in no order, until `isWanted` says yes to one, which is returned; -1 when none is left.
   */
  find(hash: number, isWanted: (id: number) => boolean): number {
    const id = findIn(this.#slots, hash, isWanted);
    return id >= 0 || this.#old === undefined ? id : findIn(this.#old, hash, isWanted);
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    this.#old = old;
    this.#oldCursor = old.indexOf(0);
    this.#oldLeft = old.length;
  }

  /** Moves some of the old table; ends at an empty slot. */
  #step(): void {
    const old = this.#old;
    if (old === undefined) return;
    const mask = old.length - 1;
    for (let moved = 0; this.#oldLeft > 0 && (moved < slotsMovedPerStep || old[this.#oldCursor] !== 0); moved += 1) {
      const slot = old[this.#oldCursor] as number;
      if (slot !== 0) {
        place(this.#slots, slot - 1, this.#hashOf(slot - 1));
        old[this.#oldCursor] = 0;
      }
      this.#oldCursor = (this.#oldCursor + 1) & mask;
      this.#oldLeft -= 1;
    }
    if (this.#oldLeft === 0) this.#old = undefined;
  }

  #removeFrom(slots: Uint32Array, id: number, hash: number): boolean {
    const mask = slots.length - 1;
    let hole = hash & mask;
    while (slots[hole] !== id + 1) {
      if (slots[hole] === 0) return false;
      hole = (hole + 1) & mask;
    }
    // Backward shift: whoever stands after the hole and may stand in it moves into it, so that no probe ends early.
    for (let at = (hole + 1) & mask; slots[at] !== 0; at = (at + 1) & mask) {
      const home = this.#hashOf((slots[at] as number) - 1) & mask;
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        slots[hole] = slots[at] as number;
        hole = at;
      }
    }
    slots[hole] = 0;
    return true;
  }
}

function place(slots: Uint32Array, id: number, hash: number): void {
  const mask = slots.length - 1;
  let at = hash & mask;
  while (slots[at] !== 0) at = (at + 1) & mask;
  slots[at] = id + 1;
}

function findIn(slots: Uint32Array, hash: number, isWanted: (id: number) => boolean): number {
  const mask = slots.length - 1;
  for (let at = hash & mask; ; at = (at + 1) & mask) {
    const slot = slots[at] as number;
    if (slot === 0) return -1;
    if (isWanted(slot - 1)) return slot - 1;
  }
}
