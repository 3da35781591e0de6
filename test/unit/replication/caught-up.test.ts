import { describe, expect, it } from 'vitest';
import { attribute } from '#protocol/ldap/messages.ts';
import { quietMaxMs, whenCaughtUp } from '#replication/caught-up.ts';
import type { ReplicaStatus } from '#replication/client/status.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';

const csnOf = (second: number): string => `202611291000${String(second).padStart(2, '0')}.000000Z#000000#001#000000`;

/** A replica whose status the test sets, beside a master that is at `csn`. */
function waiting(first: Partial<ReplicaStatus>, csn = csnOf(5)) {
  const clock = new FakeClock();
  const stop = new AbortController();
  let status: ReplicaStatus = {
    name: 'ldap-eu',
    url: 'ldap://replica',
    state: 'following',
    backlogChanges: 0,
    lagMs: 0,
    applied: { add: 0, modify: 0, rename: 0, delete: 0 },
    conflicts: 0,
    refused: { entries: 0, first: [] },
    contextCsn: undefined,
    lastError: undefined,
    lastAppliedAtMs: undefined,
    lastVerifiedAtMs: undefined,
    lastVerifyResult: undefined,
    ...first,
  };
  const attributes = csn === '' ? [] : [attribute('contextCSN', csn)];
  const master = { readEntry: async () => ({ kind: 'entry', dn: 'o=mail', attributes, controls: [] }) as const };
  let outcome: unknown = 'waits';
  void whenCaughtUp(() => status, master, 'o=mail', clock, stop.signal).then(
    (value) => {
      outcome = value;
    },
    (error: unknown) => {
      outcome = error;
    },
  );
  return {
    stop,
    async become(next: Partial<ReplicaStatus>, afterMs: number): Promise<unknown> {
      await settle();
      status = { ...status, ...next };
      await clock.advance(afterMs);
      await settle();
      return outcome;
    },
  };
}

describe('waiting until a replica has what the master has', () => {
  it('goes on for as long as the replica comes nearer, and ends when it is there', async () => {
    const { become } = waiting({ contextCsn: csnOf(1), backlogChanges: 4000 });
    for (let i = 0; i < 20; i += 1)
      expect(await become({ applied: { add: i, modify: 0, rename: 0, delete: 0 } }, quietMaxMs - 1000)).toBe('waits');
    expect(await become({ contextCsn: csnOf(4) }, 1000)).toBe('waits');
    expect(await become({ contextCsn: csnOf(6) }, 1000)).toBe(csnOf(6));
  });

  it('does not take a catch-up for its end, and waits for it while entries are read', async () => {
    const refresh = { entries: 0, named: 0, perSecond: 0, ofEntries: undefined, etaMs: undefined, quietMs: 10, waitsFor: undefined };
    const { become } = waiting({ state: 'refreshing', refresh, contextCsn: csnOf(5) });
    expect(await become({}, 10 * quietMaxMs)).toBe('waits');
    expect(await become({ state: 'following' }, 1000)).toBe(csnOf(5));
  });

  it('gives a replica up that is behind and does not move, and says where it is and why', async () => {
    const { become } = waiting({ state: 'retrying', contextCsn: csnOf(1), backlogChanges: 7, lastError: 'no answer' });
    expect(await become({}, quietMaxMs - 1000)).toBe('waits');
    const error = await become({}, 2000);
    expect(error).toMatchObject({ code: 'REPL_BEHIND' });
    for (const said of [csnOf(5), csnOf(1), 'retrying', '7 changes', 'no answer', 'archipelago replica status'])
      expect((error as Error).message).toContain(said);
  });

  it('does not wait for one that only comes and goes while more is received for it', async () => {
    const { become } = waiting({ contextCsn: csnOf(1) });
    let outcome: unknown;
    for (let i = 0; i < 4; i += 1)
      outcome = await become({ state: i % 2 === 0 ? 'retrying' : 'connecting', backlogChanges: i }, quietMaxMs / 3);
    expect(outcome).toMatchObject({ code: 'REPL_BEHIND' });
  });

  it('waits for nothing where an operator has to decide first', async () => {
    const { become } = waiting({ state: 'stopped', contextCsn: csnOf(1) });
    expect(await become({}, 0)).toBeUndefined();
  });

  it('gives a master that names no change some time, and then until nothing is on its way', async () => {
    const { become } = waiting({ backlogChanges: 0 }, '');
    expect(await become({ backlogChanges: 3 }, 6000)).toBe('waits');
    expect(await become({ backlogChanges: 0 }, 1000)).toBeUndefined();
  });

  it('ends with whoever asked', async () => {
    const { become, stop } = waiting({ contextCsn: csnOf(1) });
    stop.abort(new Error('gone'));
    expect(await become({}, 1000)).toMatchObject({ message: 'gone' });
  });
});
