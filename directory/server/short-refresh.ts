/**
 * The short way of a refresh: from an entry's row to the octets of its answer, with no attribute between. For the refresh that followers ask
 * for: some object classes, a list of attributes, and rights that do not depend on the entry. Other requests, and entries of which
 * something is out of the common, go the way of sync.ts.
 */
import { BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { controlOids, makeSyncState } from '#protocol/ldap/controls.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import type { Attribute, Control, SearchRequest } from '#protocol/ldap/messages.ts';
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
  readonly #state: Control & { readonly value: Buffer };
  readonly #treatments: Treatment[] = [];
  #at = 0;

  private constructor(schema: Schema, selection: Selection, matches: Matcher) {
    this.#schema = schema;
    this.#selection = selection;
    this.#matches = matches;
    this.#common = commonDescriptions.map((description) => this.#treatmentOf(description));
    this.#commonSets = commonValues.map(encodedSet);
    this.#uuid = this.#treatmentOf('entryUUID');
    this.#csn = this.#treatmentOf('entryCSN');
    const { value } = makeSyncState({ state: 'add', uuid: uuidToText(new Uint8Array(16)), cookie: undefined });
    this.#state = { oid: controlOids.syncState, critical: false, value: Buffer.from(value as Buffer) };
  }

  /** The short way of a request, if it has one. */
  static of(request: SearchRequest, schema: Schema, view: View, selection: Selection, matches: Matcher): ShortRefresh | undefined {
    if (request.typesOnly || view.decide('read', 'entry') !== true || view.decide('search', classKey) !== true) return undefined;
    if (!isAboutClass(schema, request.filter) || computed.some((name) => selection.decide(name) !== false)) return undefined;
    const short = new ShortRefresh(schema, selection, matches);
    return short.#uuid.isOpen || short.#csn.isOpen ? undefined : short;
  }

  /** State control of an entry that is there, good until the next one. */
  stateOf(entry: RawEntry): Control {
    const { value } = this.#state;
    value.set(entry.uuid, value.length - 16);
    return this.#state;
  }

  /** The attributes that are shown (a PartialAttributeList, good until the next entry); `other` does not match, `slow` is left to the other way. */
  shownOf(entry: RawEntry): Buffer | 'other' | 'slow' {
    const { body } = entry;
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
    if (this.#uuid.head !== undefined) this.#putText(this.#uuid.head, uuidToText(entry.uuid));
    if (this.#csn.head !== undefined) this.#putText(this.#csn.head, entry.csn);
    return this.#finished();
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

  #putText(head: Buffer, text: string): void {
    const { length } = text;
    const content = 1 + lengthOctets(length) + length;
    this.#putHeader(berTags.sequence, head.length + 1 + lengthOctets(content) + content);
    this.#put(head, 0, head.length);
    this.#putHeader(berTags.set, content);
    this.#putHeader(berTags.octets, length);
    this.#at += this.#scratch.write(text, this.#at, 'latin1');
  }

  #putHeader(tag: number, length: number): void {
    const scratch = this.#scratch;
    scratch[this.#at] = tag;
    if (length < 128) {
      scratch[this.#at + 1] = length;
      this.#at += 2;
      return;
    }
    const octets = lengthOctets(length) - 1;
    scratch[this.#at + 1] = 0x80 | octets;
    scratch.writeUIntBE(length, this.#at + 2, octets);
    this.#at += 2 + octets;
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
  #finished(): Buffer {
    const end = this.#at;
    const length = end - listHeadBytes;
    const start = listHeadBytes - 1 - lengthOctets(length);
    this.#at = start;
    this.#putHeader(berTags.sequence, length);
    return this.#scratch.subarray(start, end);
  }
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
