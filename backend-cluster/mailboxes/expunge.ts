/**
 * Removing messages (IMAP EXPUNGE and UID EXPUNGE, RFC 9051 §6.4.3 and §6.4.9; POP3 DELE at QUIT).
 */
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import { ascendingUids } from './uid-lists.ts';

/** Removes messages with `\Deleted`, among `uids` when they are given; with `force` all of `uids`. */
export function expungeChange(mailboxId: number, uids: readonly number[] | undefined, force: boolean): Change<readonly number[]> {
  return {
    scope: { kind: 'messages', mailboxIds: [mailboxId] },
    bytes: 64 + (uids?.length ?? 0) * 8,
    plan(plan) {
      const mailbox = plan.mailbox(mailboxId);
      const { columns } = mailbox;
      const candidates = uids === undefined ? mailbox.uids() : ascendingUids(uids);
      const gone: number[] = [];
      for (const uid of candidates) {
        const row = columns.rowOf(uid);
        if (row < 0) continue;
        if ((force && uids !== undefined) || plan.state.flagSets.isDeleted(columns.flagSet[row] as number)) gone.push(uid);
      }
      if (gone.length > 0) plan.records.push({ kind: 'expunge', mailboxId, modseq: plan.takeModseq(mailbox), uids: gone });
      return () => gone;
    },
  };
}
