/**
 * An entry as the master's kind of server shows it, in the form in which replicas get it: known by `entryUUID`.
 *
 * 389 Directory Server knows its entries by `nsUniqueId` (directory/client/entry-uuid.ts); the `entryUUID` that it shows is another value and
 * is left out, so that a replica's entries are named as the change stream names them.
 */
import { archipelagoNames } from '#directory/client/attribute-names.ts';
import { uuidAttributes, uuidFilter, uuidOf } from '#directory/client/entry-uuid.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import type { EntryImage } from '#replication/decide.ts';

/** What must be asked for besides, so that `inReplicaForm` knows the entry. */
export const masterUuidAttributes = uuidAttributes(archipelagoNames);

/** Finds an entry at any master. */
export const masterUuidFilter = (uuid: string) => uuidFilter(uuid, archipelagoNames);

/** UUID of an entry that was read; '' when it may not be read. */
export function uuidOfEntry(attributes: readonly Attribute[]): string {
  return uuidOf(attributes, archipelagoNames) ?? '';
}

/** The entry with the UUID by which it is known as its `entryUUID`; `named` is what the change stream says. */
export function inReplicaForm<T extends EntryImage>(entry: T, named?: string): T {
  if (named === undefined && !entry.attributes.some(isUniqueId)) return entry;
  const uuid = named ?? uuidOfEntry(entry.attributes);
  const rest = entry.attributes.filter((one) => !isUniqueId(one) && one.type.toLowerCase() !== 'entryuuid');
  return { ...entry, attributes: [...rest, attribute('entryUUID', uuid)], attributesBer: undefined };
}

/**
 * The entry with the UUID by which the master's stream names it, whatever it shows itself. Without it, as where our identity may not read it,
 * the replica would give the entry one of its own, and never find it again to change or remove it.
 */
export function knownAs<T extends EntryImage>(entry: T, uuid: string): T {
  const shown = entry.attributes.filter((one) => one.type.toLowerCase() === 'entryuuid').flatMap((one) => one.values);
  return shown.length === 1 && shown[0]?.toString('latin1') === uuid ? entry : inReplicaForm(entry, uuid);
}

function isUniqueId({ type }: Attribute): boolean {
  return type.toLowerCase() === 'nsuniqueid';
}
