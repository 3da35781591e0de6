/**
 * Server-side sorting (RFC 2891): what matches is gathered, up to a bound, ordered by keys, and handed back as candidates in that order. An
 * entry without the attribute comes last, in reverse order first; entries with equal keys come in the order of their ids.
 *
 * A page of a sorted search (RFC 2696) begins at a position in the order, which is made anew for each page.
 */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import type { SortKey } from '#protocol/ldap/sort.ts';
import { allows, type Decision, type Target } from '../access/view.ts';
import type { MatchingRule } from '../schema/matching-rules.ts';
import type { AttributeType, Schema } from '../schema/schema.ts';
import { type Candidates, pageSize } from './candidates.ts';

/** Entries that one search sorts; above it is not sorted. */
export const sortedMax = 100_000;

/** Why a search cannot be sorted, as the response control says it. */
export interface SortFailure {
  readonly resultCode: number;
  readonly attribute: string | undefined;
  readonly detail: string;
}

/** A key with what it compares by. */
export interface SortPlan {
  readonly keys: readonly {
    readonly type: AttributeType;
    readonly rule: MatchingRule;
    readonly reverse: boolean;
    readonly mayRead: Decision;
  }[];
}

/** Compiles the keys of a request. `mayRead` gets attribute keys. */
export function planSort(schema: Schema, keys: readonly SortKey[], mayRead: (attributeKey: string) => Decision): SortPlan | SortFailure {
  const planned: SortPlan['keys'][number][] = [];
  for (const { attribute, rule: ruleName, reverse } of keys) {
    const type = schema.description(attribute)?.type;
    const fail = (resultCode: number, detail: string): SortFailure => ({ resultCode, attribute, detail });
    if (type === undefined) return fail(resultCodes.noSuchAttribute, `attribute ${attribute} is not known here`);
    const decision = mayRead(type.key);
    if (decision === false) return fail(resultCodes.insufficientAccessRights, `attribute ${attribute} may not be read`);
    const rule =
      ruleName === undefined
        ? (type.ordering ?? type.equality)
        : schema.matchingRules.find((known) => known.name === ruleName || known.oid === ruleName);
    if (rule === undefined) return fail(resultCodes.inappropriateMatching, `attribute ${attribute} has no ordering`);
    planned.push({ type, rule, reverse, mayRead: decision });
  }
  return { keys: planned };
}

/** How a search lets others have their turn: when it is time to, and what is awaited then; false gives up. */
export interface Turns {
  isPauseDue(): boolean;
  pause(): Promise<boolean>;
}

/** Puts the candidates in order, those for which `entryOf` gives something. */
export async function sortCandidates(
  plan: SortPlan,
  candidates: Candidates,
  entryOf: (id: number) => { readonly attributes: readonly Attribute[]; readonly target: Target } | undefined,
  turns: Turns,
): Promise<Candidates | SortFailure | undefined> {
  const found: { readonly id: number; readonly keys: readonly (string | undefined)[] }[] = [];
  let cursor = 0;
  if (candidates.prepare !== undefined && !(await candidates.prepare(() => turns.pause()))) return undefined;
  for (let page = candidates.next(cursor); page.length > 0; page = candidates.next(cursor)) {
    for (const id of page) {
      cursor = id;
      if (turns.isPauseDue() && !(await turns.pause())) return undefined;
      const entry = entryOf(id);
      if (entry === undefined) continue;
      if (found.length === sortedMax) {
        return { resultCode: resultCodes.adminLimitExceeded, attribute: undefined, detail: `more than ${sortedMax} entries match` };
      }
      found.push({ id, keys: plan.keys.map((key) => keyOf(key, entry.attributes, entry.target)) });
    }
    if (candidates.by === 'base') break;
    if (!(await turns.pause())) return undefined;
  }
  found.sort((a, b) => {
    for (const [i, { reverse }] of plan.keys.entries()) {
      const order = compareKeys(a.keys[i], b.keys[i]);
      if (order !== 0) return reverse ? -order : order;
    }
    return a.id - b.id;
  });
  const ids = found.map(({ id }) => id);
  return { by: 'sorted', next: (position) => ids.slice(position, position + pageSize) };
}

// The lowest value counts where there are several (RFC 2891 §2.2).
function keyOf({ type, rule, mayRead }: SortPlan['keys'][number], attributes: readonly Attribute[], target: Target): string | undefined {
  // Its place in the order would tell what the requester may not read.
  if (!allows(mayRead, target)) return undefined;
  let lowest: string | undefined;
  for (const attribute of attributes) {
    const end = attribute.type.indexOf(';');
    if (!type.family.has((end < 0 ? attribute.type : attribute.type.slice(0, end)).toLowerCase())) continue;
    for (const value of attribute.values) {
      const key = rule.key(value);
      if (key !== undefined && (lowest === undefined || key < lowest)) lowest = key;
    }
  }
  return lowest;
}

function compareKeys(a: string | undefined, b: string | undefined): number {
  if (a === b) return 0;
  if (a === undefined) return 1;
  if (b === undefined) return -1;
  return a < b ? -1 : 1;
}
