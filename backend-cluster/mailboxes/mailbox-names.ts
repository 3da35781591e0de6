/**
 * Names of mailboxes: `/` between levels, INBOX in any case as the first level stands for INBOX (RFC 9051 §5.1), Unicode in composed
 * form (RFC 5198 §3), so that one name typed on two systems is one mailbox.
 */

import { printable } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { normalized } from '#common/unicode.ts';
import { mailboxLevelsMax, mailboxNameBytesMax } from './limits.ts';

/** Uses that a mailbox may be made for (RFC 6154 §2, RFC 8457). */
const specialUses = ['\\All', '\\Archive', '\\Drafts', '\\Flagged', '\\Important', '\\Junk', '\\Sent', '\\Trash'];

/** What a new account has besides INBOX. */
export const initialMailboxes = [
  { name: 'Sent', specialUse: '\\Sent' },
  { name: 'Drafts', specialUse: '\\Drafts' },
  { name: 'Trash', specialUse: '\\Trash' },
  { name: 'Junk', specialUse: '\\Junk' },
  { name: 'Archive', specialUse: '\\Archive' },
] as const;

// biome-ignore lint/suspicious/noControlCharactersInRegex: naming the controls is the purpose
const forbidden = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

/** The form in which a name is stored and looked up. Does not say whether it is allowed. */
export function foldMailboxName(name: string): string {
  const composed = normalized(name, 'NFC');
  return /^inbox(?=\/|$)/i.test(composed) ? `INBOX${composed.slice(5)}` : composed;
}

/** The stored form of a name that a mailbox may be given, or `MBOX_NAME_INVALID`. */
export function parseMailboxName(name: string): string {
  const folded = foldMailboxName(name);
  const levels = folded.split('/');
  const refuse = (why: string): PlatformError => new PlatformError('MBOX_NAME_INVALID', `mailbox name "${printable(name)}": ${why}`);
  if (folded === '') throw refuse('it is empty');
  if (Buffer.byteLength(folded) > mailboxNameBytesMax) throw refuse(`it is longer than ${mailboxNameBytesMax} octets`);
  if (levels.some((level) => level === '')) throw refuse('it begins or ends with / or has two of them side by side');
  if (levels.length > mailboxLevelsMax) throw refuse(`it has more than ${mailboxLevelsMax} levels`);
  if (forbidden.test(folded)) throw refuse('it has control characters');
  return folded;
}

/** The special use in its usual spelling, or `MBOX_NAME_INVALID`. */
export function parseSpecialUse(use: string): string {
  const known = specialUses.find((candidate) => candidate.toLowerCase() === use.toLowerCase());
  if (known === undefined)
    throw new PlatformError('MBOX_NAME_INVALID', `"${printable(use)}" is no special use; known: ${specialUses.join(' ')}`);
  return known;
}

/** Names above this one, outermost first. */
export function parentNames(name: string): string[] {
  const levels = name.split('/');
  return levels.slice(1).map((_, i) => levels.slice(0, i + 1).join('/'));
}
