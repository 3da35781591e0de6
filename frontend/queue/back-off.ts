/** When a message that could not be delivered is tried again. */
import { jitteredMs, type Random } from '#common/random.ts';

/** Short, as a cluster serves an account of a member that died or fell silent again within seconds. */
const firstMs = 1_000;
const longestMs = 15 * 60_000;

/** Age at which a message is given up: five days (RFC 5321 §4.5.4.1). */
export const giveUpAfterMs = 5 * 24 * 3_600_000;

/** Wait after the `attempts`-th failed attempt: 1 s, doubled each time up to 15 min, moved a quarter so that messages spread out. */
export function retryDelayMs(attempts: number, random: Random): number {
  return jitteredMs(random, Math.min(longestMs, firstMs * 2 ** Math.min(attempts - 1, 20)));
}
