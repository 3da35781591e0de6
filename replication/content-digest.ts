/**
 * What an attribute holds, in eight bytes: for telling later whether it holds the same, without keeping it.
 *
 * Keyed with chance of the service's own, so that nobody chooses values that look alike; should two look alike all the same, the comparison
 * finds what was not written. Values have no order.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';

/** Bytes of one digest. */
export const digestBytes = 8;

/** Writes the digest of an attribute's values at `at`; `key` has eight bytes. */
export function writeDigest(into: Buffer, at: number, { values }: Attribute, key: Buffer): void {
  const seeds = [key.readUInt32BE(0), key.readUInt32BE(4)] as const;
  let [high, low] = [values.length, 0];
  for (const value of values) {
    let [a, b]: [number, number] = [seeds[0] ^ value.length, seeds[1]];
    for (let i = 0; i < value.length; i += 1) {
      const byte = value[i] as number;
      a = Math.imul(a ^ byte, 0x85ebca6b);
      a ^= a >>> 13;
      b = Math.imul((b << 5) | (b >>> 27), 0x9e3779b1) + byte;
      b ^= b >>> 15;
    }
    high = (high + mixed(a ^ seeds[1])) >>> 0;
    low = (low + mixed(b ^ seeds[0] ^ value.length)) >>> 0;
  }
  into.writeUInt32BE(high >>> 0, at);
  into.writeUInt32BE(low, at + 4);
}

// Every bit of the outcome depends on every bit given.
function mixed(word: number): number {
  let value = Math.imul(word ^ (word >>> 16), 0x7feb352d);
  value = Math.imul(value ^ (value >>> 15), 0x846ca68b);
  return value ^ (value >>> 16);
}
