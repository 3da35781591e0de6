/**
 * The short way of a refresh: from an entry's row to the octets of its answer, with no attribute between, many answers in one piece. For the refresh that followers ask
 * for: some object classes, a list of attributes, and rights that do not depend on the entry. Other requests, and entries of which
 * something is out of the common, go the way of sync.ts.
 */
import { BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { makeSyncState } from '#protocol/ldap/controls.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import { type Attribute, operationTags, type SearchRequest } from '#protocol/ldap/messages.ts';
import type { View } from '../access/view.ts';
import type { Schema } from '../schema/schema.ts';
import { BodyScan } from '../store/body-scan.ts';
import { commonDescriptions, commonValues } from '../store/entry-body.ts';
import { type RawEntry, rootId } from '../store/entry-store.ts';
import { uuidToText } from '../store/uuid.ts';
import type { Matcher } from './filter-match.ts';
import type { Selection } from './selection.ts';

/** How an attribute is dealt with; `head` is its description as it goes out, missing where it does not. */
interface Treatment {
  readonly head: Buffer | undefined;
  readonly isClass: boolean;
  /** Whether it is shown depends on the entry. */
  readonly isOpen: boolean;
}

const scratchBytes = 262_144;
/** Answers that are put together before they go. */
const answersBytes = 262_144;
/** Room for headers and the control of an answer. */
const answerRoom = 100;
/** Room for the tag and the length of the whole list. */
const listHeadBytes = 6;
/** Lists of object classes, and descriptions, that are remembered: there are as many as there are kinds of entries. */
const rememberedMax = 1000;
const classKey = 'objectclass';
/** Computed attributes that are not made here. */
const computed = ['entryDN', 'subschemaSubentry', 'hasSubordinates'];

/** See the header of this file. */
export class ShortRefresh {
  readonly #schema: Schema;
  readonly #selection: Selection;
  readonly #matches: Matcher;
  readonly #scan = new BodyScan();
  readonly #scratch = Buffer.allocUnsafeSlow(scratchBytes);
  readonly #common: readonly Treatment[];
  readonly #commonSets: readonly Buffer[];
  readonly #others = new Map<string, Treatment>();
  readonly #isWanted = new Map<string, boolean>();
  readonly #uuid: Treatment;
  readonly #csn: Treatment;
  /** The answers' message ID, and their controls up to the UUID, as they go out. */
  readonly #id: Buffer;
  readonly #controls: Buffer;
  readonly #answers = Buffer.allocUnsafeSlow(answersBytes);
  #answersEnd = 0;
  readonly #treatments: Treatment[] = [];
  #at = 0;
  /** The list that was shown last. */
  #shownStart = 0;
  #shownEnd = 0;

  private constructor(schema: Schema, selection: Selection, matches: Matcher, id: number) {
    this.#schema = schema;
    this.#selection = selection;
    this.#matches = matches;
    this.#common = commonDescriptions.map((description) => this.#treatmentOf(description));
    this.#commonSets = commonValues.map(encodedSet);
    this.#uuid = this.#treatmentOf('entryUUID');
    this.#csn = this.#treatmentOf('entryCSN');
    writer.integer(id);
    this.#id = Buffer.from(writer.take());
    this.#controls = controlsBeforeUuid();
  }

  /** The short way of a request, if it has one. */
  static of(
    id: number,
    request: SearchRequest,
    schema: Schema,
    view: View,
    selection: Selection,
    matches: Matcher,
  ): ShortRefresh | undefined {
    if (request.typesOnly || view.decide('read', 'entry') !== true || view.decide('search', classKey) !== true) return undefined;
    if (!isAboutClass(schema, request.filter) || computed.some((name) => selection.decide(name) !== false)) return undefined;
    const short = new ShortRefresh(schema, selection, matches, id);
    return short.#uuid.isOpen || short.#csn.isOpen ? undefined : short;
  }

  /** Whether there is room for the answer about the entry that was shown last; `take` makes some. */
  hasRoomBelow(parentDn: Buffer, entry: RawEntry): boolean {
    const dnLength = entry.bodyStart - entry.rdnStart + parentDn.length;
    return this.#answersEnd + dnLength + this.#shownEnd - this.#shownStart + answerRoom <= answersBytes;
  }

  /** Adds the answer about the entry that was shown last; `parentDn` is what stands behind its RDN, comma first. */
  add(entry: RawEntry, parentDn: Buffer): void {
    const answers = this.#answers;
    const { octets, rdnStart, bodyStart, uuidStart } = entry;
    const listLength = this.#shownEnd - this.#shownStart;
    const dnLength = bodyStart - rdnStart + parentDn.length;
    const fields = 1 + lengthOctets(dnLength) + dnLength + listLength;
    const content = this.#id.length + 1 + lengthOctets(fields) + fields + this.#controls.length + 16;
    let at = putHeader(answers, this.#answersEnd, berTags.sequence, content);
    at += this.#id.copy(answers, at);
    at = putHeader(answers, at, operationTags.searchResultEntry, fields);
    at = putHeader(answers, at, berTags.octets, dnLength);
    at += octets.copy(answers, at, rdnStart, bodyStart);
    at += parentDn.copy(answers, at);
    at += this.#scratch.copy(answers, at, this.#shownStart, this.#shownEnd);
    at += this.#controls.copy(answers, at);
    at += octets.copy(answers, at, uuidStart, uuidStart + 16);
    this.#answersEnd = at;
  }

  /** The answers since the last call, if any. */
  take(): Buffer | undefined {
    if (this.#answersEnd === 0) return undefined;
    const taken = Buffer.from(this.#answers.subarray(0, this.#answersEnd));
    this.#answersEnd = 0;
    return taken;
  }

  /** Puts together what is shown of an entry, for `add`; `other` does not match, `slow` is left to the other way. */
  show(entry: RawEntry): 'shown' | 'other' | 'slow' {
    const body = entry.octets.subarray(entry.bodyStart, entry.end);
    const scan = this.#scan;
    if (entry.parentId === rootId || !scan.scan(body)) return 'slow';
    const treatments = this.#treatments;
    let classPosition = -1;
    let room = listHeadBytes + 100;
    for (let position = 0; position < scan.count; position += 1) {
      const number = scan.common[position] as number;
      const treatment = number >= 0 ? (this.#common[number] as Treatment) : this.#other(body, position);
      if (treatment.isOpen) return 'slow';
      if (treatment.isClass) {
        if (classPosition >= 0) return 'slow';
        classPosition = position;
      }
      treatments[position] = treatment;
      if (treatment.head !== undefined) {
        const values = scan.values[position] as number;
        const octets = values === 0 ? (this.#commonSets[scan.start[position] as number] as Buffer).length : 0;
        room += treatment.head.length + octets + ((scan.end[position] as number) - (scan.start[position] as number)) + values * 5 + 12;
      }
    }
    if (room > scratchBytes) return 'slow';
    if (classPosition < 0 || !this.#isOfClass(body, classPosition)) return 'other';
    this.#at = listHeadBytes;
    for (let position = 0; position < scan.count; position += 1) {
      const { head } = treatments[position] as Treatment;
      if (head !== undefined) this.#putAttribute(body, position, head);
    }
    const { octets, uuidStart, csnStart, rdnStart } = entry;
    if (this.#uuid.head !== undefined) {
      this.#putSingleHead(this.#uuid.head, uuidTextLength);
      this.#putUuid(octets, uuidStart);
    }
    if (this.#csn.head !== undefined) {
      this.#putSingleHead(this.#csn.head, rdnStart - csnStart);
      this.#put(octets, csnStart, rdnStart - csnStart);
    }
    this.#finish();
    return 'shown';
  }

  #treatmentOf(description: string): Treatment {
    const decision = this.#selection.decide(description);
    const type = this.#schema.description(description, true)?.type;
    const isClass = type !== undefined && this.#schema.attributeType(classKey)?.family.has(type.key) === true;
    return {
      head: decision === false ? undefined : octetString(Buffer.from(description)),
      isClass,
      isOpen: typeof decision === 'function',
    };
  }

  #other(body: Uint8Array, position: number): Treatment {
    const text = Buffer.from(body.buffer, body.byteOffset, body.length).toString(
      'utf8',
      this.#scan.textStart[position],
      this.#scan.textEnd[position],
    );
    let treatment = this.#others.get(text);
    if (treatment === undefined) {
      treatment = this.#treatmentOf(text);
      if (this.#others.size >= rememberedMax) this.#others.clear();
      this.#others.set(text, treatment);
    }
    return treatment;
  }

  #isOfClass(body: Uint8Array, position: number): boolean {
    const scan = this.#scan;
    const [start, end] = [scan.start[position] as number, scan.end[position] as number];
    const isCommon = scan.values[position] === 0;
    const key = isCommon ? String(start) : Buffer.from(body.buffer, body.byteOffset + start, end - start).toString('latin1');
    let isWanted = this.#isWanted.get(key);
    if (isWanted === undefined) {
      const values = isCommon ? (commonValues[start] as readonly Buffer[]) : this.#valuesOf(body, position);
      const attributes: Attribute[] = [{ type: 'objectClass', values }];
      isWanted = this.#matches(attributes, undefined) === true;
      if (this.#isWanted.size >= rememberedMax) this.#isWanted.clear();
      this.#isWanted.set(key, isWanted);
    }
    return isWanted;
  }

  #valuesOf(body: Uint8Array, position: number): Buffer[] {
    const scan = this.#scan;
    const values: Buffer[] = [];
    let at = scan.start[position] as number;
    for (let left = scan.values[position] as number; left > 0; left -= 1) {
      const length = scan.lengthAt(body, at);
      values.push(Buffer.from(body.subarray(scan.valueAt, scan.valueAt + length)));
      at = scan.valueAt + length;
    }
    return values;
  }

  #putAttribute(body: Uint8Array, position: number, head: Buffer): void {
    const scan = this.#scan;
    const count = scan.values[position] as number;
    const start = scan.start[position] as number;
    if (count === 0) {
      const set = this.#commonSets[start] as Buffer;
      this.#putHeader(berTags.sequence, head.length + set.length);
      this.#put(head, 0, head.length);
      this.#put(set, 0, set.length);
      return;
    }
    let content = 0;
    let at = start;
    for (let left = count; left > 0; left -= 1) {
      const length = scan.lengthAt(body, at);
      content += 1 + lengthOctets(length) + length;
      at = scan.valueAt + length;
    }
    this.#putHeader(berTags.sequence, head.length + 1 + lengthOctets(content) + content);
    this.#put(head, 0, head.length);
    this.#putHeader(berTags.set, content);
    at = start;
    for (let left = count; left > 0; left -= 1) {
      const length = scan.lengthAt(body, at);
      const from = scan.valueAt;
      this.#putHeader(berTags.octets, length);
      this.#put(body, from, length);
      at = from + length;
    }
  }

  /** What stands before the octets of a single value. */
  #putSingleHead(head: Buffer, length: number): void {
    const content = 1 + lengthOctets(length) + length;
    this.#putHeader(berTags.sequence, head.length + 1 + lengthOctets(content) + content);
    this.#put(head, 0, head.length);
    this.#putHeader(berTags.set, content);
    this.#putHeader(berTags.octets, length);
  }

  #putUuid(octets: Buffer, start: number): void {
    const scratch = this.#scratch;
    let to = this.#at;
    for (let at = 0; at < 16; at += 1) {
      if (at === 4 || at === 6 || at === 8 || at === 10) {
        scratch[to] = 0x2d;
        to += 1;
      }
      const octet = octets[start + at] as number;
      scratch[to] = hexDigits[octet >> 4] as number;
      scratch[to + 1] = hexDigits[octet & 15] as number;
      to += 2;
    }
    this.#at = to;
  }

  #putHeader(tag: number, length: number): void {
    this.#at = putHeader(this.#scratch, this.#at, tag, length);
  }

  // Most values are short: a loop costs less than the call of a copy.
  #put(octets: Uint8Array, start: number, length: number): void {
    const scratch = this.#scratch;
    let to = this.#at;
    if (length > 48) scratch.set(octets.subarray(start, start + length), to);
    else for (let at = start; at < start + length; at += 1, to += 1) scratch[to] = octets[at] as number;
    this.#at += length;
  }

  /** Puts the header of the list before it. */
  #finish(): void {
    const length = this.#at - listHeadBytes;
    this.#shownStart = listHeadBytes - 1 - lengthOctets(length);
    this.#shownEnd = this.#at;
    putHeader(this.#scratch, this.#shownStart, berTags.sequence, length);
  }
}

const uuidTextLength = 36;
const hexDigits = Buffer.from('0123456789abcdef');

/** Writes tag and length; gives where the content starts. */
function putHeader(target: Buffer, at: number, tag: number, length: number): number {
  target[at] = tag;
  if (length < 128) {
    target[at + 1] = length;
    return at + 2;
  }
  const octets = lengthOctets(length) - 1;
  target[at + 1] = 0x80 | octets;
  for (let i = octets, rest = length; i > 0; i -= 1, rest >>>= 8) target[at + 1 + i] = rest & 255;
  return at + 2 + octets;
}

/** The controls of an answer about an entry that is there, without the UUID at their end. */
function controlsBeforeUuid(): Buffer {
  const operation = { type: 'searchResultEntry', dn: '', attributes: [] } as const;
  const state = makeSyncState({ state: 'add', uuid: uuidToText(new Uint8Array(16)), cookie: undefined });
  const [bare, whole] = [encodeMessage({ id: 1, operation, controls: [] }), encodeMessage({ id: 1, operation, controls: [state] })];
  return Buffer.from(whole.subarray(bare.length, whole.length - 16));
}

/** Octets that a length takes in its shortest form. */
function lengthOctets(length: number): number {
  if (length < 0x80) return 1;
  return length < 0x100 ? 2 : length < 0x10000 ? 3 : 4;
}

function octetString(value: Buffer): Buffer {
  writer.octets(value);
  return Buffer.from(writer.take());
}

function encodedSet(values: readonly Buffer[]): Buffer {
  const opened = writer.open(berTags.set);
  for (const value of values) writer.octets(value);
  writer.close(opened);
  return Buffer.from(writer.take());
}

const writer = new BerWriter();

/** Whether a filter asks for nothing but object classes. */
function isAboutClass(schema: Schema, filter: Filter): boolean {
  switch (filter.kind) {
    case 'and':
    case 'or':
      return filter.filters.every((part) => isAboutClass(schema, part));
    case 'not':
      return isAboutClass(schema, filter.filter);
    case 'equal':
    case 'present': {
      const described = schema.description(filter.attribute);
      return described?.type.key === classKey && described.options.length === 0;
    }
    default:
      return false;
  }
}
