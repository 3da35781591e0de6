/**
 * Taking in mailboxes and messages with the numbers that they had elsewhere: UIDVALIDITY, UIDs, modification sequences, EMAILIDs. A mailbox that
 * was never used here takes the archive's UIDVALIDITY, so that mail programs go on with what they have; in any other messages get new UIDs.
 */
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import type { MailboxState } from '#backend-cluster/storage/mailbox-state.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { PreparedMessage } from './append.ts';
import { placeBody } from './append.ts';
import { internFlags } from './flags.ts';
import { addMailboxes, checkMailboxCount, present } from './mailbox-changes.ts';
import { parentNames, parseMailboxName, parseSpecialUse } from './mailbox-names.ts';
import { type AccountLimits, checkQuota } from './quota.ts';

/** A mailbox as it was elsewhere. */
export interface MailboxImport {
  readonly name: string;
  readonly uidValidity: number | undefined;
  readonly specialUse: string | undefined;
}

/** The mailbox that messages go into, and whether they keep their UIDs there. */
export interface ImportTarget {
  readonly mailboxId: number;
  readonly keepsUids: boolean;
}

/** Numbers of one message elsewhere. */
export interface MessageNumbers {
  readonly uid: number | undefined;
  readonly modseq: number | undefined;
}

/** Makes the mailbox, or finds it. */
export function importMailboxChange(mailbox: MailboxImport): Change<ImportTarget> {
  const name = parseMailboxName(mailbox.name);
  const use = mailbox.specialUse === undefined ? '' : parseSpecialUse(mailbox.specialUse);
  const { uidValidity } = mailbox;
  if (uidValidity !== undefined && !(Number.isSafeInteger(uidValidity) && uidValidity > 0 && uidValidity < 2 ** 32)) {
    throw new PlatformError('PROTO_SYNTAX', `UIDVALIDITY ${uidValidity} of a mailbox is no number of 32 bits`);
  }
  return {
    scope: { kind: 'account' },
    bytes: 2048,
    plan(plan) {
      const { state } = plan;
      const existing = state.byName.get(name);
      if (existing !== undefined && existing.uidValidity === uidValidity) {
        return () => ({ mailboxId: existing.id, keepsUids: true });
      }
      const isUnused = existing === undefined || (existing.messageCount === 0 && existing.uidNext === 1);
      if (existing !== undefined && (uidValidity === undefined || !isUnused)) {
        return () => ({ mailboxId: existing.id, keepsUids: false });
      }
      const missing = parentNames(name).filter((parent) => !state.byName.has(parent));
      if (existing === undefined) checkMailboxCount(state, missing.length + 1);
      else plan.records.push({ kind: 'mailbox-delete', mailboxId: existing.id });
      const id = addMailboxes(plan, [
        ...missing.map((parent) => ({ name: parent, use: '' })),
        { name, use: use === '' ? (existing?.specialUse ?? '') : use, ...(uidValidity === undefined ? {} : { uidValidity }) },
      ]);
      return () => ({ mailboxId: present(state.mailboxes.get(id)).id, keepsUids: uidValidity !== undefined });
    },
  };
}

/** Stores messages with their numbers; those that are there already are passed over. Answers with how many were stored. */
export function importMessagesChange(
  target: ImportTarget,
  messages: readonly (PreparedMessage & MessageNumbers)[],
  limits: AccountLimits,
): Change<number> {
  return {
    scope: { kind: 'messages', mailboxIds: [target.mailboxId] },
    bytes: messages.reduce((sum, message) => sum + (message.fileAt === 0 ? message.summary.length + message.raw.length : 256), 0),
    plan(plan) {
      const mailbox = plan.mailbox(target.mailboxId);
      const fresh = messages.filter(
        (message) => plan.delivery(message.deliveryId) === undefined && !(target.keepsUids && isThere(mailbox, message)),
      );
      plan.checkRoom(mailbox, fresh.length);
      const bytes = fresh.reduce((sum, message) => sum + message.sizeBytes, 0);
      checkQuota(plan.usedBytes, bytes, limits);
      for (const message of fresh) internFlags(plan.state.flagSets, message.flags);
      plan.usedBytes += bytes;
      const modseq = fresh.length === 0 ? 0 : plan.takeModseq(mailbox);
      let stored = 0;
      for (const message of fresh) {
        // Two accounts may have given out the same UIDVALIDITY: a UID that names something else here is not taken for the same message.
        const keeps = target.keepsUids && message.uid !== undefined && plan.placeUid(mailbox, message.uid);
        const uid = keeps ? (message.uid as number) : plan.takeUid(mailbox);
        stored += 1;
        plan.records.push({
          kind: 'message',
          mailboxId: mailbox.id,
          uid,
          modseq: keeps ? (message.modseq ?? modseq) : modseq,
          internalDateMs: message.internalDateMs,
          sizeBytes: message.sizeBytes,
          emailId: message.emailId,
          flags: message.flags,
          body: placeBody(plan, message),
          deliveryId: message.deliveryId,
          storedAtMs: plan.nowMs,
        });
        plan.noteDelivery(message.deliveryId, { mailboxId: mailbox.id, uidValidity: mailbox.uidValidity, uid, storedAtMs: plan.nowMs });
      }
      return () => stored;
    },
  };
}

/** Whether it is this very message that has its UID here. */
function isThere(mailbox: MailboxState, { uid, emailId }: { readonly uid: number | undefined; readonly emailId: Uint8Array }): boolean {
  const row = uid === undefined ? -1 : mailbox.columns.rowOf(uid);
  return row >= 0 && mailbox.columns.emailIdOf(row).equals(emailId);
}

/** Lets a mailbox that kept its UIDs go on where it was elsewhere. */
export function importNumbersChange(mailboxId: number, uidNext: number, modseq: number): Change<void> {
  return {
    scope: { kind: 'messages', mailboxIds: [mailboxId] },
    bytes: 64,
    plan(plan) {
      const mailbox = plan.mailbox(mailboxId);
      if (mailbox.uidNext < uidNext || mailbox.highestModseq < modseq) {
        plan.records.push({ kind: 'mailbox-numbers', mailboxId, uidNext: Math.min(uidNext, 2 ** 32 - 1), modseq });
      }
      return () => undefined;
    },
  };
}
