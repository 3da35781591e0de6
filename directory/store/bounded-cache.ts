/**
 * A cache bounded by the bytes it holds, which keeps what is used: two generations, of which the old one is dropped when the young one has
 * filled half of the room. Reading costs one look into a map, where a list in order of use would write on every read.
 */
export class BoundedCache<Key, Value> {
  readonly #halfBytes: number;
  readonly #bytesOf: (value: Value) => number;
  #young = new Map<Key, Value>();
  #old = new Map<Key, Value>();
  #youngBytes = 0;
  #oldBytes = 0;

  /** @param bytesOf rough size of a value with its key */
  constructor(bytesMax: number, bytesOf: (value: Value) => number) {
    this.#halfBytes = bytesMax / 2;
    this.#bytesOf = bytesOf;
  }

  /** What it holds, by `bytesOf`; what was deleted or moved out of the old generation counts until that is dropped. */
  get bytes(): number {
    return this.#youngBytes + this.#oldBytes;
  }

  get(key: Key): Value | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old === undefined) return undefined;
    this.#old.delete(key);
    this.set(key, old);
    return old;
  }

  set(key: Key, value: Value): void {
    this.#youngBytes += this.#bytesOf(value);
    if (this.#youngBytes > this.#halfBytes) {
      this.#old = this.#young;
      this.#oldBytes = this.#youngBytes - this.#bytesOf(value);
      this.#young = new Map();
      this.#youngBytes = this.#bytesOf(value);
    }
    this.#young.set(key, value);
  }

  delete(key: Key): void {
    const young = this.#young.get(key);
    if (young !== undefined) {
      this.#youngBytes -= this.#bytesOf(young);
      this.#young.delete(key);
    }
    this.#old.delete(key);
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
    this.#youngBytes = 0;
    this.#oldBytes = 0;
  }
}
