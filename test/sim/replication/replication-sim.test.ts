/** The product's replication under virtual time and seeded faults; see run-seed.ts for what must hold. */
import { describe, expect, it } from 'vitest';
import type { CheckpointFile } from '#replication/checkpoint.ts';
import { runReplicationSeed } from './run-seed.ts';

const seeds = 100;

describe('replication under seeded faults', { timeout: 180_000 }, () => {
  it(`keeps every replica at states that the master had, and makes it equal: ${seeds} seeds`, async () => {
    const broken: string[] = [];
    const faults = new Map<string, number>();
    let changes = 0;
    let writes = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      const result = await runReplicationSeed(seed);
      changes += result.changes;
      writes += result.writes;
      for (const [kind, times] of result.faults) faults.set(kind, (faults.get(kind) ?? 0) + times);
      for (const violation of result.violations) broken.push(`seed ${seed}: ${violation}`);
    }
    expect(broken).toEqual([]);
    expect(faults.size).toBe(6);
    expect(changes).toBeGreaterThan(seeds * 50);
    expect(writes).toBeGreaterThan(changes);
  });

  it('goes through the same events when the seed is the same', async () => {
    expect(await runReplicationSeed(7)).toEqual(await runReplicationSeed(7));
  });

  it('is found out when the cookie is saved before what it covers is applied', async () => {
    let found = 0;
    for (let seed = 1; seed <= 20; seed += 1) {
      const { violations } = await runReplicationSeed(seed, {
        checkpoint: (own, master) => {
          const load = own.load.bind(own);
          // As if each cookie had been written when it came.
          own.load = async (url) => {
            const saved = await load(url);
            return saved === undefined || master.lastCookie === undefined ? saved : { ...saved, cookie: master.lastCookie };
          };
          return own as CheckpointFile;
        },
      });
      if (violations.length > 0) found += 1;
    }
    expect(found).toBeGreaterThan(0);
  });

  it('is found out when what a killed service had on its way still counts when it arrives', async () => {
    for (const seed of [104, 292, 458]) {
      expect((await runReplicationSeed(seed, { isUnfenced: true })).violations, `seed ${seed}`).not.toEqual([]);
      expect((await runReplicationSeed(seed)).violations, `seed ${seed}`).toEqual([]);
    }
  });
});
