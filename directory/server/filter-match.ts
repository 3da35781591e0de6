/**
 * Filters against entries (RFC 4511 §4.5.1.7): compiled once per search into a function with three results, true, false and `undefined`
 * for what cannot be decided: an unknown attribute or rule, a value not of the attribute's syntax, an attribute the requester may not read.
 */
import { parseDn } from '#protocol/ldap/dn.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { allows, type Decision, type Target } from '../access/view.ts';
import type { MatchingRule } from '../schema/matching-rules.ts';
import type { AttributeType, Schema } from '../schema/schema.ts';

/** Tests an entry's attributes, operational ones included. The target is what access rules are asked about; without it, what depends on it is no. */
export type Matcher = (attributes: readonly Attribute[], target?: Target) => boolean | undefined;

const undecided: Matcher = () => undefined;

type KeyOf = (rule: MatchingRule, value: Buffer) => string | undefined;

/** Shorter values are prepared anew for each part of a filter: looking them up costs as much. */
const keptBytesMin = 256;

/**
 * Keys of the long values of the entry that is looked at. A filter may ask thousands of times about one value; to prepare a value of 300 kB each time
 * held everybody up for half a minute.
 */
class KeptKeys {
  readonly #keys = new Map<Buffer, Map<MatchingRule, string | undefined>>();

  readonly keyOf: KeyOf = (rule, value) => {
    if (value.length < keptBytesMin) return rule.key(value);
    let ofValue = this.#keys.get(value);
    if (ofValue === undefined) {
      ofValue = new Map();
      this.#keys.set(value, ofValue);
    }
    if (!ofValue.has(rule)) ofValue.set(rule, rule.key(value));
    return ofValue.get(rule);
  };

  /** The same matcher; what it keeps ends with the entry. */
  during(matches: Matcher): Matcher {
    return (attributes, target) => {
      try {
        return matches(attributes, target);
      } finally {
        this.#keys.clear();
      }
    };
  }
}

/** Compiles a filter. `maySearch` gets attribute keys; `spend` is told of the characters that substrings go through, and may throw. */
export function compileFilter(
  schema: Schema,
  filter: Filter,
  maySearch: (attributeKey: string) => Decision,
  spend: (characters: number) => void = () => {},
): Matcher {
  const isOneTest = filter.kind !== 'and' && filter.kind !== 'or' && filter.kind !== 'not';
  const kept = isOneTest ? undefined : new KeptKeys();
  const keyOf: KeyOf = kept?.keyOf ?? ((rule, value) => rule.key(value));
  const compile = (one: Filter): Matcher => {
    switch (one.kind) {
      case 'and':
        return allOf(one.filters.map(compile));
      case 'or':
        return anyOf(one.filters.map(compile));
      case 'not': {
        const inner = compile(one.filter);
        return (attributes, target) => {
          const result = inner(attributes, target);
          return result === undefined ? undefined : !result;
        };
      }
      case 'extensible':
        return extensible(one);
      default: {
        const described = schema.description(one.attribute);
        if (described === undefined) return undecided;
        const { type, options } = described;
        return guarded(maySearch(type.key), () => {
          if (one.kind === 'present') return (attributes) => attributes.some((attribute) => isOf(attribute, type, options));
          if (one.kind === 'substrings') return withValues(type, options, substringsTest(type, one, keyOf, spend));
          return withValues(type, options, valueTest(schema, type, one.kind, one.value, keyOf));
        });
      }
    }
  };

  // What the requester may not search cannot be decided (RFC 4511 §4.5.1.7); that is known before any entry, or asked of each.
  const guarded = (decision: Decision, make: () => Matcher): Matcher => {
    if (decision === false) return undecided;
    const matches = make();
    if (decision === true) return matches;
    return (attributes, target) => (target !== undefined && decision(target) ? matches(attributes) : undefined);
  };

  // `attribute:=value`, `attribute:rule:=value`, `:rule:=value`, and each with `:dn` (RFC 4511 §4.5.1.7.7).
  const extensible = (one: Filter & { kind: 'extensible' }): Matcher => {
    const rule =
      one.rule === undefined ? undefined : schema.matchingRules.find((known) => known.name === one.rule || known.oid === one.rule);
    if (one.rule !== undefined && rule === undefined) return undecided;
    const inName = (matches: Matcher): Matcher =>
      one.dnAttributes ? (attributes, target) => matches([...attributes, ...namingValues(attributes)], target) : matches;
    if (one.attribute !== undefined) {
      const described = schema.description(one.attribute);
      const used = rule ?? described?.type.equality;
      if (described === undefined || used === undefined) return undecided;
      const { type, options } = described;
      return guarded(maySearch(type.key), () => inName(withValues(type, options, extensibleTest(used, one.value, keyOf))));
    }
    const test = rule === undefined ? undefined : extensibleTest(rule, one.value, keyOf);
    if (test === undefined) return undecided;
    return inName((attributes, target) =>
      attributes.some((attribute) => {
        const type = schema.description(attribute.type)?.type;
        if (type === undefined) return false;
        const decision = maySearch(type.key);
        if (target === undefined ? decision !== true : !allows(decision, target)) return false;
        return type.equality?.syntaxOid === rule?.syntaxOid && attribute.values.some(test);
      }),
    );
  };

  // A description without options matches the attribute with any options, and its subtypes (RFC 4512 §2.5).
  const isOf = (attribute: Attribute, type: AttributeType, options: readonly string[]): boolean => {
    if (attribute.type === type.name && options.length === 0) return true;
    const described = schema.description(attribute.type, true);
    if (described === undefined || !type.family.has(described.type.key)) return false;
    return options.every((option) => described.options.includes(option));
  };

  const withValues = (type: AttributeType, options: readonly string[], test: ((value: Buffer) => boolean) | undefined): Matcher => {
    if (test === undefined) return undecided;
    return (attributes) => attributes.some((attribute) => isOf(attribute, type, options) && attribute.values.some(test));
  };

  const matches = compile(filter);
  return kept === undefined ? matches : kept.during(matches);
}

function allOf(matchers: readonly Matcher[]): Matcher {
  return (attributes, target) => {
    let all: boolean | undefined = true;
    for (const matcher of matchers) {
      const result = matcher(attributes, target);
      if (result === false) return false;
      if (result === undefined) all = undefined;
    }
    return all;
  };
}

function anyOf(matchers: readonly Matcher[]): Matcher {
  return (attributes, target) => {
    let any: boolean | undefined = false;
    for (const matcher of matchers) {
      const result = matcher(attributes, target);
      if (result === true) return true;
      if (result === undefined) any = undefined;
    }
    return any;
  };
}

function keyTest(rule: MatchingRule, asserted: Buffer, keyOf: KeyOf): ((value: Buffer) => boolean) | undefined {
  const wanted = rule.key(asserted);
  return wanted === undefined ? undefined : (value) => keyOf(rule, value) === wanted;
}

// The values of the entry's name, each as an attribute of its own.
function namingValues(attributes: readonly Attribute[]): Attribute[] {
  const name = attributes.find((one) => one.type === 'entryDN')?.values[0]?.toString('utf8');
  const dn = name === undefined ? undefined : parseDn(name);
  return (dn ?? []).flat().map(({ type, value }) => ({ type, values: [Buffer.from(value)] }));
}

// An ordering rule asks whether the value comes before the asserted one (RFC 4517 §4.2); pieces of text cannot be asserted in this form.
function extensibleTest(rule: MatchingRule, asserted: Buffer, keyOf: KeyOf): ((value: Buffer) => boolean) | undefined {
  if (rule.name.endsWith('SubstringsMatch')) return undefined;
  if (!rule.name.endsWith('OrderingMatch')) return keyTest(rule, asserted, keyOf);
  const bound = rule.key(asserted);
  if (bound === undefined) return undefined;
  return (value) => {
    const key = keyOf(rule, value);
    return key !== undefined && key < bound;
  };
}

function valueTest(
  schema: Schema,
  type: AttributeType,
  kind: 'equal' | 'approx' | 'greaterOrEqual' | 'lessOrEqual',
  asserted: Buffer,
  keyOf: KeyOf,
): ((value: Buffer) => boolean) | undefined {
  if (type.key === 'objectclass') {
    // An entry of a class is of every class above it too (RFC 4512 §2.4).
    const wanted = schema.objectClass(asserted.toString('utf8'));
    if (wanted === undefined || (kind !== 'equal' && kind !== 'approx')) return undefined;
    return (value) => schema.objectClass(value.toString('utf8'))?.lineage.has(wanted.key) ?? false;
  }
  if (kind === 'equal' || kind === 'approx') return type.equality === undefined ? undefined : keyTest(type.equality, asserted, keyOf);
  const rule = type.ordering;
  const bound = rule?.key(asserted);
  if (rule === undefined || bound === undefined) return undefined;
  return kind === 'greaterOrEqual'
    ? (value) => {
        const key = keyOf(rule, value);
        return key !== undefined && key >= bound;
      }
    : (value) => {
        const key = keyOf(rule, value);
        return key !== undefined && key <= bound;
      };
}

function substringsTest(
  type: AttributeType,
  filter: Filter & { kind: 'substrings' },
  keyOf: KeyOf,
  spend: (characters: number) => void,
): ((value: Buffer) => boolean) | undefined {
  const rule = type.substrings;
  if (rule?.pieceKey === undefined) return undefined;
  const pieceKey = rule.pieceKey;
  // Spaces at the outer ends of a value are insignificant, so they are in the pieces that meet them (RFC 4518 §2.6.1).
  const initial = filter.initial === undefined ? '' : (pieceKey(filter.initial)?.trimStart() ?? '');
  const final = filter.final === undefined ? '' : (pieceKey(filter.final)?.trimEnd() ?? '');
  const any = filter.any.map((piece) => pieceKey(piece) ?? '');
  return (value) => {
    const key = keyOf(rule, value);
    if (key === undefined || !key.startsWith(initial)) return false;
    let at = initial.length;
    if (any.length > 0) spend(key.length);
    for (const piece of any) {
      const found = key.indexOf(piece, at);
      if (found < 0) return false;
      at = found + piece.length;
    }
    return key.length - final.length >= at && key.endsWith(final);
  };
}
