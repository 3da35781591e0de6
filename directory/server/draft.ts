/**
 * Attributes on their way into the store: canonical descriptions, one attribute for each, and the operational ones that the server keeps.
 */
import { printable } from '#common/account-name.ts';
import type { Rdn } from '#protocol/ldap/dn.ts';
import { type Attribute, attribute, findAttribute } from '#protocol/ldap/messages.ts';
import { tryClassesOf } from '../schema/check-entry.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Schema } from '../schema/schema.ts';

/** Attributes under their canonical descriptions, those given twice joined. */
export function canonicalAttributes(schema: Schema, attributes: readonly Attribute[], lenient: boolean): Attribute[] {
  const canonical: Attribute[] = [];
  for (const { type, values } of attributes) {
    const described = schema.description(type, lenient);
    if (described === undefined) throw new Refusal('undefinedAttributeType', `attribute ${printable(type)} is not known here`);
    if (values.length === 0) throw new Refusal('protocolError', `attribute ${described.type.name} is given without a value`);
    canonical.push({ type: described.canonical, values });
  }
  return new Set(canonical.map(({ type }) => type)).size === canonical.length ? canonical : joined(canonical);
}

function joined(attributes: readonly Attribute[]): Attribute[] {
  const byType = new Map<string, Buffer[]>();
  for (const { type, values } of attributes) {
    const known = byType.get(type);
    if (known === undefined) byType.set(type, [...values]);
    else known.push(...values);
  }
  return [...byType].map(([type, values]) => ({ type, values }));
}

/** Replaces one attribute, or removes it when no value is given. */
export function withAttribute(attributes: readonly Attribute[], type: string, ...values: readonly string[]): Attribute[] {
  const rest = attributes.filter((one) => one.type !== type);
  return values.length === 0 ? rest : [...rest, attribute(type, ...values)];
}

/** All classes, with those above them, as keys. Unknown classes count by their name. */
export function classKeysOf(schema: Schema, attributes: readonly Attribute[]): ReadonlySet<string> {
  const known = tryClassesOf(schema, attributes);
  if (known !== undefined) return known.keys;
  const keys = new Set<string>();
  for (const value of findAttribute(attributes, 'objectClass')?.values ?? []) {
    const name = value.toString('utf8');
    for (const key of schema.objectClass(name)?.lineage ?? [name.toLowerCase()]) keys.add(key);
  }
  return keys;
}

/** Name of the structural class; undefined when the classes are not all known, which a replica takes over as they are. */
export function structuralClassOf(schema: Schema, attributes: readonly Attribute[]): string | undefined {
  return tryClassesOf(schema, attributes)?.structural.name;
}

/** Whether the attributes hold this value, by the attribute's own equality. */
export function holdsValue(schema: Schema, attributes: readonly Attribute[], type: string, value: Buffer): boolean {
  const described = schema.description(type, true);
  if (described === undefined) return false;
  const held = attributes.find((one) => one.type === described.canonical)?.values ?? [];
  if (held.some((one) => one.equals(value))) return true;
  const key = (one: Buffer): string | undefined => described.type.equality?.key(one) ?? one.toString('latin1');
  const wanted = key(value);
  return held.some((one) => key(one) === wanted);
}

/** The attributes together with those of the entry's name, which a client need not repeat (RFC 4511 §4.7). */
export function withNamingValues(schema: Schema, attributes: readonly Attribute[], rdn: Rdn): Attribute[] {
  let completed = [...attributes];
  for (const { type, value } of rdn) {
    const described = schema.description(type, true);
    if (described === undefined || holdsValue(schema, completed, type, Buffer.from(value))) continue;
    const values = completed.find((one) => one.type === described.canonical)?.values ?? [];
    completed = completed.filter((one) => one.type !== described.canonical);
    completed.push({ type: described.canonical, values: [...values, Buffer.from(value)] });
  }
  return completed;
}
