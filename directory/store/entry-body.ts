/**
 * An entry's attributes as the octets of one database column, small because there are millions of them:
 *
 *   attribute = description, values
 *   description = length, text | 0, number of a common description
 *   values = count, { length, octets } | 0, position of an earlier attribute of the entry with the very same values
 *                                      | 0, 64 + number of a common list of values
 *
 * Counts, lengths and numbers are varints: 7 bits an octet, lowest first. No attribute is without a description or a value, so 0 is free.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';

/** Descriptions that nearly every entry has. Their places are in databases: new ones go to the end. */
export const commonDescriptions: readonly string[] = (
  'objectClass structuralObjectClass createTimestamp creatorsName modifyTimestamp modifiersName uid cn sn givenName displayName mail ' +
  'mailAlternateAddress hostServer accountStatus mailQuota mailRegion userPassword ou o dc description member mailDomainAlias'
).split(' ');
/** Positions below are those of attributes, numbers from here on those of common lists. */
export const positionsMax = 64;
/** Values that many entries have, in this order and spelling. New ones go to the end here too. */
export const commonValues: readonly (readonly Buffer[])[] = [
  'inetOrgPerson',
  'inetOrgPerson mailAccount',
  'top inetOrgPerson mailAccount',
  'top person organizationalPerson inetOrgPerson mailAccount',
  'mailDomain',
  'active',
].map((list) => list.split(' ').map((value) => Buffer.from(value)));
/** Places of common lists by the length of their first value: lengths tell most values apart, for less than a comparison costs. */
const commonByLength = new Map<number, readonly number[]>();
for (const [place, list] of commonValues.entries()) {
  const { length } = list[0] as Buffer;
  commonByLength.set(length, [...(commonByLength.get(length) ?? []), place]);
}
const commonNumbers = new Map(commonDescriptions.map((description, number) => [description, number]));

/** Attributes to octets. */
export function encodeBody(attributes: readonly Attribute[]): Buffer {
  // Room for the longest form of each.
  let room = 0;
  for (const { type, values } of attributes) {
    room += type.length * 3 + 10;
    for (const value of values) room += value.length + 5;
  }
  if (room > scratch.length) return written(attributes, Buffer.allocUnsafe(room));
  return Buffer.from(written(attributes, scratch));
}

/** Bodies are put together here, where they fit. */
const scratch = Buffer.allocUnsafeSlow(16_384);

/** The part of `body` that was written. */
function written(attributes: readonly Attribute[], body: Buffer): Buffer {
  let at = 0;
  for (let position = 0; position < attributes.length; position += 1) {
    const { type, values } = attributes[position] as Attribute;
    const number = commonNumbers.get(type);
    if (number === undefined) {
      at = putVarint(body, at, Buffer.byteLength(type));
      at += body.write(type, at);
    } else {
      body[at] = 0;
      at = putVarint(body, at + 1, number);
    }
    const known = knownValues(attributes, position);
    if (known !== undefined) {
      body[at] = 0;
      at = putVarint(body, at + 1, known);
      continue;
    }
    at = putVarint(body, at, values.length);
    for (const value of values) {
      at = putVarint(body, at, value.length);
      body.set(value, at);
      at += value.length;
    }
  }
  return body.subarray(0, at);
}

function putVarint(body: Buffer, from: number, value: number): number {
  let at = from;
  let rest = value;
  while (rest > 127) {
    body[at] = (rest & 127) | 128;
    at += 1;
    rest >>>= 7;
  }
  body[at] = rest;
  return at + 1;
}

// Times and names of creation and last change are mostly the same; two octets of a value are too few to save any.
function knownValues(attributes: readonly Attribute[], position: number): number | undefined {
  const { values } = attributes[position] as Attribute;
  const first = values[0];
  if (first === undefined) return undefined;
  for (const common of commonByLength.get(first.length) ?? noPlaces) {
    if (areSame(values, commonValues[common] as readonly Buffer[])) return positionsMax + common;
  }
  if (values.length !== 1 || first.length < 3) return undefined;
  for (let before = 0; before < position && before < positionsMax; before += 1) {
    const others = (attributes[before] as Attribute).values;
    if (others.length === 1 && isEqual(others[0] as Buffer, first)) return before;
  }
  return undefined;
}

const noPlaces: readonly number[] = [];

function areSame(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (!isEqual(a[i] as Buffer, b[i] as Buffer)) return false;
  return true;
}

// Last octets tell values of one length apart that begin alike, as times and names do; the call into the runtime costs more than both looks.
function isEqual(a: Buffer, b: Buffer): boolean {
  const { length } = a;
  return length === b.length && a[length - 1] === b[length - 1] && a.equals(b);
}

/** What stands before the values of an attribute of that description. */
export function bodyHead(description: string): Buffer {
  const number = commonNumbers.get(description);
  const head = Buffer.alloc(description.length * 3 + 5);
  if (number !== undefined) return Buffer.from(head.subarray(0, putVarint(head, 1, number)));
  const at = putVarint(head, 0, Buffer.byteLength(description));
  return Buffer.from(head.subarray(0, at + head.write(description, at)));
}

/** Puts together the body of an entry whose values lie in another buffer, as `encodeBody` does from attributes; there may be 64 at most. */
export class BodyBuilder {
  #body = scratch;
  #at = 0;
  #source: Buffer = scratch;
  #count = 0;
  /** Of each attribute with one value, where that is; a length of 0 for others. */
  readonly #starts = new Int32Array(positionsMax);
  readonly #lengths = new Int32Array(positionsMax);

  /** Begins a body of at most so many octets. */
  begin(source: Buffer, octetsMax: number): void {
    this.#source = source;
    this.#body = octetsMax > scratch.length ? Buffer.allocUnsafe(octetsMax) : scratch;
    this.#at = 0;
    this.#count = 0;
  }

  get isFull(): boolean {
    return this.#count === positionsMax;
  }

  /** A whole attribute, or nothing. */
  encoded(octets: Uint8Array): void {
    if (octets.length === 0) return;
    this.#put(octets, 0, octets.length);
    this.#lengths[this.#count] = 0;
    this.#count += 1;
  }

  /** Whole attributes as the last ones, none of them looked at afterwards. */
  encodedAll(octets: Uint8Array): void {
    this.#put(octets, 0, octets.length);
  }

  /** An attribute of one value. */
  single(head: Uint8Array, start: number, length: number): void {
    this.#put(head, 0, head.length);
    const known = this.#known(start, length);
    if (known !== undefined) {
      this.#body[this.#at] = 0;
      this.#at = putVarint(this.#body, this.#at + 1, known);
    } else {
      this.#body[this.#at] = 1;
      this.#at = putVarint(this.#body, this.#at + 1, length);
      this.#put(this.#source, start, length);
    }
    this.#starts[this.#count] = start;
    this.#lengths[this.#count] = length;
    this.#count += 1;
  }

  /** An attribute of several values: where they are, start and length in turn. */
  several(head: Uint8Array, places: readonly number[]): void {
    this.#put(head, 0, head.length);
    this.#at = putVarint(this.#body, this.#at, places.length / 2);
    for (let one = 0; one < places.length; one += 2) {
      const length = places[one + 1] as number;
      this.#at = putVarint(this.#body, this.#at, length);
      this.#put(this.#source, places[one] as number, length);
    }
    this.#lengths[this.#count] = 0;
    this.#count += 1;
  }

  get length(): number {
    return this.#at;
  }

  /** The body. */
  take(): Buffer {
    return Buffer.from(this.view());
  }

  /** The body, into another buffer. */
  copyTo(target: Buffer, start: number): void {
    this.#body.copy(target, start, 0, this.#at);
  }

  /** The same, good until the next one begins. */
  view(): Buffer {
    return this.#body.subarray(0, this.#at);
  }

  #known(start: number, length: number): number | undefined {
    for (const common of commonByLength.get(length) ?? noPlaces) {
      const values = commonValues[common] as readonly Buffer[];
      if (values.length === 1 && this.#isEqual(values[0] as Buffer, 0, start, length)) return positionsMax + common;
    }
    if (length < 3) return undefined;
    for (let before = 0; before < this.#count; before += 1) {
      if (this.#lengths[before] === length && this.#isEqual(this.#source, this.#starts[before] as number, start, length)) return before;
    }
    return undefined;
  }

  // From the end, where values of one length differ.
  #isEqual(other: Uint8Array, from: number, start: number, length: number): boolean {
    const source = this.#source;
    for (let at = length - 1; at >= 0; at -= 1) if (source[start + at] !== other[from + at]) return false;
    return true;
  }

  // Values are short: a loop costs less than the call of a copy.
  #put(octets: Uint8Array, start: number, length: number): void {
    const body = this.#body;
    let to = this.#at;
    if (length > 64) body.set(octets.subarray(start, start + length), to);
    else for (let at = start; at < start + length; at += 1, to += 1) body[to] = octets[at] as number;
    this.#at += length;
  }
}

/** Octets to attributes; the values are views into `body`. */
export function decodeBody(body: Buffer): Attribute[] {
  const attributes: Attribute[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const octet = body[at] as number;
      at += 1;
      value |= (octet & 127) << shift;
      if (octet < 128) return value;
    }
  };
  const bytes = (): Buffer => {
    const length = varint();
    at += length;
    return body.subarray(at - length, at);
  };
  while (at < body.length) {
    const length = varint();
    let type: string | undefined;
    if (length === 0) {
      type = commonDescriptions[varint()];
    } else {
      at += length;
      type = body.toString('utf8', at - length, at);
    }
    const count = varint();
    const values: readonly Buffer[] | undefined = count === 0 ? referredTo(attributes, varint()) : Array.from({ length: count }, bytes);
    if (type === undefined || values === undefined) throw new Error('an entry of the database refers to what it does not hold');
    attributes.push({ type, values });
  }
  return attributes;
}

function referredTo(attributes: readonly Attribute[], reference: number): readonly Buffer[] | undefined {
  return reference < positionsMax ? attributes[reference]?.values : commonValues[reference - positionsMax];
}
