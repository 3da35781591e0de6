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

/** Packs entries. */
export class BatchWriter {
  #texts = '';
  #octets: Uint8Array<ArrayBuffer>;
  #octetCount = 0;
  readonly #numbers: number[] = [];
  readonly #words = new Map<string, number>();

  /** @param octetsExpected room for UUIDs and bodies at first; it grows */
  constructor(octetsExpected: number) {
    this.#octets = new Uint8Array(octetsExpected);
  }

  add(entry: PreparedEntry): void {
    const numbers = this.#numbers;
    numbers.push(entry.line, kinds.indexOf(entry.kind), this.#word(entry.parentDn), entry.host === undefined ? -1 : this.#word(entry.host));
    this.#text(entry.rdnNorm);
    this.#text(entry.rdn === entry.rdnNorm ? '' : entry.rdn);
    this.#text(entry.csn);
    this.#text(entry.local);
    numbers.push(entry.body.length);
    this.#take(entry.uuid);
    this.#take(entry.body);
    numbers.push(entry.keys.length / 2);
    for (let i = 0; i < entry.keys.length; i += 2) {
      numbers.push(this.#word(entry.keys[i] as string));
      this.#text(entry.keys[i + 1] as string);
    }
    numbers.push(entry.tallies.length);
    for (const name of entry.tallies) numbers.push(this.#word(name));
    numbers.push(entry.addresses.length);
    for (const address of entry.addresses) this.#text(address);
  }

  finish(mistakes: readonly PreparedMistake[], lines: number): PreparedBatch {
    return {
      text: this.#texts,
      // Moved to the other thread whole, which costs nothing; what is not filled was never touched.
      octets: this.#octets.subarray(0, this.#octetCount),
      numbers: new Int32Array(this.#numbers),
      words: [...this.#words.keys()],
      mistakes,
      lines,
    };
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

  #text(text: string): void {
    this.#texts += text;
    this.#numbers.push(text.length);
  }

  #word(text: string): number {
    let number = this.#words.get(text);
    if (number === undefined) {
      number = this.#words.size;
      this.#words.set(text, number);
    }
    return number;
  }
}

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
