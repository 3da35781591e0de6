/** Who must change its password first may do that, look who it is, bind anew, and nothing else. */
import { extendedOids, type LdapRequest } from '#protocol/ldap/messages.ts';
import type { Requester } from '../access/access.ts';
import { mustChange, policyResponse } from '../access/password-policy.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Operation } from './operation.ts';
import type { Tree } from './tree.ts';

/** Whether this requester must change its password before anything else. */
export function mustChangeFirst(tree: Tree, who: Requester): boolean {
  const entry = who.rights === 'self' && who.uuid !== undefined ? tree.store.byUuid(who.uuid) : undefined;
  return entry !== undefined && mustChange(entry.attributes);
}

/** Refuses what has to wait for the new password (draft-behera-ldap-password-policy-10 §7.2). */
export function checkMustChange(tree: Tree, request: LdapRequest, operation: Operation): void {
  if (operation.who.rights !== 'self' || request.type === 'bindRequest') return;
  const allowed: readonly string[] = [extendedOids.passwordModify, extendedOids.startTls, extendedOids.whoAmI, extendedOids.cancel];
  if (request.type === 'extendedRequest' && allowed.includes(request.oid)) return;
  const isOwnPassword =
    request.type === 'modifyRequest' && request.changes.every(({ attribute }) => /^(?:userPassword|2\.5\.4\.35)$/i.test(attribute.type));
  if (isOwnPassword || !mustChangeFirst(tree, operation.who)) return;
  throw new Refusal('insufficientAccessRights', 'change your password first', { controls: [policyResponse('changeAfterReset')] });
}
