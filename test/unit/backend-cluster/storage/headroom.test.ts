import { describe, expect, it } from 'vitest';
import { Headroom } from '#backend-cluster/storage/headroom.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const megabyte = 1_048_576;

describe('room for mail', () => {
  it('is the same whether one asks or many at once, however often a look is due', async () => {
    const clock = new FakeClock();
    let looks = 0;
    const headroom = new Headroom(clock, async () => {
      looks += 1;
      return { freeBytes: 1_000 * megabyte, totalBytes: 10_000 * megabyte };
    });
    for (let second = 0; second < 20; second += 1) {
      await Promise.all(Array.from({ length: 32 }, () => headroom.check(megabyte)));
      expect(headroom.isShort).toBe(false);
      await clock.advance(1_500);
    }
    // One look for those who come together.
    expect(looks).toBeLessThanOrEqual(40);
  });

  it('counts what was let in since the last look', async () => {
    const headroom = new Headroom(new FakeClock(), async () => ({ freeBytes: 300 * megabyte, totalBytes: 10_000 * megabyte }));
    const asked = await Promise.allSettled(Array.from({ length: 32 }, () => headroom.check(10 * megabyte)));
    // Near the end every one looks anew, and this storage shows nothing of what was written.
    expect(asked.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(10);
    await expect(headroom.check(290 * megabyte)).rejects.toMatchObject({ code: 'STORE_FULL' });
  });
});
