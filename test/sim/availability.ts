/**
 * How long an account cannot be opened when one member or the Controller fails and nothing else is amiss (I10). Every account is asked
 * for at every member all the time, as many frontends would; an attempt that hangs at a silent member is left behind.
 */
import { type ClientParts, readOnce } from './clients.ts';
import { leaseMs } from './member-node.ts';

/** Time in which every account can be opened again, by what befell a member. */
const bounds = {
  /** Its machine refuses connections: that is known at once. */
  kill: 2_000,
  /** It leaves in good order. */
  stop: 2_000,
  /** It is silent: a lease must pass first. */
  pause: leaseMs + 2_000,
  'power off': leaseMs + 2_000,
} as const;

/** Faults whose effect is bounded. */
export type AvailabilityFault = keyof typeof bounds;
export const availabilityFaults = Object.keys(bounds) as AvailabilityFault[];

const probeEveryMs = 100;
const attemptMs = 600;
const settledAfterMs = 4_000;

/** See the header of this file. `end` says the longest time, and what was broken. */
export function watchAvailability(clients: readonly ClientParts[], fault: AvailabilityFault): { end(violations: string[]): number } {
  let isOver = false;
  let worstMs = 0;
  const broken: string[] = [];
  for (const parts of clients) {
    const { world } = parts.process;
    let lastMs = settledAfterMs;
    const opened = (): void => {
      const gapMs = world.nowMs - lastMs;
      if (isOver || world.nowMs <= lastMs) return;
      lastMs = world.nowMs;
      worstMs = Math.max(worstMs, gapMs);
      if (gapMs > bounds[fault]) {
        broken.push(
          `I10: ${parts.history.record.name} could not be opened for ${Math.round(gapMs)} ms until ${Math.round(lastMs)} (${fault}: at most ${bounds[fault]})`,
        );
      }
    };
    for (const member of parts.members) {
      const probe = async (): Promise<void> => {
        while (!isOver) {
          await Promise.race([readOnce({ ...parts, members: [member] }, opened, 0), world.sleep(attemptMs)]);
          await world.sleep(probeEveryMs);
        }
      };
      void probe();
    }
  }
  return {
    end(violations) {
      isOver = true;
      violations.push(...broken);
      return worstMs;
    },
  };
}
