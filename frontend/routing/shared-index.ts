/**
 * The route index as the processes of one frontend share it: the first one writes, the others look up in the same memory and wait for nobody.
 *
 *   version │ depth │ directory: place and slots of each segment │ segments …
 *
 * The version is odd while something changes. Who has read under one version, and finds the same even one afterwards, has read what was there; otherwise it
 * reads again, a few times, and then asks the first process, as it does for segments that have no place here: when all of `memoryBytes` was used once (a
 * hundred times what the routes of 50 M accounts are), or beyond a depth of `depthMax`.
 */
import type { AccountName } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import { SharedMemory } from '#common/shared-memory.ts';
import { AddressHash } from './address-hash.ts';
import { clusterNumberOf, type IndexedRoute, type RouteIndex, routeOf } from './route-index.ts';
import { findIn, type RouteSegment } from './route-segment.ts';
import type { SegmentMemory } from './segment-memory.ts';

/** Addresses that are set aside; an address is used once, and memory is what is in use. */
const memoryBytes = 2 ** 36;
const depthMax = 20;
const versionAt = 0;
const depthAt = 1;
/** From here on two words for each place of the directory: where its segment is, in `placeBytes`, and its slots. */
const directoryAt = 16;
const headBytes = SharedMemory.roundUp((directoryAt + 2 * 2 ** depthMax) * 4);
const placeBytes = 4_096;
const attemptsMax = 4;

/** What another process needs to read the index. */
export interface SharedIndexFacts {
  /** Key of the hash, base64. */
  readonly key: string;
  readonly clusters: readonly ClusterName[];
}

/** Of an index that lies in such memory. */
export function sharedFactsOf(index: RouteIndex): SharedIndexFacts {
  return { key: index.key.toString('base64'), clusters: index.clusters };
}

/** The memory, as the process has it that writes. */
export class SharedIndexMemory implements SegmentMemory {
  readonly #memory: SharedMemory;
  readonly #head: Int32Array;
  /** Where each is that is in use. */
  readonly #places = new Map<ArrayBufferLike, number>();
  #next = headBytes;
  #used = 0;
  #holds = 0;
  #freed: { readonly at: number; readonly bytes: number }[] = [];

  private constructor(memory: SharedMemory) {
    this.#memory = memory;
    this.#head = wordsOf(memory);
  }

  /** `undefined` where processes cannot share memory. */
  static create(bytes = memoryBytes): SharedIndexMemory | undefined {
    const memory = SharedMemory.create('archipelago-routes', bytes);
    return memory === undefined ? undefined : new SharedIndexMemory(memory);
  }

  /** To be handed to the other processes. */
  get fd(): number {
    return this.#memory.fd;
  }

  /** Of addresses, used or not. */
  get bytes(): number {
    return this.#memory.bytes;
  }

  /** Octets of the machine's memory that segments have. */
  get bytesUsed(): number {
    return this.#used;
  }

  allocate(bytes: number): Uint8Array<ArrayBuffer> {
    const rounded = SharedMemory.roundUp(bytes);
    if (this.#next + rounded > this.#memory.bytes) return new Uint8Array(bytes);
    const memory = this.#memory.view(this.#next, bytes);
    this.#places.set(memory.buffer, this.#next);
    this.#next += rounded;
    this.#used += rounded;
    return memory;
  }

  adopt(memory: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    if (this.#places.has(memory.buffer)) return memory;
    const adopted = this.allocate(memory.byteLength);
    adopted.set(memory);
    return adopted;
  }

  free(memory: Uint8Array<ArrayBuffer>): void {
    const at = this.#places.get(memory.buffer);
    if (at === undefined) return;
    this.#places.delete(memory.buffer);
    this.#freed.push({ at, bytes: SharedMemory.roundUp(memory.byteLength) });
    this.#giveBack();
  }

  hold(): () => void {
    this.#holds += 1;
    return () => {
      this.#holds -= 1;
      this.#giveBack();
    };
  }

  changing(): void {
    Atomics.add(this.#head, versionAt, 1);
  }

  changed(): void {
    Atomics.add(this.#head, versionAt, 1);
  }

  placed(segment: RouteSegment, first: number, count: number): void {
    const place = (this.#places.get(segment.memory.buffer) ?? 0) / placeBytes;
    const end = Math.min(first + count, 2 ** depthMax);
    for (let at = first; at < end; at += 1) {
      this.#head[directoryAt + 2 * at] = place;
      this.#head[directoryAt + 2 * at + 1] = segment.slots;
    }
  }

  directed(directory: readonly RouteSegment[], depth: number): void {
    this.#head[depthAt] = depth;
    for (const [at, segment] of directory.entries()) this.placed(segment, at, 1);
  }

  #giveBack(): void {
    if (this.#holds > 0) return;
    for (const { at, bytes } of this.#freed) {
      this.#memory.free(at, bytes);
      this.#used -= bytes;
    }
    this.#freed = [];
  }
}

interface SeenSegment {
  readonly place: number;
  readonly slots: number;
  readonly hashes: Uint32Array;
  readonly values: Uint16Array;
}

/** The index as another process reads it. */
export class SharedIndexReader {
  readonly #memory: SharedMemory;
  readonly #head: Int32Array;
  readonly #hash: AddressHash;
  readonly #segments: (SeenSegment | undefined)[] = [];
  /** As `routeOf` takes them. */
  #clusterNames: readonly (ClusterName | undefined)[];

  private constructor(memory: SharedMemory, { key, clusters }: SharedIndexFacts) {
    this.#memory = memory;
    this.#head = wordsOf(memory);
    this.#hash = new AddressHash(Buffer.from(key, 'base64'));
    this.#clusterNames = [undefined, ...clusters];
  }

  /** `undefined` where memory cannot be shared. `bytes`: of the memory, which may not be looked at beyond its end. */
  static open(fd: number, bytes: number, facts: SharedIndexFacts): SharedIndexReader | undefined {
    const memory = SharedMemory.open(fd, bytes);
    return memory === undefined ? undefined : new SharedIndexReader(memory, facts);
  }

  /** How many clusters are known here. */
  get clusterCount(): number {
    return this.#clusterNames.length - 1;
  }

  /** Clusters by their numbers, when there are more by now. */
  setClusters(clusters: readonly ClusterName[]): void {
    this.#clusterNames = [undefined, ...clusters];
  }

  /**
   * The cluster at an address, `undefined` where there is none. It cannot be told (`unsure`) while the index changes all the time, where a segment is not to
   * be had, and of a cluster that is new: the first process knows.
   */
  find(address: AccountName): IndexedRoute | undefined | 'unsure' {
    this.#hash.update(address);
    const { low, high } = this.#hash;
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const version = Atomics.load(this.#head, versionAt);
      if (version % 2 !== 0) continue;
      const value = this.#look(low, high);
      if (Atomics.load(this.#head, versionAt) !== version) continue;
      if (value === undefined || clusterNumberOf(value) >= this.#clusterNames.length) return 'unsure';
      return routeOf(value, this.#clusterNames);
    }
    return 'unsure';
  }

  /** What is read may be torn, so that nothing of it is relied on: not that a place is within the memory, nor that a search ends. */
  #look(low: number, high: number): number | undefined {
    const depth = this.#head[depthAt] as number;
    if (depth < 0 || depth > depthMax) return undefined;
    const at = depth === 0 ? 0 : high >>> (32 - depth);
    const place = (this.#head[directoryAt + 2 * at] as number) >>> 0;
    const slots = this.#head[directoryAt + 2 * at + 1] as number;
    let segment = this.#segments[at];
    if (segment === undefined || segment.place !== place || segment.slots !== slots) {
      segment = this.#see(place, slots);
      this.#segments[at] = segment;
    }
    return segment === undefined ? undefined : findIn(segment.hashes, segment.values, segment.slots, low, high);
  }

  #see(place: number, slots: number): SeenSegment | undefined {
    const at = place * placeBytes;
    if (place === 0 || slots <= 0 || at + slots * 10 > this.#memory.bytes) return undefined;
    const { buffer } = this.#memory.view(at, slots * 10);
    return { place, slots, hashes: new Uint32Array(buffer, 0, slots * 2), values: new Uint16Array(buffer, slots * 8, slots) };
  }
}

function wordsOf(memory: SharedMemory): Int32Array {
  return new Int32Array(memory.view(0, headBytes).buffer);
}
