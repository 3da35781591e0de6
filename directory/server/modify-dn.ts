/**
 * Modify DN (RFC 4511 §4.9): a new RDN, a new superior or both. One row is written, whatever hangs below the entry.
 *
 * An account's `mail` follows its name when it was equal to it; accounts below a renamed domain keep their `mail`, as that would be a write
 * for each of them.
 */
import { printable } from '#common/account-name.ts';
import { formatRdn, parseRdn, type Rdn } from '#protocol/ldap/dn.ts';
import { type Attribute, type Control, type ModifyDnRequest, textOf, textsOf } from '#protocol/ldap/messages.ts';
import type { Target } from '../access/view.ts';
import { accountNameOf, uidOf } from '../provisioning/mail-rules.ts';
import { rdnKey } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import { rootId, type StoredEntry } from '../store/entry-store.ts';
import { classKeysOf, holdsValue, withAttribute } from './draft.ts';
import { demand, demandWrite, draftTarget, requireEntry, targetOf } from './guard.ts';
import { checkReferral } from './referrals.ts';
import {
  checkAssertion,
  checkMayRelax,
  checkMode,
  checkWholeEntry,
  csnFor,
  isRelaxed,
  readEntryControl,
  stampModified,
  type WriteContext,
  type WriteRequest,
} from './write-rules.ts';

/** Renames an entry; inside `store.write`. Returns the response controls. */
export function modifyDn(context: WriteContext, operation: ModifyDnRequest, request: WriteRequest): Control[] {
  const { tree } = context;
  checkMode(context, request, operation.dn);
  const relaxed = isRelaxed(request);
  const name = tree.parseName(operation.dn);
  checkReferral(tree, request, name);
  const before = requireEntry(tree, request.view, name);
  const target = targetOf(tree, before);
  checkMayRelax(request, target);
  demandWrite(request.view, target, 'entry', 'this entry');
  checkAssertion(tree, request, before);
  if (before.parentId === rootId)
    throw new Refusal('unwillingToPerform', `${tree.suffix.text} is the base of the tree and cannot be renamed`);
  const newRdn = parseRdn(operation.newRdn);
  if (newRdn === undefined) throw new Refusal('invalidDNSyntax', `"${printable(operation.newRdn)}" is not one relative name (RFC 4514 §3)`);
  const pre = readEntryControl(context, request, 'preRead', before);

  const parentId = newParentId(context, operation, request, before);
  checkMayMove(context, request, operation, newRdn, before, parentId);
  const rdnNorm = rdnKey(tree.schema, newRdn);
  const taken = tree.store.childId(parentId, rdnNorm);
  if (taken !== undefined && taken !== before.id) {
    throw new Refusal('entryAlreadyExists', `there is an entry "${printable(operation.newRdn)}" in that place already`);
  }
  let attributes = renamedAttributes(context, before, newRdn, operation.deleteOldRdn);
  if (!relaxed) attributes = followingMail(context, before, attributes, parentId, newRdn);
  checkWholeEntry(context, { parentId, rdn: newRdn, attributes, before }, relaxed);
  if (!(relaxed && tree.mode === 'replica')) attributes = stampModified(context, request.who, attributes);
  const csn = csnFor(context, undefined, before);
  const after = tree.store.replace('rename', before, {
    ...before,
    uuid: before.uuid,
    parentId,
    rdn: formatRdn(newRdn),
    rdnNorm,
    csn,
    attributes,
  });
  const post = readEntryControl(context, request, 'postRead', after);
  return [pre, post].filter((control) => control !== undefined);
}

// The place it leaves, the place it comes to, and the values that its name gives and takes.
function checkMayMove(
  context: WriteContext,
  request: WriteRequest,
  operation: ModifyDnRequest,
  newRdn: Rdn,
  before: StoredEntry,
  parentId: number,
): void {
  const { tree } = context;
  const { view } = request;
  const [from, to] = [before.parentId, parentId].map((id) => targetOf(tree, tree.store.byId(id) as StoredEntry)) as [Target, Target];
  demand(view, from, 'delete', 'children', 'what is below its superior');
  demand(view, to, 'add', 'children', 'what is below its new superior');
  const moved = draftTarget([rdnKey(tree.schema, newRdn), ...to.keys()], before.attributes, before.uuid);
  demandWrite(view, moved, 'entry', 'this entry in its new place');
  const check = (rdn: Rdn, privilege: 'add' | 'delete', where: Target): void => {
    for (const { type } of rdn) {
      const key = tree.schema.description(type, true)?.type.key;
      if (key !== undefined) demand(view, where, privilege, key, `attribute ${printable(type)}`);
    }
  };
  check(newRdn, 'add', moved);
  if (operation.deleteOldRdn) check(parseRdn(before.rdn) ?? [], 'delete', targetOf(tree, before));
}

function newParentId(context: WriteContext, operation: ModifyDnRequest, request: WriteRequest, before: StoredEntry): number {
  const { tree } = context;
  if (operation.newSuperior === undefined) return before.parentId;
  const superior = requireEntry(tree, request.view, tree.parseName(operation.newSuperior));
  if (tree.store.isWithin(superior, before.id)) throw new Refusal('unwillingToPerform', 'an entry cannot be moved below itself');
  return superior.id;
}

// RFC 4511 §4.9: the new naming values come in; the old ones go with deleteOldRdn and stay otherwise.
function renamedAttributes(context: WriteContext, before: StoredEntry, newRdn: Rdn, deleteOldRdn: boolean): Attribute[] {
  const { schema } = context.tree;
  const attributes = new Map(before.attributes.map((one) => [one.type, [...one.values]]));
  const list = (): Attribute[] => [...attributes].map(([type, values]) => ({ type, values }));
  const keyed = (type: string, value: string) => {
    const described = schema.description(type, true);
    if (described === undefined) throw new Refusal('undefinedAttributeType', `attribute ${printable(type)} is not known here`);
    const key = (one: Buffer): string => described.type.equality?.key(one) ?? one.toString('latin1');
    return { canonical: described.canonical, key, wanted: key(Buffer.from(value)) };
  };
  if (deleteOldRdn) {
    for (const { type, value } of parseRdn(before.rdn) ?? []) {
      const { canonical, key, wanted } = keyed(type, value);
      const left = (attributes.get(canonical) ?? []).filter((one) => key(one) !== wanted);
      if (left.length === 0) attributes.delete(canonical);
      else attributes.set(canonical, left);
    }
  }
  for (const { type, value } of newRdn) {
    const { canonical } = keyed(type, value);
    if (!holdsValue(schema, list(), type, Buffer.from(value))) {
      attributes.set(canonical, [...(attributes.get(canonical) ?? []), Buffer.from(value)]);
    }
  }
  return list();
}

function followingMail(context: WriteContext, before: StoredEntry, attributes: Attribute[], parentId: number, newRdn: Rdn): Attribute[] {
  const { tree } = context;
  if (!classKeysOf(tree.schema, attributes).has('mailaccount')) return attributes;
  const oldName = accountNameOf(tree, before.parentId, uidOf(parseRdn(before.rdn)) ?? textOf(before.attributes, 'uid'));
  const newName = accountNameOf(tree, parentId, uidOf(newRdn));
  const mail = textsOf(attributes, 'mail');
  if (oldName === undefined || newName === undefined || !mail.some((one) => one.toLowerCase() === oldName)) return attributes;
  const followed = mail.map((one) => (one.toLowerCase() === oldName ? newName : one));
  return withAttribute(attributes, 'mail', ...new Set(followed));
}
