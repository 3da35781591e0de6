import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Election, type ElectionEvent, newElection, stepElection } from '#backend-cluster/controller/election.ts';

const leaseMs = 8_000;

function run(start: Election, ...events: ElectionEvent[]): { election: Election; effects: string[] } {
  let election = start;
  const effects: string[] = [];
  for (const event of events) {
    const step = stepElection(election, event, leaseMs);
    election = step.election;
    effects.push(...step.effects);
  }
  return { election, effects };
}

const leading: Election = { state: 'leading', term: 5, untilMs: 8_000 };

describe('election', () => {
  it('goes from lease to term to asking the members to leading', () => {
    const { election, effects } = run(
      newElection(4),
      { type: 'heartbeat', nowMs: 0 },
      { type: 'lease', isTaken: true, askedAtMs: 0 },
      { type: 'claim', isMine: true, term: 5 },
      { type: 'collected', term: 5 },
    );
    expect(election).toEqual(leading);
    expect(effects).toEqual(['take-lease', 'claim-term', 'collect', 'lead']);
  });

  it('does not lead when the term belongs to another, whatever the lease says', () => {
    const { election, effects } = run(
      newElection(4),
      { type: 'lease', isTaken: true, askedAtMs: 0 },
      { type: 'claim', isMine: false, term: 5 },
      { type: 'collected', term: 5 },
    );
    expect(election).toMatchObject({ state: 'backup', term: 5 });
    expect(effects).toEqual(['claim-term', 'step-down', 'release-lease']);
  });

  it('goes on while the coordinator is silent and the members obey, and steps down when they are silent too', () => {
    const half = run(leading, { type: 'heartbeat', nowMs: 4_000 });
    expect(half.effects).toEqual(['take-lease', 'ask-members']);
    const kept = run(leading, { type: 'acknowledged', term: 5, askedAtMs: 4_000 }, { type: 'heartbeat', nowMs: 9_000 });
    expect(kept.election.state).toBe('leading');
    const lost = run(leading, { type: 'heartbeat', nowMs: 8_000 });
    expect(lost).toMatchObject({ election: { state: 'backup', term: 5 }, effects: ['step-down'] });
  });

  it('does not count an acknowledgement of a former term', () => {
    expect(run(leading, { type: 'acknowledged', term: 4, askedAtMs: 7_000 }).election.untilMs).toBe(8_000);
  });

  it('steps down when the lease is another’s or a higher term was seen', () => {
    expect(run(leading, { type: 'lease', isTaken: false, askedAtMs: 1 }).election.state).toBe('backup');
    expect(run(leading, { type: 'term-seen', term: 6 })).toMatchObject({ election: { state: 'backup', term: 6 } });
    expect(run(leading, { type: 'term-seen', term: 5 }).election).toEqual(leading);
  });

  it('gives a lease back that comes after the stop', () => {
    expect(run(newElection(1), { type: 'stop' }, { type: 'lease', isTaken: true, askedAtMs: 0 }).effects).toEqual(['release-lease']);
  });

  it('is not kept from leading by a claim that is answered after the next one has begun', () => {
    const { election, effects } = run(
      newElection(3),
      { type: 'lease', isTaken: true, askedAtMs: 0 },
      // The process sleeps for longer than its lease; the first claim is still on its way.
      { type: 'heartbeat', nowMs: leaseMs },
      { type: 'lease', isTaken: true, askedAtMs: leaseMs },
      { type: 'claim', isMine: true, term: 4 },
      { type: 'claim', isMine: true, term: 5 },
      { type: 'collected', term: 4 },
    );
    expect(election).toEqual({ state: 'backup', term: 5, untilMs: 0 });
    expect(effects).toEqual(['claim-term', 'step-down', 'claim-term', 'collect', 'step-down', 'release-lease']);
  });

  it('never lets a term go down, never leads a term that it did not claim, and leads only within a lease', () => {
    const event: fc.Arbitrary<ElectionEvent> = fc.oneof(
      fc.record({ type: fc.constant('heartbeat' as const), nowMs: fc.integer({ min: 0, max: 50_000 }) }),
      fc.record({ type: fc.constant('lease' as const), isTaken: fc.boolean(), askedAtMs: fc.integer({ min: 0, max: 50_000 }) }),
      fc.record({
        type: fc.constant('acknowledged' as const),
        term: fc.integer({ min: 0, max: 9 }),
        askedAtMs: fc.integer({ min: 0, max: 50_000 }),
      }),
      fc.record({ type: fc.constant('claim' as const), isMine: fc.boolean(), term: fc.integer({ min: 1, max: 9 }) }),
      fc.constant({ type: 'claim-failed' as const }),
      fc.record({ type: fc.constant('collected' as const), term: fc.integer({ min: 0, max: 9 }) }),
      fc.record({ type: fc.constant('term-seen' as const), term: fc.integer({ min: 0, max: 9 }) }),
      fc.constant({ type: 'yield' as const }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        let election = newElection(0);
        const mine = new Set<number>();
        for (const next of events) {
          if (next.type === 'claim' && next.isMine && election.state === 'claiming') mine.add(next.term);
          const step = stepElection(election, next, leaseMs);
          expect(step.election.term).toBeGreaterThanOrEqual(election.term);
          if (step.election.state === 'leading') expect(mine).toContain(step.election.term);
          if (next.type === 'heartbeat' && step.election.state === 'leading') expect(next.nowMs).toBeLessThan(step.election.untilMs);
          election = step.election;
        }
      }),
    );
  });
});
