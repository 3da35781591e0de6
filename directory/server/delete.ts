/**
 * Delete (RFC 4511 §4.8): of a leaf, or with the tree delete control of an entry and all below it, in one transaction. A domain goes after its accounts, a cluster after nobody is hosted by it any more.
 */
import { controlOids, findControl } from '#protocol/ldap/controls.ts';
import { type Control, type DeleteRequest, textOf } from '#protocol/ldap/messages.ts';
import { hostTally } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import { classKeysOf } from './draft.ts';
import { demand, requireEntry, targetOf } from './guard.ts';
import { checkReferral } from './referrals.ts';
import {
  checkAssertion,
  checkMayRelax,
  checkMode,
  csnFor,
  isRelaxed,
  readEntryControl,
  type WriteContext,
  type WriteRequest,
} from './write-rules.ts';

/** Most entries below one that a tree delete removes: they are read and removed in one turn of the event loop. */
const treeDeleteMax = 10_000;

/** Removes an entry; inside `store.write`. Returns the response controls. */
export function deleteEntry(context: WriteContext, operation: DeleteRequest, request: WriteRequest): Control[] {
  const { tree } = context;
  checkMode(context, request, operation.dn);
  const relaxed = isRelaxed(request);
  const name = tree.parseName(operation.dn);
  checkReferral(tree, request, name);
  const before = requireEntry(tree, request.view, name);
  checkMayRelax(request, targetOf(tree, before));
  checkMayRemove(context, request, before);
  checkAssertion(tree, request, before);
  const pre = readEntryControl(context, request, 'preRead', before);
  if (tree.store.hasChildren(before.id)) {
    if (findControl(request.controls, controlOids.treeDelete) === undefined) {
      throw new Refusal('notAllowedOnNonLeaf', 'the entry has entries below it; remove those first');
    }
    removeBelow(context, before, request, relaxed);
  }
  removeOne(context, before, relaxed);
  return pre === undefined ? [] : [pre];
}

function checkMayRemove(context: WriteContext, request: WriteRequest, entry: StoredEntry): void {
  const { tree } = context;
  demand(request.view, targetOf(tree, entry), 'delete', 'entry', 'this entry');
  const above = tree.store.byId(entry.parentId);
  if (above !== undefined) demand(request.view, targetOf(tree, above), 'delete', 'children', 'what is below its superior');
}

// Children before their parents, so that no change of the journal leaves an entry without one.
function removeBelow(context: WriteContext, above: StoredEntry, request: WriteRequest, relaxed: boolean): void {
  const { tree } = context;
  const ids = tree.store.subtreeIds(above.id, treeDeleteMax);
  if (ids === undefined) {
    throw new Refusal('adminLimitExceeded', `more than ${treeDeleteMax} entries are below; remove parts of the tree first`);
  }
  const depthOf = (entry: StoredEntry): number => {
    let depth = 0;
    for (let id = entry.parentId; id !== above.id; id = tree.store.byId(id)?.parentId ?? above.id) depth += 1;
    return depth;
  };
  const entries = ids.filter((id) => id !== above.id).map((id) => tree.store.byId(id) as StoredEntry);
  for (const entry of entries) checkMayRemove(context, request, entry);
  const byDepth = entries.map((entry) => ({ entry, depth: depthOf(entry) })).sort((a, b) => b.depth - a.depth);
  for (const { entry } of byDepth) removeOne(context, entry, relaxed);
}

function removeOne(context: WriteContext, before: StoredEntry, relaxed: boolean): void {
  const { tree } = context;
  if (tree.mode === 'master' && !relaxed && classKeysOf(tree.schema, before.attributes).has('mailcluster')) {
    const name = textOf(before.attributes, 'cn') ?? '';
    const accounts = tree.store.tally(hostTally(name));
    if (accounts > 0) throw new Refusal('unwillingToPerform', `${accounts} accounts have hostServer ${name}; move or remove them first`);
  }
  // A delete carries no CSN of its own: on a replica it takes the state reached, so that it cannot run ahead of the master's.
  const csn = tree.mode === 'replica' && tree.contextCsn !== '' ? tree.contextCsn : csnFor(context, undefined, undefined);
  tree.store.remove(before, csn);
}
