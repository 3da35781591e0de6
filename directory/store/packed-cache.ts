/**
 * A cache in a fixed amount of memory outside the runtime's heap: values as octets, under a number and a text. What it takes is what it says, and
 * the collector of garbage has nothing to go through, where a million small objects would be most of a server's memory and of its pauses.
 *
 *   table     [hash, place] ...                              open addressing
 *   segments  [hash number text-length|flags value-length text value] ...
 *                └ written one after the other; when all are full the oldest one is written anew
 *
 * What was read since the hand came by last stays when a segment is written anew (at most half of it, so that the work is bounded), and the rest goes.
 */
const segmentWordsMax = 65_536;
const segmentWordsMin = 1024;
const headWords = 4;
const slotsFirst = 1024;
/** Slots that are looked at for one key; what finds no place within them is not kept, so that no choice of keys makes it slow. */
const probesMax = 64;
const textLengthMax = 0xffff;
const usedFlag = 0x1_0000;
const wideFlag = 0x2_0000;
const none = -1;

interface Segment {
  readonly words: Int32Array;
  readonly octets: Buffer;
  /** Words that are written. */
  end: number;
}

/** See the header of this file. Numbers are integers of 32 bits; others are never kept. */
export class PackedCache {
  readonly #bytesMax: number;
  readonly #shift: number;
  readonly #segmentWords: number;
  readonly #segments: Segment[] = [];
  /** The segment that is written to. */
  #head = 0;
  #table = new Int32Array(slotsFirst * 2);
  #count = 0;
  #valueAt = 0;
  #valueBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    let words = segmentWordsMax;
    // Some segments at least, so that little goes when one is written anew.
    while (words > segmentWordsMin && words * 4 * 8 > bytesMax) words /= 2;
    this.#segmentWords = words;
    this.#shift = Math.log2(words);
  }

  /** Memory that it takes. */
  get bytes(): number {
    return this.#segments.length * this.#segmentWords * 4 + this.#table.byteLength;
  }

  /** Values that it holds. */
  get size(): number {
    return this.#count;
  }

  /** The value of a key, as a view that is good until the next `set`. */
  get(number: number, text = ''): Buffer | undefined {
    const found = this.#read(number, text);
    if (found === undefined) return undefined;
    const from = this.#valueAt * 4;
    return found.octets.subarray(from, from + this.#valueBytes);
  }

  /** The first number that `setNumbers` wrote. */
  getNumber(number: number, text = ''): number | undefined {
    return this.#read(number, text)?.words[this.#valueAt];
  }

  /** The numbers that `setNumbers` wrote. */
  getNumbers(number: number, text = ''): number[] | undefined {
    const found = this.#read(number, text);
    if (found === undefined) return undefined;
    const numbers: number[] = [];
    const { words } = found;
    for (let at = this.#valueAt, left = this.#valueBytes; left > 0; at += 1, left -= 4) numbers.push(words[at] as number);
    return numbers;
  }

  set(number: number, text: string, value: Uint8Array): void {
    const segment = this.#write(number, text, value.length);
    segment?.octets.set(value, (segment.end - wordsFor(value.length)) * 4);
  }

  /** Keeps numbers of 32 bits; with any other among them nothing. */
  setNumbers(number: number, text: string, numbers: readonly number[]): void {
    for (const one of numbers) if ((one | 0) !== one) return;
    const segment = this.#write(number, text, numbers.length * 4);
    segment?.words.set(numbers, segment.end - numbers.length);
  }

  delete(number: number, text = ''): void {
    const slot = this.#slotOf(number, text);
    if (slot !== none) this.#empty(slot);
  }

  clear(): void {
    this.#table.fill(0);
    this.#count = 0;
    for (const segment of this.#segments) segment.end = 0;
    this.#head = 0;
  }

  // The segment that holds the value, which is marked as read; where in it, and how long, is in the two fields.
  #read(number: number, text: string): Segment | undefined {
    const slot = this.#slotOf(number, text);
    if (slot === none) return undefined;
    const at = (this.#table[slot + 1] as number) - 1;
    const segment = this.#segments[at >>> this.#shift] as Segment;
    const offset = at & (this.#segmentWords - 1);
    const flags = segment.words[offset + 2] as number;
    segment.words[offset + 2] = flags | usedFlag;
    this.#valueAt = offset + headWords + textWords(flags);
    this.#valueBytes = segment.words[offset + 3] as number;
    return segment;
  }

  // A slot is two words; its place is one more than where the value stands, so that 0 is an empty one.
  #slotOf(number: number, text: string): number {
    const table = this.#table;
    const mask = table.length - 1;
    const hash = hashOf(number, text);
    let slot = (hash << 1) & mask;
    for (let probe = 0; probe < probesMax; probe += 1) {
      const place = table[slot + 1] as number;
      if (place === 0) return none;
      if (table[slot] === hash && this.#isAt(place - 1, number, text)) return slot;
      slot = (slot + 2) & mask;
    }
    return none;
  }

  #isAt(at: number, number: number, text: string): boolean {
    const { words, octets } = this.#segments[at >>> this.#shift] as Segment;
    const offset = at & (this.#segmentWords - 1);
    if (words[offset + 1] !== number) return false;
    const flags = words[offset + 2] as number;
    if ((flags & textLengthMax) !== text.length) return false;
    let from = (offset + headWords) * 4;
    if ((flags & wideFlag) === 0) {
      for (let i = 0; i < text.length; i += 1) if (octets[from + i] !== text.charCodeAt(i)) return false;
      return true;
    }
    for (let i = 0; i < text.length; i += 1, from += 2) {
      if (((octets[from] as number) | ((octets[from + 1] as number) << 8)) !== text.charCodeAt(i)) return false;
    }
    return true;
  }

  // Makes room for a value at the end of the segment that it gives; undefined when it is not to be kept.
  #write(number: number, text: string, valueBytes: number): Segment | undefined {
    this.delete(number, text);
    if ((number | 0) !== number || text.length > textLengthMax) return undefined;
    const flags = text.length | (isNarrow(text) ? 0 : wideFlag);
    const words = headWords + textWords(flags) + wordsFor(valueBytes);
    if (words > this.#segmentWords / 4) return undefined;
    if ((this.#count + 1) * 3 > this.#table.length) this.#growTable();
    const segment = this.#room(words);
    const hash = hashOf(number, text);
    const at = segment.end;
    if (!this.#enter(hash, this.#head * this.#segmentWords + at)) return undefined;
    segment.words[at] = hash;
    segment.words[at + 1] = number;
    segment.words[at + 2] = flags;
    segment.words[at + 3] = valueBytes;
    segment.octets.write(text, (at + headWords) * 4, (flags & wideFlag) === 0 ? 'latin1' : 'utf16le');
    segment.end += words;
    return segment;
  }

  #enter(hash: number, at: number): boolean {
    const table = this.#table;
    const mask = table.length - 1;
    let slot = (hash << 1) & mask;
    for (let probe = 0; probe < probesMax; probe += 1) {
      if (table[slot + 1] === 0) {
        table[slot] = hash;
        table[slot + 1] = at + 1;
        this.#count += 1;
        return true;
      }
      slot = (slot + 2) & mask;
    }
    return false;
  }

  // What follows moves up where it may, so that no key is behind an empty slot.
  #empty(slot: number): void {
    const table = this.#table;
    const mask = table.length - 1;
    let hole = slot;
    this.#count -= 1;
    for (let next = (hole + 2) & mask; table[next + 1] !== 0; next = (next + 2) & mask) {
      const home = ((table[next] as number) << 1) & mask;
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      table[hole] = table[next] as number;
      table[hole + 1] = table[next + 1] as number;
      hole = next;
    }
    table[hole + 1] = 0;
  }

  // At two thirds; what finds no place in the new one goes.
  #growTable(): void {
    const old = this.#table;
    this.#table = new Int32Array(old.length * 2);
    this.#count = 0;
    for (let slot = 0; slot < old.length; slot += 2) {
      const place = old[slot + 1] as number;
      if (place !== 0) this.#enter(old[slot] as number, place - 1);
    }
    while (this.bytes > this.#bytesMax && this.#segments.length > 1) {
      const last = this.#segments.length - 1;
      this.#tidy(last, 0);
      this.#segments.pop();
      if (this.#head === last) this.#head = last - 1;
    }
  }

  #room(words: number): Segment {
    let segment = this.#segments[this.#head];
    if (segment !== undefined && segment.end + words <= this.#segmentWords) return segment;
    const isFull = this.#segments.length > 0 && this.bytes + this.#segmentWords * 4 > this.#bytesMax;
    if (segment === undefined || (!isFull && this.#head === this.#segments.length - 1)) {
      const buffer = new ArrayBuffer(this.#segmentWords * 4);
      segment = { words: new Int32Array(buffer), octets: Buffer.from(buffer), end: 0 };
      this.#segments.push(segment);
      this.#head = this.#segments.length - 1;
      return segment;
    }
    this.#head = (this.#head + 1) % this.#segments.length;
    this.#tidy(this.#head, this.#segmentWords / 2);
    return this.#segments[this.#head] as Segment;
  }

  // Takes out of a segment what was not read since the last time, and what is beyond `keptMax` words; what stays moves to its beginning.
  #tidy(index: number, keptMax: number): void {
    const segment = this.#segments[index] as Segment;
    const { words, end } = segment;
    const table = this.#table;
    const mask = table.length - 1;
    let kept = 0;
    for (let at = 0; at < end; ) {
      const flags = words[at + 2] as number;
      const length = headWords + textWords(flags) + wordsFor(words[at + 3] as number);
      const hash = words[at] as number;
      const place = index * this.#segmentWords + at + 1;
      let slot = (hash << 1) & mask;
      let probe = 0;
      while (probe < probesMax && table[slot + 1] !== 0 && table[slot + 1] !== place) {
        slot = (slot + 2) & mask;
        probe += 1;
      }
      // Otherwise it was deleted or written again elsewhere.
      if (table[slot + 1] === place) {
        if ((flags & usedFlag) !== 0 && kept + length <= keptMax) {
          words.copyWithin(kept, at, at + length);
          words[kept + 2] = flags & ~usedFlag;
          table[slot + 1] = index * this.#segmentWords + kept + 1;
          kept += length;
        } else {
          this.#empty(slot);
        }
      }
      at += length;
    }
    segment.end = kept;
  }
}

function wordsFor(octets: number): number {
  return (octets + 3) >>> 2;
}

/** Words of the text that a value's flags tell of. */
function textWords(flags: number): number {
  return wordsFor((flags & textLengthMax) << ((flags & wideFlag) === 0 ? 0 : 1));
}

function isNarrow(text: string): boolean {
  for (let i = 0; i < text.length; i += 1) if (text.charCodeAt(i) > 255) return false;
  return true;
}

function hashOf(number: number, text: string): number {
  let hash = Math.imul(number, 0x9e37_79b1);
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85eb_ca6b);
  return hash ^ (hash >>> 13);
}
