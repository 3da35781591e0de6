/**
 * Why access is as it is: the rules one after the other, each with what made it count or not, down to the one that decides. It goes over the rules
 * by itself and not by a compiled view; a test holds the two against each other.
 */
import type { Groups } from './groups.ts';
import { privilegeBits, privilegeNames, privilegesText } from './privileges.ts';
import type { Clause, Rule, WhoTest } from './rules.ts';
import { type Asker, isNamed, isSelf, knownOf, type Target } from './view.ts';

/** One rule, as it was looked at. */
export interface ExplainedRule {
  readonly number: number;
  readonly origin: Rule['origin'];
  readonly rule: string;
  /** What came of it, in a sentence. */
  readonly outcome: string;
  readonly decides: boolean;
}

/** The whole explanation; plain JSON. */
export interface Explanation {
  /** Names of the privileges that are given. */
  readonly privileges: readonly string[];
  /** The same as people read it. */
  readonly granted: string;
  readonly steps: readonly ExplainedRule[];
}

/** Explains what a requester may do with an attribute of an entry. */
export function explain(rules: readonly Rule[], asker: Asker, groups: Groups, target: Target, attributeKey: string): Explanation {
  const steps: ExplainedRule[] = [];
  for (const rule of rules) {
    const note = (outcome: string, decides = false): void => {
      steps.push({ number: rule.number, origin: rule.origin, rule: rule.text, outcome, decides });
    };
    const why = whyNot(rule, target, attributeKey);
    if (why !== undefined) {
      note(why);
      continue;
    }
    const clause = rule.clauses.find((one) => one.who.every((who) => holds(who, asker, groups, target)));
    if (clause?.grant === 'break') {
      note(`"${clause.text}" holds: on to the next rule`);
      continue;
    }
    const bits = clause?.grant ?? 0;
    note(clause === undefined ? noClause(rule.clauses) : `"${clause.text}" holds`, true);
    return { ...granted(bits as number), steps };
  }
  return { ...granted(0), steps };
}

function granted(bits: number): Pick<Explanation, 'privileges' | 'granted'> {
  return { privileges: privilegeNames.filter((name) => (bits & privilegeBits[name]) !== 0), granted: privilegesText(bits) };
}

function whyNot(rule: Rule, target: Target, attributeKey: string): string | undefined {
  if (rule.attributes !== undefined && !rule.attributes.has(attributeKey)) return 'is not about this attribute';
  if (rule.name !== undefined && !isNamed(rule.name, target.keys())) return `the entry is not in dn.${rule.name.scope}`;
  const { filter } = rule;
  if (filter === undefined || filter.matches(target.attributes(filter.needsOperational)) === true) return undefined;
  return 'the filter does not match the entry';
}

function noClause(clauses: readonly Clause[]): string {
  return `is about this entry, and none of its ${clauses.length} clauses holds: nothing is allowed`;
}

function holds(who: WhoTest, asker: Asker, groups: Groups, target: Target): boolean {
  const known = knownOf(who, asker);
  if (known !== undefined) return known;
  return who.kind === 'group' ? groups.holds(who, asker) : isSelf(asker, target);
}
