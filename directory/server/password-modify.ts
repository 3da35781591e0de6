/**
 * Password Modify (RFC 3062): of oneself with the old password, or of an account by those who may write it. Without a new password one is
 * made up and returned.
 */
import { printable } from '#common/account-name.ts';
import { Secret } from '#common/secret.ts';
import { BerError, BerReader, BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { textsOf } from '#protocol/ldap/messages.ts';
import { afterOwnChange } from '../access/password-policy.ts';
import { Refusal } from '../schema/refusal.ts';
import type { BindContext } from './authenticate.ts';
import { withAttribute } from './draft.ts';
import { demandWrite, requireEntry, targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import { checkReferral } from './referrals.ts';
import { checkMode, csnFor, stampModified, type WriteContext } from './write-rules.ts';

/** Letters and digits that are not mistaken for each other. */
const alphabet = 'abcdefghijkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXY34679';

/** Sets a password; the response value, if any. */
export async function modifyPassword(
  context: WriteContext,
  binding: BindContext,
  value: Buffer | undefined,
  operation: Operation,
): Promise<Buffer | undefined> {
  const { tree } = context;
  const request = readRequest(value);
  // Some clients send an empty name for themselves.
  const dn = request.identity || operation.who.dn;
  if (dn === '') throw new Refusal('unwillingToPerform', 'anonymous has no password; bind first or name the entry');
  checkMode(context, operation, dn);
  const name = tree.parseName(dn.replace(/^dn:/i, ''));
  if (binding.identities.some((identity) => identity.key === tree.keyOf(name))) {
    throw new Refusal('unwillingToPerform', 'passwords of service identities are set in the node file');
  }
  await tree.store.settled();
  checkReferral(tree, operation, name);
  const entry = requireEntry(tree, operation.view, name);
  demandWrite(operation.view, targetOf(tree, entry), 'userpassword', 'the password');
  const own = operation.who.uuid === entry.uuid;
  if (request.oldPassword !== undefined) {
    const matches = await binding.hasher.verifyPassword(textsOf(entry.attributes, 'userPassword'), new Secret(request.oldPassword));
    if (!matches) {
      binding.log.info(
        { clientIp: operation.remoteAddress, bindDn: printable(dn), outcome: 'failed' },
        'password change with a wrong old password',
      );
      await binding.guard.failed(operation.remoteAddress, operation.signal);
      throw new Refusal('invalidCredentials', 'the old password is wrong');
    }
  }
  if (request.newPassword === '') throw new Refusal('constraintViolation', 'the new password is empty');
  const made =
    request.newPassword === undefined
      ? Array.from({ length: 16 }, () => alphabet[context.random.integer(alphabet.length)]).join('')
      : undefined;
  const stored = await binding.hasher.storedValues(new Secret(request.newPassword ?? (made as string)));
  await tree.store.write(() => {
    // Hashing takes long enough for the mastership to be handed over.
    checkMode(context, operation, dn);
    const before = tree.require(name);
    const attributes = stampModified(
      context,
      operation.who,
      withAttribute(own ? afterOwnChange(before.attributes) : before.attributes, 'userPassword', ...stored),
    );
    tree.store.replace('modify', before, { ...before, uuid: before.uuid, csn: csnFor(context, undefined, before), attributes });
  });
  binding.log.info({ by: operation.who.dn, dn: printable(dn), op: 'passwordModify', outcome: 'done' }, 'password changed');
  return made === undefined ? undefined : generated(made);
}

// PasswdModifyRequestValue (RFC 3062 §2).
function readRequest(value: Buffer | undefined): { identity?: string; oldPassword?: string; newPassword?: string } {
  const request: { identity?: string; oldPassword?: string; newPassword?: string } = {};
  if (value === undefined) return request;
  try {
    const reader = new BerReader(value);
    reader.enter(berTags.sequence);
    if (reader.peekTag() === 0x80) request.identity = reader.text(0x80);
    if (reader.peekTag() === 0x81) request.oldPassword = reader.text(0x81);
    if (reader.peekTag() === 0x82) request.newPassword = reader.text(0x82);
    return request;
  } catch (error) {
    if (error instanceof BerError) throw new Refusal('protocolError', 'the password modify request is malformed (RFC 3062 §2)');
    throw error;
  }
}

function generated(password: string): Buffer {
  const writer = new BerWriter();
  const opened = writer.open(berTags.sequence);
  writer.text(password, 0x80);
  writer.close(opened);
  return writer.take();
}
