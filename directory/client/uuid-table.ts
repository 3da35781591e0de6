/**
 * UUIDs by the million without an object each: open addressing over flat memory, 25 bytes a slot at most three quarters full. Each has a
 * mark, for telling after a refresh who was named and who was not, and a fingerprint of eight bytes for those who compare.
 */
import { uuidToBytes } from '#protocol/ldap/controls.ts';

const firstSlots = 1024;

/** See the header of this file. */
export class UuidTable {
  #slots = firstSlots;
  #size = 0;
  // Slots used, also by removed entries: the table is rebuilt when three quarters are.
  #used = 0;
  #keys = new Uint32Array(firstSlots * 4);
  #fingerprints = new Uint32Array(firstSlots * 2);
  // 0 free, 1 removed, 2 there, 3 there and marked.
  #states = new Uint8Array(firstSlots);
  readonly #key = new Uint32Array(4);

  get size(): number {
    return this.#size;
  }

  has(uuid: string): boolean {
    return this.#find(uuid) >= 0;
  }

  isMarked(uuid: string): boolean {
    const found = this.#find(uuid);
    return found >= 0 && this.#states[found] === 3;
  }

  /** Adds it, marked, if it is new; marks it in any case. True when it was new. */
  mark(uuid: string): boolean {
    const found = this.#find(uuid);
    if (found >= 0) {
      this.#states[found] = 3;
      return false;
    }
    if ((this.#used + 1) * 4 > this.#slots * 3) this.#rebuild();
    this.#insert(this.#key, 3, 0, 0);
    this.#size += 1;
    return true;
  }

  /** Adds it without a mark if it is new; keeps eight bytes with it in any case. */
  put(uuid: string, high: number, low: number): void {
    const found = this.#find(uuid);
    if (found >= 0) {
      this.#fingerprints[found * 2] = high;
      this.#fingerprints[found * 2 + 1] = low;
      return;
    }
    if ((this.#used + 1) * 4 > this.#slots * 3) this.#rebuild();
    this.#insert(this.#key, 2, high, low);
    this.#size += 1;
  }

  /** Whether the entry is there with this fingerprint. */
  hasFingerprint(uuid: string, high: number, low: number): boolean {
    const found = this.#find(uuid);
    return found >= 0 && this.#fingerprints[found * 2] === high >>> 0 && this.#fingerprints[found * 2 + 1] === low >>> 0;
  }

  /** Removes it; false when it was not there. */
  delete(uuid: string): boolean {
    const found = this.#find(uuid);
    if (found < 0) return false;
    this.#states[found] = 1;
    this.#size -= 1;
    return true;
  }

  /** Takes every mark away. */
  clearMarks(): void {
    for (let i = 0; i < this.#slots; i += 1) if (this.#states[i] === 3) this.#states[i] = 2;
  }

  /** How many have no mark. */
  countUnmarked(): number {
    let count = 0;
    for (let i = 0; i < this.#slots; i += 1) if (this.#states[i] === 2) count += 1;
    return count;
  }

  /** Those without a mark; the table may be changed meanwhile only by `delete`. */
  *unmarked(): Generator<string> {
    for (let i = 0; i < this.#slots; i += 1) if (this.#states[i] === 2) yield this.#text(i);
  }

  /** All of them; the table must not be changed meanwhile. */
  *all(): Generator<{ readonly uuid: string; readonly isMarked: boolean; readonly high: number; readonly low: number }> {
    for (let i = 0; i < this.#slots; i += 1) {
      const state = this.#states[i] as number;
      if (state < 2) continue;
      const [high, low] = [this.#fingerprints[i * 2] as number, this.#fingerprints[i * 2 + 1] as number];
      yield { uuid: this.#text(i), isMarked: state === 3, high, low };
    }
  }

  // Leaves the key in #key.
  #find(uuid: string): number {
    const bytes = uuidToBytes(uuid);
    for (let i = 0; i < 4; i += 1) this.#key[i] = bytes.readUInt32BE(i * 4);
    const mask = this.#slots - 1;
    for (let slot = hash(this.#key) & mask; ; slot = (slot + 1) & mask) {
      const state = this.#states[slot] as number;
      if (state === 0) return -1;
      if (state !== 1 && this.#isKeyAt(slot)) return slot;
    }
  }

  #isKeyAt(slot: number): boolean {
    for (let i = 0; i < 4; i += 1) if (this.#keys[slot * 4 + i] !== this.#key[i]) return false;
    return true;
  }

  #insert(key: Uint32Array, state: number, high: number, low: number): void {
    const mask = this.#slots - 1;
    let slot = hash(key) & mask;
    while (this.#states[slot] !== 0) slot = (slot + 1) & mask;
    this.#keys.set(key, slot * 4);
    this.#fingerprints[slot * 2] = high;
    this.#fingerprints[slot * 2 + 1] = low;
    this.#states[slot] = state;
    this.#used += 1;
  }

  #rebuild(): void {
    const before = { slots: this.#slots, keys: this.#keys, fingerprints: this.#fingerprints, states: this.#states };
    const wanted = new Uint32Array(this.#key);
    while ((this.#size + 1) * 2 > this.#slots) this.#slots *= 2;
    this.#keys = new Uint32Array(this.#slots * 4);
    this.#fingerprints = new Uint32Array(this.#slots * 2);
    this.#states = new Uint8Array(this.#slots);
    this.#used = 0;
    for (let i = 0; i < before.slots; i += 1) {
      const state = before.states[i] as number;
      if (state < 2) continue;
      const fingerprint = before.fingerprints.subarray(i * 2, i * 2 + 2);
      this.#insert(before.keys.subarray(i * 4, i * 4 + 4), state, fingerprint[0] as number, fingerprint[1] as number);
    }
    this.#key.set(wanted);
  }

  #text(slot: number): string {
    let hex = '';
    for (let i = 0; i < 4; i += 1) hex += (this.#keys[slot * 4 + i] as number).toString(16).padStart(8, '0');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }
}

// UUIDs of versions 1 and 4 differ enough in these words; time-ordered ones are spread by the multiplication.
function hash(key: Uint32Array): number {
  const mixed =
    Math.imul((key[0] as number) ^ (key[3] as number), 0x9e3779b1) ^ Math.imul((key[1] as number) ^ (key[2] as number), 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}
