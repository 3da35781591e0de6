/**
 * Makes a replica equal to the master where a comparison found that it is not: entries lost, changed or added at the replica by hand.
 *
 * Each differing entry goes through the replica's pipeline as a change of its own, whose content is read from the master when its turn has
 * come. So a repair keeps the order of what the master sends meanwhile, and cannot put an older state over a newer one.
 */
import type { Difference, VerifyReport } from '#replication/client/status.ts';
import type { Pipeline } from '#replication/pipeline.ts';
import { checkDeletes } from '#replication/resync.ts';

/** Queues the repair of `differences`, which come in an order in which they can be put right. */
export async function queueRepair(
  differences: Iterable<Difference>,
  pipeline: Pipeline,
  nowMs: () => number,
  signal: AbortSignal,
  onQueued: (differences: number) => void = () => {},
): Promise<void> {
  let queued = 0;
  for (const { uuid, dn, kind } of differences) {
    while (!pipeline.hasRoom) {
      await pipeline.moved();
      signal.throwIfAborted();
    }
    const entry = kind === 'extra' ? undefined : { dn, attributes: [] };
    pipeline.push({ uuid, entry, isNew: false, cookie: undefined, receivedMs: nowMs(), isCheck: true });
    queued += 1;
    onQueued(queued);
  }
}

/** Throws `REPL_TOO_MANY_DELETES` where putting right what a comparison found would delete more than a refresh may. */
export function checkRepair({ replica, extra, entries }: VerifyReport, maxPercent: number): void {
  checkDeletes(extra, entries + extra, maxPercent, replica, 'repair');
}
