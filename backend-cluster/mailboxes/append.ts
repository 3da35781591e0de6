/**
 * Storing messages (IMAP APPEND and MULTIAPPEND, LMTP). The bytes are packed, and large ones written, before the change is queued; the
 * commit itself carries the records and what is small.
 */
import { encodePart } from '#backend-cluster/storage/body.ts';
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import type { GroupPlan } from '#backend-cluster/storage/group-plan.ts';
import type { MailboxState } from '#backend-cluster/storage/mailbox-state.ts';
import type { BodyReference } from '#backend-cluster/storage/records.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Random } from '#common/random.ts';
import { internFlags, parseFlags } from './flags.ts';
import { deliveryIdBytesMax, messageBytesMax, messagesPerAppendMax, summaryBytesMax } from './limits.ts';
import type { AppendedMessage, AppendRequest } from './open-account.ts';
import { type AccountLimits, checkQuota } from './quota.ts';

/** A packed message of more than this gets a file of its own. */
export const inlineBytesMax = 256 * 1024;

/** A message ready to be committed. */
export interface PreparedMessage {
  readonly flags: readonly string[];
  readonly internalDateMs: number;
  readonly sizeBytes: number;
  readonly emailId: Uint8Array;
  readonly deliveryId: string;
  readonly summary: Buffer;
  readonly raw: Buffer;
  /** Number of the file that the bytes were written to; 0: they go into the slot. */
  readonly fileAt: number;
}

/** Checks and packs; `writeFile` is called for large ones and returns the file's number. */
export async function prepareMessages(
  requests: readonly AppendRequest[],
  random: Random,
  writeFile: (parts: readonly Uint8Array[]) => Promise<number>,
): Promise<PreparedMessage[]> {
  if (requests.length > messagesPerAppendMax) {
    throw new PlatformError('MBOX_LIMIT', `${requests.length} messages are more than the ${messagesPerAppendMax} that one append may have`);
  }
  for (const request of requests) check(request);
  const prepared: PreparedMessage[] = [];
  for (const request of requests) {
    const [summary, raw] = await Promise.all([encodePart(request.summary), encodePart(request.raw)]);
    const isLarge = summary.length + raw.length > inlineBytesMax;
    prepared.push({
      flags: parseFlags(request.flags),
      internalDateMs: request.internalDateMs,
      sizeBytes: request.raw.length,
      emailId: random.bytes(16),
      deliveryId: request.deliveryId ?? '',
      summary,
      raw,
      fileAt: isLarge ? await writeFile([summary, raw]) : 0,
    });
  }
  return prepared;
}

/** The change that stores prepared messages in a mailbox. */
export function appendChange(
  mailboxId: number,
  messages: readonly PreparedMessage[],
  limits: AccountLimits,
): Change<readonly AppendedMessage[]> {
  return {
    scope: { kind: 'append', mailboxId },
    bytes: messages.reduce((sum, message) => sum + (message.fileAt === 0 ? message.summary.length + message.raw.length : 256), 0),
    plan: (plan) => planAppend(plan, plan.mailbox(mailboxId), messages, limits),
  };
}

function planAppend(
  plan: GroupPlan,
  mailbox: MailboxState,
  messages: readonly PreparedMessage[],
  limits: AccountLimits,
): () => readonly AppendedMessage[] {
  const ids = messages.map((message) => message.deliveryId);
  const isNew = (message: PreparedMessage, i: number): boolean =>
    message.deliveryId === '' || (plan.delivery(message.deliveryId) === undefined && ids.indexOf(message.deliveryId) === i);
  const fresh = messages.filter(isNew);
  plan.checkRoom(mailbox, fresh.length);
  const bytes = fresh.reduce((sum, message) => sum + message.sizeBytes, 0);
  checkQuota(plan.usedBytes, bytes, limits);
  for (const message of fresh) internFlags(plan.state.flagSets, message.flags);

  plan.usedBytes += bytes;
  const modseq = fresh.length === 0 ? 0 : plan.takeModseq(mailbox);
  const stored = messages.map((message): AppendedMessage => {
    const known = message.deliveryId === '' ? undefined : plan.delivery(message.deliveryId);
    if (known !== undefined) return { uidValidity: known.uidValidity, uid: known.uid };
    const uid = plan.takeUid(mailbox);
    plan.records.push({
      kind: 'message',
      mailboxId: mailbox.id,
      uid,
      modseq,
      internalDateMs: message.internalDateMs,
      sizeBytes: message.sizeBytes,
      emailId: message.emailId,
      flags: message.flags,
      body: placeBody(plan, message),
      deliveryId: message.deliveryId,
      storedAtMs: plan.nowMs,
    });
    const delivery = { mailboxId: mailbox.id, uidValidity: mailbox.uidValidity, uid, storedAtMs: plan.nowMs };
    if (message.deliveryId !== '') plan.noteDelivery(message.deliveryId, delivery);
    return { uidValidity: mailbox.uidValidity, uid };
  });
  return () => stored;
}

/** Where the bytes of a message go, of which the small ones are added to the plan. */
export function placeBody(plan: GroupPlan, message: PreparedMessage): BodyReference {
  const lengths = { summaryBytes: message.summary.length, rawBytes: message.raw.length };
  if (message.fileAt !== 0) return { at: message.fileAt, offset: 0, ...lengths };
  return { at: 0, offset: plan.addBody([message.summary, message.raw]), ...lengths };
}

function check(request: AppendRequest): void {
  if (request.raw.length > messageBytesMax) {
    throw new PlatformError('MBOX_LIMIT', `a message of ${request.raw.length} octets is larger than the ${messageBytesMax} allowed`);
  }
  if (request.summary.length > summaryBytesMax) {
    throw new PlatformError(
      'MBOX_LIMIT',
      `the structure of a message takes ${request.summary.length} octets, more than ${summaryBytesMax}`,
    );
  }
  if (!Number.isFinite(request.internalDateMs)) throw new PlatformError('PROTO_SYNTAX', 'the date of a message is not a time');
  if (Buffer.byteLength(request.deliveryId ?? '') > deliveryIdBytesMax) {
    throw new PlatformError('MBOX_LIMIT', `a delivery id has more than ${deliveryIdBytesMax} octets`);
  }
}
