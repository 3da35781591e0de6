/**
 * LDIF (RFC 2849) by blocks of whole records, for files of millions of them. A record of plain lines, as nearly all are, is read where it
 * stands; any other one, with base64, folded lines, comments or changes, goes through the reader of ldif.ts, which also says what is wrong.
 *
 *   chunk ──► rest ++ chunk ──► cut behind the last empty line ──► block
 */
import { isAscii } from 'node:buffer';
import type { LdifMistake } from './ldif.ts';
import { LdifReader, type LdifRecord, ldifRecordBytesMax } from './ldif.ts';
import { type Attribute, findAttribute } from './messages.ts';

const lineFeed = 10;

/** Cuts a stream of LDIF into blocks that end behind an empty line. */
export class LdifCutter {
  #parts: Buffer[] = [];
  #bytes = 0;

  /** The block that this chunk completes; `undefined` when no record ends in it. Throws RangeError at a record beyond `ldifRecordBytesMax`. */
  push(chunk: Buffer): Buffer | undefined {
    const end = endOfLastRecord(chunk);
    if (end === 0) {
      this.#keep(chunk);
      // An empty line may lie across the border of two chunks.
      const all = this.#parts.length > 1 && chunk.indexOf(lineFeed) >= 0 ? this.#take() : undefined;
      if (all === undefined) return undefined;
      const cut = endOfLastRecord(all);
      this.#keep(all.subarray(cut));
      return cut === 0 ? undefined : all.subarray(0, cut);
    }
    this.#keep(chunk.subarray(0, end));
    const block = this.#take();
    this.#keep(Buffer.from(chunk.subarray(end)));
    return block;
  }

  /** What is left when the stream is over. */
  end(): Buffer {
    return this.#take();
  }

  #keep(part: Buffer): void {
    if (part.length === 0) return;
    this.#bytes += part.length;
    if (this.#bytes > ldifRecordBytesMax + part.length) throw new RangeError(`a record of more than ${ldifRecordBytesMax} bytes`);
    this.#parts.push(part);
  }

  #take(): Buffer {
    const all = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#bytes = 0;
    return all;
  }
}

// Position behind the last empty line; 0 without one.
function endOfLastRecord(bytes: Buffer): number {
  for (let at = bytes.lastIndexOf(lineFeed); at > 0; at = bytes.lastIndexOf(lineFeed, at - 1)) {
    if (bytes[at - 1] === lineFeed || (bytes[at - 1] === 13 && bytes[at - 2] === lineFeed)) return at + 1;
    if (bytes.length - at > ldifRecordBytesMax) return 0;
  }
  return 0;
}

/** Told while a block is read; lines count from 1 in the block. */
export interface LdifBlockHandlers {
  onRecord(record: LdifRecord): void;
  onMistake(mistake: LdifMistake): void;
  /** Asked before a record is read, where the whole block is ASCII: who takes it as it stands gives the position behind it, else 0. */
  readonly taker?: RecordTaker | undefined;
}

/** Takes records as they stand in a block. */
export interface RecordTaker {
  /** Position behind the record at `at` and the empty line that ends it; 0 for one that is to be read. */
  take(block: Buffer, at: number, line: number): number;
  /** Lines of the record that was taken last, with the empty one. */
  readonly linesTaken: number;
}

/** A line of the record before: its attribute, and its value with where that stands in the text. */
interface KnownLine {
  readonly type: string;
  /** `type: ` */
  readonly start: string;
  value: Buffer;
  text: string;
}

/** Lines of a record that are remembered; what comes behind them is read without help. */
const knownLinesMax = 256;

/**
 * Reads a block; gives the number of its lines. Values of records are views into the block.
 *
 * Most records have the attributes of the one before them in the same order, and many of its values. So each line is first compared with the line
 * that stood there in the record before: where it is the same, so are the string of the type and the view of the value, and whoever looks
 * at them later can tell by identity.
 */
export function readLdifBlock(block: Buffer, handlers: LdifBlockHandlers): number {
  let wholeText: string | undefined;
  const length = block.length;
  // Where everything is ASCII, which is nearly always, no record has to be asked.
  const isWholeAscii = isAscii(block);
  const known: KnownLine[] = [];
  let line = 1;
  let at = 0;
  const taker = isWholeAscii ? handlers.taker : undefined;
  while (at < length) {
    const taken = taker?.take(block, at, line) ?? 0;
    if (taken > 0) {
      line += taker?.linesTaken ?? 0;
      at = taken;
      continue;
    }
    wholeText ??= block.toString('latin1');
    const text = wholeText;
    // Where the record ends, how many lines it has, and whether each is plain.
    const recordLine = line;
    const start = at;
    let isPlain = text.startsWith('dn: ', at);
    const attributes: { type: string; values: Buffer[] }[] = [];
    // As long as types come as in the record before, none can be there twice.
    let isAsBefore = true;
    let valueLine = 0;
    let dnEnd = -1;
    let last: { type: string; values: Buffer[] } | undefined;
    let end = length;
    while (at < length) {
      let lineEnd = text.indexOf('\n', at);
      if (lineEnd < 0) lineEnd = length;
      line += 1;
      const next = lineEnd + 1;
      if (lineEnd === at || (lineEnd === at + 1 && block[at] === 13)) {
        end = at;
        at = next;
        break;
      }
      if (isPlain) {
        const valueEnd = block[lineEnd - 1] === 13 ? lineEnd - 1 : lineEnd;
        const before = isAsBefore ? known[valueLine] : undefined;
        if (dnEnd < 0) {
          dnEnd = valueEnd;
          if (at + 4 >= valueEnd) isPlain = false;
        } else if (before !== undefined && text.startsWith(before.start, at)) {
          valueLine += 1;
          let from = at + before.start.length;
          while (block[from] === 32) from += 1;
          if (from >= valueEnd) {
            isPlain = false;
          } else {
            if (valueEnd - from !== before.text.length || !text.startsWith(before.text, from)) {
              before.value = block.subarray(from, valueEnd);
              before.text = text.slice(from, valueEnd);
            }
            if (last?.type === before.type) {
              last.values.push(before.value);
            } else {
              last = { type: before.type, values: [before.value] };
              attributes.push(last);
            }
          }
        } else {
          isAsBefore = false;
          known.length = Math.min(known.length, valueLine);
          const colon = text.indexOf(':', at);
          let from = colon + 2;
          if (colon <= at || from >= valueEnd || block[colon + 1] !== 32) {
            isPlain = false;
          } else {
            while (block[from] === 32) from += 1;
            const value = block.subarray(from, valueEnd);
            const type = oneString(text.slice(at, colon));
            if (from >= valueEnd) {
              isPlain = false;
            } else if (last?.type === type) {
              last.values.push(value);
            } else if (isReserved(type) || findAttribute(attributes, type) !== undefined) {
              isPlain = false;
            } else {
              last = { type, values: [value] };
              attributes.push(last);
            }
            if (isPlain && last !== undefined && known.length === valueLine && valueLine < knownLinesMax) {
              known.push({ type: last.type, start: `${type}: `, value, text: text.slice(from, valueEnd) });
              valueLine += 1;
            }
          }
        }
      }
      at = next;
    }
    if (end === start) continue;
    if (isPlain && dnEnd > 0 && (isWholeAscii || isAscii(block.subarray(start, end)))) {
      handlers.onRecord({
        line: recordLine,
        dn: text.slice(start + 4, dnEnd).trimStart(),
        change: 'entry',
        attributes: attributes as Attribute[],
      });
      continue;
    }
    const reader = new LdifReader({
      onRecord: (record) => handlers.onRecord({ ...record, line: recordLine + record.line - 1 }),
      onMistake: (mistake) => handlers.onMistake({ ...mistake, line: recordLine + mistake.line - 1 }),
    });
    reader.push(block.subarray(start, end));
    reader.end();
  }
  return line - 1;
}

/** Types as they were met first, in all blocks: whoever compares or looks for one later finds the same string. */
const knownTypes = new Map<string, string>();
const knownTypesMax = 1000;
const knownTypeLengthMax = 100;

function oneString(type: string): string {
  const known = knownTypes.get(type);
  if (known !== undefined) return known;
  if (knownTypes.size >= knownTypesMax || type.length > knownTypeLengthMax) return type;
  // By way of octets, so that it does not hold the block that it was cut from.
  const own = Buffer.from(type, 'latin1').toString('latin1');
  knownTypes.set(own, own);
  return own;
}

// What ldif.ts has to look at: names that it refuses or that mean something else.
function isReserved(type: string): boolean {
  if (!plainType.test(type)) return true;
  const first = type.charCodeAt(0) | 32;
  return first === 99 && /^(?:changetype|control)$/i.test(type);
}

const plainType = /^[A-Za-z][A-Za-z0-9;-]*$/;
