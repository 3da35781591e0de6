import { describe, expect, it } from 'vitest';
import { Handovers, ticketMs } from '#backend-cluster/sessions/handovers.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

const uuid = parseAccountUuid('00000001-0000-4000-8000-000000000000');

describe('a session that was handed over', () => {
  it('is given for its ticket to its own frontend, again if need be, and not when it is old', async () => {
    const clock = new FakeClock();
    const handovers = new Handovers(clock, seededRandom(1));
    const ticket = handovers.park(uuid, 'front1', 'imap', { x: 1 });
    for (let i = 0; i < 2; i += 1) expect(handovers.collect(ticket, 'front1')).toEqual({ uuid, service: 'imap', state: { x: 1 } });
    expect(() => handovers.collect(ticket, 'front2')).toThrow(/handed over/);
    expect(() => handovers.collect('guess', 'front1')).toThrow(/handed over/);
    await clock.advance(ticketMs);
    expect(() => handovers.collect(ticket, 'front1')).toThrow(/handed over/);
  });

  it('is waited for when the member stops, but not for ever', async () => {
    const clock = new FakeClock();
    const handovers = new Handovers(clock, seededRandom(1));
    const ticket = handovers.park(uuid, 'front1', 'imap', {});
    const ends: string[] = [];
    void handovers.collected(2000).then(() => ends.push('collected'));
    await clock.advance(500);
    expect(ends).toEqual([]);
    handovers.collect(ticket, 'front1');
    await clock.advance(100);
    handovers.park(uuid, 'front1', 'imap', {});
    void handovers.collected(2000).then(() => ends.push('late'));
    await clock.advance(2100);
    expect(ends).toEqual(['collected', 'late']);
  });
});
