/**
 * Proxied authorization (RFC 4370): one request is done as somebody else. The right `admin` and identities with
 * `actsForOthers` may ask for it, and the request is then held to the other's rights. Log lines name both.
 */
import { printable } from '#common/account-name.ts';
import { controlOids, findControl } from '#protocol/ldap/controls.ts';
import { extendedOids, type LdapRequest } from '#protocol/ldap/messages.ts';
import { type AccessControl, anonymous, type Requester } from '../access/access.ts';
import type { View } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import { type BindContext, requesterOfIdentity } from './authenticate.ts';
import { nameOfAuthorizationId } from './authorization-id.ts';
import type { Operation } from './operation.ts';

/** Whether the control goes with a request (RFC 4370 §3): not with bind, unbind, abandon, StartTLS and Cancel. */
export function mayBeOnBehalf(request: LdapRequest): boolean {
  if (request.type === 'extendedRequest') return request.oid !== extendedOids.startTls && request.oid !== extendedOids.cancel;
  return !['bindRequest', 'unbindRequest', 'abandonRequest'].includes(request.type);
}

/** The operation with the requester that the control names; unchanged without the control. */
export function onBehalf(context: BindContext, access: AccessControl, request: LdapRequest, operation: Operation): Operation {
  const control = findControl(operation.controls, controlOids.proxiedAuthorization);
  if (control === undefined || !mayBeOnBehalf(request)) return operation;
  if (!control.critical || control.value === undefined) {
    throw new Refusal('protocolError', 'the proxied authorization control must be critical and hold an identity (RFC 4370 §3)');
  }
  if (operation.who.rights !== 'admin' && operation.who.isProxy !== true) {
    throw new Refusal('authorizationDenied', 'only the right admin and identities with actsForOthers may act on behalf of others');
  }
  const who = requesterOf(context, control.value.toString('utf8'));
  const { id, controls, remoteAddress, isTls, tlsSsf, isProtected, peerNames } = operation;
  let view: { readonly generation: number; readonly view: View } | undefined;
  return {
    ...{ id, controls, remoteAddress, isTls, tlsSsf, isProtected, peerNames, who, onBehalfBy: operation.who.dn },
    get view() {
      if (view?.generation !== access.generation) view = { generation: access.generation, view: access.viewOf(who, operation) };
      return view.view;
    },
    get isAborted() {
      return operation.isAborted;
    },
    get signal() {
      return operation.signal;
    },
    send: (response, responseControls) => operation.send(response, responseControls),
    sendEncoded: (octets) => operation.sendEncoded(octets),
    flush: () => operation.flush(),
    writable: () => operation.writable(),
  };
}

/** Whoever a name stands for: `dn:…`, `u:…`, or nothing for anonymous. */
export function requesterOf(context: BindContext, text: string): Requester {
  if (text === '') return anonymous;
  const { tree } = context;
  const name = /^(?:dn|u):/i.test(text) ? nameOfAuthorizationId(tree, text) : undefined;
  const key = name === undefined ? undefined : tree.keyOf(name);
  if (key === '') return anonymous;
  const identity = context.identities.find((one) => one.key === key);
  if (identity !== undefined) return requesterOfIdentity(identity);
  const entry = name === undefined ? undefined : tree.find(name);
  if (entry === undefined)
    throw new Refusal('authorizationDenied', `there is nobody called ${printable(text)}; write dn:… or u:local@domain`);
  return { dn: tree.store.dnOf(entry), rights: 'self', uuid: entry.uuid };
}
