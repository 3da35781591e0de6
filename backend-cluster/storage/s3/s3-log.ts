/**
 * The account log on an object store. head.ts draws what is stored.
 *
 *     opener B                                        owner A, asleep
 *     GET head (version 7, open-id A)
 *     PUT head If-Match 7: open-id B, nonce           ── A's pending PUT If-Match 7 has lost its version: refused, whenever it wakes
 *     read snapshot and slots that version 8 names
 *     PUT head If-Match 8: slot n+1 inside            ── the opening is committed
 *
 * What always holds: of several writes on one version of a head at most one succeeds, and a version never returns (each has a nonce of its
 * own). So a try whose outcome is not known may be repeated, with the same bytes on the same version: at most one of both takes effect.
 * What the server said is never trusted alone: after anything but success the head is read again and its nonce compared. A head with
 * another open-id means that this opening is revoked, for ever.
 *
 * Objects that a head names are written before it and removed after it no longer names them, under names that are used once. What a
 * member that died or lost left behind unnamed is removed by a later opening, which can tell it by its lower opening number; an opening
 * never removes unnamed objects of its own number, because a write of its own may yet arrive and name them.
 */
import type { AccountReader, CommitOutcome, OpeningLog } from '#backend-cluster/storage/account-log.ts';
import type { Finding } from '#backend-cluster/storage/account-store.ts';
import { isNewer } from '#backend-cluster/storage/binary.ts';
import { bodyName, numberName, parseBodyName } from '#backend-cluster/storage/layout.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Random } from '#common/random.ts';
import type { Bucket } from './bucket.ts';
import {
  type AccountHead,
  decodeHead,
  emptyHead,
  encodeHead,
  inlineBytesMax,
  lastSlotOf,
  objectsOf,
  placeOf,
  type Segment,
  salvageHead,
  slotsOf,
  withoutSlotsUpTo,
} from './head.ts';
import { SegmentCache } from './segment-cache.ts';

/** Times that a head is tried to be replaced before the outcome counts as unknown; with the pauses about ten seconds. */
const triesMax = 8;
/** Objects written or removed at the same time. */
export const objectsAtOnce = 8;

/** A head and the version it was read or written as. */
interface HeadVersion {
  readonly head: AccountHead;
  readonly etag: string;
  /** What is wrong with the object as it lies there: `head` is what could still be read of it. */
  readonly damage?: string;
}

type UpdateOutcome = CommitOutcome;

/** Everything of an account is below this key. */
export function accountKey(uuid: AccountUuid): string {
  return `accounts/${uuid}/`;
}

/** Key of an account's head. */
export function headKey(uuid: AccountUuid): string {
  return `${accountKey(uuid)}head`;
}

/** Reads an account that may or may not be open somewhere: each listing looks at the head anew. */
export function s3Reader(bucket: Bucket, uuid: AccountUuid): AccountReader {
  const parts = new HeadReader(bucket, uuid);
  const fresh = async (): Promise<AccountHead> => {
    const current = await readHead(bucket, uuid);
    if (current === undefined) throw missing(headKey(uuid));
    parts.head = current.head;
    parts.damage = current.damage;
    return current.head;
  };
  return {
    listSnapshots: async () => (await fresh()).snapshots.map(({ slot }) => slot),
    readSnapshot: (slot) => parts.readSnapshot(slot),
    listSlots: async () => slotsOf(await fresh()),
    // What an object store has accepted stays.
    settle: async () => {},
    readSlot: (slot, offset, length) => parts.readSlot(slot, offset, length),
    listBodies: () => parts.listBodies(),
    readBody: (at, offset, length) => parts.readBody(at, offset, length),
    findings: () => parts.findings(),
    nameOf: (what) => parts.nameOf(what),
  };
}

/** Begins an opening: puts its id into the head, which revokes every other one. Nothing is committed yet. */
export async function beginOpening(bucket: Bucket, random: Random, uuid: AccountUuid, openId: string): Promise<OpeningLog> {
  let cause: unknown;
  for (let attempt = 0; attempt < triesMax; attempt += 1) {
    if (attempt > 0) await bucket.pause(attempt - 1);
    const current = await readHead(bucket, uuid);
    // Written by an earlier try whose answer was lost.
    if (current?.head.openId === openId) return new S3Opening(bucket, random, uuid, current);
    if (current?.damage !== undefined) {
      // Left as it is, until a repair replaces it.
      const head = { ...current.head, opening: current.head.opening + 1, openId };
      return new S3Opening(bucket, random, uuid, { ...current, head });
    }
    const before = current?.head ?? { ...emptyHead, openId: '', nonce: '' };
    const head: AccountHead = { ...before, opening: before.opening + 1, openId, nonce: newNonce(random) };
    const parts = encodeHead(head);
    const outcome =
      current === undefined ? await bucket.putIfAbsent(headKey(uuid), parts) : await bucket.putIfMatch(headKey(uuid), current.etag, parts);
    if (outcome.kind === 'stored') return new S3Opening(bucket, random, uuid, { head, etag: outcome.etag });
    if (outcome.kind === 'full') throw outcome.cause;
    cause = outcome.cause;
  }
  throw new PlatformError('STORE_UNAVAILABLE', `${bucket.at(headKey(uuid))} could not be replaced in ${triesMax} tries`, { cause });
}

async function readHead(bucket: Bucket, uuid: AccountUuid): Promise<HeadVersion | undefined> {
  const key = headKey(uuid);
  const stored = await bucket.get(key);
  if (stored === undefined) return undefined;
  try {
    return { head: decodeHead(stored.body, key), etag: stored.etag };
  } catch (error) {
    if (isNewer(error)) throw error;
    const head = salvageHead(stored.body);
    if (head === undefined) throw error;
    return { head, etag: stored.etag, damage: messageOf(error) };
  }
}

/** Reads what a head names. */
class HeadReader {
  head: AccountHead = { ...emptyHead, openId: '', nonce: '' };
  damage: string | undefined;
  readonly #bucket: Bucket;
  readonly #root: string;
  readonly #segments: SegmentCache;

  constructor(bucket: Bucket, uuid: AccountUuid) {
    this.#bucket = bucket;
    this.#root = accountKey(uuid);
    this.#segments = new SegmentCache(bucket, this.#root);
  }

  async readSnapshot(slot: number): Promise<Buffer> {
    const object = this.head.snapshots.find((snapshot) => snapshot.slot === slot)?.object;
    const stored = object === undefined ? undefined : await this.#bucket.get(`${this.#root}${object}`);
    if (stored === undefined) throw missing(this.nameOf({ snapshot: slot }));
    return stored.body;
  }

  async readSlot(slot: number, offset: number, length: number): Promise<Buffer> {
    const bytes = await this.#readInLog(slot, offset, length);
    if (bytes === undefined) throw missing(this.nameOf({ slot }));
    return bytes;
  }

  async readBody(at: number, offset: number, length: number): Promise<Buffer> {
    const bytes =
      (at > 0 ? await this.#readInLog(at, offset, length) : undefined) ??
      // It left the log, and was copied before that.
      (await this.#bucket.getRange(`${this.#root}body/${bodyName(at)}`, offset, length));
    if (bytes === undefined) throw missing(this.nameOf({ body: at }));
    return bytes;
  }

  /** A whole slot; `undefined` when it is not in the log. */
  readWholeSlot(slot: number): Promise<Buffer | undefined> {
    return this.#readInLog(slot, 0, Number.MAX_SAFE_INTEGER);
  }

  async listBodies(): Promise<number[]> {
    const found: number[] = [];
    for await (const { key } of this.#bucket.list(`${this.#root}body/`)) {
      const at = parseBodyName(key.slice(`${this.#root}body/`.length));
      if (at !== undefined) found.push(at);
    }
    return found;
  }

  findings(): readonly Finding[] {
    return this.damage === undefined ? [] : [{ file: `${this.#root}head`, problem: this.damage }];
  }

  nameOf(what: { readonly slot: number } | { readonly snapshot: number } | { readonly body: number }): string {
    if ('snapshot' in what) {
      const object = this.head.snapshots.find(({ slot }) => slot === what.snapshot)?.object;
      return `${this.#root}${object ?? `snap/${numberName(what.snapshot)}`}`;
    }
    const slot = 'slot' in what ? what.slot : what.body;
    const place = slot > 0 ? placeOf(this.head, slot) : undefined;
    if (place !== undefined && 'object' in place) return `${this.#root}${place.object}#${slot}`;
    return place !== undefined || 'slot' in what ? `${this.#root}head#${slot}` : `${this.#root}body/${bodyName(slot)}`;
  }

  async #readInLog(slot: number, offset: number, length: number): Promise<Buffer | undefined> {
    const place = placeOf(this.head, slot);
    if (place === undefined) return undefined;
    if ('inline' in place) return place.inline.subarray(offset, offset + length);
    const wanted = Math.max(0, Math.min(length, place.length - offset));
    return this.#segments.read(place, place.offset + offset, wanted);
  }
}

class S3Opening implements OpeningLog {
  readonly #bucket: Bucket;
  readonly #random: Random;
  readonly #uuid: AccountUuid;
  readonly #root: string;
  readonly #openId: string;
  readonly #opening: number;
  readonly #parts: HeadReader;
  readonly #toKeep: number[] = [];
  #current: HeadVersion;
  /** The head may be another than `#current`: an outcome was not known. */
  #mustRead = false;
  #isRevoked = false;
  #hasCollected = false;
  #objects = 0;
  #updating: Promise<unknown> = Promise.resolve();

  constructor(bucket: Bucket, random: Random, uuid: AccountUuid, current: HeadVersion) {
    this.#bucket = bucket;
    this.#random = random;
    this.#uuid = uuid;
    this.#root = accountKey(uuid);
    this.#openId = current.head.openId;
    this.#opening = current.head.opening;
    this.#parts = new HeadReader(bucket, uuid);
    this.#parts.head = current.head;
    this.#parts.damage = current.damage;
    this.#current = current;
  }

  async listSnapshots(): Promise<number[]> {
    return this.#current.head.snapshots.map(({ slot }) => slot);
  }

  readSnapshot(slot: number): Promise<Buffer> {
    return this.#parts.readSnapshot(slot);
  }

  async listSlots(): Promise<number[]> {
    return slotsOf(this.#current.head);
  }

  async settle(): Promise<void> {}

  readSlot(slot: number, offset: number, length: number): Promise<Buffer> {
    return this.#parts.readSlot(slot, offset, length);
  }

  listBodies(): Promise<number[]> {
    return this.#parts.listBodies();
  }

  readBody(at: number, offset: number, length: number): Promise<Buffer> {
    return this.#parts.readBody(at, offset, length);
  }

  findings(): readonly Finding[] {
    return this.#parts.findings();
  }

  nameOf(what: { slot: number } | { snapshot: number } | { body: number }): string {
    return this.#parts.nameOf(what);
  }

  /** The head is one object: it is durable when it was answered. */
  async secure(): Promise<void> {}

  /** Nothing is remembered but the head, which this opening wrote itself. */
  async refresh(): Promise<void> {}

  /** Waits for its turn among the changes, whose answers it must not be taken for. */
  isHeld(): Promise<boolean> {
    const look = this.#updating.then(async () => {
      if (!this.#isRevoked) await this.#readAgain();
      return !this.#isRevoked;
    });
    this.#updating = look.catch(() => {});
    return look;
  }

  async commit(slot: number, _nonce: string, parts: readonly Uint8Array[]): Promise<CommitOutcome> {
    const bytes = Buffer.concat(parts as Uint8Array[]);
    return this.#update(async (head) => {
      if (lastSlotOf(head) !== slot - 1) {
        throw new PlatformError('BUG_UNEXPECTED', `slot ${slot} does not follow slot ${lastSlotOf(head)} of ${headKey(this.#uuid)}`);
      }
      const inline = [...head.inline, bytes];
      if (inline.reduce((sum, one) => sum + one.length, 0) <= inlineBytesMax) return { ...head, inline };
      const segment: Segment = {
        object: this.#nextObject('log'),
        offset: 0,
        firstSlot: head.firstInline,
        lengths: inline.map(({ length }) => length),
      };
      await this.#bucket.put(`${this.#root}${segment.object}`, inline);
      return { ...head, segments: [...head.segments, segment], firstInline: slot + 1, inline: [] };
    });
  }

  async writeBody(at: number, parts: readonly Uint8Array[]): Promise<void> {
    await this.#bucket.put(`${this.#root}body/${bodyName(at)}`, parts);
  }

  async writeSnapshot(slot: number, parts: readonly Uint8Array[]): Promise<void> {
    const has = (head: AccountHead): boolean => head.snapshots.some((snapshot) => snapshot.slot === slot);
    if (has(this.#current.head)) return;
    const object = this.#nextObject(`snap/${numberName(slot)}-`);
    await this.#bucket.put(`${this.#root}${object}`, parts);
    await this.#change((head) =>
      has(head) ? head : { ...head, snapshots: [...head.snapshots, { slot, object }].sort((a, b) => a.slot - b.slot) },
    );
    await this.#collectOnce();
  }

  async keepBodiesOf(slot: number): Promise<void> {
    this.#toKeep.push(slot);
  }

  /** A slot never changes and its number is never used again, so its copy has a name of its own, however often it is written. */
  async syncBodies(): Promise<void> {
    await eachAtOnce(this.#toKeep.splice(0), async (slot) => {
      const bytes = await this.#parts.readWholeSlot(slot);
      if (bytes !== undefined) await this.#bucket.put(`${this.#root}body/${bodyName(slot)}`, [bytes]);
    });
  }

  async removeSlots(ascending: readonly number[]): Promise<void> {
    const last = ascending.at(-1);
    if (last !== undefined) await this.#change((head) => withoutSlotsUpTo(head, last));
  }

  async removeSnapshot(slot: number): Promise<void> {
    await this.#change((head) => ({ ...head, snapshots: head.snapshots.filter((snapshot) => snapshot.slot !== slot) }));
  }

  removeBody(at: number): Promise<void> {
    return this.#bucket.remove(`${this.#root}body/${bodyName(at)}`);
  }

  /** The head goes on to name this opening, and nobody writes for it any more. */
  async end(): Promise<void> {
    await this.#updating;
    this.#isRevoked = true;
  }

  /** A change of the head that is no commit. */
  async #change(change: (head: AccountHead) => AccountHead): Promise<void> {
    const outcome = await this.#update(async (head) => change(head));
    if (outcome.kind === 'committed') return;
    if (outcome.kind === 'full') throw outcome.cause;
    const key = headKey(this.#uuid);
    if (outcome.kind === 'deposed') throw new PlatformError('CLUSTER_DEPOSED', `another opening has ${key}`, { cause: outcome.cause });
    throw new PlatformError('STORE_UNAVAILABLE', `whether ${key} was replaced is not known`, { cause: outcome.cause });
  }

  /** One after the other: commits and a compaction share the head. */
  #update(change: (head: AccountHead) => Promise<AccountHead>): Promise<UpdateOutcome> {
    const update = this.#updating.then(() => this.#updateNow(change));
    this.#updating = update.catch(() => {});
    return update;
  }

  async #updateNow(change: (head: AccountHead) => Promise<AccountHead>): Promise<UpdateOutcome> {
    const key = headKey(this.#uuid);
    let candidate: { readonly on: HeadVersion; readonly head: AccountHead; readonly parts: readonly Uint8Array[] } | undefined;
    // Whether a try of this very candidate may still take effect.
    let isUnderWay = false;
    let cause: unknown;
    for (let attempt = 0; attempt < triesMax; attempt += 1) {
      if (this.#isRevoked) return { kind: 'deposed', cause };
      if (attempt > 0) await this.#bucket.pause(attempt - 1);
      try {
        if (this.#mustRead) await this.#readAgain();
        if (this.#isRevoked) return { kind: 'deposed', cause };
        if (candidate !== undefined && this.#current.head.nonce === candidate.head.nonce) {
          this.#removeUnnamed(candidate.on.head);
          return { kind: 'committed' };
        }
        if (candidate?.on.etag !== this.#current.etag) {
          const changed = await change(this.#current.head);
          if (changed === this.#current.head) return { kind: 'committed' };
          const head = { ...changed, nonce: newNonce(this.#random) };
          candidate = { on: this.#current, head, parts: encodeHead(head) };
          isUnderWay = false;
        }
      } catch (error) {
        if (error instanceof PlatformError && error.code === 'STORE_FULL' && !isUnderWay) return { kind: 'full', cause: error };
        // The requests that failed were repeated already: whoever waits is told.
        return { kind: 'unknown', cause: error };
      }
      const outcome = await this.#bucket.putIfMatch(key, candidate.on.etag, candidate.parts);
      if (outcome.kind === 'stored') {
        this.#adopt({ head: candidate.head, etag: outcome.etag });
        this.#removeUnnamed(candidate.on.head);
        return { kind: 'committed' };
      }
      if (outcome.kind === 'full' && !isUnderWay) return outcome;
      cause = outcome.cause;
      if (outcome.kind === 'unknown') isUnderWay = true;
      this.#mustRead = true;
    }
    return { kind: 'unknown', cause };
  }

  /** Finds out what the head is now. One with our open-id was written by us: nobody else does that. */
  async #readAgain(): Promise<void> {
    const current = await readHead(this.#bucket, this.#uuid);
    // A damaged head was not written by this opening; while it lies there as it was found, nobody else has the account.
    if (current?.damage !== undefined && current.etag === this.#current.etag) {
      this.#mustRead = false;
      return;
    }
    if (current === undefined || current.head.openId !== this.#openId) {
      this.#isRevoked = true;
      return;
    }
    this.#mustRead = false;
    this.#adopt(current);
  }

  #adopt(current: HeadVersion): void {
    this.#current = current;
    this.#parts.head = current.head;
    this.#parts.damage = current.damage;
  }

  /** Objects that the head named before and does not now. What cannot be removed is found by a later opening. */
  #removeUnnamed(before: AccountHead): void {
    const named = objectsOf(this.#current.head);
    for (const object of objectsOf(before)) {
      if (!named.has(object)) void this.#bucket.remove(`${this.#root}${object}`).catch(() => {});
    }
  }

  /** Removes what earlier openings wrote and no head names: see the header of this file. */
  async #collectOnce(): Promise<void> {
    if (this.#hasCollected) return;
    this.#hasCollected = true;
    for (const directory of ['log/', 'snap/']) {
      const orphans: string[] = [];
      for await (const { key } of this.#bucket.list(`${this.#root}${directory}`)) {
        const object = key.slice(this.#root.length);
        const opening = openingOf(object);
        if (opening !== undefined && opening < this.#opening && !objectsOf(this.#current.head).has(object)) orphans.push(key);
      }
      await eachAtOnce(orphans, (key) => this.#bucket.remove(key));
    }
  }

  /** `log/<opening>-<count>-<lot>` or `snap/<slot>-<opening>-<count>-<lot>`. */
  #nextObject(kind: string): string {
    this.#objects += 1;
    const separator = kind.endsWith('-') ? '' : '/';
    return `${kind}${separator}${this.#opening}-${this.#objects}-${this.#random.bytes(4).toString('hex')}`;
  }
}

/** Number of the opening that wrote an object. */
function openingOf(object: string): number | undefined {
  const match = /^(?:log\/|snap\/\d+-)(\d+)-\d+-[0-9a-f]{8}$/.exec(object);
  return match === null ? undefined : Number(match[1]);
}

function newNonce(random: Random): string {
  return random.bytes(16).toString('hex');
}

/** What the log's readers expect of something that is not there. */
export function missing(name: string): Error {
  return Object.assign(new Error(`there is no ${name}`), { code: 'ENOENT' });
}

/** Works through a list, a few at the same time. Rejects with the first failure, after those under way are done. */
export async function eachAtOnce<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  const results = await Promise.allSettled(Array.from({ length: Math.min(objectsAtOnce, items.length) }, worker));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
