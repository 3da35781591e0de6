/**
 * A cache bounded by the bytes it holds, which keeps what is used: when it is full a hand goes round its entries, and drops those that nobody has
 * read since it came by last ("clock"). Reading costs one look into a map and a mark, and the room is always full, where a list in order of use
 * would write on every read.
 */
export class BoundedCache<Key, Value> {
  readonly #bytesMax: number;
  readonly #bytesOf: (value: Value) => number;
  readonly #entries = new Map<Key, { value: Value; isUsed: boolean }>();
  #hand: Iterator<[Key, { value: Value; isUsed: boolean }]> = this.#entries.entries();
  #bytes = 0;

  /** @param bytesOf rough size of a value with its key; the same whenever it is asked */
  constructor(bytesMax: number, bytesOf: (value: Value) => number) {
    this.#bytesMax = bytesMax;
    this.#bytesOf = bytesOf;
  }

  /** What it holds, by `bytesOf`. */
  get bytes(): number {
    return this.#bytes;
  }

  get(key: Key): Value | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    entry.isUsed = true;
    return entry.value;
  }

  set(key: Key, value: Value): void {
    this.#bytes += this.#bytesOf(value);
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      this.#entries.set(key, { value, isUsed: false });
    } else {
      this.#bytes -= this.#bytesOf(entry.value);
      entry.value = value;
    }
    while (this.#bytes > this.#bytesMax && this.#entries.size > 1) this.#dropOne();
  }

  delete(key: Key): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#bytes -= this.#bytesOf(entry.value);
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  // The second time round at the latest finds one that is not marked.
  #dropOne(): void {
    for (;;) {
      const next = this.#hand.next();
      if (next.done === true) {
        this.#hand = this.#entries.entries();
        continue;
      }
      const [key, entry] = next.value;
      if (entry.isUsed) entry.isUsed = false;
      else {
        this.delete(key);
        return;
      }
    }
  }
}
