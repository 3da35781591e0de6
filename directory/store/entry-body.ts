/**
 * An entry's attributes as the octets of one database column: per attribute its description, the count of its values and the values,
 * each length a varint (7 bits an octet, lowest first).
 */
import type { Attribute } from '#protocol/ldap/messages.ts';

/** Attributes to octets. */
export function encodeBody(attributes: readonly Attribute[]): Buffer {
  let size = 0;
  for (const { type, values } of attributes) {
    const typeBytes = Buffer.byteLength(type);
    size += varintSize(typeBytes) + typeBytes + varintSize(values.length);
    for (const value of values) size += varintSize(value.length) + value.length;
  }
  const body = Buffer.allocUnsafe(size);
  let at = 0;
  const varint = (value: number): void => {
    let rest = value;
    while (rest > 127) {
      body[at] = (rest & 127) | 128;
      at += 1;
      rest >>>= 7;
    }
    body[at] = rest;
    at += 1;
  };
  for (const { type, values } of attributes) {
    varint(Buffer.byteLength(type));
    at += body.write(type, at);
    varint(values.length);
    for (const value of values) {
      varint(value.length);
      at += value.copy(body, at);
    }
  }
  return body;
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
    const type = bytes().toString('utf8');
    const values: Buffer[] = [];
    for (let left = varint(); left > 0; left -= 1) values.push(bytes());
    attributes.push({ type, values });
  }
  return attributes;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) size += 1;
  return size;
}
