/**
 * Where every account of the installation is hosted, in memory: address → `entryUUID` and cluster.
 *
 *   address ──keyed hash──► key table ──► account row: uuid, cluster, hash of its name, first further key
 *   uuid    ──mix─────────► uuid table ─►      │
 *                                              └─► further keys (mail, alternates): hash, row, next
 *
 * Bytes for each account: row 30 (uuid 16, cluster 2, hash of the name 8, first further key 4), and two table slots of 4 bytes in tables that are
 * between 3/8 and 3/4 full: 41 to 51 for an account with one address. A further address costs 16 and one slot: 21 to 27 (and half as much again for the slots while a table doubles). Rows and further keys live in
 * pages, so nothing is ever copied to grow. The chain of keys at the row is what lets a rename take the old names out, knowing only the uuid.
 *
 * Addresses themselves are not kept. Two addresses with the same 64-bit hash would be taken for one (about 1 in 15,000 for 50 M accounts, for any pair at all);
 * the member that is asked compares uuid and name, so such a route, or a stale one, costs a look-up at the master and never opens a wrong account.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Random } from '#common/random.ts';
import { AddressHash } from './address-hash.ts';
import { IdTable } from './id-table.ts';

/** Addresses of one account that are held here; an account with more is found at the others by look-up. */
export const addressesPerAccountMax = 256;

/** What the index knows of an address. */
export interface IndexedRoute {
  readonly uuid: AccountUuid;
  /** `undefined`: the entry has no usable `hostServer`. */
  readonly cluster: ClusterName | undefined;
}

const pageShift = 14;
const pageRows = 1 << pageShift;
const pageMask = pageRows - 1;
// Key ids with this bit are further keys, those without are account rows standing for the hash of their account's name.
const furtherBit = 0x8000_0000;
const clustersMax = 65_535;

interface RowPage {
  readonly uuids: Uint32Array;
  readonly clusters: Uint16Array;
  readonly low: Uint32Array;
  readonly high: Uint32Array;
  /** First further key plus one; in a free row the next free row plus one. */
  readonly further: Uint32Array;
}

interface FurtherPage {
  readonly low: Uint32Array;
  readonly high: Uint32Array;
  readonly row: Uint32Array;
  /** Next further key of the account plus one; in a free record the next free one plus one. */
  readonly next: Uint32Array;
}

/** See the header of this file. */
export class RouteIndex {
  readonly #hash: AddressHash;
  readonly #mixKey: number;
  readonly #rows: RowPage[] = [];
  readonly #further: FurtherPage[] = [];
  #rowsUsed = 0;
  #furtherUsed = 0;
  #freeRow = 0;
  #freeFurther = 0;
  readonly #keys = new IdTable((id) => this.#keyLow(id));
  readonly #uuids = new IdTable((row) => this.#uuidHash(row));
  readonly #clusterNames: (ClusterName | undefined)[] = [undefined];
  readonly #clusterNumbers = new Map<ClusterName, number>();
  // The uuid and the hash that are looked for, where the table's callbacks find them without a closure for each call.
  readonly #wantedUuid = new Uint32Array(4);
  #wantedLow = 0;
  #wantedHigh = 0;
  #foundFurther = -1;
  readonly #isWantedUuid = (row: number): boolean => this.#rowHasWantedUuid(row);
  readonly #isWantedKey = (id: number): boolean => this.#keyIsWanted(id);

  constructor(random: Random) {
    this.#hash = new AddressHash(random.bytes(16));
    this.#mixKey = random.bytes(4).readUInt32LE(0);
  }

  /** Accounts held. */
  get accounts(): number {
    return this.#uuids.count;
  }

  /** Addresses held. */
  get addresses(): number {
    return this.#keys.count;
  }

  /** Bytes of tables and pages. */
  get bytes(): number {
    return this.#keys.bytes + this.#uuids.bytes + pageRows * (30 * this.#rows.length + 16 * this.#further.length);
  }

  /**
   * What replaces everything known of `uuid`.
   *
   * @param addresses the account's name first, then its further addresses; repeated ones count once
   */
  put(uuid: AccountUuid, cluster: ClusterName | undefined, addresses: readonly AccountName[]): void {
    const number = this.#clusterNumber(cluster);
    // More clusters than numbers: such an account is not held, and found by look-up.
    if (number === undefined || addresses.length === 0) {
      this.remove(uuid);
      return;
    }
    const hashes = this.#hashesOf(addresses);
    let row = this.#findRow(uuid);
    if (row < 0) {
      row = this.#newRow();
      this.#rowPage(row).uuids.set(this.#wantedUuid, (row & pageMask) * 4);
      this.#uuids.insert(row);
    } else if (this.#hasHashes(row, hashes)) {
      this.#rowPage(row).clusters[row & pageMask] = number;
      return;
    } else {
      this.#removeKeys(row);
    }
    const page = this.#rowPage(row);
    const at = row & pageMask;
    page.clusters[at] = number;
    page.low[at] = hashes[0] as number;
    page.high[at] = hashes[1] as number;
    this.#keys.insert(row);
    for (let i = 2; i < hashes.length; i += 2) this.#addFurther(row, hashes[i] as number, hashes[i + 1] as number);
  }

  /** Forgets an account and its addresses; `false` when it was not known. */
  remove(uuid: AccountUuid): boolean {
    const row = this.#findRow(uuid);
    if (row < 0) return false;
    this.#removeKeys(row);
    this.#uuids.remove(row);
    this.#rowPage(row).further[row & pageMask] = this.#freeRow;
    this.#freeRow = row + 1;
    return true;
  }

  /** The account at an address. An account whose name it is goes before one that has it as a further address. */
  find(address: AccountName): IndexedRoute | undefined {
    this.#hash.update(address);
    this.#wantedLow = this.#hash.low;
    this.#wantedHigh = this.#hash.high;
    this.#foundFurther = -1;
    const named = this.#keys.find(this.#wantedLow, this.#isWantedKey);
    const row = named >= 0 ? named : this.#foundFurther;
    return row < 0 ? undefined : this.#routeOf(row);
  }

  /** What is known of an account. */
  get(uuid: AccountUuid): IndexedRoute | undefined {
    const row = this.#findRow(uuid);
    return row < 0 ? undefined : this.#routeOf(row);
  }

  #routeOf(row: number): IndexedRoute {
    const page = this.#rowPage(row);
    const at = row & pageMask;
    return { uuid: uuidText(page.uuids, at * 4), cluster: this.#clusterNames[page.clusters[at] as number] };
  }

  #hashesOf(addresses: readonly AccountName[]): number[] {
    const hashes: number[] = [];
    for (const address of addresses.slice(0, addressesPerAccountMax)) {
      this.#hash.update(address);
      const { low, high } = this.#hash;
      let isNew = true;
      for (let i = 0; isNew && i < hashes.length; i += 2) isNew = hashes[i] !== low || hashes[i + 1] !== high;
      if (isNew) hashes.push(low, high);
    }
    return hashes;
  }

  /** Whether the row's keys are these, in the order in which `put` would chain them. */
  #hasHashes(row: number, hashes: readonly number[]): boolean {
    const page = this.#rowPage(row);
    const at = row & pageMask;
    if (page.low[at] !== hashes[0] || page.high[at] !== hashes[1]) return false;
    let next = page.further[at] as number;
    // Further keys are pushed at the head of the chain.
    for (let i = hashes.length - 2; i >= 2; i -= 2) {
      if (next === 0) return false;
      const record = this.#furtherPage(next - 1);
      const where = (next - 1) & pageMask;
      if (record.low[where] !== hashes[i] || record.high[where] !== hashes[i + 1]) return false;
      next = record.next[where] as number;
    }
    return next === 0;
  }

  #removeKeys(row: number): void {
    this.#keys.remove(row);
    const page = this.#rowPage(row);
    const at = row & pageMask;
    let next = page.further[at] as number;
    page.further[at] = 0;
    while (next !== 0) {
      const index = next - 1;
      this.#keys.remove((furtherBit | index) >>> 0);
      const record = this.#furtherPage(index);
      next = record.next[index & pageMask] as number;
      record.next[index & pageMask] = this.#freeFurther;
      this.#freeFurther = index + 1;
    }
  }

  #addFurther(row: number, low: number, high: number): void {
    let index = this.#freeFurther - 1;
    if (index >= 0) {
      this.#freeFurther = this.#furtherPage(index).next[index & pageMask] as number;
    } else {
      index = this.#furtherUsed;
      this.#furtherUsed += 1;
      if (index >>> pageShift === this.#further.length) this.#further.push(newFurtherPage());
    }
    const record = this.#furtherPage(index);
    const at = index & pageMask;
    const page = this.#rowPage(row);
    record.low[at] = low;
    record.high[at] = high;
    record.row[at] = row;
    record.next[at] = page.further[row & pageMask] as number;
    page.further[row & pageMask] = index + 1;
    this.#keys.insert((furtherBit | index) >>> 0);
  }

  #newRow(): number {
    let row = this.#freeRow - 1;
    if (row >= 0) {
      this.#freeRow = this.#rowPage(row).further[row & pageMask] as number;
      this.#rowPage(row).further[row & pageMask] = 0;
      return row;
    }
    row = this.#rowsUsed;
    this.#rowsUsed += 1;
    if (row >>> pageShift === this.#rows.length) this.#rows.push(newRowPage());
    return row;
  }

  /** The row of a uuid, or -1; leaves the uuid's words in `#wantedUuid`. */
  #findRow(uuid: AccountUuid): number {
    const words = this.#wantedUuid;
    words[0] = Number.parseInt(uuid.slice(0, 8), 16);
    words[1] = Number.parseInt(uuid.slice(9, 13) + uuid.slice(14, 18), 16);
    words[2] = Number.parseInt(uuid.slice(19, 23) + uuid.slice(24, 28), 16);
    words[3] = Number.parseInt(uuid.slice(28), 16);
    return this.#uuids.find(mix(words, 0, this.#mixKey), this.#isWantedUuid);
  }

  #rowHasWantedUuid(row: number): boolean {
    const { uuids } = this.#rowPage(row);
    const at = (row & pageMask) * 4;
    const wanted = this.#wantedUuid;
    return uuids[at] === wanted[0] && uuids[at + 1] === wanted[1] && uuids[at + 2] === wanted[2] && uuids[at + 3] === wanted[3];
  }

  #keyIsWanted(id: number): boolean {
    const index = id & ~furtherBit;
    const at = index & pageMask;
    if (id < furtherBit) {
      const page = this.#rowPage(id);
      return page.low[at] === this.#wantedLow && page.high[at] === this.#wantedHigh;
    }
    const record = this.#furtherPage(index);
    if (record.low[at] === this.#wantedLow && record.high[at] === this.#wantedHigh) this.#foundFurther = record.row[at] as number;
    return false;
  }

  #keyLow(id: number): number {
    const index = id & ~furtherBit;
    return (id < furtherBit ? this.#rowPage(index).low[index & pageMask] : this.#furtherPage(index).low[index & pageMask]) as number;
  }

  #uuidHash(row: number): number {
    return mix(this.#rowPage(row).uuids, (row & pageMask) * 4, this.#mixKey);
  }

  #clusterNumber(cluster: ClusterName | undefined): number | undefined {
    if (cluster === undefined) return 0;
    const known = this.#clusterNumbers.get(cluster);
    if (known !== undefined) return known;
    if (this.#clusterNames.length > clustersMax) return undefined;
    this.#clusterNumbers.set(cluster, this.#clusterNames.length);
    return this.#clusterNames.push(cluster) - 1;
  }

  #rowPage(row: number): RowPage {
    return this.#rows[row >>> pageShift] as RowPage;
  }

  #furtherPage(index: number): FurtherPage {
    return this.#further[index >>> pageShift] as FurtherPage;
  }
}

function newRowPage(): RowPage {
  return {
    uuids: new Uint32Array(4 * pageRows),
    clusters: new Uint16Array(pageRows),
    low: new Uint32Array(pageRows),
    high: new Uint32Array(pageRows),
    further: new Uint32Array(pageRows),
  };
}

function newFurtherPage(): FurtherPage {
  return {
    low: new Uint32Array(pageRows),
    high: new Uint32Array(pageRows),
    row: new Uint32Array(pageRows),
    next: new Uint32Array(pageRows),
  };
}

/** Spreads a uuid over 32 bits; many servers make uuids from the time, whose low bits alone would crowd (finaliser of MurmurHash3). */
function mix(words: Uint32Array, at: number, key: number): number {
  let hash = key;
  for (let i = 0; i < 4; i += 1) {
    hash ^= words[at + i] as number;
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return hash >>> 0;
}

function uuidText(words: Uint32Array, at: number): AccountUuid {
  const hex = (i: number): string => (words[at + i] as number).toString(16).padStart(8, '0');
  const [a, b, c, d] = [hex(0), hex(1), hex(2), hex(3)];
  return `${a}-${b.slice(0, 4)}-${b.slice(4)}-${c.slice(0, 4)}-${c.slice(4)}${d}` as AccountUuid;
}
