/**
 * Digests of a whole directory in memory that does not grow with it.
 *
 *   entry ──► 128 bits of SHA-256 over name, UUID and what is replicated of it
 *   range ──► sum of its entries' digests at the master, less those at the replica; and how many entries each side has
 *
 * A sum has no order, so both sides may be read as they come. A range whose sum is not zero holds a difference; only its entries are then
 * compared one by one. UUIDs made from the time begin alike, so the range is taken from the whole UUID folded to sixteen bits. The sums tell
 * faults from equality; they are no defence against somebody who makes up entries to cancel each other out.
 */
import { hash } from 'node:crypto';
import { uuidToBytes } from '#protocol/ldap/controls.ts';
import { type Dn, normalizeAttributeType, normalizeDn, parseDn } from '#protocol/ldap/dn.ts';
import { type EntryImage, replicatedAttributes } from '#replication/decide.ts';
import { comparedText } from '#replication/same-value.ts';

/** 24 bytes each: 1.5 MB whatever the size of the directory. */
export const rangesCount = 65_536;

const words = 4;

/** Range of an entry. */
export function rangeOf(uuid: string): number {
  const bytes = uuidToBytes(uuid);
  let folded = 0;
  for (let i = 0; i < bytes.length; i += 2) folded ^= bytes.readUInt16BE(i);
  return folded;
}

/** 16 bytes that are equal where `decide` would find nothing to do, and for no other pair of entries. `entry` is trimmed to its scope. */
export function entryDigest(uuid: string, entry: EntryImage, keepsCsn: boolean): Buffer {
  const lines: string[] = [];
  for (const attribute of replicatedAttributes(entry.attributes, keepsCsn)) {
    const type = normalizeAttributeType(attribute.type);
    for (const value of attribute.values) {
      const text = comparedText(type, value);
      lines.push(`${type}:${text.length}:${text}`);
    }
  }
  const text = [uuid, nameKey(entry.dn), ...lines.sort()].join('\u0000');
  return hash('sha256', Buffer.from(text, 'latin1'), 'buffer').subarray(0, words * 4);
}

// The first RDN as it is spelt, because another spelling is a rename; what stands above it as far as it is another entry.
function nameKey(dn: string): string {
  const parsed = parseDn(dn) as Dn | undefined;
  const first = parsed?.[0];
  const key =
    parsed === undefined || first === undefined
      ? dn
      : `${first
          .map((ava) => `${normalizeAttributeType(ava.type)}=${ava.value}`)
          .sort()
          .join('+')}\u0000${normalizeDn(parsed.slice(1))}`;
  return Buffer.from(key).toString('latin1');
}

/** Ranges to be compared entry by entry. */
export interface Lot {
  has(uuid: string): boolean;
}

/** See the header of this file. */
export class RangeDigests {
  readonly #sums = new Uint32Array(rangesCount * words);
  readonly #atMaster = new Uint32Array(rangesCount);
  readonly #atReplica = new Uint32Array(rangesCount);
  #entries = 0;

  /** Entries of the master. */
  get entries(): number {
    return this.#entries;
  }

  /** Takes an entry of the master. */
  addMaster(uuid: string, digest: Buffer): void {
    const range = rangeOf(uuid);
    this.#entries += 1;
    this.#atMaster[range] = (this.#atMaster[range] as number) + 1;
    for (let i = 0; i < words; i += 1) {
      const at = range * words + i;
      this.#sums[at] = (this.#sums[at] as number) + digest.readUInt32BE(i * 4);
    }
  }

  /** Takes an entry of the replica. */
  addReplica(uuid: string, digest: Buffer): void {
    const range = rangeOf(uuid);
    this.#atReplica[range] = (this.#atReplica[range] as number) + 1;
    for (let i = 0; i < words; i += 1) {
      const at = range * words + i;
      this.#sums[at] = (this.#sums[at] as number) - digest.readUInt32BE(i * 4);
    }
  }

  /** The ranges that differ; `undefined` when none does. */
  differing(): Lot | undefined {
    const chosen = new Uint8Array(rangesCount);
    let isEmpty = true;
    for (let range = 0; range < rangesCount; range += 1) {
      if (!this.#differs(range)) continue;
      chosen[range] = 1;
      isEmpty = false;
    }
    return isEmpty ? undefined : { has: (uuid) => chosen[rangeOf(uuid)] === 1 };
  }

  #differs(range: number): boolean {
    if (this.#atMaster[range] !== this.#atReplica[range]) return true;
    for (let i = 0; i < words; i += 1) if (this.#sums[range * words + i] !== 0) return true;
    return false;
  }
}
