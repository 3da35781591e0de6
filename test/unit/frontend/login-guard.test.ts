import { describe, expect, it } from 'vitest';
import { clientGroup } from '#frontend/guard/client-group.ts';
import { addressFailuresMax, delayMaxMs, failureFloorMs, LoginGuard } from '#frontend/guard/login-guard.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

function fail(guard: LoginGuard, address: string, account: string, times: number): void {
  for (let i = 0; i < times; i += 1) guard.failed(address, account, 0);
}

function make(): { guard: LoginGuard; clock: FakeClock } {
  const clock = new FakeClock();
  return { guard: new LoginGuard(clock, seededRandom(1)), clock };
}

describe('whom limits are kept for', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:2::9', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ])('%s is counted as %s', (address, group) => expect(clientGroup(address)).toBe(group));
});

describe('the guard against guessing', () => {
  it('lets a mistyped password or two cost nothing, and then doubles the delay up to a bound', () => {
    const { guard } = make();
    const delays = Array.from({ length: 14 }, () => {
      const delay = guard.before('192.0.2.1', 'alice');
      fail(guard, '192.0.2.1', 'alice', 1);
      return delay;
    });
    expect(delays.slice(0, 5)).toEqual([0, 0, 0, 250, 500]);
    expect(delays.at(-1)).toBe(delayMaxMs);
  });

  it('answers no failure before its floor, however quickly it was known', () => {
    const { guard } = make();
    expect(guard.failed('192.0.2.1', 'nobody', 0)).toBeGreaterThanOrEqual(failureFloorMs);
    expect(guard.failed('192.0.2.1', 'alice', 90)).toBeGreaterThanOrEqual(failureFloorMs - 90);
    expect(guard.failed('192.0.2.1', 'alice', 5000)).toBeLessThan(20);
  });

  it('slows an address that tries one password on many accounts, and at last hears it no more', () => {
    const { guard } = make();
    for (let i = 0; i < 20; i += 1) fail(guard, '192.0.2.1', `user${i}`, 1);
    expect(guard.before('192.0.2.1', 'user999')).toBe(delayMaxMs);
    for (let i = 0; i < addressFailuresMax; i += 1) fail(guard, '192.0.2.1', `user${i}`, 1);
    expect(guard.before('192.0.2.1', 'user999')).toBe('refused');
    expect(guard.before('192.0.2.2', 'user999')).toBe(0);
  });

  it('delays an owner whose account many others guess at by two seconds at most, and never shuts it out', () => {
    const { guard } = make();
    for (let i = 0; i < 1000; i += 1) fail(guard, `198.51.100.${i}`, 'alice', 1);
    expect(guard.before('192.0.2.1', 'alice')).toBe(2000);
  });

  it('forgets by halves over time, and at once for the pair that got it right', async () => {
    const { guard, clock } = make();
    fail(guard, '192.0.2.1', 'alice', 5);
    expect(guard.before('192.0.2.1', 'alice')).toBe(1000);
    guard.succeeded('192.0.2.1', 'alice');
    expect(guard.before('192.0.2.1', 'alice')).toBe(0);
    fail(guard, '192.0.2.1', 'bob', 5);
    await clock.advance(600_000);
    expect(guard.before('192.0.2.1', 'bob')).toBe(0);
  });
});
