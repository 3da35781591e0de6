/**
 * Values that mean the same and that servers spell anew: OpenLDAP stores names without spaces and with the parts of an RDN in an order of its
 * own, and object classes as its schema has them. Compared as they are, such an entry would differ for good, whatever is written.
 */
import { normalizeDnText } from '#protocol/ldap/dn.ts';

/** Attributes whose values are names of entries (RFC 4519, RFC 4524, RFC 4512 §3.4). */
const ofNames = new Set([
  'aliasedobjectname',
  'associatedname',
  'creatorsname',
  'distinguishedname',
  'documentauthor',
  'manager',
  'member',
  'modifiersname',
  'owner',
  'roleoccupant',
  'secretary',
  'seealso',
  'uniquemember',
]);

/** Names that every server leaves as they are, which is most of them: they need not be taken apart. */
const plainName = /^(?:(?:cn|uid|ou|o|dc)=[\w.@-]+(?:,|$))+$/;

/** Text that is the same for values which mean the same; `type` is normalised. Case counts, except in object classes. */
export function comparedText(type: string, value: Buffer): string {
  if (type === 'objectclass') return value.toString('latin1').toLowerCase();
  const text = value.toString('latin1');
  if (!ofNames.has(type) || plainName.test(text)) return text;
  const name = normalizeDnText(value.toString('utf8'), (_, part) => part);
  return name === undefined ? text : Buffer.from(name).toString('latin1');
}
