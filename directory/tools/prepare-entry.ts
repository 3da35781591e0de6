/**
 * The part of an import that looks at one entry alone and needs no store, so that other threads can do it: names, schema, stamps and index keys
 * of a record, as an Add would make them. What depends on other entries is left to place-entry.ts.
 */
import { printable, tryParseAccountName } from '#common/account-name.ts';
import type { Random } from '#common/random.ts';
import { escapeDnValue, normalizeAttributeType, parseRdn, type Rdn, splitDn } from '#protocol/ldap/dn.ts';
import type { LdifRecord } from '#protocol/ldap/ldif.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { checkAccountValues, uidOf } from '../provisioning/mail-rules.ts';
import { checkAttribute, checkEntry, classesOf } from '../schema/check-entry.ts';
import { hasIndex, hostTally, indexKeys, rdnKey, tallies } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { AttributeType, ParsedDescription, Schema } from '../schema/schema.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { canonicalAttributes, withNamingValues } from '../server/draft.ts';
import { encodeBody } from '../store/entry-body.ts';
import { indexKeyMax } from '../store/key-index.ts';

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
export const addressTypes = ['mail', 'mailAlternateAddress'];

/** A record with the attributes of an entry. */
export type ContentRecord = LdifRecord & { readonly attributes: readonly Attribute[] };

/** What preparing needs. */
export interface PrepareContext {
  readonly schema: Schema;
  readonly random: Random;
  /** For entries without: generalized time, and a CSN above all that were given out. */
  readonly now: string;
  nextCsn(): string;
}

/**
 * What follows from the names of a record's attributes and from its classes alone. Nearly all records of a file have the form of the one before
 * them, so of those only the values are looked at.
 */
export interface Form {
  readonly types: readonly string[];
  readonly classes: Buffer[];
  /** Values that were found good last, by place, where there was only one: the reader of a file gives the same one again. */
  readonly good: (Buffer | undefined)[];
  /** Places of what goes into the body, and of the attributes kept elsewhere; -1 without one. */
  readonly stored: readonly number[];
  readonly uuidAt: number;
  readonly csnAt: number;
  /** Operational attributes that the file does not give. */
  readonly completed: readonly Attribute[];
  readonly kind: PreparedKind;
  /** Types with an index key for each value, and where they are; keys of the classes. */
  readonly indexed: readonly { readonly at: number; readonly type: AttributeType }[];
  readonly classKeys: readonly string[];
}

/** Prepares entries one after the other. */
export class EntryPreparer {
  readonly #context: PrepareContext;
  #form: Form | undefined;

  constructor(context: PrepareContext) {
    this.#context = context;
  }

  /** The form of the record prepared last, if it can have others. */
  get form(): Form | undefined {
    return this.#form;
  }

  /** Prepares a record of kind `entry`, or refuses it. */
  prepare(record: ContentRecord): PreparedEntry {
    const form = this.#form;
    if (form === undefined || !hasForm(record.attributes, form)) {
      this.#form = undefined;
      const prepared = prepareEntry(this.#context, record);
      this.#form = formOf(this.#context, record.attributes);
      return prepared;
    }
    const { schema, random } = this.#context;
    const { split, rdn } = nameOf(record.dn);
    const { attributes } = record;
    const [named] = rdn;
    if (named === undefined || !isNamedAsGiven(attributes, rdn)) return prepareEntry(this.#context, record);
    const stored: Attribute[] = [];
    for (const at of form.stored) {
      const one = attributes[at] as Attribute;
      const only = one.values.length === 1 ? one.values[0] : undefined;
      // The classes are those of the form.
      if (one.type !== 'objectClass' && (only === undefined || only !== form.good[at])) checkAttribute(schema, one);
      form.good[at] = only;
      stored.push(one);
    }
    stored.push(...form.completed);
    const keys = [...form.classKeys];
    let rdnNorm: string | undefined;
    for (const { at, type } of form.indexed) {
      const one = attributes[at] as Attribute;
      for (const value of one.values) {
        const key = type.equality?.key(value);
        if (key === undefined) continue;
        keys.push(type.key, cutKey(key));
        // The value of the name is the only one of its attribute.
        if (one.type === named.type) rdnNorm = `${normalizeAttributeType(named.type)}=${escapeDnValue(key)}`;
      }
    }
    const account = form.kind === 'account' ? accountOf(stored, rdn) : noAccount;
    const csn = form.csnAt < 0 ? undefined : csnOf(attributes[form.csnAt] as Attribute);
    return {
      line: record.line,
      parentDn: split.parent,
      rdn: split.rdn,
      rdnNorm: rdnNorm ?? rdnKey(schema, rdn),
      uuid: form.uuidAt < 0 ? uuidOctets(random.uuid()) : entryUuid(attributes[form.uuidAt] as Attribute),
      csn: csn ?? this.#context.nextCsn(),
      body: encodeBody(stored),
      kind: form.kind,
      keys,
      tallies: talliesOf(schema, form.kind, stored, account.host),
      ...account,
    };
  }
}

function hasForm(attributes: readonly Attribute[], form: Form): boolean {
  if (attributes.length !== form.types.length) return false;
  for (let at = 0; at < attributes.length; at += 1) {
    const { type, values } = attributes[at] as Attribute;
    if (type !== form.types[at]) return false;
    if (type === 'objectClass' && !(values.length === form.classes.length && values.every((one, i) => isSame(one, form.classes, i))))
      return false;
  }
  return true;
}

// What was equal once is found by identity the next time.
function isSame(value: Buffer, known: Buffer[], at: number): boolean {
  if (value === known[at]) return true;
  if (!value.equals(known[at] as Buffer)) return false;
  known[at] = value;
  return true;
}

// Of an entry that was found good; `undefined` when its attributes are not written as they are stored.
function formOf({ schema, now }: PrepareContext, attributes: readonly Attribute[]): Form | undefined {
  const types = attributes.map(({ type }) => type);
  if (new Set(types).size !== types.length || types.some((type) => schema.description(type)?.canonical !== type)) return undefined;
  const classes = [...(attributes.find(({ type }) => type === 'objectClass')?.values ?? [])];
  const { structural } = classesOf(schema, attributes);
  const completed = completionsOf(structural.name, now).filter(({ type }) => !types.includes(type));
  const stored = types.flatMap((type, at) => (notStored.has(type) ? [] : [at]));
  const indexed = stored.flatMap((at) => {
    const { type } = schema.description(types[at] as string) as ParsedDescription;
    return type.equality !== undefined && hasIndex(type.key) ? [{ at, type }] : [];
  });
  const ofClasses = attributes.filter(({ type }) => type === 'objectClass');
  const classKeys = indexKeys(schema, ofClasses).flatMap(({ attribute: name, value }) => [name, cutKey(value)]);
  return {
    types,
    classes,
    good: [],
    stored,
    uuidAt: types.indexOf('entryUUID'),
    csnAt: types.indexOf('entryCSN'),
    completed,
    kind: kindOf(schema, attributes),
    indexed,
    classKeys,
  };
}

// Whether the one value of the name is the one value of its attribute, letter by letter.
function isNamedAsGiven(attributes: readonly Attribute[], rdn: Rdn): boolean {
  const [ava] = rdn;
  if (ava === undefined || rdn.length !== 1) return false;
  const values = attributes.find(({ type }) => type === ava.type)?.values;
  return values?.length === 1 && values[0]?.toString('utf8') === ava.value;
}

function completionsOf(structural: string, now: string): Attribute[] {
  return [
    attribute('structuralObjectClass', structural),
    attribute('createTimestamp', now),
    attribute('creatorsName', importerDn),
    attribute('modifyTimestamp', now),
    attribute('modifiersName', importerDn),
  ];
}

function nameOf(dn: string): { split: { readonly rdn: string; readonly parent: string }; rdn: Rdn } {
  const split = splitDn(dn);
  const rdn = split === undefined ? undefined : parseRdn(split.rdn);
  if (split === undefined || rdn === undefined) throw new Refusal('invalidDNSyntax', `"${printable(dn)}" is no name of an entry`);
  return { split, rdn };
}

function prepareEntry(context: PrepareContext, record: ContentRecord): PreparedEntry {
  const { schema } = context;
  const { split, rdn } = nameOf(record.dn);
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
      csn = csnOf(one);
    }
  }
  const structural = checkEntry(schema, stored);
  stored.push(...completionsOf(structural.name, context.now).filter(({ type }) => !has.has(type)));
  return {
    line: record.line,
    parentDn: split.parent,
    rdn: split.rdn,
    rdnNorm: rdnKey(schema, rdn),
    uuid: uuid ?? uuidOctets(context.random.uuid()),
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
  for (const { attribute: name, value } of indexKeys(schema, attributes)) keys.push(name, cutKey(value));
  const account = kind === 'account' ? accountOf(attributes, rdn) : noAccount;
  return { body: encodeBody(attributes), kind, keys, tallies: talliesOf(schema, kind, attributes, account.host), ...account };
}

function cutKey(key: string): string {
  return key.length > indexKeyMax ? key.slice(0, indexKeyMax) : key;
}

function talliesOf(schema: Schema, kind: PreparedKind, attributes: readonly Attribute[], host: string | undefined): readonly string[] {
  if (kind !== 'account') return tallies(schema, attributes);
  return host === undefined ? ['accounts'] : ['accounts', hostTally(host)];
}

const noAccount = { local: '', host: undefined, addresses: [] } as const;

function accountOf(attributes: readonly Attribute[], rdn: Rdn): Pick<PreparedEntry, 'local' | 'host' | 'addresses'> {
  const addresses: string[] = [];
  let host: string | undefined;
  let hasLimited = false;
  for (const { type, values } of attributes) {
    if (type === 'hostServer') host = values[0]?.toString('utf8').toLowerCase();
    else if (type === 'accountStatus' || type === 'mailQuota') hasLimited = true;
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
  if (hasLimited) checkAccountValues(attributes);
  const local = uidOf(rdn);
  if (local === undefined) throw new Refusal('namingViolation', 'an account is named by its uid: uid=<local part>,<domain entry>');
  return { local, host, addresses };
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
  const [value] = one.values;
  const uuid = value === undefined || one.values.length !== 1 ? undefined : octetsOfUuid(value);
  if (uuid === undefined) throw new Refusal('invalidAttributeSyntax', 'entryUUID is not a UUID');
  return uuid;
}

export const uuidTextLength = 36;

// The 16 octets of a UUID in text of either case (RFC 4530 §2.1); undefined when it is none. Every entry of an export has one.
function octetsOfUuid(text: Buffer): Buffer | undefined {
  const octets = Buffer.allocUnsafe(16);
  return text.length === uuidTextLength && readUuid(text, 0, octets) ? octets : undefined;
}

/** Reads the 36 characters of a UUID at `from` into 16 octets; false when they are none. */
export function readUuid(text: Uint8Array, from: number, octets: Uint8Array): boolean {
  let digits = 0;
  let high = 0;
  for (let at = 0; at < uuidTextLength; at += 1) {
    const char = text[from + at] as number;
    if (at === 8 || at === 13 || at === 18 || at === 23) {
      if (char !== 45) return false;
      continue;
    }
    const digit = hexDigits[char] as number;
    if (digit === 255) return false;
    if (digits % 2 === 0) high = digit << 4;
    else octets[digits >> 1] = high | digit;
    digits += 1;
  }
  return true;
}

const hexDigits = new Uint8Array(256).fill(255);
for (let digit = 0; digit < 16; digit += 1) {
  const char = digit.toString(16);
  hexDigits[char.charCodeAt(0)] = digit;
  hexDigits[char.toUpperCase().charCodeAt(0)] = digit;
}

export function uuidOctets(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

function csnOf(one: Attribute): string {
  const csn = one.values[0]?.toString('latin1') ?? '';
  if (one.values.length !== 1 || !csnPattern.test(csn))
    throw new Refusal('invalidAttributeSyntax', 'entryCSN is not a change sequence number');
  return csn;
}
