import { describe, expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { Progress } from '#replication/progress.ts';
import { FakeClock } from '#test/fakes/clock.ts';

describe('the progress of a refresh', () => {
  it('says entries, their rate, and the time left where it is known how many there are', async () => {
    const clock = new FakeClock();
    using progress = new Progress(clock, silentLogger, 100);
    using unknown = new Progress(clock, silentLogger, undefined);
    expect(progress.now()).toEqual({ entries: 0, perSecond: 0, ofEntries: 100, etaMs: undefined });
    for (let i = 0; i < 20; i += 1) {
      progress.entry();
      unknown.entry();
    }
    await clock.advance(2000);
    expect(progress.now()).toEqual({ entries: 20, perSecond: 10, ofEntries: 100, etaMs: 8000 });
    expect(unknown.now()).toEqual({ entries: 20, perSecond: 10, ofEntries: undefined, etaMs: undefined });
  });
});
