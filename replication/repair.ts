/**
 * Makes a replica equal to the master where a comparison found that it is not: entries lost, changed or added at the replica by hand.
 *
 * Each differing entry goes through the replica's pipeline as a change of its own, whose content is read from the master when its turn has
 * come. So a repair keeps the order of what the master sends meanwhile, and cannot put an older state over a newer one.
 */
import type { Difference, VerifyReport } from '#replication/client/status.ts';
import type { Pipeline } from '#replication/pipeline.ts';
import { checkDeletes } from '#replication/resync.ts';

/** Entries in the order in which they can be put right: parents before children, removals last and from the bottom up. */
export function inOrder(differences: readonly Difference[]): readonly Difference[] {
  const depth = (one: Difference): number => one.dn.split(',').length;
  const puts = differences.filter((one) => one.kind !== 'extra').sort((a, b) => depth(a) - depth(b));
  return [...puts, ...differences.filter((one) => one.kind === 'extra').sort((a, b) => depth(b) - depth(a))];
}

/** Queues the repair of everything that `report` lists. Throws `REPL_TOO_MANY_DELETES` where it would delete more than a refresh may. */
export async function queueRepair(
  report: VerifyReport,
  maxPercent: number,
  pipeline: Pipeline,
  nowMs: () => number,
  signal: AbortSignal,
): Promise<void> {
  checkDeletes(report.extra, report.entries + report.extra, maxPercent, report.replica);
  for (const { uuid, dn, kind } of inOrder(report.differences)) {
    while (!pipeline.hasRoom) {
      await pipeline.moved();
      signal.throwIfAborted();
    }
    const entry = kind === 'extra' ? undefined : { dn, attributes: [] };
    pipeline.push({ uuid, entry, isNew: false, cookie: undefined, receivedMs: nowMs(), isCheck: true });
  }
}
