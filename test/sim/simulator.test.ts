/**
 * The product's own code under virtual time and seeded faults: fixed seeds hold all invariants, a seed is repeatable, and stores with a
 * safeguard taken away are found out. `npm run sim -- --seeds 200` runs more.
 */
import { describe, expect, it } from 'vitest';
import type { Files } from '#common/files/files.ts';
import { withLeaseOnly, withoutRevocation } from '#test/fakes/broken-files.ts';
import { runSeed } from './run-seed.ts';

/** Histories that a broken store may pass: each of them finds out every second one at least. */
const triesMax = 8;

describe('a cluster under seeded faults', { timeout: 60_000 }, () => {
  it.each([1, 2])('keeps what it promised, and recovers: seed %i', async (seed) => {
    const { violations, commits } = await runSeed(seed);
    expect(violations).toEqual([]);
    expect(commits).toBeGreaterThan(20);
  });

  it('does not take a member that has just started for dead because its machine refused connections before: seed 5', async () => {
    expect((await runSeed(5)).violations).toEqual([]);
  });

  it('keeps what it promised to late writers: seed 1', async () => {
    expect((await runSeed(1, { hasLateWriters: true })).violations).toEqual([]);
  });

  it('goes through the same events when the seed is the same, and through others when it is not', async () => {
    const first = await runSeed(9);
    expect(await runSeed(9)).toEqual(first);
    expect((await runSeed(3)).trace).not.toBe(first.trace);
  });
});

describe('a store with a safeguard taken away', { timeout: 60_000 }, () => {
  const variants: [string, (files: Files) => Files][] = [
    ['writes under a lease alone', withLeaseOnly],
    ['compaction without revocation', withoutRevocation],
  ];

  it.each(variants)(
    'is caught: %s',
    async (_, through) => {
      let found: string[] = [];
      for (let seed = 1; seed <= triesMax && found.length === 0; seed += 1) {
        const { violations } = await runSeed(seed, { through, hasLateWriters: true });
        found = violations.filter((violation) => /^I[1-5]: /.test(violation));
      }
      expect(found).not.toEqual([]);
    },
    60_000,
  );
});
