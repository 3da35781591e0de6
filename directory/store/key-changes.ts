/** What a change of an entry changes in the index of keys. */
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { EntryFunctions } from './entry-functions.ts';
import type { KeyIndex } from './key-index.ts';

type KeysOf = EntryFunctions['keysOf'];

/**
 * Whether an attribute that changes is in the index, as few are. It says nothing of the keys themselves: two descriptions may stand for one, so
 * `changeKeys` looks at all attributes.
 */
export function mayChangeKeys(keysOf: KeysOf, before: readonly Attribute[], after: readonly Attribute[]): boolean {
  return hasKeysBeyond(keysOf, before, after) || hasKeysBeyond(keysOf, after, before);
}

/** Enters an entry under the keys that it has now, and no longer under those that it had. */
export function changeKeys(index: KeyIndex, keysOf: KeysOf, before: readonly Attribute[], after: readonly Attribute[], id: number): void {
  const had = new Map(keysOf(before).map((key) => [`${key.attribute}=${key.value}`, key]));
  index.add(
    keysOf(after).filter((key) => !had.delete(`${key.attribute}=${key.value}`)),
    id,
  );
  for (const key of had.values()) index.remove(key, id);
}

/** Whether there are keys in attributes that the others have not, or not so. */
function hasKeysBeyond(keysOf: KeysOf, attributes: readonly Attribute[], others: readonly Attribute[]): boolean {
  const own = attributes.filter((one) => !others.some((other) => isSame(one, other)));
  return own.length > 0 && keysOf(own).length > 0;
}

function isSame(one: Attribute, other: Attribute): boolean {
  if (one.type !== other.type || one.values.length !== other.values.length) return false;
  return one.values.every((value, i) => value.equals(other.values[i] as Buffer));
}
