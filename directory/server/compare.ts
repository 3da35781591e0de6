/** Compare (RFC 4511 §4.10): of one value, by the attribute's own equality. `userPassword` cannot be compared: that would be a bind without its limits. */
import type { CompareRequest } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { Refusal } from '../schema/refusal.ts';
import { compileFilter } from './filter-match.ts';
import { demand, requireEntry, targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import { checkReferral } from './referrals.ts';
import type { Tree } from './tree.ts';
import { checkAssertion } from './write-rules.ts';

/** compareTrue or compareFalse. */
export async function compare(tree: Tree, request: CompareRequest, operation: Operation): Promise<number> {
  await tree.store.settled();
  const name = tree.parseName(request.dn);
  const described = tree.schema.description(request.attribute);
  if (described === undefined) throw new Refusal('undefinedAttributeType', `attribute ${request.attribute} is not known here`);
  if (described.type.key === 'userpassword') {
    throw new Refusal('insufficientAccessRights', `attribute ${described.type.name} may not be compared`);
  }
  const { view } = operation;
  checkReferral(tree, operation, name);
  const entry = requireEntry(tree, view, name);
  demand(view, targetOf(tree, entry), 'compare', described.type.key, `attribute ${described.type.name}`);
  checkAssertion(tree, operation, entry);
  const attributes = tree.attributesOf(entry, true);
  const present = compileFilter(tree.schema, { kind: 'present', attribute: request.attribute }, () => true);
  if (present(attributes) !== true) throw new Refusal('noSuchAttribute', `the entry has no attribute ${described.type.name}`);
  const equal = compileFilter(tree.schema, { kind: 'equal', attribute: request.attribute, value: request.value }, () => true);
  const result = equal(attributes);
  if (result === undefined)
    throw new Refusal('inappropriateMatching', `attribute ${described.type.name} cannot be compared with that value`);
  return result ? resultCodes.compareTrue : resultCodes.compareFalse;
}
