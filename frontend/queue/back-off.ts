/** When a message that could not be delivered is tried again. */
import { jitteredMs, type Random } from '#common/random.ts';

/** Short, as a cluster serves an account of a member that died or fell silent again within seconds. */
const firstMs = 1_000;
/** And no longer than this for the first two minutes, so that whoever asks in the middle of a fail-over does not come long after its end. */
const earlyMs = 8_000;
const earlyAttempts = 16;
const longestMs = 15 * 60_000;

/** Age at which a message is given up: five days (RFC 5321 §4.5.4.1). */
export const giveUpAfterMs = 5 * 24 * 3_600_000;

/**
 * Wait after the `attempts`-th failed attempt: 1 s, doubled to 8 s; after two minutes doubled again, up to 15 min. Each is moved a quarter so that
 * messages spread out.
 */
export function retryDelayMs(attempts: number, random: Random): number {
  if (attempts <= earlyAttempts) return jitteredMs(random, Math.min(earlyMs, firstMs * 2 ** (attempts - 1)));
  return jitteredMs(random, Math.min(longestMs, earlyMs * 2 ** Math.min(attempts - earlyAttempts, 20)));
}
