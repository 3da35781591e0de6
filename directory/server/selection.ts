/**
 * Which attributes of an entry an answer shows (RFC 4511 §4.5.1.8): none named or `*` are all user attributes, `+` all operational ones
 * (RFC 3673), `1.1` none, `@class` those of an object class (RFC 4529); never one that the requester may not read.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { AttributeType, Schema } from '../schema/schema.ts';

/** A selection, compiled once per search. */
export interface Selection {
  /** False when no operational attribute is asked for, which saves computing them. */
  readonly wantsOperational: boolean;
  select(attributes: readonly Attribute[]): Attribute[];
}

/** Compiles the list of a search, pre-read or post-read. */
export function compileSelection(
  schema: Schema,
  requested: readonly string[],
  typesOnly: boolean,
  mayRead: (attributeKey: string) => boolean,
): Selection {
  const allUser = requested.length === 0 || requested.includes('*');
  const allOperational = requested.includes('+');
  const named: { type: AttributeType; options: readonly string[] }[] = [];
  for (const name of requested) {
    if (name.startsWith('@')) {
      const found = schema.objectClass(name.slice(1));
      for (const key of [...(found?.must ?? []), ...(found?.may ?? [])]) {
        const type = schema.attributeType(key);
        if (type !== undefined) named.push({ type, options: [] });
      }
    } else {
      const described = schema.description(name, true);
      if (described !== undefined) named.push(described);
    }
  }
  const decided = new Map<string, boolean>();
  const isSelected = (description: string): boolean => {
    const described = schema.description(description, true);
    if (described === undefined || !mayRead(described.type.key)) return false;
    if (described.type.isOperational ? allOperational : allUser) return true;
    return named.some(
      ({ type, options }) => type.family.has(described.type.key) && options.every((option) => described.options.includes(option)),
    );
  };
  return {
    wantsOperational: allOperational || named.some(({ type }) => type.isOperational),
    select(attributes) {
      const selected: Attribute[] = [];
      for (const attribute of attributes) {
        let yes = decided.get(attribute.type);
        if (yes === undefined) {
          yes = isSelected(attribute.type);
          decided.set(attribute.type, yes);
        }
        if (yes) selected.push(typesOnly ? { type: attribute.type, values: [] } : attribute);
      }
      return selected;
    },
  };
}
