/**
 * Repeatable chance: the same seed gives the same bytes (xorshift128+ in 32-bit halves is not needed; mulberry32 is enough for tests).
 */
import { type Random, randomFrom } from '#common/random.ts';

/** A `Random` whose whole future is its seed. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return randomFrom((count) => {
    const bytes = Buffer.alloc(count);
    for (let i = 0; i < count; i += 1) bytes[i] = next() & 0xff;
    return bytes;
  });
}
