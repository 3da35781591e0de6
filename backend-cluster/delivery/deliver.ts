/**
 * The last step of a delivery: a message becomes part of INBOX. Resolves once it is durable on shared storage. The delivery id makes a
 * repeat harmless: the frontend that lost our answer tries again, and nothing is stored twice.
 */
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { normaliseLineEnds, summarise } from '#protocol/mime/summary.ts';

/** A message for one recipient, with the trace headers of this delivery already on it. */
export interface DeliveredMessage {
  readonly raw: Buffer;
  /** The same for every attempt to deliver this message to this account. */
  readonly deliveryId: string;
  /** Envelope sender; empty for bounces. */
  readonly sender: string;
  /** When the LMTP server had it complete; this member's wall clock. */
  readonly receivedAtMs: number;
}

/** Puts the message into INBOX. Rejects as `OpenAccount.append` does. */
export async function deliverTo(account: OpenAccount, message: DeliveredMessage): Promise<void> {
  const inbox = account.mailbox('INBOX');
  if (inbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `account ${account.uuid} has no INBOX; every account must have one`);
  const raw = normaliseLineEnds(message.raw);
  await account.append(inbox.id, [
    { raw, summary: summarise(raw), flags: [], internalDateMs: message.receivedAtMs, deliveryId: message.deliveryId },
  ]);
}
