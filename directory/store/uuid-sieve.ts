/**
 * Which UUIDs are certainly new: a Bloom filter of fixed size. With five million UUIDs in it two in a hundred new ones look old, with fifty
 * million nearly all do; whoever is told "perhaps" looks for himself.
 */

/** Bits, a power of two: 8 MB. */
const bits = 2 ** 26;
const probes = 4;

/** See the header of this file. */
export class UuidSieve {
  readonly #words = new Uint32Array(bits / 32);

  /** Adds 16 octets; true when they were certainly not there before. */
  add(octets: Uint8Array): boolean {
    // Of time-based UUIDs only a few octets differ: every octet takes part in every position.
    let high = 0x811c9dc5;
    let low = 0x9e3779b9;
    for (let at = 0; at < 16; at += 2) {
      high = Math.imul(high ^ (((octets[at] as number) << 8) | (octets[at + 1] as number)), 0x85ebca6b);
      high ^= high >>> 15;
      low = Math.imul(low + high, 0xc2b2ae35);
      low ^= low >>> 13;
    }
    let isNew = false;
    for (let probe = 0, position = high; probe < probes; probe += 1, position = (position + (low | 1)) | 0) {
      const bit = position & (bits - 1);
      const word = bit >>> 5;
      const mask = 1 << (bit & 31);
      const found = this.#words[word] as number;
      if ((found & mask) === 0) {
        isNew = true;
        this.#words[word] = found | mask;
      }
    }
    return isNew;
  }
}
