import { describe, expect, it } from 'vitest';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { Progress } from '#replication/progress.ts';
import { FakeClock } from '#test/fakes/clock.ts';

/** Two ends that do what a test says. */
function endsOf() {
  return { master: { silentMs: 1000 }, pipeline: { hasRoom: true, backlog: 0, lagMs: 0 } };
}

describe('the progress of a refresh', () => {
  it('says entries, their rate, and the time left where it is known how many there are', async () => {
    const clock = new FakeClock();
    using progress = new Progress(clock, silentLogger, 100, endsOf());
    using unknown = new Progress(clock, silentLogger, undefined, endsOf());
    const nothing = { entries: 0, named: 0, perSecond: 0, quietMs: 0, waitsFor: undefined };
    expect(progress.now()).toEqual({ ...nothing, ofEntries: 100, etaMs: undefined });
    for (let i = 0; i < 20; i += 1) {
      progress.entry();
      unknown.entry();
    }
    await clock.advance(2000);
    const some = { ...nothing, entries: 20, perSecond: 10, quietMs: 2000 };
    expect(progress.now()).toEqual({ ...some, ofEntries: 100, etaMs: 8000 });
    expect(unknown.now()).toEqual({ ...some, ofEntries: undefined, etaMs: undefined });
  });

  it('says what it waits for and since when, once nothing has moved for a while', async () => {
    const clock = new FakeClock();
    const ends = endsOf();
    using progress = new Progress(clock, silentLogger, undefined, ends);
    await clock.advance(30_000);
    expect(progress.now().waitsFor).toBe('the replica, of whose entries nothing came for 30 s');
    progress.read();
    await clock.advance(9000);
    expect(progress.now().waitsFor).toBeUndefined();
    progress.step('receiving');
    progress.named(3);
    await clock.advance(9000);
    expect(progress.now()).toMatchObject({ named: 3, waitsFor: undefined });
    await clock.advance(66_000);
    expect(progress.now()).toMatchObject({
      quietMs: 75_000,
      waitsFor: 'the master: nothing came for 75 s, the master still answers',
    });
    ends.master.silentMs = 11_000;
    expect(progress.now().waitsFor).toContain('no answer of the master either');
    progress.entry();
    expect(progress.now().waitsFor).toBeUndefined();
    ends.pipeline = { hasRoom: false, backlog: 4096, lagMs: 12_000 };
    expect(progress.now().waitsFor).toBe('the replica, which has not taken the first of 4096 changes for 12 s');
    progress.step('ending');
    ends.pipeline = { hasRoom: true, backlog: 0, lagMs: 0 };
    await clock.advance(20_000);
    expect(progress.now().waitsFor).toContain('everything came 20 s ago');
  });

  it('does not fill the log while it waits, and says at once when it waits anew', async () => {
    const clock = new FakeClock();
    const lines: string[] = [];
    const log: Logger = {
      ...silentLogger,
      info: (_fields, text) => void lines.push(text),
      warn: ({ waitsFor }) => void lines.push(String(waitsFor)),
    };
    using progress = new Progress(clock, log, undefined, endsOf());
    progress.step('receiving');
    await clock.advance(24 * 3_600_000);
    expect(lines[0]).toBe('the master: nothing came for 10 s, the master still answers');
    expect(lines.length).toBeLessThan(40);
    lines.length = 0;
    for (let look = 0; look < 7; look += 1) {
      progress.entry();
      await clock.advance(9999);
    }
    expect(new Set(lines)).toEqual(new Set(['the refresh goes on']));
    await clock.advance(20_000);
    expect(lines.at(-1)).toContain('the master: nothing came for');
  });
});
