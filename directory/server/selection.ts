/**
 * Which attributes of an entry an answer shows (RFC 4511 §4.5.1.8): none named or `*` are all user attributes, `+` all operational ones
 * (RFC 3673), `1.1` none, `@class` those of an object class (RFC 4529); never one that the requester may not read.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { allows, type Decision, type Target } from '../access/view.ts';
import type { AttributeType, Schema } from '../schema/schema.ts';

/** A selection, compiled once per search. */
export interface Selection {
  /** False when no operational attribute is asked for, which saves computing them. */
  readonly wantsOperational: boolean;
  /** Whether an attribute of that description is shown, and for which entries. */
  decide(description: string): Decision;
  /** `target` is what access rules are asked about, where they depend on the entry. */
  select(attributes: readonly Attribute[], target?: Target): Attribute[];
}

/** Compiles the list of a search, pre-read or post-read. */
export function compileSelection(
  schema: Schema,
  requested: readonly string[],
  typesOnly: boolean,
  mayRead: (attributeKey: string) => Decision,
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
  const decided = new Map<string, Decision>();
  const selected = (description: string): Decision => {
    const described = schema.description(description, true);
    if (described === undefined) return false;
    const isAsked =
      (described.type.isOperational ? allOperational : allUser) ||
      named.some(
        ({ type, options }) => type.family.has(described.type.key) && options.every((option) => described.options.includes(option)),
      );
    return isAsked && mayRead(described.type.key);
  };
  const decide = (description: string): Decision => {
    let decision = decided.get(description);
    if (decision === undefined) {
      decision = selected(description);
      decided.set(description, decision);
    }
    return decision;
  };
  return {
    wantsOperational: allOperational || named.some(({ type }) => type.isOperational),
    decide,
    select(attributes, target) {
      const shown: Attribute[] = [];
      for (const attribute of attributes) {
        const decision = decide(attribute.type);
        const yes = target === undefined ? decision === true : allows(decision, target);
        if (yes) shown.push(typesOnly ? { type: attribute.type, values: [] } : attribute);
      }
      return shown;
    },
  };
}
