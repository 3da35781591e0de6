/** Comparisons by the calendar: services and installations that share one do not all read their masters at the same moment. */
import { sleep } from '#common/clock.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Schedule, Scheduled } from '#common/schedule.ts';

/** A scheduled comparison begins within this time of its schedule. */
export const verifySpreadMs = 600_000;

/** Has `compare` called at a time by chance within `verifySpreadMs` after each moment that `expression` (UTC) names. */
export function scheduleVerify(
  schedule: Schedule,
  expression: string,
  name: string,
  { clock, random }: Pick<Ports, 'clock' | 'random'>,
  signal: AbortSignal,
  compare: () => Promise<void>,
): Scheduled {
  return schedule(expression, `verification of the replicas of ${name}`, async () => {
    await sleep(clock, random.integer(verifySpreadMs), signal);
    if (!signal.aborted) await compare();
  });
}
