import { expect, it } from 'vitest';
import { retryDelayMs } from '#frontend/queue/back-off.ts';
import { seededRandom } from '#test/fakes/random.ts';

it('tries again every eight seconds or so for two minutes, and then more and more slowly', () => {
  const random = seededRandom(7);
  let sinceMs = 0;
  for (let attempt = 1; sinceMs < 100_000; attempt += 1) {
    const delayMs = retryDelayMs(attempt, random);
    expect(delayMs).toBeGreaterThan(700);
    expect(delayMs).toBeLessThanOrEqual(10_000);
    sinceMs += delayMs;
  }
  let longest = 0;
  for (let attempt = 17; attempt < 60; attempt += 1) longest = Math.max(longest, retryDelayMs(attempt, random));
  expect(retryDelayMs(17, random)).toBeGreaterThan(10_000);
  expect(longest).toBeGreaterThan(10 * 60_000);
  expect(longest).toBeLessThanOrEqual(1.25 * 15 * 60_000);
});
