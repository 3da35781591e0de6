/**
 * Copying and moving messages (IMAP COPY, RFC 9051 §6.4.7; MOVE, RFC 6851). No bytes are copied: the new message refers to the same body.
 */
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import type { GroupPlan } from '#backend-cluster/storage/group-plan.ts';
import type { MailboxState } from '#backend-cluster/storage/mailbox-state.ts';
import { type AccountLimits, checkQuota } from './quota.ts';
import { ascendingUids } from './uid-lists.ts';

/** One message and its copy. */
export interface CopiedMessage {
  readonly sourceUid: number;
  readonly uid: number;
}

/** Copies; all or none. */
export function copyChange(fromId: number, uids: readonly number[], toId: number, limits: AccountLimits): Change<readonly CopiedMessage[]> {
  return {
    scope: { kind: 'messages', mailboxIds: [fromId, toId] },
    bytes: 64 + uids.length * 8,
    plan(plan) {
      const from = plan.mailbox(fromId);
      const to = plan.mailbox(toId);
      const rows = rowsOf(from, uids);
      plan.checkRoom(to, rows.length);
      const bytes = rows.reduce((sum, row) => sum + (from.columns.sizeBytes[row] as number), 0);
      checkQuota(plan.usedBytes, bytes, limits);
      plan.usedBytes += bytes;
      const copied = addCopies(plan, from, rows, to);
      return () => copied;
    },
  };
}

/** Copies and expunges the originals in one commit. */
export function moveChange(fromId: number, uids: readonly number[], toId: number): Change<readonly CopiedMessage[]> {
  return {
    scope: { kind: 'messages', mailboxIds: [fromId, toId] },
    bytes: 64 + uids.length * 8,
    plan(plan) {
      const from = plan.mailbox(fromId);
      const to = plan.mailbox(toId);
      const rows = rowsOf(from, uids);
      plan.checkRoom(to, rows.length);
      const moved = planMove(plan, from, rows, to);
      return () => moved;
    },
  };
}

/** Adds the records of a move; the caller has checked that there is room. */
export function planMove(plan: GroupPlan, from: MailboxState, rows: readonly number[], to: MailboxState): readonly CopiedMessage[] {
  const moved = addCopies(plan, from, rows, to);
  if (moved.length > 0) {
    plan.records.push({ kind: 'expunge', mailboxId: from.id, modseq: plan.takeModseq(from), uids: moved.map((copy) => copy.sourceUid) });
  }
  return moved;
}

function rowsOf(mailbox: MailboxState, uids: readonly number[]): number[] {
  return ascendingUids(uids)
    .map((uid) => mailbox.columns.rowOf(uid))
    .filter((row) => row >= 0);
}

function addCopies(plan: GroupPlan, from: MailboxState, rows: readonly number[], to: MailboxState): CopiedMessage[] {
  if (rows.length === 0) return [];
  const modseq = plan.takeModseq(to);
  const { columns } = from;
  return rows.map((row) => {
    const uid = plan.takeUid(to);
    plan.records.push({
      kind: 'message',
      mailboxId: to.id,
      uid,
      modseq,
      internalDateMs: columns.internalDateMs[row] as number,
      sizeBytes: columns.sizeBytes[row] as number,
      emailId: columns.emailIdOf(row),
      flags: plan.state.flagSets.flags(columns.flagSet[row] as number),
      body: columns.bodyOf(row),
      deliveryId: '',
      storedAtMs: plan.nowMs,
    });
    return { sourceUid: columns.uid[row] as number, uid };
  });
}
