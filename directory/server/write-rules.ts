/**
 * What add, modify, modifyDN and delete have in common: who may, under which controls, and how a change is stamped.
 */
import type { Clock } from '#common/clock.ts';
import type { Random } from '#common/random.ts';
import { controlOids, findControl, makeReadEntryResponse, readAssertion, readReadEntryRequest } from '#protocol/ldap/controls.ts';
import type { Rdn } from '#protocol/ldap/dn.ts';
import type { Attribute, Control } from '#protocol/ldap/messages.ts';
import type { Requester } from '../access/access.ts';
import { allows, type Target, type View } from '../access/view.ts';
import { generalizedTime } from '../changelog/csn.ts';
import { checkMailRules } from '../provisioning/mail-rules.ts';
import { checkEntry } from '../schema/check-entry.ts';
import { Refusal } from '../schema/refusal.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import type { Authority } from './authority.ts';
import { classKeysOf, withAttribute } from './draft.ts';
import { compileFilter } from './filter-match.ts';
import { demand, targetOf } from './guard.ts';
import { encodedDn } from './referrals.ts';
import { compileSelection } from './selection.ts';
import type { Tree } from './tree.ts';

/** What the write operations work with. */
export interface WriteContext {
  readonly tree: Tree;
  readonly clock: Clock;
  readonly random: Random;
  readonly placement: 'fewest-accounts' | 'weighted' | 'none';
  /** URL that writers are referred to, on a replica. */
  readonly masterUrl: string | undefined;
  /** Whose writes are taken; the offline tools have nobody to ask. */
  readonly authority?: Authority;
}

/** One write request, apart from its operation. */
export interface WriteRequest {
  readonly who: Requester;
  readonly view: View;
  readonly controls: readonly Control[];
}

/** Whether this request wants to set what the server otherwise keeps; `checkMayRelax` says whether it may. */
export function isRelaxed(request: WriteRequest): boolean {
  return findControl(request.controls, controlOids.relax) !== undefined;
}

/** The relax control needs the privilege to manage the entry. */
export function checkMayRelax(request: WriteRequest, target: Target): void {
  if (isRelaxed(request)) demand(request.view, target, 'manage', 'entry', 'this entry, which the relax control needs');
}

/** Refuses writers who were replaced. On a replica, everybody but the replicator is sent to the master (RFC 4511 §4.1.10). */
export function checkMode(context: WriteContext, request: WriteRequest, dn: string): void {
  context.authority?.checkWrite(request);
  if (context.tree.mode === 'master' || request.who.rights === 'replicator') return;
  if (context.masterUrl === undefined) throw new Refusal('unwillingToPerform', 'this server is a replica; write to the master');
  const url = `${context.masterUrl.replace(/\/+$/, '')}/${encodedDn(dn)}`;
  throw new Refusal('referral', 'this server is a replica; write to the master', { referrals: [url] });
}

/** RFC 4528: the operation happens only while the filter is true of the entry; of a search, the base (§3). */
export function checkAssertion(tree: Tree, request: Pick<WriteRequest, 'view' | 'controls'>, entry: StoredEntry): void {
  const control = findControl(request.controls, controlOids.assertion);
  if (control === undefined) return;
  const filter = readAssertion(control.value);
  if (filter === undefined) throw new Refusal('protocolError', 'the assertion control holds no filter');
  const matches = compileFilter(tree.schema, filter, (key) => request.view.decide('search', key));
  if (matches(tree.attributesOf(entry, true), targetOf(tree, entry)) !== true)
    throw new Refusal('assertionFailed', 'the asserted filter does not match the entry');
}

/** RFC 4527: the response control of a pre-read or post-read, when asked for. */
export function readEntryControl(
  context: WriteContext,
  request: WriteRequest,
  which: 'preRead' | 'postRead',
  entry: StoredEntry,
): Control | undefined {
  const control = findControl(request.controls, controlOids[which]);
  if (control === undefined) return undefined;
  const names = readReadEntryRequest(control.value);
  if (names === undefined) throw new Refusal('protocolError', `the ${which} control holds no attribute list`);
  const { tree } = context;
  const target = targetOf(tree, entry);
  if (!allows(request.view.decide('read', 'entry'), target)) return undefined;
  const selection = compileSelection(tree.schema, names, false, (key) => request.view.decide('read', key));
  const attributes = selection.select(tree.attributesOf(entry, true), target);
  return makeReadEntryResponse(which, { dn: tree.store.dnOf(entry), attributes });
}

/** Checks of a whole entry before it is stored. A replica takes its master's entries as they are. */
export function checkWholeEntry(
  context: WriteContext,
  draft: { parentId: number; rdn: Rdn; attributes: readonly Attribute[]; before: StoredEntry | undefined },
  relaxed: boolean,
): void {
  const { tree } = context;
  if (tree.mode === 'replica' && relaxed) return;
  checkEntry(tree.schema, draft.attributes);
  checkMailRules(tree, { ...draft, classKeys: classKeysOf(tree.schema, draft.attributes), mayRehost: relaxed });
}

/** CSN of a change: as given with relax, else a new one; on a replica changes without one leave the entry's as it is. */
export function csnFor(context: WriteContext, given: string | undefined, before: StoredEntry | undefined): string {
  const { tree } = context;
  let csn = given;
  if (csn === undefined) {
    csn = tree.mode === 'replica' ? (before?.csn ?? tree.contextCsn) : '';
    if (csn === '') csn = tree.csns.next();
  } else {
    tree.csns.observe(csn);
  }
  tree.raiseContextCsn(csn);
  return csn;
}

/** modifyTimestamp and modifiersName of a change, unless the change set them itself. */
export function stampModified(
  context: WriteContext,
  who: Requester,
  attributes: readonly Attribute[],
  keep: ReadonlySet<string> = new Set(),
): Attribute[] {
  let stamped = [...attributes];
  if (!keep.has('modifytimestamp')) stamped = withAttribute(stamped, 'modifyTimestamp', generalizedTime(context.clock.nowMs()));
  if (!keep.has('modifiersname')) stamped = withAttribute(stamped, 'modifiersName', who.dn);
  return stamped;
}
