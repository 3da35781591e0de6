/**
 * Whether a name's password is right: of a configured identity or of an entry with `userPassword`. An unknown name takes as long as a wrong
 * password, and both give the same answer.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { printable } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import { unknownSchemeOf } from '#common/passwords/schemes.ts';
import { Secret } from '#common/secret.ts';
import { findControl } from '#protocol/ldap/controls.ts';
import { type Attribute, type Control, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { type AccessControl, anonymous, type Requester, type Rights } from '../access/access.ts';
import type { BindGuard } from '../access/bind-guard.ts';
import { afterFailure, afterSuccess, isLocked, type PasswordPolicy, passwordPolicyOid, policyResponse } from '../access/password-policy.ts';
import { allows } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import { targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import type { EntryName, Tree } from './tree.ts';

/** A configured identity with its password at hand. */
export interface Identity {
  readonly dn: string;
  /** `Tree.keyOf` its name. */
  readonly key: string;
  readonly rights: Rights;
  /** May act on behalf of others (RFC 4370). */
  readonly isProxy: boolean;
  readonly password: Secret<string>;
  /** Name in a client certificate that stands for it (SASL EXTERNAL). */
  readonly certificateName: string | undefined;
}

/** What bind works with. */
export interface BindContext {
  readonly tree: Tree;
  readonly access: AccessControl;
  readonly identities: readonly Identity[];
  readonly hasher: PasswordHasher;
  readonly guard: BindGuard;
  /** `Tree.keyOf` the identity that EXTERNAL on the Unix socket binds as. */
  readonly socketIdentity?: string | undefined;
  readonly passwordsInClear: 'loopback' | 'anywhere';
  /** Missing where nothing is ever locked. */
  readonly policy: PasswordPolicy | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Whoever is bound as an identity. */
export function requesterOfIdentity({ dn, rights, isProxy }: Identity): Requester {
  return { dn, rights, uuid: undefined, isProxy };
}

/** Checks a name's password; whoever it is, or a refusal. `shown` is for the log; no name is nobody. */
export async function authenticate(
  context: BindContext,
  shown: string,
  name: EntryName | undefined,
  password: string,
  operation: Operation,
): Promise<Requester> {
  const key = name === undefined ? undefined : context.tree.keyOf(name);
  const identity = context.identities.find((one) => one.key === key);
  if (identity !== undefined) {
    if (sameSecret(identity.password.reveal(), password)) return requesterOfIdentity(identity);
    return fail(context, shown, operation, 'wrong password of a service identity');
  }
  if (!context.guard.admits(operation.remoteAddress)) {
    context.log.info({ clientIp: operation.remoteAddress, bindDn: printable(shown), outcome: 'refused' }, 'too many failed binds');
    throw new Refusal('busy', 'too many failed binds from this address; try again in a minute');
  }
  const entry = name === undefined ? undefined : context.tree.find(name);
  // The password is asked of who is not bound yet, by the connection's address and strength.
  const view = context.access.viewOf(anonymous, operation);
  const mayTry = entry !== undefined && allows(view.decide('auth', 'userpassword'), targetOf(context.tree, entry));
  const stored = entry === undefined || !mayTry ? [] : textsOf(entry.attributes, 'userPassword');
  const given = new Secret(password);
  const { policy, tree, clock } = context;
  const answer = (error: 'accountLocked' | undefined): readonly Control[] =>
    findControl(operation.controls, passwordPolicyOid) === undefined ? [] : [policyResponse(error)];
  if (entry !== undefined && policy !== undefined && isLocked(policy, entry.attributes, clock.nowMs())) {
    await context.hasher.verifyNothing(given);
    return fail(context, shown, operation, 'locked after failed binds', answer('accountLocked'));
  }
  const matches = stored.length === 0 ? await context.hasher.verifyNothing(given) : await context.hasher.verifyPassword(stored, given);
  if (entry !== undefined && !matches && policy !== undefined && tree.mode === 'master') {
    const locks = await keepPolicyState(tree, entry.uuid, (attributes) => afterFailure(policy, attributes, clock.nowMs()));
    if (locks) context.log.warn({ bindDn: printable(shown), clientIp: operation.remoteAddress }, 'locked after failed binds');
  }
  if (entry === undefined || !matches) {
    const why =
      entry === undefined ? 'no such entry' : mayTry ? (stored.length === 0 ? 'no password' : whyNoneMatches(stored)) : 'no auth access';
    return fail(context, shown, operation, why, answer(undefined));
  }
  const status = (textOf(entry.attributes, 'accountStatus') ?? 'active').toLowerCase();
  if (status === 'locked' || status === 'closed') return fail(context, shown, operation, `accountStatus is ${status}`);
  if (policy !== undefined && tree.mode === 'master' && afterSuccess(entry.attributes) !== undefined) {
    await keepPolicyState(tree, entry.uuid, (attributes) => ({ attributes: afterSuccess(attributes), locks: false }));
  }
  return { dn: context.tree.store.dnOf(entry), rights: 'self', uuid: entry.uuid };
}

// The entry keeps its CSN: this state is the master's own, and replicas have nothing to follow.
async function keepPolicyState(
  tree: Tree,
  uuid: string,
  change: (attributes: readonly Attribute[]) => { readonly attributes: Attribute[] | undefined; readonly locks: boolean },
): Promise<boolean> {
  return tree.store.write(() => {
    const before = tree.store.byUuid(uuid);
    if (before === undefined) return false;
    const { attributes, locks } = change(before.attributes);
    if (attributes !== undefined) tree.store.replace('modify', before, { ...before, uuid: before.uuid, attributes });
    return locks;
  });
}

async function fail(
  context: BindContext,
  shown: string,
  operation: Operation,
  why: string,
  controls: readonly Control[] = [],
): Promise<never> {
  context.log.info({ clientIp: operation.remoteAddress, bindDn: printable(shown), why, outcome: 'failed' }, 'bind failed');
  await context.guard.failed(operation.remoteAddress, operation.signal);
  throw new Refusal('invalidCredentials', 'wrong name or password', { controls });
}

// A right password is refused too when its hash is of a kind that is not known here; the log must not call that a wrong password.
function whyNoneMatches(stored: readonly string[]): string {
  const unknown = stored.map(unknownSchemeOf).filter((scheme) => scheme !== undefined);
  if (unknown.length === 0) return 'wrong password';
  const which = [...new Set(unknown)].join(', ');
  return `userPassword holds ${which}, which is not verified here: set the password anew, in clear or by a scheme of docs/operate/directory.md`;
}

function sameSecret(a: string, b: string): boolean {
  return timingSafeEqual(createHash('sha256').update(a).digest(), createHash('sha256').update(b).digest());
}
