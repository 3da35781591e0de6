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

/** Lists of classes that are remembered for each schema: entries have the same few. */
const listsMax = 256;
const knownLists = new WeakMap<Schema, Map<string, EntryClasses>>();

/** The classes of an entry. */
export interface EntryClasses {
  readonly classes: readonly ObjectClass[];
  readonly structural: ObjectClass;
}

/** The classes named by `objectClass`; refuses unknown ones, none at all, and more than one structural line. */
export function classesOf(schema: Schema, attributes: readonly Attribute[]): EntryClasses {
  const values = attributes.find((attribute) => attribute.type === 'objectClass')?.values ?? [];
  let lists = knownLists.get(schema);
  if (lists === undefined) {
    lists = new Map();
    knownLists.set(schema, lists);
  }
  let list = '';
  for (const value of values) list += `${value.length}:${value.toString('latin1')}`;
  let known = lists.get(list);
  if (known === undefined) {
    known = resolveClasses(schema, values);
    if (lists.size >= listsMax) lists.clear();
    lists.set(list, known);
  }
  return known;
}

function resolveClasses(schema: Schema, values: readonly Buffer[]): EntryClasses {
  if (values.length === 0) throw new Refusal('objectClassViolation', 'the entry has no objectClass');
  const classes = values.map((value) => {
    const found = schema.objectClass(value.toString('utf8'));
    if (found === undefined)
      throw new Refusal('objectClassViolation', `objectClass "${printable(value.toString('utf8'))}" is not known here`);
    return found;
  });
  const structural = classes.filter((one) => one.kind === 'structural');
  const lowest = structural.find((one) => structural.every((other) => one.lineage.has(other.key)));
  if (structural.length === 0) throw new Refusal('objectClassViolation', 'the entry has no structural objectClass');
  if (lowest === undefined) {
    const names = structural.map((one) => one.name).join(', ');
    throw new Refusal('objectClassViolation', `the entry has structural classes that do not descend from each other: ${names}`);
  }
  return { classes, structural: lowest };
}

/** Refuses an entry that breaks the schema; returns its structural class. `attributes` have canonical descriptions. */
export function checkEntry(schema: Schema, attributes: readonly Attribute[]): ObjectClass {
  const { classes, structural } = classesOf(schema, attributes);
  const names = classes.map((one) => one.name).join(', ');
  const isExtensible = classes.some((one) => one.lineage.has('extensibleobject'));
  const present = new Set<string>();
  for (const attribute of attributes) {
    const type = checkAttribute(schema, attribute);
    present.add(type.key);
    const isAllowed = type.isOperational || isExtensible || classes.some((one) => one.must.has(type.key) || one.may.has(type.key));
    if (!isAllowed) throw new Refusal('objectClassViolation', `attribute ${type.name} is not allowed by the object classes ${names}`);
  }
  for (const one of classes) {
    for (const key of one.must) {
      if (!present.has(key)) {
        throw new Refusal('objectClassViolation', `objectClass ${one.name} requires attribute ${schema.attributeType(key)?.name ?? key}`);
      }
    }
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
  // Many entries in a row have the same host, times and names of writers.
  const [only] = attribute.values;
  if (attribute.values.length === 1 && only !== undefined) {
    const good = goodValues.get(type);
    if (good !== undefined && (good.last.equals(only) || good.before.equals(only))) return type;
    checkValues(type, attribute.values);
    if (only.length <= goodValueMax && type.syntax.isText)
      goodValues.set(type, { last: Buffer.from(only), before: good?.last ?? Buffer.from(only) });
    return type;
  }
  checkValues(type, attribute.values);
  return type;
}

/** The last two values of each type that were found good, each at most so long. */
const goodValues = new WeakMap<AttributeType, { readonly last: Buffer; readonly before: Buffer }>();
const goodValueMax = 256;

function checkValues(type: AttributeType, values: readonly Buffer[]): void {
  const keys = new Set<string>();
  for (const value of values) {
    const shown = (): string => (type.name === 'userPassword' || !type.syntax.isText ? '' : ` "${printable(value.toString('utf8'))}"`);
    if (!type.syntax.check(value)) {
      throw new Refusal('invalidAttributeSyntax', `attribute ${type.name}: value${shown()} is not of syntax ${type.syntax.description}`);
    }
    const key = type.equality === undefined ? value.toString('latin1') : type.equality.key(value);
    if (key === undefined) {
      throw new Refusal('invalidAttributeSyntax', `attribute ${type.name}: value${shown()} is not of syntax ${type.syntax.description}`);
    }
    if (keys.has(key)) throw new Refusal('attributeOrValueExists', `attribute ${type.name}: value${shown()} is given twice`);
    keys.add(key);
  }
}
