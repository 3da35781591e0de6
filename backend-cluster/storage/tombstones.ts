/**
 * Tombstones of removed accounts: while there is one, the account cannot be opened and its storage is kept.
 */
import { type AccountUuid, tryParseAccountUuid } from '#common/account-name.ts';
import type { Tombstone } from './account-store.ts';
import { corrupt } from './binary.ts';
import { parseStoredJson, type SmallRecords } from './small-records.ts';

/** Writes one; the first one stays, with its date. */
export async function writeTombstone(tombstones: SmallRecords, tombstone: Tombstone): Promise<void> {
  await tombstones.create(tombstone.uuid, JSON.stringify({ name: tombstone.name, removedAtMs: tombstone.removedAtMs }));
}

/** All of them. Other files in the directory are passed over. */
export async function listTombstones(tombstones: SmallRecords): Promise<Tombstone[]> {
  const found: Tombstone[] = [];
  for (const name of await tombstones.names()) {
    const uuid = tryParseAccountUuid(name);
    if (uuid === undefined) continue;
    const text = await tombstones.read(name);
    if (text !== undefined) found.push({ uuid, ...parse(uuid, text) });
  }
  return found;
}

function parse(uuid: AccountUuid, text: string): { name: string; removedAtMs: number } {
  const value = parseStoredJson(text, `tombstones/${uuid}`) as { name?: unknown; removedAtMs?: unknown } | null;
  if (typeof value?.name !== 'string' || typeof value.removedAtMs !== 'number') throw corrupt(`tombstones/${uuid} has no name or no date`);
  return { name: value.name, removedAtMs: value.removedAtMs };
}
