/**
 * Prepared entries as they cross from one thread to another: three flat pieces for thousands of entries, instead of an object with a dozen
 * fields for each, which cost more to copy than to make.
 *
 *   text      every string that differs from entry to entry, one behind the other
 *   octets    UUID and body of each entry
 *   numbers   for each entry its lengths and its places in `words`, in the order that `read` takes them
 *   words     strings that come again and again: parents, hosts, attributes, counters
 */
import type { PreparedEntry, PreparedKind } from './prepare-entry.ts';

const kinds: readonly PreparedKind[] = ['other', 'account', 'domain', 'cluster'];
const uuidBytes = 16;

/** What was wrong with a record. */
export interface PreparedMistake {
  readonly line: number;
  readonly detail: string;
}

/** See the header of this file. */
export interface PreparedBatch {
  readonly text: string;
  readonly octets: Uint8Array;
  readonly numbers: Int32Array;
  readonly words: readonly string[];
  readonly mistakes: readonly PreparedMistake[];
  /** Lines of the file that were read for it. */
  readonly lines: number;
}

/**
 * Memory that is used for one batch after the other: threads that make little garbage are collected seldom, and buffers of each batch would add up
 * to hundreds of megabytes until then.
 */
export interface BatchRoom {
  readonly octets: Uint8Array<ArrayBuffer>;
  readonly text: Buffer;
}

/** @param octets room for UUIDs and bodies, and for text, at first */
export function newRoom(octets: number): BatchRoom {
  return { octets: new Uint8Array(octets), text: Buffer.allocUnsafeSlow(octets) };
}

/**
 * Packs entries: whole ones by `add`, or piece by piece in the order of the format, by who has them as octets of a file (plain-records.ts). Text is
 * kept as octets while all of it fits into Latin-1, as nearly always.
 */
export class BatchWriter {
  #text: Buffer;
  #textCount = 0;
  /** All text so far, once some did not fit. */
  #wideText: string | undefined;
  #octets: Uint8Array<ArrayBuffer>;
  #octetCount = 0;
  readonly #numbers: number[] = [];
  readonly #words = new Map<string, number>();

  /** @param room where batches are put together, one at a time; it grows */
  constructor(room: BatchRoom) {
    this.#octets = room.octets;
    this.#text = room.text;
  }

  add(entry: PreparedEntry): void {
    this.head(entry.line, entry.kind, this.word(entry.parentDn), entry.host === undefined ? -1 : this.word(entry.host));
    this.text(entry.rdnNorm);
    this.text(entry.rdn === entry.rdnNorm ? '' : entry.rdn);
    this.text(entry.csn);
    this.text(entry.local);
    this.octets(entry.uuid, entry.body);
    this.number(entry.keys.length / 2);
    for (let i = 0; i < entry.keys.length; i += 2) {
      this.number(this.word(entry.keys[i] as string));
      this.text(entry.keys[i + 1] as string);
    }
    this.number(entry.tallies.length);
    for (const name of entry.tallies) this.number(this.word(name));
    this.number(entry.addresses.length);
    for (const address of entry.addresses) this.text(address);
  }

  finish(mistakes: readonly PreparedMistake[], lines: number): PreparedBatch {
    return {
      text: this.#wideText ?? this.#text.toString('latin1', 0, this.#textCount),
      octets: this.#octets.slice(0, this.#octetCount),
      numbers: new Int32Array(this.#numbers),
      words: [...this.#words.keys()],
      mistakes,
      lines,
    };
  }

  /** What the next batch may be put together in, once this one is finished. */
  get room(): BatchRoom {
    return { octets: this.#octets, text: this.#text };
  }

  /** Begins an entry: `parent` and `host` are numbers of words, the latter -1 without one. */
  head(line: number, kind: PreparedKind, parent: number, host: number): void {
    this.#numbers.push(line, kinds.indexOf(kind), parent, host);
  }

  number(number: number): void {
    this.#numbers.push(number);
  }

  text(text: string): void {
    this.#numbers.push(text.length);
    if (this.#wideText !== undefined || beyondLatin1.test(text)) {
      this.#wideText = (this.#wideText ?? this.#text.toString('latin1', 0, this.#textCount)) + text;
      return;
    }
    this.#makeRoom(text.length);
    this.#text.write(text, this.#textCount, 'latin1');
    this.#textCount += text.length;
  }

  /** `before` and ASCII out of a file, in lower case if asked for, as one text. */
  asciiText(before: string, source: Uint8Array, from: number, to: number, isLowered: boolean): void {
    if (this.#wideText !== undefined) {
      const text = Buffer.from(source.buffer, source.byteOffset + from, to - from).toString('latin1');
      this.text(before + (isLowered ? text.toLowerCase() : text));
      return;
    }
    const length = before.length + to - from;
    this.#numbers.push(length);
    this.#makeRoom(length);
    const target = this.#text;
    let end = this.#textCount;
    for (let i = 0; i < before.length; i += 1, end += 1) target[end] = before.charCodeAt(i);
    for (let at = from; at < to; at += 1, end += 1) {
      const octet = source[at] as number;
      target[end] = isLowered && octet >= 65 && octet <= 90 ? octet + 32 : octet;
    }
    this.#textCount = end;
  }

  /** UUID and body of an entry. */
  octets(uuid: Uint8Array, body: Uint8Array): void {
    this.#numbers.push(body.length);
    this.#take(uuid);
    this.#take(body);
  }

  /** The number of a text that comes again and again. */
  word(text: string): number {
    let number = this.#words.get(text);
    if (number === undefined) {
      number = this.#words.size;
      this.#words.set(text, number);
    }
    return number;
  }

  #take(octets: Uint8Array): void {
    const end = this.#octetCount + octets.length;
    if (end > this.#octets.length) {
      const grown = new Uint8Array(Math.max(end, this.#octets.length * 2));
      grown.set(this.#octets.subarray(0, this.#octetCount));
      this.#octets = grown;
    }
    this.#octets.set(octets, this.#octetCount);
    this.#octetCount = end;
  }

  #makeRoom(length: number): void {
    const needed = this.#textCount + length;
    if (needed <= this.#text.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#text.length * 2));
    grown.set(this.#text.subarray(0, this.#textCount));
    this.#text = grown;
  }
}

const beyondLatin1 = /[\u0100-\uffff]/;

/** Unpacks entries, one after the other. */
export function* readBatch(batch: PreparedBatch): Generator<PreparedEntry> {
  const { numbers, words, text } = batch;
  const octets = Buffer.from(batch.octets.buffer, batch.octets.byteOffset, batch.octets.byteLength);
  let at = 0;
  let textAt = 0;
  let octetsAt = 0;
  const number = (): number => {
    at += 1;
    return numbers[at - 1] as number;
  };
  const piece = (): string => {
    const from = textAt;
    textAt += number();
    return text.slice(from, textAt);
  };
  const take = (length: number): Buffer => {
    octetsAt += length;
    return octets.subarray(octetsAt - length, octetsAt);
  };
  while (at < numbers.length) {
    const line = number();
    const kind = kinds[number()] as PreparedKind;
    const parentDn = words[number()] as string;
    const host = number();
    const rdnNorm = piece();
    const rdn = piece();
    const csn = piece();
    const local = piece();
    const bodyBytes = number();
    const uuid = take(uuidBytes);
    const body = take(bodyBytes);
    const keys: string[] = [];
    for (let count = number(); count > 0; count -= 1) keys.push(words[number()] as string, piece());
    const tallies: string[] = [];
    for (let count = number(); count > 0; count -= 1) tallies.push(words[number()] as string);
    const addresses: string[] = [];
    for (let count = number(); count > 0; count -= 1) addresses.push(piece());
    yield {
      line,
      kind,
      parentDn,
      host: host < 0 ? undefined : (words[host] as string),
      rdnNorm,
      rdn: rdn === '' ? rdnNorm : rdn,
      csn,
      local,
      uuid,
      body,
      keys,
      tallies,
      addresses,
    };
  }
}
