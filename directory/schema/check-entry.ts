/**
 * Whether an entry obeys the schema (RFC 4512 §2.3, §2.4, §4.1.2): known classes with one structural line, all that must be there, nothing
 * that may not, single values single, every value of its syntax. The first fault found is refused with its name.
 */
import { printable } from '#common/account-name.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { Refusal } from './refusal.ts';
import type { AttributeType, ObjectClass, Schema } from './schema.ts';

/** Values of one attribute. Entries are read, sent and replicated whole. */
export const attributeValuesMax = 10_000;

/** Lists of classes that are remembered for each schema, and the longest of them: entries have the same few. */
const listsMax = 256;
const listTextMax = 4096;

interface KnownLists {
  readonly byText: Map<string, EntryClasses | Refusal>;
  /** The values looked at last, by identity: a write looks at those of its entry several times. */
  lastValues: readonly Buffer[] | undefined;
  last: EntryClasses | Refusal | undefined;
}

const knownLists = new WeakMap<Schema, KnownLists>();

/** The classes of an entry, with what follows from them alone. */
export interface EntryClasses {
  readonly classes: readonly ObjectClass[];
  readonly structural: ObjectClass;
  /** Keys of the classes and of all above them. */
  readonly keys: ReadonlySet<string>;
  /** Attribute keys that must be there, each with the class that says so. */
  readonly must: ReadonlyMap<string, ObjectClass>;
  /** Attribute keys that may be there; undefined where any may. */
  readonly allowed: ReadonlySet<string> | undefined;
}

/** The classes named by `objectClass`; refuses unknown ones, none at all, and more than one structural line. */
export function classesOf(schema: Schema, attributes: readonly Attribute[]): EntryClasses {
  const known = lookedUp(schema, attributes);
  if (known instanceof Refusal) throw known;
  return known;
}

/** The same; `undefined` where it would refuse. */
export function tryClassesOf(schema: Schema, attributes: readonly Attribute[]): EntryClasses | undefined {
  const known = lookedUp(schema, attributes);
  return known instanceof Refusal ? undefined : known;
}

const noValues: readonly Buffer[] = [];

function lookedUp(schema: Schema, attributes: readonly Attribute[]): EntryClasses | Refusal {
  const values = attributes.find((attribute) => attribute.type === 'objectClass')?.values ?? noValues;
  let lists = knownLists.get(schema);
  if (lists === undefined) {
    lists = { byText: new Map(), lastValues: undefined, last: undefined };
    knownLists.set(schema, lists);
  }
  if (lists.last !== undefined && lists.lastValues === values) return lists.last;
  let list = '';
  for (const value of values) list += `${value.length}:${value.toString('latin1')}`;
  let known = lists.byText.get(list);
  if (known === undefined) {
    known = resolveClasses(schema, values);
    if (lists.byText.size >= listsMax) lists.byText.clear();
    if (list.length <= listTextMax) lists.byText.set(list, known);
  }
  lists.lastValues = values;
  lists.last = known;
  return known;
}

function resolveClasses(schema: Schema, values: readonly Buffer[]): EntryClasses | Refusal {
  if (values.length === 0) return new Refusal('objectClassViolation', 'the entry has no objectClass');
  const classes: ObjectClass[] = [];
  for (const value of values) {
    const name = value.toString('utf8');
    const found = schema.objectClass(name);
    if (found === undefined) return new Refusal('objectClassViolation', `objectClass "${printable(name)}" is not known here`);
    classes.push(found);
  }
  const structural = classes.filter((one) => one.kind === 'structural');
  const lowest = structural.find((one) => structural.every((other) => one.lineage.has(other.key)));
  if (structural.length === 0) return new Refusal('objectClassViolation', 'the entry has no structural objectClass');
  if (lowest === undefined) {
    const names = structural.map((one) => one.name).join(', ');
    return new Refusal('objectClassViolation', `the entry has structural classes that do not descend from each other: ${names}`);
  }
  const keys = new Set(classes.flatMap((one) => [...one.lineage]));
  const must = new Map<string, ObjectClass>();
  for (const one of classes) for (const key of one.must) if (!must.has(key)) must.set(key, one);
  const allowed = keys.has('extensibleobject') ? undefined : new Set(classes.flatMap((one) => [...one.must, ...one.may]));
  return { classes, structural: lowest, keys, must, allowed };
}

/** Refuses an entry that breaks the schema; returns its structural class. `attributes` have canonical descriptions. */
export function checkEntry(schema: Schema, attributes: readonly Attribute[]): ObjectClass {
  const { classes, structural, must, allowed } = classesOf(schema, attributes);
  const present = new Set<string>();
  for (const attribute of attributes) {
    const type = checkAttribute(schema, attribute);
    present.add(type.key);
    if (allowed === undefined || type.isOperational || allowed.has(type.key)) continue;
    const names = classes.map((one) => one.name).join(', ');
    throw new Refusal('objectClassViolation', `attribute ${type.name} is not allowed by the object classes ${names}`);
  }
  for (const [key, one] of must) {
    if (present.has(key)) continue;
    throw new Refusal('objectClassViolation', `objectClass ${one.name} requires attribute ${schema.attributeType(key)?.name ?? key}`);
  }
  return structural;
}

/** Refuses values that the attribute may not hold; returns its type. */
export function checkAttribute(schema: Schema, attribute: Attribute) {
  const type = schema.description(attribute.type)?.type;
  if (type === undefined) throw new Refusal('undefinedAttributeType', `attribute ${printable(attribute.type)} is not known here`);
  if (type.isSingleValued && attribute.values.length > 1) {
    throw new Refusal('constraintViolation', `attribute ${type.name} holds one value; ${attribute.values.length} were given`);
  }
  if (attribute.values.length > attributeValuesMax) {
    throw new Refusal(
      'constraintViolation',
      `attribute ${type.name} holds at most ${attributeValuesMax} values; ${attribute.values.length} were given`,
    );
  }
  const [only] = attribute.values;
  if (attribute.values.length === 1 && only !== undefined) checkOnly(type, only);
  else checkValues(type, attribute.values);
  return type;
}

/** The last two values of each type that were found good, each at most so long: many entries in a row have the same host, times and writers. */
const goodValues = new WeakMap<AttributeType, { last: Buffer | undefined; before: Buffer | undefined; misses: number }>();
const goodValueMax = 256;
/** After so many values in a row that were not known, a type is taken for one whose values differ, and only each so-manieth is kept. */
const missesMax = 16;

function checkOnly(type: AttributeType, value: Buffer): void {
  let good = goodValues.get(type);
  if (good === undefined) {
    good = { last: undefined, before: undefined, misses: 0 };
    goodValues.set(type, good);
  }
  if (good.last?.equals(value) === true || good.before?.equals(value) === true) {
    good.misses = 0;
    return;
  }
  if (!type.syntax.check(value) || keyOf(type, value) === undefined) throw badSyntax(type, value);
  good.misses += 1;
  if (value.length > goodValueMax || !type.syntax.isText || (good.misses > missesMax && good.misses % missesMax !== 0)) return;
  good.before = good.last;
  good.last = Buffer.from(value);
}

// Where only whether there is a key is asked.
function keyOf(type: AttributeType, value: Buffer): string | undefined {
  const { equality } = type;
  return equality === undefined || equality.hasKeyAlways === true ? '' : equality.key(value);
}

function shownValue(type: AttributeType, value: Buffer): string {
  return type.name === 'userPassword' || !type.syntax.isText ? '' : ` "${printable(value.toString('utf8'))}"`;
}

function badSyntax(type: AttributeType, value: Buffer): Refusal {
  const shown = shownValue(type, value);
  return new Refusal('invalidAttributeSyntax', `attribute ${type.name}: value${shown} is not of syntax ${type.syntax.description}`);
}

function checkValues(type: AttributeType, values: readonly Buffer[]): void {
  const keys = new Set<string>();
  for (const value of values) {
    if (!type.syntax.check(value)) throw badSyntax(type, value);
    const key = type.equality === undefined ? value.toString('latin1') : type.equality.key(value);
    if (key === undefined) throw badSyntax(type, value);
    if (keys.has(key))
      throw new Refusal('attributeOrValueExists', `attribute ${type.name}: value${shownValue(type, value)} is given twice`);
    keys.add(key);
  }
}
