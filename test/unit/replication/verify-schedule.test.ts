import { describe, expect, it } from 'vitest';
import { scheduleVerify, verifySpreadMs } from '#replication/verify-schedule.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

/** Lets the calendar's moment come and returns after how long the comparison began, in steps of a second. */
async function beginsAfterMs(seed: number): Promise<number> {
  const clock = new FakeClock();
  let due: (() => Promise<void>) | undefined;
  let begunMs: number | undefined;
  scheduleVerify(
    (expression, _, work) => {
      expect(expression).toBe('17 3 * * *');
      due = work;
      return { cancel: () => {} };
    },
    '17 3 * * *',
    'replication.isp.example',
    { clock, random: seededRandom(seed) },
    new AbortController().signal,
    async () => {
      begunMs = clock.monotonicMs();
    },
  );
  await clock.advance(1000);
  expect(begunMs).toBeUndefined();
  const done = due?.();
  await clock.advance(verifySpreadMs);
  await done;
  return (begunMs ?? Number.NaN) - 1000;
}

describe('the schedule of comparisons', () => {
  it('spreads what the calendar names over ten minutes', async () => {
    const begun = await Promise.all(Array.from({ length: 40 }, (_, seed) => beginsAfterMs(seed)));
    for (const ms of begun) {
      expect(ms).toBeGreaterThanOrEqual(0);
      expect(ms).toBeLessThan(verifySpreadMs);
    }
    expect(new Set(begun).size).toBeGreaterThan(35);
    // Neither all early nor all late.
    expect(begun.filter((ms) => ms < verifySpreadMs / 2).length).toBeGreaterThan(8);
    expect(begun.filter((ms) => ms >= verifySpreadMs / 2).length).toBeGreaterThan(8);
  });

  it('begins nothing once the service stops', async () => {
    const clock = new FakeClock();
    const stop = new AbortController();
    let due: (() => Promise<void>) | undefined;
    let runs = 0;
    const schedule = (_: string, __: string, work: () => Promise<void>) => {
      due = work;
      return { cancel: () => {} };
    };
    scheduleVerify(schedule, '17 3 * * *', 'r', { clock, random: seededRandom(1) }, stop.signal, async () => {
      runs += 1;
    });
    const done = due?.();
    stop.abort();
    await done;
    await clock.advance(verifySpreadMs);
    await settle();
    expect(runs).toBe(0);
  });
});
