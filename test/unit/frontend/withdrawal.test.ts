import { describe, expect, it } from 'vitest';
import { AddressRules, ruleMsMax } from '#frontend/guard/address-rules.ts';
import { clientPrefix } from '#frontend/guard/client-group.ts';
import { agentLine } from '#frontend/subset/agent.ts';
import { Withdrawal } from '#frontend/subset/withdrawal.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

function frontend(count: number, leaveWhenAsked = true) {
  const clock = new FakeClock();
  const byes: number[] = [];
  const dropped: number[] = [];
  const sessions = new Map(
    Array.from({ length: count }, (_, i) => [
      i,
      {
        bye: async () => {
          byes.push(clock.monotonicMs());
          if (leaveWhenAsked) sessions.delete(i);
        },
        drop: () => {
          dropped.push(i);
          sessions.delete(i);
        },
      },
    ]),
  );
  const accepting: boolean[] = [];
  const withdrawal = new Withdrawal({
    clock,
    random: seededRandom(1),
    weight: () => 70,
    sessions: () => sessions.values(),
    connections: () => sessions.size,
    setAccepting: async (isAccepting) => {
      accepting.push(isAccepting);
    },
  });
  return { clock, byes, dropped, sessions, accepting, withdrawal };
}

describe('a frontend that is drained', () => {
  it('ends its sessions evenly over four fifths of the time, never many at once', async () => {
    const { clock, byes, sessions, withdrawal } = frontend(1000);
    await withdrawal.drain(100_000, undefined);
    expect(withdrawal.status().drain).toMatchObject({ connectionsAtStart: 1000, perSecond: 12.5 });
    await clock.advance(40_000);
    expect(sessions.size).toBeGreaterThan(480);
    expect(sessions.size).toBeLessThan(520);
    await clock.advance(45_000);
    expect([withdrawal.state, sessions.size]).toEqual(['drained', 0]);
    const perSecond = new Map<number, number>();
    for (const atMs of byes) perSecond.set(Math.floor(atMs / 1000), (perSecond.get(Math.floor(atMs / 1000)) ?? 0) + 1);
    expect(Math.max(...perSecond.values())).toBeLessThanOrEqual(15);
  });

  it('asks each session once, and drops at the deadline what does not go', async () => {
    const { clock, byes, dropped, withdrawal } = frontend(10, false);
    await withdrawal.drain(10_000, 100);
    await clock.advance(9_000);
    expect([byes.length, dropped.length, withdrawal.state]).toEqual([10, 0, 'draining']);
    await clock.advance(2_000);
    expect([byes.length, dropped.length, withdrawal.state]).toEqual([10, 10, 'drained']);
  });

  it('stops where it is when it is taken back, and wants its weight again', async () => {
    const { clock, sessions, accepting, withdrawal } = frontend(100);
    await withdrawal.drain(100_000, undefined);
    await clock.advance(20_000);
    expect(withdrawal.weight).toBe(0);
    await withdrawal.resume();
    const left = sessions.size;
    await clock.advance(100_000);
    expect([sessions.size, accepting, withdrawal.state, withdrawal.weight]).toEqual([left, [false, true], 'serving', 70]);
  });
});

describe('the agent’s line', () => {
  it.each([
    [{ isReady: true, isWithdrawn: false, weight: 70, reason: '' }, 'up ready 70%\n'],
    [{ isReady: true, isWithdrawn: true, weight: 70, reason: '' }, 'drain\n'],
    [{ isReady: true, isWithdrawn: false, weight: 0, reason: '' }, 'drain\n'],
    [{ isReady: false, isWithdrawn: false, weight: 70, reason: 'routes: no\nserver' }, 'down #routes: no?server\n'],
  ])('%j is %j', (answer, line) => expect(agentLine(answer)).toBe(line));
});

describe('rules for addresses', () => {
  it('let the narrowest decide, until they expire', async () => {
    const clock = new FakeClock();
    const rules = new AddressRules(clock);
    rules.set({ range: '192.0.2.0/24', verdict: 'block', reason: 'r', forMs: 60_000 });
    rules.set({ range: '192.0.2.7', verdict: 'allow', reason: 'r', forMs: 10_000 });
    rules.set({ range: '2001:DB8::/32', verdict: 'block', reason: 'r', forMs: 10_000 });
    const verdicts = () => ['192.0.2.7', '192.0.2.8', '198.51.100.1', '2001:db8::7'].map((address) => rules.find(address)?.verdict);
    expect(verdicts()).toEqual(['allow', 'block', undefined, 'block']);
    await clock.advance(10_001);
    expect(verdicts()).toEqual(['block', 'block', undefined, undefined]);
    expect([rules.list().length, rules.remove('192.0.2.0/24'), rules.remove('192.0.2.0/24')]).toEqual([1, true, false]);
  });

  it.each(['192.0.2.0/33', 'everybody', '', '192.0.2.1/24/1'])('refuse %j', (range) => {
    expect(() => new AddressRules(new FakeClock()).set({ range, verdict: 'block', reason: '', forMs: 1 })).toThrow(/no address/);
  });

  it('hold for a stated time at most', () => {
    expect(() => new AddressRules(new FakeClock()).set({ range: '::1', verdict: 'block', reason: '', forMs: ruleMsMax + 1 })).toThrow(
      /days/,
    );
  });

  it.each([
    ['192.0.2.77', '192.0.2.0/24'],
    ['2001:db8:1:2::1', '2001:db8:1::/48'],
  ])('%s has the prefix %s', (address, prefix) => expect(clientPrefix(address)).toBe(prefix));
});
