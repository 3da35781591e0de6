/**
 * Bytes as this store writes them: little-endian integers, variable-length numbers and length-prefixed strings. The reader never runs
 * past its bytes: anything that does not fit is `STORE_CORRUPT`, whatever the bytes say.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** Builds a record or snapshot. */
export class ByteWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(initialBytes = 1024) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    this.#room(1);
    this.#buffer[this.#length] = value;
    this.#length += 1;
  }

  /** A whole number from 0 to 2^53, seven bits a byte, low ones first. */
  number(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new PlatformError('BUG_UNEXPECTED', `${value} is not a whole number to be stored`);
    this.#room(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#length] = (rest % 0x80) | 0x80;
      this.#length += 1;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#length] = rest;
    this.#length += 1;
  }

  /** Any finite number, eight bytes. */
  double(value: number): void {
    this.#room(8);
    this.#buffer.writeDoubleLE(value, this.#length);
    this.#length += 8;
  }

  /** As they are, without a length. */
  raw(bytes: Uint8Array): void {
    this.#room(bytes.byteLength);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.byteLength;
  }

  string(text: string): void {
    const bytes = Buffer.byteLength(text);
    this.number(bytes);
    this.#room(bytes);
    this.#buffer.write(text, this.#length);
    this.#length += bytes;
  }

  strings(texts: readonly string[]): void {
    this.number(texts.length);
    for (const text of texts) this.string(text);
  }

  /** Ascending numbers as runs: count of runs, then distance and length of each. */
  ascending(values: ArrayLike<number>): void {
    const runs: number[] = [];
    for (let i = 0; i < values.length; ) {
      let end = i + 1;
      while (end < values.length && (values[end] as number) === (values[end - 1] as number) + 1) end += 1;
      runs.push(values[i] as number, end - i);
      i = end;
    }
    this.number(runs.length / 2);
    let previous = 0;
    for (let i = 0; i < runs.length; i += 2) {
      this.number((runs[i] as number) - previous);
      this.number(runs[i + 1] as number);
      previous = runs[i] as number;
    }
  }

  /** What was written so far; the writer must not be used after. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  #room(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + bytes));
    grown.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = grown;
  }
}

/** Most elements that one list in a stored record may have; more is corruption, not data. */
const listLengthMax = 2 ** 24;

/** Takes apart what `ByteWriter` made. */
export class ByteReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)] as number;
  }

  number(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i += 1) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
      scale *= 0x80;
    }
    throw corrupt('a number is too long');
  }

  double(): number {
    const value = this.#bytes.readDoubleLE(this.#take(8));
    if (!Number.isFinite(value)) throw corrupt('a number is not finite');
    return value;
  }

  /** A view, not a copy. */
  raw(bytes: number): Buffer {
    const at = this.#take(bytes);
    return this.#bytes.subarray(at, at + bytes);
  }

  string(): string {
    const bytes = this.number();
    const at = this.#take(bytes);
    return this.#bytes.toString('utf8', at, at + bytes);
  }

  strings(): string[] {
    const texts: string[] = [];
    for (let count = this.count(); count > 0; count -= 1) texts.push(this.string());
    return texts;
  }

  /** Length of a list that follows, of which every element takes at least one byte. */
  count(): number {
    const count = this.number();
    if (count > listLengthMax || count > this.remaining) throw corrupt(`a list says it has ${count} elements`);
    return count;
  }

  ascending(): number[] {
    const values: number[] = [];
    let start = 0;
    for (let runs = this.count(); runs > 0; runs -= 1) {
      start += this.number();
      const length = this.number();
      if (values.length + length > listLengthMax) throw corrupt('a list of numbers is too long');
      for (let i = 0; i < length; i += 1) values.push(start + i);
    }
    return values;
  }

  #take(bytes: number): number {
    if (bytes > this.remaining) throw corrupt(`${bytes} bytes are expected where ${this.remaining} are left`);
    const at = this.#at;
    this.#at += bytes;
    return at;
  }
}

/**
 * A copy for keeping, with memory of its own. `Buffer.from` cuts copies out of a slab of 64 KiB that it shares with whatever else is copied at that
 * time, and each of them keeps all of the slab.
 */
export function keptCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Stored bytes that are not what was written. Whoever knows the file adds its name. */
export function corrupt(what: string, fields: Record<string, unknown> = {}): PlatformError {
  return new PlatformError('STORE_CORRUPT', what, { fields });
}

/** Stored bytes that are whole and of a form that only a later release knows: no damage, and nothing that this one may touch. */
export function newer(what: string): PlatformError {
  return new PlatformError(
    'STORE_NEWER',
    `${what}: a newer release wrote it; open the account at a member of that release, or upgrade this one`,
  );
}

export function isNewer(error: unknown): boolean {
  return error instanceof PlatformError && error.code === 'STORE_NEWER';
}
