/**
 * By what an entry is known for good. OpenLDAP and our own server call it `entryUUID` (RFC 4530). 389 Directory Server names entries in its
 * change stream by `nsUniqueId`, sixteen octets written in four words; its `entryUUID` is another value, which the stream never says.
 * So wherever an entry has an `nsUniqueId`, that one counts.
 */
import type { AttributeNames } from '#directory/client/attribute-names.ts';
import { equal, type Filter, or } from '#protocol/ldap/filter.ts';
import { type Attribute, textOf } from '#protocol/ldap/messages.ts';

const nsUniqueId = 'nsUniqueId';

/** What must be read of an entry to know its UUID. */
export function uuidAttributes(names: AttributeNames): readonly string[] {
  return [names.entryUuid, nsUniqueId];
}

/** UUID of an entry in the usual form, lower case; `undefined` when it may not be read. */
export function uuidOf(attributes: readonly Attribute[], names: AttributeNames): string | undefined {
  const words = /^([0-9a-f]{8})-([0-9a-f]{4})([0-9a-f]{4})-([0-9a-f]{4})([0-9a-f]{4})-([0-9a-f]{8})$/i.exec(
    textOf(attributes, nsUniqueId) ?? '',
  );
  if (words === null) return textOf(attributes, names.entryUuid)?.toLowerCase();
  const [a, b, c, d, e, f] = words.slice(1);
  return `${a}-${b}-${c}-${d}-${e}${f}`.toLowerCase();
}

/** Finds the entry with that UUID on any server: the name that a server does not know matches nothing there (RFC 4511 §4.5.1.7). */
export function uuidFilter(uuid: string, names: AttributeNames): Filter {
  const digits = uuid.replaceAll('-', '');
  const words = [digits.slice(0, 8), digits.slice(8, 16), digits.slice(16, 24), digits.slice(24)].join('-');
  return or(equal(names.entryUuid, uuid), equal(nsUniqueId, words));
}
