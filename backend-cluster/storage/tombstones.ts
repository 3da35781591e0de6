/**
 * Tombstones of removed accounts: while there is one, the account cannot be opened and its storage is kept.
 */
import { tryParseAccountUuid } from '#common/account-name.ts';
import type { Tombstone } from './account-store.ts';
import type { SmallRecords } from './small-records.ts';

/** Writes one; the first one stays, with its date. */
export async function writeTombstone(tombstones: SmallRecords, tombstone: Tombstone): Promise<void> {
  await tombstones.create(tombstone.uuid, JSON.stringify({ name: tombstone.name, removedAtMs: tombstone.removedAtMs }));
}

/** All of them, also those of which only the file's name can be read. Other files in the directory are passed over. */
export async function listTombstones(tombstones: SmallRecords): Promise<Tombstone[]> {
  const found: Tombstone[] = [];
  for (const name of await tombstones.names()) {
    const uuid = tryParseAccountUuid(name);
    if (uuid === undefined) continue;
    const text = await tombstones.read(name);
    if (text !== undefined) found.push({ uuid, ...(parse(text) ?? { name: '', removedAtMs: Number.POSITIVE_INFINITY }) });
  }
  return found;
}

function parse(text: string): { name: string; removedAtMs: number } | undefined {
  let value: { name?: unknown; removedAtMs?: unknown } | null;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value?.name !== 'string' || typeof value.removedAtMs !== 'number') return undefined;
  return { name: value.name, removedAtMs: value.removedAtMs };
}
