/**
 * Chance, as the rest of the code is given it. The simulator brings a seeded one, so that a failure is a seed.
 */
import { randomBytes } from 'node:crypto';

/** A source of unpredictable (real) or repeatable (simulated) values. */
export interface Random {
  /** `count` random bytes. */
  bytes(count: number): Buffer;
  /** An integer in `[0, bound)`; `bound` at most 2^32. */
  integer(bound: number): number;
  /** A version 4 UUID (RFC 9562 §5.4), lower case with hyphens. */
  uuid(): string;
}

/** Builds a `Random` on any source of bytes. */
export function randomFrom(bytes: (count: number) => Buffer): Random {
  return {
    bytes,
    integer(bound) {
      if (bound < 1 || bound > 2 ** 32) throw new RangeError(`bound ${bound} is not within 1..2^32`);
      // 48 bits over a bound of at most 32: the bias is below 2^-16 and harmless for jitter and choice.
      return Number(bytes(6).readUIntBE(0, 6) % bound);
    },
    uuid() {
      const b = bytes(16);
      b[6] = ((b[6] as number) & 0x0f) | 0x40;
      b[8] = ((b[8] as number) & 0x3f) | 0x80;
      const h = b.toString('hex');
      return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
    },
  };
}

/** Bytes fetched from the operating system at a time; each is given out once. */
const pooledBytes = 4096;
let pool = Buffer.alloc(0);
let given = 0;

/** The operating system's generator; small requests share one call to it. */
export const systemRandom: Random = randomFrom((count) => {
  if (count > pooledBytes / 4) return randomBytes(count);
  if (pool.length - given < count) {
    pool = randomBytes(pooledBytes);
    given = 0;
  }
  given += count;
  return pool.subarray(given - count, given);
});

/** `baseMs` moved by at most `share` of itself up or down, so that many waiters do not wake at once. */
export function jitteredMs(random: Random, baseMs: number, share = 0.25): number {
  return baseMs * (1 - share + (2 * share * random.integer(1_000_001)) / 1_000_000);
}
