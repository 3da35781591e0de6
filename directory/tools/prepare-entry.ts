/**
 * The part of an import that looks at one entry alone and needs no store, so that other threads can do it: names, schema, stamps and index keys
 * of a record, as an Add would make them. What depends on other entries is left to place-entry.ts.
 */
import { printable, tryParseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
import type { Random } from '#common/random.ts';
import { parseRdn, type Rdn, splitDn } from '#protocol/ldap/dn.ts';
import type { LdifRecord } from '#protocol/ldap/ldif.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { checkAccountValues, uidOf } from '../provisioning/mail-rules.ts';
import { checkEntry, classesOf } from '../schema/check-entry.ts';
import { indexKeys, rdnKey, tallies } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Schema } from '../schema/schema.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { canonicalAttributes, withNamingValues } from '../server/draft.ts';
import { encodeBody } from '../store/entry-body.ts';
import { indexKeyMax } from '../store/entry-store.ts';

/** What an entry is to the rules of mail. */
export type PreparedKind = 'account' | 'domain' | 'cluster' | 'other';

/** An entry ready to be placed below its parent. */
export interface PreparedEntry {
  /** Where the file has it, counted from the start of what was prepared together. */
  readonly line: number;
  readonly parentDn: string;
  readonly rdn: string;
  readonly rdnNorm: string;
  /** 16 octets. */
  readonly uuid: Buffer;
  readonly csn: string;
  readonly body: Buffer;
  readonly kind: PreparedKind;
  /** Attribute and value in turn. */
  readonly keys: readonly string[];
  readonly tallies: readonly string[];
  /** Of an account: the part of its name before the `@`, its cluster if it names one, and its addresses. */
  readonly local: string;
  readonly host: string | undefined;
  readonly addresses: readonly string[];
}

/** Attributes that the store keeps elsewhere or computes. */
const notStored = new Set(['entryUUID', 'entryCSN', 'entryDN', 'contextCSN', 'subschemaSubentry', 'hasSubordinates', 'numSubordinates']);
const addressTypes = ['mail', 'mailAlternateAddress'];

/** What preparing needs. */
export interface PrepareContext {
  readonly schema: Schema;
  readonly random: Random;
  /** For entries without: generalized time, and a CSN above all that were given out. */
  readonly now: string;
  nextCsn(): string;
}

/** Prepares a record of kind `entry`, or refuses it. */
export function prepareEntry(context: PrepareContext, record: LdifRecord & { readonly attributes: readonly Attribute[] }): PreparedEntry {
  const { schema } = context;
  const split = splitDn(record.dn);
  const rdn = split === undefined ? undefined : parseRdn(split.rdn);
  if (split === undefined || rdn === undefined) throw new Refusal('invalidDNSyntax', `"${printable(record.dn)}" is no name of an entry`);
  const given = withNamingValues(schema, canonicalAttributes(schema, record.attributes, false), rdn);
  let uuid: Buffer | undefined;
  let csn: string | undefined;
  const stored: Attribute[] = [];
  const has = new Set<string>();
  for (const one of given) {
    if (!notStored.has(one.type)) {
      stored.push(one);
      has.add(one.type);
    } else if (one.type === 'entryUUID') {
      uuid = entryUuid(one);
    } else if (one.type === 'entryCSN') {
      csn = one.values[0]?.toString('latin1') ?? '';
      if (!csnPattern.test(csn)) throw new Refusal('invalidAttributeSyntax', 'entryCSN is not a change sequence number');
    }
  }
  const structural = checkEntry(schema, stored);
  const complete = (type: string, value: string): void => {
    if (!has.has(type)) stored.push(attribute(type, value));
  };
  complete('structuralObjectClass', structural.name);
  complete('createTimestamp', context.now);
  complete('creatorsName', importerDn);
  complete('modifyTimestamp', context.now);
  complete('modifiersName', importerDn);
  return {
    line: record.line,
    parentDn: split.parent,
    rdn: split.rdn,
    rdnNorm: rdnKey(schema, rdn),
    uuid: uuid ?? Buffer.from(context.random.uuid().replaceAll('-', ''), 'hex'),
    csn: csn ?? context.nextCsn(),
    ...contentOf(schema, stored, rdn),
  };
}

/** Who added what a file does not say of itself. */
export const importerDn = 'cn=import';

/** Everything of an entry that follows from its attributes. */
export function contentOf(
  schema: Schema,
  attributes: readonly Attribute[],
  rdn: Rdn,
): Pick<PreparedEntry, 'body' | 'kind' | 'keys' | 'tallies' | 'local' | 'host' | 'addresses'> {
  const kind = kindOf(schema, attributes);
  const keys: string[] = [];
  for (const { attribute: name, value } of indexKeys(schema, attributes)) {
    keys.push(name, value.length > indexKeyMax ? value.slice(0, indexKeyMax) : value);
  }
  const common = { body: encodeBody(attributes), kind, keys, tallies: tallies(schema, attributes) };
  if (kind !== 'account') return { ...common, local: '', host: undefined, addresses: [] };
  checkAccountValues(attributes);
  const addresses: string[] = [];
  let host: string | undefined;
  for (const { type, values } of attributes) {
    if (type === 'hostServer') host = values[0]?.toString('utf8').toLowerCase();
    if (!addressTypes.includes(type)) continue;
    for (const value of values) {
      const address = tryParseAccountName(value.toString('utf8'));
      if (address === undefined) {
        throw new Refusal(
          'constraintViolation',
          `${type}: "${printable(value.toString('utf8'))}" is not an address of the form local@domain`,
        );
      }
      addresses.push(address);
    }
  }
  const local = uidOf(rdn);
  if (local === undefined) throw new Refusal('namingViolation', 'an account is named by its uid: uid=<local part>,<domain entry>');
  return { ...common, local, host, addresses };
}

function kindOf(schema: Schema, attributes: readonly Attribute[]): PreparedKind {
  for (const { lineage } of classesOf(schema, attributes).classes) {
    if (lineage.has('mailaccount')) return 'account';
    if (lineage.has('maildomain')) return 'domain';
    if (lineage.has('mailcluster')) return 'cluster';
  }
  return 'other';
}

function entryUuid(one: Attribute): Buffer {
  const uuid = tryParseAccountUuid(one.values[0]?.toString('latin1') ?? '');
  if (uuid === undefined || one.values.length !== 1) throw new Refusal('invalidAttributeSyntax', 'entryUUID is not a UUID');
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}
