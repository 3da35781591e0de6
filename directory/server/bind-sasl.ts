/**
 * SASL binds (RFC 4513 §5.2): PLAIN (RFC 4616) where nobody can read along, and EXTERNAL (RFC 4422 Appendix A) for service identities whose
 * name is in the client's verified certificate, and on the Unix socket for the identity that is configured for it. What the root DSE lists is what would work on that connection.
 */
import { printable } from '#common/account-name.ts';
import type { BindRequest } from '#protocol/ldap/messages.ts';
import { parsePlain, saslMessageBytesMax } from '#protocol/sasl/plain.ts';
import type { Requester } from '../access/access.ts';
import { Refusal } from '../schema/refusal.ts';
import { authenticate, type BindContext, type Identity, requesterOfIdentity } from './authenticate.ts';
import { nameOfAuthorizationId } from './authorization-id.ts';
import type { Operation } from './operation.ts';

type Sasl = Extract<BindRequest['authentication'], { method: 'sasl' }>;

/** Mechanisms that work on this connection. */
export function saslMechanisms(context: BindContext, operation: Operation): string[] {
  const mechanisms = operation.isProtected ? ['PLAIN'] : [];
  return externalIdentity(context, operation) === undefined ? mechanisms : [...mechanisms, 'EXTERNAL'];
}

/** Authenticates by a mechanism of one message; the requester, or a refusal. */
export async function bindSasl(context: BindContext, sasl: Sasl, operation: Operation): Promise<Requester> {
  const message = sasl.credentials?.reveal() ?? Buffer.alloc(0);
  if (message.length > saslMessageBytesMax) throw new Refusal('invalidCredentials', 'the SASL message is too long');
  const mechanism = sasl.mechanism.toUpperCase();
  if (mechanism === 'PLAIN') return plain(context, message.toString('utf8'), operation);
  if (mechanism === 'EXTERNAL') return external(context, message.toString('utf8'), operation);
  const offered = saslMechanisms(context, operation);
  const hint = offered.length === 0 ? 'none is offered on this connection; use TLS' : `offered here: ${offered.join(', ')}`;
  throw new Refusal('authMethodNotSupported', `the SASL mechanism ${printable(sasl.mechanism)} is not offered; ${hint}`);
}

async function plain(context: BindContext, text: string, operation: Operation): Promise<Requester> {
  if (!operation.isProtected) throw new Refusal('confidentialityRequired', 'PLAIN is taken under TLS only; use StartTLS or ldaps');
  const message = parsePlain(text);
  if (message === undefined) throw new Refusal('invalidCredentials', 'the PLAIN message is malformed (RFC 4616 §2)');
  const name = nameOfAuthorizationId(context.tree, message.authenticationId);
  const requester = await authenticate(context, message.authenticationId, name, message.password, operation);
  checkAuthorizationId(context, message.authorizationId, requester);
  return requester;
}

async function external(context: BindContext, authorizationId: string, operation: Operation): Promise<Requester> {
  const identity = externalIdentity(context, operation);
  if (identity === undefined) {
    const seen = operation.peerNames.length === 0 ? 'no verified client certificate' : operation.peerNames.map(printable).join(', ');
    context.log.info({ clientIp: operation.remoteAddress, certificate: seen, outcome: 'failed' }, 'EXTERNAL bind failed');
    throw new Refusal('invalidCredentials', `EXTERNAL needs a client certificate that names an identity; seen: ${seen}`);
  }
  const requester = requesterOfIdentity(identity);
  checkAuthorizationId(context, authorizationId, requester);
  return requester;
}

function externalIdentity(context: BindContext, operation: Operation): Identity | undefined {
  // A Unix socket has no address. The file is open to this server's own user only: whoever came this way is that user, or root.
  if (operation.remoteAddress === '') return context.identities.find((one) => one.key === context.socketIdentity);
  const names = new Set(operation.peerNames.map((name) => name.toLowerCase()));
  return context.identities.find((one) => one.certificateName !== undefined && names.has(one.certificateName.toLowerCase()));
}

// Acting for another is the proxied authorization control's; here the authorization identity may only repeat who one is.
function checkAuthorizationId(context: BindContext, text: string, requester: Requester): void {
  if (text === '') return;
  const { tree } = context;
  const asked = nameOfAuthorizationId(tree, text);
  if (asked !== undefined && tree.keyOf(asked) === tree.keyOf(tree.parseName(requester.dn))) return;
  throw new Refusal('authorizationDenied', `${printable(requester.dn)} may not bind as ${printable(text)}; use proxied authorization`);
}
