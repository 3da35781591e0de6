/**
 * What one requester may do under one set of rules, decided as far as it can be before any entry is seen.
 *
 * For a privilege and an attribute the rules become a small tree of questions. Whoever the requester is answers most of them at once, and where
 * every answer that is left leads to the same end there is nothing to ask at all: `decide` then says true or false, and a search pays nothing for
 * access control. Else it gives a function over entries. Both are kept with the view, and the view with its connection.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { Groups } from './groups.ts';
import { type Privilege, privilegeBits } from './privileges.ts';
import type { Clause, NameTest, Rule, WhoTest } from './rules.ts';

/** An entry, as far as rules look at it. */
export interface Target {
  readonly uuid: string | undefined;
  /** Keys of the levels of its name, from the entry up. */
  keys(): readonly string[];
  attributes(withOperational: boolean): readonly Attribute[];
}

/** Who asks, and by which way. */
export interface Asker {
  /** Keys of the levels of its name; empty for anonymous. */
  readonly keys: readonly string[];
  /** Service class; missing for entries and for anonymous. */
  readonly rights: string | undefined;
  /** entryUUID, when an entry of the tree is bound. */
  readonly uuid: string | undefined;
  readonly address: string;
  /** Strength of TLS in bits, 0 without. */
  readonly tlsSsf: number;
  /** Strength of whatever protects the connection. */
  readonly ssf: number;
}

/** Yes or no for all entries alike, or a question to each. */
export type Decision = boolean | ((target: Target) => boolean);

/** See the header of this file. */
export interface View {
  /** About one privilege on an attribute (its key, `entry` or `children`). */
  decide(privilege: Privilege, attributeKey: string): Decision;
}

/** May do everything: the server itself, and the tools that work on its files. */
export const unlimited: View = { decide: () => true };

/** The answer of a decision for one entry. */
export function allows(decision: Decision, target: Target): boolean {
  return typeof decision === 'boolean' ? decision : decision(target);
}

/** Compiles the view of one requester. */
export function compileView(rules: readonly Rule[], asker: Asker, groups: Groups): View {
  const decided = new Map<Privilege, Map<string, Decision>>();
  return {
    decide(privilege, attributeKey) {
      let ofPrivilege = decided.get(privilege);
      if (ofPrivilege === undefined) {
        ofPrivilege = new Map();
        decided.set(privilege, ofPrivilege);
      }
      let decision = ofPrivilege.get(attributeKey);
      if (decision === undefined) {
        decision = decisionOf(questionsOf(rules, asker, groups, privilegeBits[privilege], attributeKey));
        // Names of unknown attributes come from clients.
        if (ofPrivilege.size >= decisionsMax) ofPrivilege.clear();
        ofPrivilege.set(attributeKey, decision);
      }
      return decision;
    },
  };
}

/** Decisions kept with a view, for each privilege. */
const decisionsMax = 2000;

type Node = boolean | { readonly test: (target: Target) => boolean; readonly yes: Node; readonly no: Node };

function questionsOf(rules: readonly Rule[], asker: Asker, groups: Groups, bit: number, attributeKey: string): Node {
  // From the last rule to the first, so that what follows is known where a rule is looked at. Behind the last nothing is allowed.
  let rest: Node = false;
  for (const rule of rules.toReversed()) {
    if (rule.attributes !== undefined && !rule.attributes.has(attributeKey)) continue;
    let inner: Node = false;
    for (const clause of rule.clauses.toReversed()) {
      const outcome: Node = clause.grant === 'break' ? rest : (clause.grant & bit) !== 0;
      inner = whoNode(clause, asker, groups, outcome, inner);
    }
    rest = whatNode(rule, inner, rest);
  }
  return rest;
}

function branch(test: (target: Target) => boolean, yes: Node, no: Node): Node {
  return yes === no ? yes : { test, yes, no };
}

function whoNode(clause: Clause, asker: Asker, groups: Groups, yes: Node, no: Node): Node {
  let node = yes;
  for (const who of clause.who) {
    const known = knownOf(who, asker);
    if (known === false) return no;
    if (known === undefined) {
      const test = who.kind === 'group' ? () => groups.holds(who, asker) : (target: Target) => isSelf(asker, target);
      node = branch(test, node, no);
    }
  }
  return node;
}

function whatNode(rule: Rule, yes: Node, no: Node): Node {
  const { name, filter } = rule;
  let node = yes;
  if (filter !== undefined) node = branch((target) => filter.matches(target.attributes(filter.needsOperational)) === true, node, no);
  if (name !== undefined) node = branch((target) => isNamed(name, target.keys()), node, no);
  return node;
}

function decisionOf(node: Node): Decision {
  if (typeof node === 'boolean') return node;
  return (target) => {
    let at: Node = node;
    while (typeof at !== 'boolean') at = at.test(target) ? at.yes : at.no;
    return at;
  };
}

/** Whether a condition holds of a requester; `undefined` when that depends on the entry or may change. */
export function knownOf(who: WhoTest, asker: Asker): boolean | undefined {
  switch (who.kind) {
    case 'all':
      return true;
    case 'anonymous':
      return asker.keys.length === 0;
    case 'users':
      // The services of the installation are named by their rights, so that a rule about people does not shut them out.
      return asker.keys.length > 0 && asker.rights === undefined;
    case 'self':
      return asker.uuid === undefined ? false : undefined;
    case 'group':
      return asker.keys.length === 0 ? false : undefined;
    case 'dn':
      return asker.keys.length > 0 && isNamed(who, asker.keys);
    case 'rights':
      return asker.rights !== undefined && (who.rights === 'service' || who.rights === asker.rights);
    case 'peer':
      return who.addresses.holds(asker.address);
    case 'ssf':
      return asker.ssf >= who.atLeast;
    case 'tlsSsf':
      return asker.tlsSsf >= who.atLeast;
  }
}

/** Whether the requester is this entry. */
export function isSelf(asker: Asker, target: Target): boolean {
  return asker.uuid !== undefined && asker.uuid === target.uuid;
}

/** Whether a name is within a name and its scope. */
export function isNamed(test: NameTest, keys: readonly string[]): boolean {
  const levels = keys.length - test.keys.length;
  if (levels < 0 || (test.scope === 'base' && levels !== 0)) return false;
  if ((test.scope === 'one' && levels !== 1) || (test.scope === 'children' && levels === 0)) return false;
  return test.keys.every((key, i) => key === keys[i + levels]);
}
