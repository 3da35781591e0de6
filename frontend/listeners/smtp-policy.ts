/**
 * Who may send what to whom: the decisions of MAIL and RCPT, apart from the server that asks for them.
 *
 * Inbound SMTP takes mail for accounts of this installation and for nobody else. Submission takes mail from accounts of this
 * installation, under their own addresses, and for other domains too where a relay is configured. `unknown` is the master's word and
 * refused for good; whatever is not known for certain is refused for now.
 */
import { type AccountName, type AccountUuid, type DomainName, tryParseAccountName, tryParseDomainName } from '#common/account-name.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import { smtpReplies } from '#common/errors/wire.ts';
import { addressProblem } from '#protocol/smtp/path.ts';
import type { QueuedRecipient } from '../queue/envelope.ts';
import type { MailRoute, MailRouter } from './smtp-contract.ts';

/** A refusal: reply code, enhanced status code and a sentence for the client. */
export interface Refusal {
  readonly kind: 'refused';
  readonly code: number;
  readonly enhanced: string;
  readonly text: string;
}

export type RecipientVerdict = { readonly kind: 'accepted'; readonly recipient: QueuedRecipient } | Refusal;
export type SenderVerdict = { readonly kind: 'accepted' } | Refusal;

/** What the decisions need. */
export interface PolicyOptions {
  readonly router: MailRouter;
  readonly defaultDomain: DomainName | undefined;
  /** Whether mail for other domains can be sent on. */
  readonly hasRelay: boolean;
}

const unknownRecipient = refused(550, '5.1.1', 'No such recipient here');
const relayingDenied = refused(550, '5.7.1', 'Relaying denied: this server takes mail for its own domains only');
const noRelay = refused(550, '5.7.1', 'This server sends no mail to other domains');
const tryLater = refused(smtpReplies.unavailable.code, smtpReplies.unavailable.enhanced, smtpReplies.unavailable.text);

/** Makes a refusal. */
export function refused(code: number, enhanced: string, text: string): Refusal {
  return { kind: 'refused', code, enhanced, text };
}

/** RCPT. `isSubmission`: the client has logged in. */
export async function judgeRecipient(address: string, isSubmission: boolean, options: PolicyOptions): Promise<RecipientVerdict> {
  const name = tryParseAccountName(address, options.defaultDomain);
  const route = name === undefined ? await routeOfOddAddress(address, options.router) : await options.router.resolve(name);
  switch (route.kind) {
    case 'local':
      return { kind: 'accepted', recipient: { address: name ?? address, uuid: route.uuid } };
    case 'unknown':
      return unknownRecipient;
    case 'temporary':
      return tryLater;
    case 'foreign-domain':
      if (!isSubmission) return relayingDenied;
      if (!options.hasRelay) return noRelay;
      if (addressProblem(address) !== undefined) return refused(501, '5.1.3', 'Malformed recipient address');
      return { kind: 'accepted', recipient: { address, uuid: undefined } };
  }
}

/** MAIL of a client that logged in to `account`: the sender must be one of its addresses, or empty for notifications (RFC 6409 §3.2). */
export async function judgeSubmissionSender(
  sender: string,
  account: { readonly name: AccountName; readonly uuid: AccountUuid | undefined },
  options: PolicyOptions,
): Promise<SenderVerdict> {
  if (sender === '') return { kind: 'accepted' };
  const name = tryParseAccountName(sender, options.defaultDomain);
  if (name === account.name) return { kind: 'accepted' };
  const route: MailRoute = name === undefined ? { kind: 'unknown' } : await options.router.resolve(name);
  if (route.kind === 'temporary') return tryLater;
  if (route.kind === 'local' && route.name !== account.name && (route.uuid === undefined || account.uuid === undefined)) return tryLater;
  const isOwn = route.kind === 'local' && (route.name === account.name || route.uuid === account.uuid);
  return isOwn ? { kind: 'accepted' } : refused(550, '5.7.1', 'The sender address does not belong to your account');
}

/** Addresses that no account of ours can have, such as quoted local parts: only their domain counts. */
async function routeOfOddAddress(address: string, router: MailRouter): Promise<MailRoute> {
  const domain = tryParseDomainName(address.slice(address.lastIndexOf('@') + 1));
  if (!address.includes('@')) return { kind: 'unknown' };
  if (domain === undefined) return { kind: 'foreign-domain' };
  try {
    return (await router.isLocalDomain(domain)) ? { kind: 'unknown' } : { kind: 'foreign-domain' };
  } catch (thrown) {
    return { kind: 'temporary', error: asPlatformError(thrown) };
  }
}
