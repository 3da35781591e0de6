/**
 * 2,000 histories of the product's own code, the same every time, so that a red run says something of the change and not of the dice. Fresh ones are
 * for `npm run sim -- --seed N --seeds K`. What breaks is named with its seed; `npm run sim -- --seed N --log` repeats it, and the seed
 * then becomes a test of simulator.test.ts.
 */
import { availableParallelism } from 'node:os';
import { expect, it } from 'vitest';
import { runSwarm } from './swarm.ts';

const minute = 60_000;

async function brokenOf(first: number, count: number): Promise<string[]> {
  const { broken, seeds } = await runSwarm({ first, count }, { threads: Math.min(4, availableParallelism()) });
  expect(seeds).toBe(count);
  return broken.map(({ seed, violations }) => `seed ${seed}: ${violations.join('; ')}`);
}

it('keeps its promises over 2,000 seeds', { timeout: 20 * minute }, async () => {
  expect(await brokenOf(1, 2_000)).toEqual([]);
});
