/**
 * Three members open one account at the same time, again and again, and deliver into it; every operation of theirs on the disk happens in
 * an order drawn by lot. At most one of them owns the account at any moment, and no promise is broken by the others.
 */
import { describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type MemoryClient, MemoryDisk } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { Ledger, opening, openPatiently, storeOn, turn, uuid } from './ledger.ts';

/** Opens and delivers, `rounds` times, and bears being deposed. Returns how many deliveries were acknowledged. */
async function contend(member: string, machine: MemoryClient, seed: number, ledger: Ledger): Promise<number> {
  const store = await storeOn(machine, seed);
  let acknowledged = 0;
  for (let round = 0; round < 6; round += 1) {
    try {
      const account = await store.open(uuid, opening(member));
      for (let i = 0; i < 4; i += 1) {
        await ledger.deliver(account, [`${member}-${round}-${i}`]);
        acknowledged += 1;
      }
    } catch (error) {
      if (!(error instanceof PlatformError) || error.code !== 'CLUSTER_DEPOSED') throw error;
    }
  }
  return acknowledged;
}

describe('members that race for one account', () => {
  it('break no promise, whatever the order of their operations', async () => {
    let acknowledged = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      const random = seededRandom(seed);
      const disk = new MemoryDisk();
      const ledger = new Ledger();
      const machines = ['back1', 'back2', 'back3'].map(() => disk.client(() => ({ kind: 'held' })));
      let running = machines.length;
      const contenders = machines.map((machine, i) =>
        contend(`back${i + 1}`, machine, seed * 10 + i, ledger).finally(() => {
          running -= 1;
        }),
      );
      while (running > 0) {
        const waiting = machines.filter((machine) => machine.isStuck);
        if (waiting.length > 0) waiting[random.integer(waiting.length)]?.release();
        await turn();
      }
      for (const count of await Promise.all(contenders)) acknowledged += count;
      const last = await openPatiently(await storeOn(disk.client(), seed), 'back4');
      expect({ seed, violations: await ledger.violations(last), isReadOnly: last.isReadOnly }).toEqual({
        seed,
        violations: [],
        isReadOnly: false,
      });
    }
    expect(acknowledged).toBeGreaterThan(200);
  });
});
