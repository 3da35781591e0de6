/**
 * Delete (RFC 4511 §4.8): of a leaf. A domain goes after its accounts, a cluster after nobody is hosted by it any more.
 */
import { type Control, type DeleteRequest, textOf } from '#protocol/ldap/messages.ts';
import { hostTally } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import { classKeysOf } from './draft.ts';
import {
  checkAssertion,
  checkMayWrite,
  checkMode,
  csnFor,
  isRelaxed,
  readEntryControl,
  type WriteContext,
  type WriteRequest,
} from './write-rules.ts';

/** Removes an entry; inside `store.write`. Returns the response controls. */
export function deleteEntry(context: WriteContext, operation: DeleteRequest, request: WriteRequest): Control[] {
  const { tree } = context;
  checkMode(context, request, operation.dn);
  const relaxed = isRelaxed(request);
  const before = tree.require(tree.parseName(operation.dn));
  checkMayWrite(context, request.who, before.attributes);
  checkAssertion(context, request, before);
  const pre = readEntryControl(context, request, 'preRead', before);
  if (tree.store.hasChildren(before.id)) throw new Refusal('notAllowedOnNonLeaf', 'the entry has entries below it; remove those first');
  if (tree.mode === 'master' && !relaxed && classKeysOf(tree.schema, before.attributes).has('mailcluster')) {
    const name = textOf(before.attributes, 'cn') ?? '';
    const accounts = tree.store.tally(hostTally(name));
    if (accounts > 0) throw new Refusal('unwillingToPerform', `${accounts} accounts have hostServer ${name}; move or remove them first`);
  }
  // A delete carries no CSN of its own: on a replica it takes the state reached, so that it cannot run ahead of the master's.
  const csn = tree.mode === 'replica' && tree.contextCsn !== '' ? tree.contextCsn : csnFor(context, undefined, undefined);
  tree.store.remove(before, csn);
  return pre === undefined ? [] : [pre];
}
