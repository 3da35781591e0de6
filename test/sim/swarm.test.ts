/**
 * 2,000 histories of the product's own code: 500 that are the same every time, and 1,500 that nobody has seen before. What breaks is named
 * with its seed; `npm run sim -- --seed N --log` repeats it, and the seed then becomes a test of simulator.test.ts.
 */
import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { expect, it } from 'vitest';
import { runSwarm } from './swarm.ts';

const minute = 60_000;

async function brokenOf(first: number, count: number): Promise<string[]> {
  const { broken, seeds } = await runSwarm({ first, count }, { threads: Math.min(4, availableParallelism()) });
  expect(seeds).toBe(count);
  return broken.map(({ seed, violations }) => `seed ${seed}: ${violations.join('; ')}`);
}

it('keeps its promises over 500 seeds that stay the same', { timeout: 10 * minute }, async () => {
  expect(await brokenOf(1, 500)).toEqual([]);
});

it('keeps its promises over 1,500 fresh seeds', { timeout: 20 * minute }, async () => {
  const first = randomInt(1_000, 2 ** 31);
  console.log(`simulated seeds: 1 to 500, and ${first} to ${first + 1_499}`);
  expect(await brokenOf(first, 1_500)).toEqual([]);
});
