/**
 * What answers showed of entries, as octets: with parent and RDN it is all that the next one who asks the same needs, so that the row itself is not
 * looked at.
 *
 *   number of what is shown (4 octets), parent id (8), length of the RDN (2), RDN, octets
 */
import type { ShownEntry } from './entry-store.ts';
import { PackedCache } from './packed-cache.ts';

/** Longest octets, and longest names in octets, that are kept. */
const octetsMax = 1024;
const rdnBytesMax = 255;
const rdnAt = 14;

/** See the header of this file. */
export class ShownCache {
  readonly #cache: PackedCache;

  constructor(bytesMax: number) {
    this.#cache = new PackedCache(bytesMax);
  }

  get bytes(): number {
    return this.#cache.bytes;
  }

  /** What was shown of an entry last, if it was that. The octets are good until the next `set`. */
  get(id: number, by: number): ShownEntry | undefined {
    const known = this.#cache.get(id);
    if (known === undefined || known.readUInt32LE(0) !== by) return undefined;
    const rdnEnd = rdnAt + known.readUInt16LE(12);
    return { id, parentId: known.readDoubleLE(4), rdn: known.toString('utf8', rdnAt, rdnEnd), octets: known.subarray(rdnEnd) };
  }

  set(by: number, { id, parentId, rdn, octets }: ShownEntry): void {
    if (octets.length > octetsMax || rdn.length > rdnBytesMax) return;
    const rdnBytes = Buffer.byteLength(rdn);
    const packed = Buffer.allocUnsafe(rdnAt + rdnBytes + octets.length);
    packed.writeUInt32LE(by, 0);
    packed.writeDoubleLE(parentId, 4);
    packed.writeUInt16LE(rdnBytes, 12);
    packed.write(rdn, rdnAt);
    packed.set(octets, rdnAt + rdnBytes);
    this.#cache.set(id, '', packed);
  }

  delete(id: number): void {
    this.#cache.delete(id);
  }

  clear(): void {
    this.#cache.clear();
  }
}
