/**
 * Bind (RFC 4511 §4.2, RFC 4513 §5): simple, and SASL in bind-sasl.ts.
 *
 * A DN with an empty password is refused (RFC 4513 §5.1.2): taken for anonymous, it would let logins pass with no password.
 */
import type { BindRequest } from '#protocol/ldap/messages.ts';
import { anonymous, type Requester } from '../access/access.ts';
import { Refusal } from '../schema/refusal.ts';
import { authenticate, type BindContext } from './authenticate.ts';
import { bindSasl } from './bind-sasl.ts';
import type { Operation } from './operation.ts';

/** Authenticates; the requester, or a refusal. */
export async function bind(context: BindContext, request: BindRequest, operation: Operation): Promise<Requester> {
  if (request.version !== 3) throw new Refusal('protocolError', `LDAP version ${request.version} is not spoken here; use version 3`);
  if (request.authentication.method === 'sasl') return bindSasl(context, request.authentication, operation);
  const password = request.authentication.password.reveal().toString('utf8');
  if (request.name === '' && password === '') return anonymous;
  if (password === '') throw new Refusal('unwillingToPerform', 'a bind with a DN needs a password (RFC 4513 §5.1.2)');
  requireProtection(context, operation);
  return authenticate(context, request.name, request.name === '' ? undefined : context.tree.parseName(request.name), password, operation);
}

/** Refuses a password that crossed a network in clear (RFC 4513 §6.3.1). */
function requireProtection(context: BindContext, operation: Operation): void {
  if (operation.isProtected || context.passwordsInClear === 'anywhere') return;
  throw new Refusal('confidentialityRequired', 'passwords are taken under TLS only; use StartTLS or ldaps');
}
