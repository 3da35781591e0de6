/**
 * Telling by comparison what a replica lacks or has too much, when the master cannot say: at the first load, after a refused cookie, and
 * after a present phase. Both sides are read once, streaming; what is kept of an entry is its UUID and eight bytes.
 */
import { createHash } from 'node:crypto';
import { PlatformError } from '#common/errors/platform-error.ts';
import { normalizeDnText } from '#protocol/ldap/dn.ts';
import { type Attribute, textOf } from '#protocol/ldap/messages.ts';
import type { Replica } from '#replication/replica.ts';
import type { NamedEntries } from '#replication/store/named-entries.ts';

/** Deletions of one refresh that are never questioned, unless they are nearly all there is. */
const deletesFloor = 20;

/** What a replica holds, for skipping what is equal already. */
export interface ReplicaIndex {
  readonly table: NamedEntries;
  /** Whether the replica has this entry under this name with this `entryCSN`. */
  isCurrent(uuid: string, dn: string, attributes: readonly Attribute[]): boolean;
}

/** Reads a replica's UUIDs, names and CSNs into `table`. Entries have no mark in it until the master names them. */
export async function readReplicaIndex(replica: Replica, table: NamedEntries): Promise<ReplicaIndex> {
  for await (const entry of replica.readAll(['entryCSN'])) {
    if (entry.uuid === '') continue;
    table.mark(entry.uuid);
    const [high, low] = fingerprint(entry.dn, entry.attributes);
    table.setFingerprint(entry.uuid, high, low);
  }
  table.clearMarks();
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

function fingerprint(dn: string, attributes: readonly Attribute[]): readonly [number, number] {
  const digest = createHash('sha1')
    .update(`${normalizeDnText(dn)}\u0000${textOf(attributes, 'entryCSN')}`)
    .digest();
  return [digest.readUInt32BE(0), digest.readUInt32BE(4)];
}

/** Entries of the replica that `named` has no mark for, deepest first, and how many the replica has in all. */
export async function findUnnamed(
  replica: Replica,
  named: NamedEntries,
): Promise<{ readonly uuids: readonly string[]; readonly total: number }> {
  const unnamed: { uuid: string; depth: number }[] = [];
  let total = 0;
  for await (const entry of replica.readAll([])) {
    if (entry.uuid === '') continue;
    total += 1;
    if (!named.isMarked(entry.uuid)) unnamed.push({ uuid: entry.uuid, depth: entry.dn.split(',').length });
  }
  unnamed.sort((a, b) => b.depth - a.depth);
  return { uuids: unnamed.map((one) => one.uuid), total };
}

/** Throws `REPL_TOO_MANY_DELETES` when a refresh would delete more of a replica than is allowed. */
export function checkDeletes(count: number, total: number, maxPercent: number, replica: string): void {
  const percent = total === 0 ? 0 : (100 * count) / total;
  const isNearlyAll = count > 2 && percent > 90;
  if (maxPercent >= 100 || (!isNearlyAll && count <= deletesFloor) || percent <= Math.min(90, maxPercent)) return;
  throw new PlatformError(
    'REPL_TOO_MANY_DELETES',
    `a refresh would delete ${count} of ${total} entries (${percent.toFixed(1)} %) of ${replica}; allowed are ${maxPercent} %. ` +
      'Check that the master was not restored empty or old; then allow the deletions and go on.',
    { fields: { replica, deletes: count, entries: total } },
  );
}
