/**
 * Bind (RFC 4511 §4.2, RFC 4513 §5.1): simple, for the configured identities and for entries with `userPassword`.
 *
 * A DN with an empty password is refused (RFC 4513 §5.1.2): taken for anonymous, it would let logins pass with no password. An unknown DN takes
 * as long as a wrong password, and both give the same answer.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { printable } from '#common/account-name.ts';
import type { Logger } from '#common/log/logger.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import { Secret } from '#common/secret.ts';
import { type BindRequest, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { anonymous, type Requester, type Rights } from '../access/access.ts';
import type { BindGuard } from '../access/bind-guard.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Operation } from './operation.ts';
import type { Tree } from './tree.ts';

/** A configured identity with its password at hand. */
export interface Identity {
  readonly dn: string;
  /** `Tree.keyOf` its name. */
  readonly key: string;
  readonly rights: Rights;
  readonly password: Secret<string>;
}

/** What bind works with. */
export interface BindContext {
  readonly tree: Tree;
  readonly identities: readonly Identity[];
  readonly hasher: PasswordHasher;
  readonly guard: BindGuard;
  readonly log: Logger;
}

/** Authenticates; the requester, or a refusal. */
export async function bind(context: BindContext, request: BindRequest, operation: Operation): Promise<Requester> {
  if (request.version !== 3) throw new Refusal('protocolError', `LDAP version ${request.version} is not spoken here; use version 3`);
  if (request.authentication.method !== 'simple') {
    throw new Refusal('authMethodNotSupported', 'only simple bind is offered here; use ldapsearch -x');
  }
  const password = request.authentication.password.reveal().toString('utf8');
  if (request.name === '' && password === '') return anonymous;
  if (password === '') throw new Refusal('unwillingToPerform', 'a bind with a DN needs a password (RFC 4513 §5.1.2)');
  const key = request.name === '' ? '' : context.tree.keyOf(context.tree.parseName(request.name));

  const identity = context.identities.find((one) => one.key === key);
  if (identity !== undefined) {
    if (sameSecret(identity.password.reveal(), password)) return { dn: identity.dn, rights: identity.rights, uuid: undefined };
    return fail(context, request, operation, 'wrong password of a service identity');
  }
  if (!context.guard.admits(operation.remoteAddress)) {
    context.log.info({ clientIp: operation.remoteAddress, bindDn: printable(request.name), outcome: 'refused' }, 'too many failed binds');
    throw new Refusal('busy', 'too many failed binds from this address; try again in a minute');
  }
  const entry = request.name === '' ? undefined : context.tree.find(context.tree.parseName(request.name));
  const stored = entry === undefined ? [] : textsOf(entry.attributes, 'userPassword');
  const given = new Secret(password);
  const matches = stored.length === 0 ? await context.hasher.verifyNothing(given) : await context.hasher.verifyPassword(stored, given);
  if (entry === undefined || !matches) {
    return fail(
      context,
      request,
      operation,
      entry === undefined ? 'no such entry' : stored.length === 0 ? 'no password' : 'wrong password',
    );
  }
  const status = (textOf(entry.attributes, 'accountStatus') ?? 'active').toLowerCase();
  if (status === 'locked' || status === 'closed') return fail(context, request, operation, `accountStatus is ${status}`);
  return { dn: context.tree.store.dnOf(entry), rights: 'self', uuid: entry.uuid };
}

async function fail(context: BindContext, request: BindRequest, operation: Operation, why: string): Promise<never> {
  context.log.info({ clientIp: operation.remoteAddress, bindDn: printable(request.name), why, outcome: 'failed' }, 'bind failed');
  await context.guard.failed(operation.remoteAddress, operation.signal);
  throw new Refusal('invalidCredentials', 'wrong name or password');
}

function sameSecret(a: string, b: string): boolean {
  return timingSafeEqual(createHash('sha256').update(a).digest(), createHash('sha256').update(b).digest());
}
