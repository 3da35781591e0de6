/**
 * What must be written at a replica so that one of its entries equals the master's. Pure: the same two entries give the same steps, and
 * none when they are equal already, so that any change may be met twice.
 *
 * The replica's entry was found by `entryUUID`, never by name: another name means a rename (Modify DN), whatever chain of renames led
 * there. What is compared is the whole content, not the change.
 */
import { type Dn, formatRdn, normalizeAttributeType, normalizeDn, parseDn, type Rdn, splitDn } from '#protocol/ldap/dn.ts';
import type { Attribute, Modification } from '#protocol/ldap/messages.ts';
import { comparedText } from '#replication/same-value.ts';

/** An entry with the attributes that are replicated. */
export interface EntryImage {
  readonly dn: string;
  readonly attributes: readonly Attribute[];
  /** The same as they came, where nothing was left out. */
  readonly attributesBer?: Buffer | undefined;
}

/** An entry of the replica as it was acknowledged, of which only digests are kept (store/shadow.ts). */
export interface KnownEntry {
  readonly dn: string;
  /** Types of its attributes, normalised. */
  readonly types: Iterable<string>;
  /** Whether it has that attribute, of this normalised type, with these very values. */
  holds(attribute: Attribute, type: string): boolean;
}

/** One write at the replica. */
export type Step =
  | { readonly kind: 'add'; readonly dn: string; readonly attributes: readonly Attribute[] }
  | {
      readonly kind: 'rename';
      readonly dn: string;
      readonly newRdn: string;
      readonly deleteOldRdn: boolean;
      readonly newSuperior: string | undefined;
    }
  | { readonly kind: 'modify'; readonly dn: string; readonly changes: readonly Modification[] };

/** Operational attributes that a replica takes over from the master. */
export const keptOperational = ['entryUUID', 'entryCSN', 'createTimestamp', 'creatorsName', 'modifyTimestamp', 'modifiersName'] as const;

/** What is asked for at the master and read at the replica: of an entry that refers elsewhere (RFC 3296 §2.2), where that is, too. */
export const replicatedSelection: readonly string[] = ['*', ...keptOperational, 'ref'];

/** What a server makes by itself, should it send it unasked. */
const derived = new Set(['structuralobjectclass', 'entrydn', 'subschemasubentry', 'hassubordinates', 'numsubordinates', 'contextcsn']);

/** Steps that make the replica's entry equal to the master's; `mayKeepCsn` is false for servers that let nobody set `entryCSN`. */
export function decide(master: EntryImage, replica: EntryImage | undefined, mayKeepCsn: boolean): readonly Step[] {
  // A master without CSNs leaves the replica its own.
  const keepsCsn = mayKeepCsn && master.attributes.some((one) => one.type.toLowerCase() === 'entrycsn');
  const wanted = replicatedAttributes(master.attributes, keepsCsn);
  if (replica === undefined) return [{ kind: 'add', dn: master.dn, attributes: wanted }];
  const steps: Step[] = [];
  let present = replicatedAttributes(replica.attributes, keepsCsn);
  const rename = decideRename(master, replica);
  if (rename !== undefined) {
    steps.push(rename.step);
    present = rename.attributesAfter(present);
  }
  const changes = difference(wanted, present);
  if (changes.length === 0 && rename === undefined) return steps;
  addStamps(wanted, changes);
  if (changes.length > 0) steps.push({ kind: 'modify', dn: rename === undefined ? replica.dn : master.dn, changes });
  return steps;
}

/** The same where the replica's entry is known by digests; none also when it cannot be told, and the entry must be read. */
export function decideKnown(master: EntryImage, known: KnownEntry, mayKeepCsn: boolean): readonly Step[] {
  const rename = decideRename(master, { dn: known.dn, attributes: [] });
  // What a Modify DN makes of the naming attributes cannot be told from digests: they are written as well.
  const naming = new Set(
    rename === undefined
      ? []
      : [master.dn, known.dn].flatMap((dn) => (parseDn(dn)?.[0] ?? []).map((ava) => normalizeAttributeType(ava.type))),
  );
  const changes: Modification[] = [];
  // Every write makes the replica stamp the entry with its own time and our name, unless the master's stamps come with it.
  const stamps: Modification[] = [];
  const gone = new Set(known.types);
  let hasCsn = false;
  for (const attribute of master.attributes) {
    const type = normalizeAttributeType(attribute.type);
    hasCsn ||= type === 'entrycsn';
    if (derived.has(type) || (type === 'entrycsn' && !mayKeepCsn)) continue;
    gone.delete(type);
    if (naming.has(type) || !known.holds(attribute, type)) changes.push({ kind: 'replace', attribute });
    else if (stampTypes.has(type)) stamps.push({ kind: 'replace', attribute });
  }
  // A master without CSNs leaves the replica its own.
  if (!mayKeepCsn || !hasCsn) gone.delete('entrycsn');
  for (const type of gone) changes.push({ kind: 'replace', attribute: { type, values: [] } });
  if (changes.length === 0 && rename === undefined) return [];
  changes.push(...stamps);
  const modify: Step = { kind: 'modify', dn: rename === undefined ? known.dn : master.dn, changes };
  return rename === undefined ? [modify] : [rename.step, modify];
}

function addStamps(wanted: readonly Attribute[], changes: Modification[]): void {
  // See `decideKnown`.
  const isNamed = (type: string): boolean => changes.some((change) => change.attribute.type.toLowerCase() === type.toLowerCase());
  for (const one of wanted) {
    if (stampTypes.has(one.type.toLowerCase()) && !isNamed(one.type)) changes.push({ kind: 'replace', attribute: one });
  }
}

/** Attributes of an entry that are neither compared nor written, in lower case. */
export function notReplicated(keepsCsn: boolean): readonly string[] {
  return keepsCsn ? [...derived] : [...derived, 'entrycsn'];
}

/** The attributes of an entry that are compared and written. */
export function replicatedAttributes(attributes: readonly Attribute[], keepsCsn: boolean): readonly Attribute[] {
  return attributes.filter((one) => {
    const type = one.type.toLowerCase();
    return !derived.has(type) && (keepsCsn || type !== 'entrycsn');
  });
}

/** Whether two DNs are the same name, spelt the same in their first RDN. */
function decideRename(
  master: EntryImage,
  replica: EntryImage,
): { step: Step; attributesAfter: (before: readonly Attribute[]) => readonly Attribute[] } | undefined {
  if (master.dn === replica.dn) return undefined;
  const to = parseDn(master.dn) as Dn;
  const from = parseDn(replica.dn) as Dn;
  const newRdn = to[0];
  const oldRdn = from[0];
  if (newRdn === undefined || oldRdn === undefined) return undefined;
  const moves = normalizeDn(to.slice(1)) !== normalizeDn(from.slice(1));
  const isRenamed = !isSameRdn(newRdn, oldRdn);
  if (!moves && !isRenamed) return undefined;
  // The old naming value stays where the master's entry still has it.
  const keepsOld = oldRdn.every((ava) => hasValue(master.attributes, ava.type, ava.value));
  return {
    step: {
      kind: 'rename',
      dn: replica.dn,
      newRdn: formatRdn(newRdn),
      deleteOldRdn: !keepsOld,
      newSuperior: moves ? (splitDn(master.dn)?.parent ?? '') : undefined,
    },
    attributesAfter: (before) => afterRename(before, oldRdn, newRdn, keepsOld),
  };
}

// The parts of an RDN have no order (RFC 4512 §2.3.1), and servers give them one.
function isSameRdn(one: Rdn, other: Rdn): boolean {
  return (
    one.length === other.length &&
    one.every((ava) =>
      other.some((twin) => ava.value === twin.value && normalizeAttributeType(ava.type) === normalizeAttributeType(twin.type)),
    )
  );
}

// What a Modify DN does to the naming attributes (RFC 4511 §4.9).
function afterRename(before: readonly Attribute[], oldRdn: Rdn, newRdn: Rdn, keepsOld: boolean): readonly Attribute[] {
  let attributes = before;
  const change = (type: string, edit: (values: readonly Buffer[]) => readonly Buffer[]): void => {
    const wanted = normalizeAttributeType(type);
    const found = attributes.some((one) => normalizeAttributeType(one.type) === wanted);
    attributes = found
      ? attributes.map((one) => (normalizeAttributeType(one.type) === wanted ? { type: one.type, values: edit(one.values) } : one))
      : [...attributes, { type, values: edit([]) }];
  };
  const same = (value: Buffer, text: string): boolean => value.toString('utf8').toLowerCase() === text.toLowerCase();
  if (!keepsOld) for (const ava of oldRdn) change(ava.type, (values) => values.filter((value) => !same(value, ava.value)));
  for (const ava of newRdn) {
    change(ava.type, (values) => (values.some((value) => same(value, ava.value)) ? values : [...values, Buffer.from(ava.value)]));
  }
  return attributes.filter((one) => one.values.length > 0);
}

function hasValue(attributes: readonly Attribute[], type: string, text: string): boolean {
  const wanted = normalizeAttributeType(type);
  const folded = text.toLowerCase();
  return attributes.some(
    (one) => normalizeAttributeType(one.type) === wanted && one.values.some((value) => value.toString('utf8').toLowerCase() === folded),
  );
}

// Attributes that differ are replaced as a whole: unlike additions and deletions of values that is right whatever was there.
function difference(wanted: readonly Attribute[], present: readonly Attribute[]): Modification[] {
  const changes: Modification[] = [];
  const before = new Map(present.map((one) => [normalizeAttributeType(one.type), one]));
  for (const attribute of wanted) {
    const key = normalizeAttributeType(attribute.type);
    const was = before.get(key);
    before.delete(key);
    if (was === undefined || !sameValues(key, attribute.values, was.values)) changes.push({ kind: 'replace', attribute });
  }
  for (const gone of before.values()) changes.push({ kind: 'replace', attribute: { type: gone.type, values: [] } });
  return changes;
}

function sameValues(type: string, one: readonly Buffer[], other: readonly Buffer[]): boolean {
  if (one.length !== other.length) return false;
  if (one.length === 1 && (one[0] as Buffer).equals(other[0] as Buffer)) return true;
  const left = new Set(one.map((value) => comparedText(type, value)));
  return other.every((value) => left.has(comparedText(type, value)));
}

const stampTypes = new Set(['entrycsn', 'modifytimestamp', 'modifiersname']);
