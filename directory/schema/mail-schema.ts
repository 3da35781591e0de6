/**
 * The schema that every Directory Server of this platform has: the standards' and our own, with names compared by its rules.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { type Dn, normalizeDn, normalizeRdn, parseDn, type Rdn } from '#protocol/ldap/dn.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { mailAttributeTypes, mailObjectClasses } from './mail-definitions.ts';
import { Schema } from './schema.ts';
import { extendSchema, type SchemaFile } from './schema-file.ts';
import { standardAttributeTypes, standardObjectClasses } from './standard-definitions.ts';

/** Builds the schema, with what schema files add. */
export function createMailSchema(files: readonly SchemaFile[] = []): Schema {
  const schema = new Schema(
    [...standardAttributeTypes, ...mailAttributeTypes],
    [...standardObjectClasses, ...mailObjectClasses],
    (schema, text) => {
      const dn = parseDn(text);
      return dn === undefined ? undefined : dnKey(schema, dn);
    },
  );
  extendSchema(schema, files);
  return schema;
}

/** Key of a DN under this schema. */
export function dnKey(schema: Schema, dn: Dn): string {
  return normalizeDn(dn, (type, value) => avaKey(schema, type, value));
}

/** Key of an RDN under this schema. */
export function rdnKey(schema: Schema, rdn: Rdn): string {
  return normalizeRdn(rdn, (type, value) => avaKey(schema, type, value));
}

function avaKey(schema: Schema, type: string, value: string): string {
  const equality = schema.attributeType(type)?.equality;
  return equality?.key(Buffer.from(value)) ?? value.toLowerCase();
}

/** Attributes with an equality index. objectClass is indexed for rare classes only: `person` would name every account. */
const indexedAttributes = new Set([
  'uid',
  'cn',
  'mail',
  'mailalternateaddress',
  'hostserver',
  'maildomainalias',
  'ou',
  'displayname',
  'member',
  'uniquemember',
]);
const indexedClasses = new Set([
  'maildomain',
  'mailcluster',
  'frontendsubset',
  'organizationalunit',
  'organization',
  'groupofnames',
  'groupofuniquenames',
  'referral',
]);

/** Whether an equality on this attribute can be answered from the index. */
export function isIndexed(attributeKey: string, valueKey: string): boolean {
  return attributeKey === 'objectclass' ? indexedClasses.has(valueKey) : indexedAttributes.has(attributeKey);
}

/** Whether every value of this attribute is in the index; of classes only some are. */
export function hasIndex(attributeKey: string): boolean {
  return indexedAttributes.has(attributeKey);
}

/** The index keys of an entry. */
export function indexKeys(schema: Schema, attributes: readonly Attribute[]): { attribute: string; value: string }[] {
  const keys: { attribute: string; value: string }[] = [];
  for (const { type: description, values } of attributes) {
    const type = schema.description(description)?.type;
    if (type?.equality === undefined) continue;
    if (type.key !== 'objectclass' && !indexedAttributes.has(type.key)) continue;
    for (const value of values) {
      const key = type.equality.key(value);
      if (key !== undefined && isIndexed(type.key, key)) keys.push({ attribute: type.key, value: key });
    }
  }
  return keys;
}

/** What an entry has in attributes whose pieces are indexed: the values as substrings are compared with them. */
export function pieceTexts(
  schema: Schema,
  attributes: readonly Attribute[],
  wanted: ReadonlyMap<string, unknown>,
): { attribute: string; value: string }[] {
  const texts: { attribute: string; value: string }[] = [];
  for (const { type: description, values } of attributes) {
    const type = schema.description(description)?.type;
    if (type === undefined || !wanted.has(type.key)) continue;
    for (const value of values) {
      const key = type.substrings?.key(value);
      if (key !== undefined) texts.push({ attribute: type.key, value: key });
    }
  }
  return texts;
}

/** Keys of the attributes named for an index of pieces; refuses what has none. */
export function pieceAttributes(schema: Schema, names: readonly string[]): Set<string> {
  return new Set(
    names.map((name) => {
      const type = schema.attributeType(name);
      if (type === undefined) throw new PlatformError('CONFIG_INVALID', `substringIndexes: the schema knows no attribute "${name}"`);
      if (type.substrings?.pieceKey === undefined || type.isOperational || type.family.size > 1) {
        throw new PlatformError(
          'CONFIG_INVALID',
          `substringIndexes: ${type.name} ${type.family.size > 1 ? 'has subtypes; name those' : 'is not compared by substrings'}`,
        );
      }
      return type.key;
    }),
  );
}

/** The counters an entry counts in: accounts, accounts per cluster, referrals. */
export function tallies(schema: Schema, attributes: readonly Attribute[]): string[] {
  let isAccount = false;
  for (const value of attributes.find((attribute) => attribute.type === 'objectClass')?.values ?? []) {
    const key = schema.objectClass(value.toString('utf8'))?.key;
    if (key === 'referral') return [referralTally];
    if (key === 'mailaccount') isAccount = true;
  }
  if (!isAccount) return [];
  const host = attributes.find((attribute) => attribute.type === 'hostServer')?.values[0];
  return host === undefined ? ['accounts'] : ['accounts', hostTally(host.toString('utf8'))];
}

/** Name of the counter of named referrals. */
export const referralTally = 'referrals';

/** Name of the counter of a cluster's accounts. */
export function hostTally(cluster: string): string {
  return `hostServer=${cluster.toLowerCase()}`;
}
