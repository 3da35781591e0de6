/**
 * Changing flags of messages (IMAP STORE, RFC 9051 §6.4.6, with UNCHANGEDSINCE of RFC 7162 §3.1.3).
 */
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import { internFlags, operateFlags, parseFlags } from './flags.ts';
import type { FlagOperation, MessageInfo } from './open-account.ts';
import { ascendingUids } from './uid-lists.ts';

/** What came of it; see `OpenAccount.storeFlags`. */
export interface FlagsStored {
  readonly changed: readonly MessageInfo[];
  readonly modified: readonly number[];
}

/** The change. Messages that have these flags already are answered as changed, and no record is made for them. */
export function storeFlagsChange(
  mailboxId: number,
  uids: readonly number[],
  operation: FlagOperation,
  flags: readonly string[],
  unchangedSince: number | undefined,
): Change<FlagsStored> {
  const wanted = parseFlags(flags);
  return {
    scope: { kind: 'messages', mailboxIds: [mailboxId] },
    bytes: 64 + uids.length * 8,
    plan(plan) {
      const mailbox = plan.mailbox(mailboxId);
      const { columns } = mailbox;
      const sets = plan.state.flagSets;
      const concerned: number[] = [];
      const modified: number[] = [];
      const groups = new Map<number, number[]>();
      // The same set goes to the same set: thousands of messages take a few computations.
      const outcomes = new Map<number, number>();
      for (const uid of ascendingUids(uids)) {
        const row = columns.rowOf(uid);
        if (row < 0) continue;
        if (unchangedSince !== undefined && (columns.modseq[row] as number) > unchangedSince) {
          modified.push(uid);
          continue;
        }
        concerned.push(uid);
        const from = columns.flagSet[row] as number;
        let to = outcomes.get(from);
        if (to === undefined) {
          to = internFlags(sets, operateFlags(sets.flags(from), operation, wanted));
          outcomes.set(from, to);
        }
        if (to === from) continue;
        const group = groups.get(to);
        if (group === undefined) groups.set(to, [uid]);
        else group.push(uid);
      }
      if (groups.size > 0) {
        plan.records.push({
          kind: 'flags',
          mailboxId,
          modseq: plan.takeModseq(mailbox),
          groups: [...groups].map(([set, members]) => ({ flags: sets.flags(set), uids: members })),
        });
      }
      return () => ({ changed: concerned.flatMap((uid) => mailbox.message(uid) ?? []), modified });
    },
  };
}
