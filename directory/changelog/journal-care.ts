/**
 * Keeps the journal bounded: of the oldest changes all but a million are forgotten. A follower that comes back with an older cookie gets a full
 * refresh.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Tree } from '../server/tree.ts';

/** Changes that are kept. */
export const journalRecordsMax = 1_000_000;
const periodMs = 60_000;
/** So many at a time, so that no commit takes long. */
const trimmedAtOnce = 10_000;

/** Trims now and then; `cancel` stops it. */
export function startJournalCare(tree: Tree, clock: Clock, log: Logger): Timer {
  return clock.every(periodMs, () => {
    trimJournal(tree, journalRecordsMax).catch((error: unknown) => log.warn({ detail: messageOf(error) }, 'the journal was not trimmed'));
  });
}

/** Forgets changes beyond the last `keep`, some at a time; the oldest CSN that can be resumed from moves along. */
export async function trimJournal(tree: Tree, keep: number): Promise<void> {
  const { store } = tree;
  for (;;) {
    const trimmedTo = Number(store.meta('trimmedTo') ?? 0);
    const until = Math.min(store.lastChangeNumber() - keep, trimmedTo + trimmedAtOnce);
    if (until <= trimmedTo) return;
    await store.write(() => {
      const highest = store.trimJournal(until);
      const floor = store.meta('floorCsn');
      if (floor !== undefined && highest !== undefined && highest > floor) store.setMeta('floorCsn', highest);
      store.setMeta('trimmedTo', String(until));
    });
  }
}
