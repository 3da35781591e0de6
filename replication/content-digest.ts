/**
 * What an attribute holds, in eight bytes: for telling later whether it holds the same, without keeping it.
 *
 * Keyed with chance of the service's own, so that nobody chooses values that look alike; should two look alike all the same, the comparison
 * finds what was not written. Values have no order.
 */
import { lengthContentStart, readLength } from '#protocol/ldap/ber.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';

/** Bytes of one digest. */
export const digestBytes = 8;

/** Of the values so far, two words; signed, because only those are numbers for which the engine needs no memory. */
const sum = new Int32Array(2);

/** Writes the digest of an attribute's values at `at`; `key` has eight bytes. */
export function writeDigest(into: Buffer, at: number, attribute: Attribute, key: Buffer): void {
  sumUp(attribute, key);
  into.writeInt32BE(sum[0] as number, at);
  into.writeInt32BE(sum[1] as number, at + 4);
}

/** Whether the digest at `at` is that of an attribute's values. */
export function isDigestOf(octets: Buffer, at: number, attribute: Attribute, key: Buffer): boolean {
  sumUp(attribute, key);
  return octets.readInt32BE(at) === sum[0] && octets.readInt32BE(at + 4) === sum[1];
}

function sumUp({ values }: Attribute, key: Buffer): void {
  sum[0] = values.length;
  sum[1] = 0;
  const first = key.readInt32BE(0);
  const second = key.readInt32BE(4);
  for (const value of values) addValue(value, 0, value.length, first, second);
}

/** The same of values as they are encoded, one after the other in `octets[start, end)`; they are known to be well-formed. */
export function writeDigestOf(into: Buffer, at: number, octets: Buffer, start: number, end: number, key: Buffer): void {
  sum[0] = 0;
  sum[1] = 0;
  const first = key.readInt32BE(0);
  const second = key.readInt32BE(4);
  let count = 0;
  for (let next = start; next < end; count += 1) {
    const length = readLength(octets, next + 1, end);
    const from = lengthContentStart();
    next = from + length;
    addValue(octets, from, next, first, second);
  }
  into.writeInt32BE(((sum[0] as number) + count) | 0, at);
  into.writeInt32BE(sum[1] as number, at + 4);
}

function addValue(octets: Buffer, start: number, end: number, first: number, second: number): void {
  const length = end - start;
  let a = first ^ length;
  let b = second;
  for (let i = start; i < end; i += 1) {
    const byte = octets[i] as number;
    a = Math.imul(a ^ byte, 0x85ebca6b);
    a ^= a >>> 13;
    b = (Math.imul((b << 5) | (b >>> 27), 0x9e3779b1) + byte) | 0;
    b ^= b >>> 15;
  }
  // Sums wrap around.
  sum[0] = (sum[0] as number) + mixed(a ^ second);
  sum[1] = (sum[1] as number) + mixed(b ^ first ^ length);
}

// Every bit of the outcome depends on every bit given.
function mixed(word: number): number {
  let value = Math.imul(word ^ (word >>> 16), 0x7feb352d);
  value = Math.imul(value ^ (value >>> 15), 0x846ca68b);
  return value ^ (value >>> 16);
}
