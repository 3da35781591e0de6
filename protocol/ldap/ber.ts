/**
 * The part of BER that LDAP uses (RFC 4511 §5.1): definite lengths and single-octet tags only. Lengths longer than they need be are
 * accepted; the indefinite form is refused. A reader throws `BerError`, which parse.ts and controls.ts catch: it never leaves this room.
 */
import { isUtf8 } from 'node:buffer';

/** Universal tags in use. */
export const berTags = { boolean: 0x01, integer: 0x02, octets: 0x04, enumerated: 0x0a, sequence: 0x30, set: 0x31 } as const;

/** Deepest nesting of constructed elements that a reader enters. */
export const berDepthMax = 64;

/** Bytes that are not the BER they should be. */
export class BerError extends Error {
  override readonly name = 'BerError';
}

/** Well-formed, but more than is taken: the stream can go on behind it. */
export class OverLimit extends BerError {}

/** What `readLength` says when the octets so far do not hold the whole length. */
export const lengthIncomplete = -1;

/** Where the content starts after the last `readLength` that succeeded. */
let contentStart = 0;

/**
 * Reads the length octets at `position`. Returns the length, with the content's start in `lengthContentStart()`, or `lengthIncomplete`.
 * Throws `BerError` on the indefinite form and on lengths of 2^31 and more.
 */
export function readLength(buffer: Buffer, position: number, end: number): number {
  if (position >= end) return lengthIncomplete;
  const first = buffer[position] as number;
  if (first < 0x80) {
    contentStart = position + 1;
    return first;
  }
  if (first === 0x80) throw new BerError('indefinite length');
  const count = first & 0x7f;
  if (count > 8) throw new BerError(`length of ${count} octets`);
  let length = 0;
  for (let i = 1; i <= count; i += 1) {
    if (position + i >= end) return lengthIncomplete;
    length = length * 256 + (buffer[position + i] as number);
    if (length > 0x7fffffff) throw new BerError('length of 2^31 or more');
  }
  contentStart = position + 1 + count;
  return length;
}

/** See `readLength`. */
export function lengthContentStart(): number {
  return contentStart;
}

const notSo = new BerError('not of this form');

/** End of the element at `at`, whose content starts at `lengthContentStart()`; throws `BerError` when there is none with that tag before `end`. */
export function elementEnd(bytes: Buffer, at: number, end: number, tag: number): number {
  if (at >= end || bytes[at] !== tag) throw notSo;
  const length = readLength(bytes, at + 1, end);
  if (length === lengthIncomplete || contentStart + length > end) throw notSo;
  return contentStart + length;
}

/** Refuses octets that are no text. */
export function checkUtf8(bytes: Buffer, start: number, end: number): void {
  for (let at = start; at < end; at += 1) {
    if ((bytes[at] as number) < 0x80) continue;
    if (!isUtf8(bytes.subarray(start, end))) throw new BerError('text is not UTF-8');
    return;
  }
}

/** Words at hand, a power of two, and the longest of them, octets. */
const wordsKept = 256;
const wordMax = 64;
const words: (string | undefined)[] = Array(wordsKept).fill(undefined);

function isWritten(word: string, bytes: Buffer, start: number, length: number): boolean {
  if (word.length !== length) return false;
  for (let at = 0; at < length; at += 1) if (word.charCodeAt(at) !== bytes[start + at]) return false;
  return true;
}

/** Reads elements one after the other from a buffer that holds all of them. */
export class BerReader {
  readonly buffer: Buffer;
  #position: number;
  #end: number;
  #depth = 0;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
    this.#position = 0;
    this.#end = buffer.length;
  }

  /** Whether the constructed element being read holds more. */
  hasMore(): boolean {
    return this.#position < this.#end;
  }

  /** Tag of the next element; -1 at the end of the constructed element being read. */
  peekTag(): number {
    return this.#position < this.#end ? (this.buffer[this.#position] as number) : -1;
  }

  /** Goes into a constructed element. Give the returned value to `leave`. */
  enter(tag: number): number {
    const length = this.#header(tag);
    this.#depth += 1;
    if (this.#depth > berDepthMax) throw new BerError(`nested deeper than ${berDepthMax}`);
    const outer = this.#end;
    this.#end = this.#position + length;
    return outer;
  }

  /** Goes on after the constructed element; what was not read in it is skipped (RFC 4511 §4: unknown trailing elements are ignored). */
  leave(outer: number): void {
    this.#position = this.#end;
    this.#end = outer;
    this.#depth -= 1;
  }

  /** Content of a primitive element: a view, not a copy. */
  octets(tag: number = berTags.octets): Buffer {
    const length = this.#header(tag);
    const start = this.#position;
    this.#position = start + length;
    return this.buffer.subarray(start, start + length);
  }

  /** Content as text; malformed UTF-8 is refused. */
  text(tag: number = berTags.octets): string {
    const length = this.#header(tag);
    const start = this.#position;
    this.#position = start + length;
    return this.#textAt(start, length);
  }

  #textAt(start: number, length: number): string {
    const text = this.buffer.toString('utf8', start, start + length);
    // A replacement character is rare enough to look twice.
    if (text.includes('\ufffd') && !isUtf8(this.buffer.subarray(start, start + length))) throw new BerError('text is not UTF-8');
    return text;
  }

  /** The same of text that comes again and again, as names of attributes do: the string of the last time is given where it is still at hand. */
  word(): string {
    const length = this.#header(berTags.octets);
    const start = this.#position;
    this.#position = start + length;
    let hash = length;
    for (let at = start; at < this.#position; at += 1) hash = (Math.imul(hash, 31) + (this.buffer[at] as number)) | 0;
    const place = hash & (wordsKept - 1);
    const known = words[place];
    if (known !== undefined && isWritten(known, this.buffer, start, length)) return known;
    const text = this.#textAt(start, length);
    // One octet a character, or they cannot be compared so simply.
    if (length <= wordMax && text.length === length) words[place] = text;
    return text;
  }

  /** Content as text for people: malformed UTF-8 is replaced. */
  lenientText(tag: number = berTags.octets): string {
    return this.octets(tag).toString('utf8');
  }

  /** An INTEGER or ENUMERATED within 48 bits. */
  integer(tag: number = berTags.integer): number {
    const length = this.#header(tag);
    if (length < 1 || length > 6) throw new BerError(`integer of ${length} octets`);
    const value = this.buffer.readIntBE(this.#position, length);
    this.#position += length;
    return value;
  }

  /** Any non-zero octet is true. */
  boolean(tag: number = berTags.boolean): boolean {
    const length = this.#header(tag);
    if (length !== 1) throw new BerError(`boolean of ${length} octets`);
    const value = this.buffer[this.#position] !== 0;
    this.#position += 1;
    return value;
  }

  /** A whole element with its tag and length: a view, not a copy. */
  element(tag: number): Buffer {
    const start = this.#position;
    const length = this.#header(tag);
    this.#position += length;
    return this.buffer.subarray(start, this.#position);
  }

  /** Passes over the next element, of that tag or whatever it is. */
  skip(tag: number = this.peekTag()): void {
    const length = this.#header(tag);
    this.#position += length;
  }

  /** Passes over text that `text` will be able to read. */
  checkText(tag: number = berTags.octets): void {
    const length = this.#header(tag);
    const start = this.#position;
    this.#position = start + length;
    checkUtf8(this.buffer, start, this.#position);
  }

  #header(tag: number): number {
    if (this.#position >= this.#end) throw new BerError(`expected tag 0x${tag.toString(16)}, found the end`);
    const seen = this.buffer[this.#position] as number;
    if (seen !== tag) throw new BerError(`expected tag 0x${tag.toString(16)}, found 0x${seen.toString(16)}`);
    if ((seen & 0x1f) === 0x1f) throw new BerError('tag of several octets');
    const length = readLength(this.buffer, this.#position + 1, this.#end);
    if (length === lengthIncomplete || contentStart + length > this.#end) throw new BerError('element passes the end of what holds it');
    this.#position = contentStart;
    return length;
  }
}

/** Smallest block of memory the writer takes; what is written beyond it grows by doubling. */
const slabBytes = 65_536;
/** What a message may be longer than the one before without another block. */
const slackBytes = 8192;

/**
 * Writes elements one after the other. Several messages may be written before one `take`, so that they leave in one system call.
 * Lengths come out in their shortest form: content is written first and moved when its length needs more than one octet.
 */
export class BerWriter {
  #slab: Buffer = Buffer.allocUnsafeSlow(slabBytes);
  #start = 0;
  #position = 0;
  /** Length of what was taken last: who writes much at a time goes on to. */
  #usual = 0;

  /** Bytes written since the last `take`. */
  get length(): number {
    return this.#position - this.#start;
  }

  /** All that was written since the last `take`; the bytes are not touched again. */
  take(): Buffer {
    const taken = this.#slab.subarray(this.#start, this.#position);
    this.#usual = taken.length;
    if (this.#slab.length - this.#position < 1024) {
      this.#slab = Buffer.allocUnsafeSlow(slabBytes);
      this.#position = 0;
    }
    this.#start = this.#position;
    return taken;
  }

  /** Opens a constructed element. Give the returned value to `close`. */
  open(tag: number): number {
    this.#reserve(2);
    this.#slab[this.#position] = tag;
    this.#position += 2;
    // Relative, because the slab may be exchanged for a bigger one.
    return this.#position - this.#start;
  }

  close(opened: number): void {
    this.#patchLength(this.#start + opened);
  }

  octets(value: Uint8Array, tag: number = berTags.octets): void {
    this.#reserve(value.length + 6);
    this.#slab[this.#position] = tag;
    this.#position += 2;
    const content = this.#position;
    this.#slab.set(value, content);
    this.#position += value.length;
    this.#patchLength(content);
  }

  text(value: string, tag: number = berTags.octets): void {
    this.#reserve(value.length * 3 + 6);
    this.#slab[this.#position] = tag;
    this.#position += 2;
    const content = this.#position;
    this.#position += this.#slab.write(value, content, 'utf8');
    this.#patchLength(content);
  }

  /** An integer within 48 bits, shortest form. */
  integer(value: number, tag: number = berTags.integer): void {
    let length = 1;
    for (let limit = 0x80; (value < -limit || value >= limit) && length < 6; limit *= 0x100) length += 1;
    this.#reserve(length + 2);
    this.#slab[this.#position] = tag;
    this.#slab[this.#position + 1] = length;
    this.#slab.writeIntBE(value, this.#position + 2, length);
    this.#position += 2 + length;
  }

  boolean(value: boolean, tag: number = berTags.boolean): void {
    this.#reserve(3);
    this.#slab[this.#position] = tag;
    this.#slab[this.#position + 1] = 1;
    this.#slab[this.#position + 2] = value ? 0xff : 0;
    this.#position += 3;
  }

  /** An element without content. */
  empty(tag: number): void {
    this.#reserve(2);
    this.#slab[this.#position] = tag;
    this.#slab[this.#position + 1] = 0;
    this.#position += 2;
  }

  /** Elements that are BER already. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#slab.set(bytes, this.#position);
    this.#position += bytes.length;
  }

  /** The same, of a part of a buffer. */
  rawOf(bytes: Buffer, start: number, end: number): void {
    this.#reserve(end - start);
    bytes.copy(this.#slab, this.#position, start, end);
    this.#position += end - start;
  }

  // The content runs from `content` to the position; one octet before it waits for the length.
  #patchLength(content: number): void {
    const length = this.#position - content;
    if (length < 0x80) {
      this.#slab[content - 1] = length;
      return;
    }
    const extra = length < 0x100 ? 1 : length < 0x10000 ? 2 : length < 0x1000000 ? 3 : 4;
    const inSlab = content - this.#start;
    this.#reserve(extra);
    const moved = this.#start + inSlab;
    this.#slab.copyWithin(moved + extra, moved, this.#position);
    this.#slab[moved - 1] = 0x80 | extra;
    this.#slab.writeUIntBE(length, moved, extra);
    this.#position += extra;
  }

  #reserve(count: number): void {
    if (this.#position + count <= this.#slab.length) return;
    const pending = this.#position - this.#start;
    let size = slabBytes;
    if (this.#usual >= pending + count) size = Math.max(slabBytes, this.#usual + slackBytes);
    while (size < pending + count) size *= 2;
    const bigger = Buffer.allocUnsafeSlow(size);
    this.#slab.copy(bigger, 0, this.#start, this.#position);
    this.#slab = bigger;
    this.#start = 0;
    this.#position = pending;
  }
}
