/**
 * Where every account of the installation is hosted, in memory: keyed 64-bit hash of an address → cluster.
 *
 *   address ──keyed hash──► top bits: directory ──► segment (route-segment.ts) ──rest──► value: cluster, name or further address, refresh
 *
 * Ten bytes a slot and 76 to 86 % of the slots in use: 11.6 to 13.1 bytes for each address of an account. Segments hold up to 14,000 addresses. One that is
 * full is copied to one an eighth larger, or to two: the longest step of growing is such a copy, and nothing else is ever moved.
 *
 * Addresses themselves are not kept, nor `entryUUID`s: the member that is asked finds the account by its name. So a removal that tells only
 * a UUID, and the old name of a renamed account, leave a key behind. It is harmless: the member says that it has no such account, the
 * master is asked, the key goes (`remove`). Every whole refresh of the directory sweeps such keys: each key says in which of two alternating
 * refreshes it was last named. Two addresses with the same 64-bit hash (about 1 in 15,000 for 50 M addresses, for any pair at all) are one key;
 * the member's own look at the name makes that a question to the master as well.
 */
import type { AccountName } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Random } from '#common/random.ts';
import { AddressHash } from './address-hash.ts';
import { RouteSegment, segmentSlotsMax } from './route-segment.ts';
import { ownMemory, type SegmentMemory } from './segment-memory.ts';

/** Addresses of one account that are held here; an account with more is found at the others by look-up. */
export const addressesPerAccountMax = 256;
/** Clusters that can be told apart; accounts of further ones are found by look-up. */
export const clustersMax = 16_382;

/** What the index knows of an address. */
export interface IndexedRoute {
  /** `undefined`: the entry has no usable `hostServer`. */
  readonly cluster: ClusterName | undefined;
  /** The address is the account's name, and not a further address of it. */
  readonly isName: boolean;
}

/** What a snapshot holds of an index; see route-snapshot.ts. */
export interface RouteIndexImage {
  /** Key of the hash, 16 bytes. */
  readonly key: Buffer;
  readonly clusters: readonly ClusterName[];
  readonly refresh: number;
  readonly segments: readonly { readonly prefix: number; readonly depth: number; readonly memory: Uint8Array<ArrayBuffer> }[];
}

// A value: 15 it is the account's name; 14 the refresh that named it last; 13..0 number of the cluster plus one, 1: none.
const nameBit = 0x8000;
const refreshBit = 0x4000;
const clusterMask = 0x3fff;
const depthMax = 24;

/** See the header of this file. */
export class RouteIndex {
  /** Of the hash; a snapshot must keep it. */
  readonly key: Buffer;
  readonly #hash: AddressHash;
  readonly #memory: SegmentMemory;
  #depth = 0;
  #directory: RouteSegment[];
  #bytes: number;
  #addresses = 0;
  #accounts = 0;
  #refresh: number;
  /** Keys that the current whole refresh has not named (yet). */
  #unnamed = 0;
  /** The prefix at which a sweep goes on. */
  #swept = 0;
  readonly #clusterNames: (ClusterName | undefined)[] = [undefined];
  readonly #clusterNumbers = new Map<ClusterName, number>();

  constructor(random: Random, image?: RouteIndexImage, memory: SegmentMemory = ownMemory) {
    this.#memory = memory;
    this.#directory = [RouteSegment.allocate(0, 0, memory)];
    this.key = image?.key ?? random.bytes(16);
    this.#hash = new AddressHash(this.key);
    this.#refresh = image?.refresh ?? 0;
    for (const name of image?.clusters ?? []) this.#clusterNumber(name);
    if (image !== undefined) this.#restore(image);
    memory.directed(this.#directory, this.#depth);
    this.#bytes = this.#segments().reduce((sum, { segment }) => sum + segment.memory.byteLength, 0);
  }

  /** Accounts held, counted by their names. */
  get accounts(): number {
    return this.#accounts;
  }

  /** Addresses held. */
  get addresses(): number {
    return this.#addresses;
  }

  /** Bytes of all segments. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Clusters by their numbers; more come behind these. */
  get clusters(): readonly ClusterName[] {
    return this.#clusterNames.slice(1) as ClusterName[];
  }

  /**
   * Takes an account in.
   *
   * @param addresses its name first, then its further addresses; where they are other accounts' names already, those stay
   */
  put(cluster: ClusterName | undefined, addresses: readonly AccountName[]): void {
    const number = this.#clusterNumber(cluster);
    const count = Math.min(addresses.length, addressesPerAccountMax);
    this.#memory.changing();
    try {
      for (let i = 0; i < count; i += 1) {
        this.#hash.update(addresses[i] as AccountName);
        const { low, high } = this.#hash;
        // More clusters than numbers: such an account is not held, and found by look-up.
        if (number === undefined) this.#remove(low, high);
        else this.#put(low, high, number + 1, i === 0);
      }
    } finally {
      this.#memory.changed();
    }
  }

  /** Forgets an address; `false` when it was not known. With `onlyName` only if it is an account's name. */
  remove(address: AccountName, onlyName = false): boolean {
    this.#hash.update(address);
    const { low, high } = this.#hash;
    if (onlyName && (this.#segmentOf(high).find(low, high) & nameBit) === 0) return false;
    this.#memory.changing();
    const isGone = this.#remove(low, high);
    this.#memory.changed();
    return isGone;
  }

  /** The cluster at an address. */
  find(address: AccountName): IndexedRoute | undefined {
    this.#hash.update(address);
    return routeOf(this.#segmentOf(this.#hash.high).find(this.#hash.low, this.#hash.high), this.#clusterNames);
  }

  /** A whole refresh of the directory begins: it will name every address that still exists. */
  beginRefresh(): void {
    // What an earlier refresh that broke off had named counts as not named.
    this.#finishSweep();
    this.#refresh ^= 1;
    this.#unnamed = this.#addresses;
    this.#swept = this.#directory.length;
  }

  /** Of how many addresses how many have not been named since `beginRefresh`. */
  get unnamed(): { readonly gone: number; readonly known: number } {
    return { gone: this.#unnamed, known: this.#addresses };
  }

  /** The refresh is whole and believed: what it did not name goes, by `sweepStep`. */
  endRefresh(): void {
    this.#swept = this.#unnamed === 0 ? this.#directory.length : 0;
  }

  /** The refresh is not believed, or broke off: nothing goes. */
  cancelRefresh(): void {
    const refresh = this.#refreshFlag();
    for (const { segment } of this.#segments()) segment.changeAll((value) => (value & ~refreshBit) | refresh);
    this.#unnamed = 0;
    this.#swept = this.#directory.length;
  }

  /** Sweeps one segment; `false` when there is nothing left to sweep. */
  sweepStep(): boolean {
    if (this.#swept >= this.#directory.length) return false;
    const segment = this.#directory[this.#swept] as RouteSegment;
    const span = this.#directory.length >>> segment.depth;
    const refresh = this.#refreshFlag();
    const gone: number[] = [];
    segment.each((low, high, value) => {
      if ((value & refreshBit) !== refresh) gone.push(low, high);
    });
    this.#memory.changing();
    for (let i = 0; i < gone.length; i += 2) this.#remove(gone[i] as number, gone[i + 1] as number);
    this.#memory.changed();
    this.#swept += span;
    if (this.#swept >= this.#directory.length) this.#unnamed = 0;
    return this.#swept < this.#directory.length;
  }

  /** Every segment once, with the bits that its hashes begin with; what it names stays readable until it is disposed of. */
  image(): RouteIndexImage & Disposable {
    const segments = this.#segments().map(({ prefix, segment: { depth, memory } }) => ({ prefix, depth, memory }));
    return { key: this.key, clusters: this.clusters, refresh: this.#refresh, segments, [Symbol.dispose]: this.#memory.hold() };
  }

  #put(low: number, high: number, cluster: number, isName: boolean): void {
    let segment = this.#segmentOf(high);
    const before = segment.find(low, high);
    if (before === 0 && segment.isFull) {
      this.#enlarge(segment, high);
      segment = this.#segmentOf(high);
    }
    const refresh = this.#refreshFlag();
    // An account whose name it is goes before one that has it as a further address, unless that name is a leftover.
    const staysName = !isName && (before & nameBit) !== 0 && (before & refreshBit) === refresh;
    segment.put(low, high, staysName ? before : (isName ? nameBit : 0) | refresh | cluster);
    if (before === 0) this.#addresses += 1;
    else if ((before & refreshBit) !== refresh) this.#unnamed -= 1;
    if (!staysName) this.#accounts += (isName ? 1 : 0) - ((before & nameBit) === 0 ? 0 : 1);
  }

  #remove(low: number, high: number): boolean {
    const before = this.#segmentOf(high).remove(low, high);
    if (before === 0) return false;
    this.#addresses -= 1;
    if ((before & nameBit) !== 0) this.#accounts -= 1;
    if ((before & refreshBit) !== this.#refreshFlag()) this.#unnamed -= 1;
    return true;
  }

  #refreshFlag(): number {
    return this.#refresh === 0 ? 0 : refreshBit;
  }

  #finishSweep(): void {
    if (this.#unnamed === 0) return;
    if (this.#swept < this.#directory.length) while (this.sweepStep());
    else this.cancelRefresh();
  }

  #segmentOf(high: number): RouteSegment {
    return this.#directory[this.#depth === 0 ? 0 : high >>> (32 - this.#depth)] as RouteSegment;
  }

  /** Replaces a full segment by a larger one, or by two. */
  #enlarge(segment: RouteSegment, high: number): void {
    if (segment.slots < segmentSlotsMax || segment.depth >= depthMax) {
      const larger = RouteSegment.allocate(Math.max(segment.used + 1, 8), segment.depth, this.#memory);
      segment.each((low, itsHigh, value) => larger.put(low, itsHigh, value));
      this.#place(larger, high);
      this.#bytes += larger.memory.byteLength - segment.memory.byteLength;
      this.#memory.free(segment.memory);
      return;
    }
    if (segment.depth === this.#depth) {
      this.#directory = this.#directory.flatMap((each) => [each, each]);
      this.#depth += 1;
      this.#swept *= 2;
      this.#memory.directed(this.#directory, this.#depth);
    }
    const depth = segment.depth + 1;
    const bit = 2 ** (32 - depth);
    let ones = 0;
    segment.each((_low, itsHigh) => {
      if (Math.floor(itsHigh / bit) % 2 === 1) ones += 1;
    });
    const halves = [
      RouteSegment.allocate(segment.used - ones, depth, this.#memory),
      RouteSegment.allocate(ones, depth, this.#memory),
    ] as const;
    segment.each((low, itsHigh, value) => (halves[Math.floor(itsHigh / bit) % 2] as RouteSegment).put(low, itsHigh, value));
    const zeroHigh = Math.floor(high / (bit * 2)) * bit * 2;
    this.#place(halves[0], zeroHigh);
    this.#place(halves[1], zeroHigh + bit);
    this.#bytes += halves[0].memory.byteLength + halves[1].memory.byteLength - segment.memory.byteLength;
    this.#memory.free(segment.memory);
  }

  /** Enters a segment at all places of the directory that its prefix covers. */
  #place(segment: RouteSegment, high: number): void {
    const span = 2 ** (this.#depth - segment.depth);
    const first = segment.depth === 0 ? 0 : (high >>> (32 - segment.depth)) * span;
    this.#directory.fill(segment, first, first + span);
    this.#memory.placed(segment, first, span);
  }

  #segments(): { readonly prefix: number; readonly segment: RouteSegment }[] {
    const found: { prefix: number; segment: RouteSegment }[] = [];
    for (let at = 0; at < this.#directory.length; ) {
      const segment = this.#directory[at] as RouteSegment;
      const span = this.#directory.length / 2 ** segment.depth;
      found.push({ prefix: at / span, segment });
      at += span;
    }
    return found;
  }

  #restore(image: RouteIndexImage): void {
    this.#depth = Math.max(0, ...image.segments.map(({ depth }) => depth));
    this.#directory = new Array(2 ** this.#depth);
    const refresh = this.#refreshFlag();
    for (const { prefix, depth, memory } of image.segments) {
      const segment = new RouteSegment(this.#memory.adopt(memory), depth);
      const span = 2 ** (this.#depth - depth);
      this.#directory.fill(segment, prefix * span, (prefix + 1) * span);
      segment.each((_low, _high, value) => {
        this.#addresses += 1;
        if ((value & nameBit) !== 0) this.#accounts += 1;
        if ((value & refreshBit) !== refresh) this.#unnamed += 1;
      });
    }
    // A snapshot taken in the middle of a refresh: what that refresh had not named yet is not known to be gone.
    if (this.#unnamed > 0) this.cancelRefresh();
    this.#swept = this.#directory.length;
  }

  #clusterNumber(cluster: ClusterName | undefined): number | undefined {
    if (cluster === undefined) return 0;
    const known = this.#clusterNumbers.get(cluster);
    if (known !== undefined) return known;
    if (this.#clusterNames.length > clustersMax) return undefined;
    this.#clusterNumbers.set(cluster, this.#clusterNames.length);
    return this.#clusterNames.push(cluster) - 1;
  }
}

/** Place of a value's cluster in the list that begins with `undefined`. */
export function clusterNumberOf(value: number): number {
  return (value & clusterMask) - 1;
}

/** What a value says; 0 says nothing. `clusterNames` begins with `undefined`. */
export function routeOf(value: number, clusterNames: readonly (ClusterName | undefined)[]): IndexedRoute | undefined {
  return value === 0 ? undefined : { cluster: clusterNames[clusterNumberOf(value)], isName: (value & nameBit) !== 0 };
}
