/**
 * Telling by comparison what a replica lacks or has too much, when the master cannot say: at the first load, after a refused cookie, and
 * after a present phase. Both sides are read once, streaming; what is kept of an entry is its UUID and eight bytes.
 */
import { hash } from 'node:crypto';
import { PlatformError } from '#common/errors/platform-error.ts';
import { normalizeDnText } from '#protocol/ldap/dn.ts';
import { type Attribute, textOf } from '#protocol/ldap/messages.ts';
import type { Replica } from '#replication/replica.ts';
import { NamedEntries } from '#replication/store/named-entries.ts';

/** Deletions of one refresh that are never questioned, unless they are nearly all there is. */
export const deletesFloor = 20;
/** Entries to be deleted that are in memory at a time; with more, the replica is read once more for the next. */
const deletesListedMax = 50_000;
const toldAtATime = 1000;
/** What is kept with a UUID that the master has named as gone, and with one that is there after all. */
const goneState = [0, 1] as const;
const thereState = [0, 0] as const;

/** What a replica holds, for skipping what is equal already. */
export interface ReplicaIndex {
  readonly table: NamedEntries;
  /** Whether the replica has this entry under this name with this `entryCSN`. */
  isCurrent(uuid: string, dn: string, attributes: readonly Attribute[]): boolean;
}

/** Reads a replica's UUIDs, names and CSNs into `table`. Entries have no mark in it until the master names them. */
export async function readReplicaIndex(replica: Replica, table: NamedEntries, onRead: () => void): Promise<ReplicaIndex> {
  for await (const entry of replica.readAll(['entryCSN'])) {
    onRead();
    if (entry.uuid === '') continue;
    table.put(entry.uuid, ...fingerprint(entry.dn, entry.attributes));
  }
  return {
    table,
    isCurrent(uuid, dn, attributes) {
      // Without the master's CSNs an equal name says nothing of the content.
      if (!replica.keepsCsn) return false;
      const [high, low] = fingerprint(dn, attributes);
      return table.hasFingerprint(uuid, high, low);
    },
  };
}

function fingerprint(dn: string, attributes: readonly Attribute[]): readonly [high: number, low: number] {
  const digest = hash('sha1', `${normalizeDnText(dn)}\u0000${textOf(attributes, 'entryCSN')}`, 'buffer');
  return [digest.readUInt32BE(0), digest.readUInt32BE(4)];
}

/**
 * Entries that are gone at the master and whose deletion at the replica is still to come. A master may name as many as it likes: many are in a
 * file, as those are that it names as still there (named-entries.ts).
 */
export class Doomed {
  readonly #told: NamedEntries;
  #size = 0;
  #isNamed: ((uuid: string) => boolean) | undefined;

  /** @param file for those that the master names, should there be many; without one they stay in memory */
  constructor(file?: string, inMemoryMax?: number) {
    this.#told = new NamedEntries(file, inMemoryMax);
  }

  /** How many the master has named as gone. */
  get size(): number {
    return this.#size;
  }

  /** The master says that it is gone. */
  add(uuid: string): void {
    if (this.#isTold(uuid)) return;
    this.#told.put(uuid, ...goneState);
    this.#size += 1;
  }

  /** It is there after all. */
  delete(uuid: string): void {
    if (!this.#isTold(uuid)) return;
    this.#told.put(uuid, ...thereState);
    this.#size -= 1;
  }

  /** From now until `clear`: whoever was not named is gone. */
  addUnnamed(isNamed: (uuid: string) => boolean): void {
    this.#isNamed = isNamed;
  }

  has(uuid: string): boolean {
    return this.#isTold(uuid) || this.#isNamed?.(uuid) === false;
  }

  clear(): void {
    this.#told[Symbol.dispose]();
    this.#size = 0;
    this.#isNamed = undefined;
  }

  /** Those that the master has named as gone. */
  *[Symbol.iterator](): Generator<string> {
    for (const lot of this.#told.unmarked(toldAtATime)) for (const uuid of lot) if (this.#isTold(uuid)) yield uuid;
  }

  #isTold(uuid: string): boolean {
    return this.#size > 0 && this.#told.hasFingerprint(uuid, ...goneState);
  }
}

/** What a refresh has to delete. */
export interface FoundDoomed {
  /** Entries that the replica has. */
  readonly total: number;
  /** Of these, entries that were named in the refresh. */
  readonly named: number;
  /** Of these, entries to be deleted. */
  readonly doomed: number;
  /** The deepest of them, deepest first: at most `listedMax`. */
  readonly uuids: readonly string[];
}

/** Reads which entries of the replica are to be deleted. Entries that are gone there already do not count. */
export async function findDoomed(
  replica: Pick<Replica, 'readAll'>,
  named: Pick<NamedEntries, 'isMarked'>,
  doomed: Pick<Doomed, 'has'>,
  listedMax = deletesListedMax,
): Promise<FoundDoomed> {
  const byDepth: string[][] = [];
  let [total, namedCount, doomedCount, listed] = [0, 0, 0, 0];
  for await (const { uuid, dn } of replica.readAll([])) {
    if (uuid === '') continue;
    total += 1;
    if (named.isMarked(uuid)) namedCount += 1;
    if (!doomed.has(uuid)) continue;
    doomedCount += 1;
    const depth = dn.split(',').length;
    byDepth[depth] ??= [];
    byDepth[depth].push(uuid);
    listed += 1;
    if (listed > listedMax) {
      byDepth.find((uuids) => uuids !== undefined && uuids.length > 0)?.pop();
      listed -= 1;
    }
  }
  const uuids = byDepth.reverse().flatMap((ofDepth) => ofDepth ?? []);
  return { total, named: namedCount, doomed: doomedCount, uuids };
}

/** Throws `REPL_TOO_MANY_DELETES` when a refresh, or a repair, would delete more of a replica than is allowed. */
export function checkDeletes(
  count: number,
  total: number,
  maxPercent: number,
  replica: string,
  asker: 'refresh' | 'repair' = 'refresh',
): void {
  const percent = total === 0 ? 0 : (100 * count) / total;
  const isNearlyAll = count > 2 && percent > 90;
  if (maxPercent >= 100 || (!isNearlyAll && count <= deletesFloor) || percent <= Math.min(90, maxPercent)) return;
  throw new PlatformError(
    'REPL_TOO_MANY_DELETES',
    `a ${asker} would delete ${count} of ${total} entries (${percent.toFixed(1)} %) of ${replica}; allowed are ${maxPercent} %. ` +
      `Check that the master was not restored empty or old; then go on with \`archipelago replica ${asker === 'refresh' ? `allow-deletes ${replica}` : `repair ${replica} --allow-deletes`}\`.`,
    { fields: { replica, deletes: count, entries: total } },
  );
}
