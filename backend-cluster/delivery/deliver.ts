/**
 * The last step of a delivery: a message becomes part of INBOX, or goes where the account's script files it. Resolves once it is durable on shared storage. The delivery id makes a
 * repeat harmless: the frontend that lost our answer tries again, and nothing is stored twice.
 */
import { hash } from 'node:crypto';
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { normaliseLineEnds, summarise } from '#protocol/mime/summary.ts';
import { filtered } from './filter.ts';

/** A message for one recipient, with the trace headers of this delivery already on it. */
export interface DeliveredMessage {
  readonly raw: Buffer;
  /** The same for every attempt to deliver this message to this account. */
  readonly deliveryId: string;
  /** Envelope sender; empty for bounces. */
  readonly sender: string;
  /** Envelope recipient, for scripts; missing in what members of earlier releases carry. */
  readonly recipient?: string;
  /** When the LMTP server had it complete; this member's wall clock. */
  readonly receivedAtMs: number;
}

/** Puts the message where the account's script says, which is INBOX when it has none. Rejects as `OpenAccount.append` does. */
export async function deliverTo(account: OpenAccount, message: DeliveredMessage, log: Logger): Promise<void> {
  const inbox = account.mailbox('INBOX');
  if (inbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `account ${account.uuid} has no INBOX; every account must have one`);
  const raw = normaliseLineEnds(message.raw);
  const places = filtered(account, inbox, { raw, from: message.sender, to: message.recipient ?? '' }, log);
  const summary = summarise(raw);
  for (const [index, { mailbox, flags }] of places.entries()) {
    // Each place has an id of its own: a repeat after half of them adds the other half.
    const deliveryId = index === 0 ? message.deliveryId : hash('sha256', `${message.deliveryId} ${mailbox.id}`);
    await account.append(mailbox.id, [{ raw, summary, flags, internalDateMs: message.receivedAtMs, deliveryId }]);
  }
}
