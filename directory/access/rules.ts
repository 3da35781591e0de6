/**
 * Access rules with their names looked up: attributes in the schema, DNs as keys, filters compiled. Everything a rule says is checked here, so
 * that a set of rules either stands as a whole or is refused with every mistake in it.
 */
import { printable } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { type AddressPrefix, parseAddressPrefix } from '#common/network/address-prefix.ts';
import { type Filter, parseFilter } from '#protocol/ldap/filter.ts';
import type { Schema } from '../schema/schema.ts';
import { compileFilter, type Matcher } from '../server/filter-match.ts';
import type { EntryName, Tree } from '../server/tree.ts';
import { type ClauseText, type NameScope, parseRule, type RuleText, type WhoText } from './rule-syntax.ts';

/** A name with its scope, ready to be compared. */
export interface NameTest {
  readonly scope: NameScope;
  readonly keys: readonly string[];
}

/** One condition on who asks. */
export type WhoTest =
  | { readonly kind: 'all' | 'anonymous' | 'users' | 'self' }
  | ({ readonly kind: 'dn' } & NameTest)
  | { readonly kind: 'group'; readonly name: EntryName; readonly key: string; readonly memberKeys: readonly string[] }
  | { readonly kind: 'rights'; readonly rights: string }
  | { readonly kind: 'peer'; readonly addresses: AddressPrefix }
  | { readonly kind: 'ssf' | 'tlsSsf'; readonly atLeast: number };

/** One `by`. */
export interface Clause {
  readonly text: string;
  readonly who: readonly WhoTest[];
  readonly grant: number | 'break';
}

/** One rule in force. */
export interface Rule {
  /** Counts from 1 over all rules in force. */
  readonly number: number;
  readonly text: string;
  readonly origin: 'configured' | 'built-in';
  readonly name: NameTest | undefined;
  readonly filter: { readonly text: string; readonly matches: Matcher; readonly needsOperational: boolean } | undefined;
  /** Attribute keys, `entry` and `children` among them; missing when all are meant. */
  readonly attributes: ReadonlySet<string> | undefined;
  readonly clauses: readonly Clause[];
}

/** Rules in one set. */
export const rulesMax = 500;

/** Makes rules of texts or throws `CONFIG_INVALID` with all mistakes. */
export function compileRules(tree: Tree, texts: readonly { readonly text: string; readonly origin: Rule['origin'] }[]): readonly Rule[] {
  if (texts.length > rulesMax) throw new PlatformError('CONFIG_INVALID', `${texts.length} access rules are given; at most ${rulesMax}`);
  const mistakes: string[] = [];
  const rules: Rule[] = [];
  for (const [index, { text, origin }] of texts.entries()) {
    try {
      rules.push(compileRule(tree, parseRule(text), index + 1, origin));
    } catch (error) {
      mistakes.push(`rule ${index + 1}: ${messageOf(error)}`);
    }
  }
  if (mistakes.length > 0) throw new PlatformError('CONFIG_INVALID', mistakes.join('\n'));
  return rules;
}

function compileRule(tree: Tree, rule: RuleText, number: number, origin: Rule['origin']): Rule {
  const { what } = rule;
  return {
    number,
    text: rule.text,
    origin,
    name: what.dn === undefined ? undefined : { scope: what.dn.scope, keys: keysOf(tree, what.dn.dn) },
    filter: what.filter === undefined ? undefined : filterOf(tree.schema, what.filter),
    attributes: what.attributes === undefined ? undefined : attributeKeys(tree.schema, what.attributes),
    clauses: rule.clauses.map((clause) => compileClause(tree, clause)),
  };
}

function compileClause(tree: Tree, clause: ClauseText): Clause {
  return { text: clause.text, grant: clause.grant, who: clause.who.map((who) => compileWho(tree, who)) };
}

function compileWho(tree: Tree, who: WhoText): WhoTest {
  switch (who.kind) {
    case 'dn':
      return { kind: 'dn', scope: who.scope, keys: keysOf(tree, who.dn) };
    case 'group':
      return { kind: 'group', ...groupOf(tree, who) };
    case 'peer':
      return { kind: 'peer', addresses: addressesOf(who.prefix) };
    default:
      return who;
  }
}

function nameOf(tree: Tree, dn: string): EntryName {
  try {
    return tree.parseName(dn);
  } catch {
    throw new PlatformError('CONFIG_INVALID', `"${printable(dn)}" is not a distinguished name (RFC 4514)`);
  }
}

function keysOf(tree: Tree, dn: string): readonly string[] {
  return nameOf(tree, dn).keys;
}

function groupOf(tree: Tree, who: Extract<WhoText, { kind: 'group' }>) {
  const name = nameOf(tree, who.dn);
  if (who.objectClass !== undefined && tree.schema.objectClass(who.objectClass) === undefined) {
    throw new PlatformError('CONFIG_INVALID', `object class ${printable(who.objectClass)} is not known here`);
  }
  const usual = who.objectClass === undefined ? ['member', 'uniqueMember'] : [/unique/i.test(who.objectClass) ? 'uniqueMember' : 'member'];
  const attributes = who.attribute === undefined ? usual : [who.attribute];
  return { name, key: tree.keyOf(name), memberKeys: attributes.map((attribute) => attributeKey(tree.schema, attribute)) };
}

function filterOf(schema: Schema, text: string): NonNullable<Rule['filter']> {
  const parsed = parseFilter(text);
  if (parsed.outcome === 'malformed')
    throw new PlatformError('CONFIG_INVALID', `the filter "${printable(text)}" is malformed: ${parsed.detail}`);
  const names = namesIn(parsed.filter);
  for (const name of names) attributeKey(schema, name.split(';')[0] as string);
  return {
    text,
    matches: compileFilter(schema, parsed.filter, () => true),
    needsOperational: names.some((name) => schema.description(name)?.type.isOperational === true),
  };
}

function namesIn(filter: Filter): string[] {
  switch (filter.kind) {
    case 'and':
    case 'or':
      return filter.filters.flatMap(namesIn);
    case 'not':
      return namesIn(filter.filter);
    default:
      return filter.attribute === undefined ? [] : [filter.attribute];
  }
}

function attributeKey(schema: Schema, name: string): string {
  const type = schema.attributeType(name);
  if (type === undefined) throw new PlatformError('CONFIG_INVALID', `attribute ${printable(name)} is not known here`);
  return type.key;
}

// A type stands for its subtypes too, `@class` for all that the class holds (RFC 4529).
function attributeKeys(schema: Schema, names: readonly string[]): Set<string> {
  const keys = new Set<string>();
  for (const name of names) {
    if (name === 'entry' || name === 'children') {
      keys.add(name);
    } else if (name.startsWith('@')) {
      const found = schema.objectClass(name.slice(1));
      if (found === undefined) throw new PlatformError('CONFIG_INVALID', `object class ${printable(name.slice(1))} is not known here`);
      for (const key of [...found.must, ...found.may]) keys.add(key);
    } else {
      attributeKey(schema, name);
      for (const key of schema.attributeType(name)?.family ?? []) keys.add(key);
    }
  }
  return keys;
}

function addressesOf(prefix: string): AddressPrefix {
  const parsed = parseAddressPrefix(prefix);
  if (parsed !== undefined) return parsed;
  throw new PlatformError('CONFIG_INVALID', `"${printable(prefix)}" is no address and no prefix such as 192.0.2.0/24 or 2001:db8::/32`);
}
