/**
 * Sets of flags, each held once. Thousands of messages share a handful of sets, so a message keeps the number of its set, and every
 * reader is given the same frozen list. Flags differ without regard to case (RFC 9051 §2.3.2); the spelling that came first stays.
 */

/** The sets of one account. Set 0 is the empty one. */
export class FlagSets {
  #sets: (readonly string[])[] = [];
  #seen: boolean[] = [];
  #deleted: boolean[] = [];
  #byKey = new Map<string, number>();

  constructor() {
    this.intern([]);
  }

  get size(): number {
    return this.#sets.length;
  }

  /** Number of the set with these flags. */
  intern(flags: readonly string[]): number {
    const folded = new Map<string, string>();
    for (const flag of flags) {
      const low = flag.toLowerCase();
      if (!folded.has(low)) folded.set(low, flag);
    }
    const keys = [...folded.keys()].sort();
    const key = keys.join(' ');
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const id = this.#sets.length;
    this.#sets.push(Object.freeze(keys.map((low) => folded.get(low) as string)));
    this.#seen.push(folded.has('\\seen'));
    this.#deleted.push(folded.has('\\deleted'));
    this.#byKey.set(key, id);
    return id;
  }

  flags(id: number): readonly string[] {
    return this.#sets[id] as readonly string[];
  }

  isSeen(id: number): boolean {
    return this.#seen[id] as boolean;
  }

  isDeleted(id: number): boolean {
    return this.#deleted[id] as boolean;
  }

  /** All sets, in the order of their numbers. */
  all(): readonly (readonly string[])[] {
    return this.#sets;
  }
}
