import { describe, expect, it } from 'vitest';
import { type Change, Pipeline, type Queued } from '#replication/pipeline.ts';
import { checkDeletes } from '#replication/resync.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';

function put(uuid: string, dn: string, cookie?: string): Change {
  const bytes = cookie === undefined ? undefined : Buffer.from(cookie);
  return { uuid, entry: { dn, attributes: [] }, isNew: false, cookie: bytes, receivedMs: 0 };
}

/** A pipeline whose changes are finished by hand. */
function harness() {
  const acknowledged: string[] = [];
  const pipeline = new Pipeline(new FakeClock(), (changes) => acknowledged.push(...changes.map((one) => one.uuid)));
  const underWay = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const apply = (change: Queued): Promise<void> =>
    new Promise((resolve, reject) => {
      underWay.set(change.uuid, { resolve, reject });
    });
  return { pipeline, acknowledged, underWay, apply };
}

describe('a replica’s pipeline', () => {
  it('works on many entries at once and acknowledges the longest prefix that is done', async () => {
    const { pipeline, acknowledged, underWay, apply } = harness();
    const stop = new AbortController();
    const running = pipeline.run(apply, stop.signal);
    for (const uuid of ['1', '2', '3']) pipeline.push(put(uuid, `uid=${uuid},o=mail`));
    await settle();
    expect([...underWay.keys()]).toEqual(['1', '2', '3']);
    underWay.get('2')?.resolve();
    await settle();
    expect(acknowledged).toEqual([]);
    underWay.get('1')?.resolve();
    await settle();
    expect(acknowledged).toEqual(['1', '2']);
    underWay.get('3')?.resolve();
    stop.abort();
    await running;
  });

  it('finishes an entry before what is below it, and one change of an entry before its next', async () => {
    const { pipeline, underWay, apply } = harness();
    const stop = new AbortController();
    const running = pipeline.run(apply, stop.signal);
    pipeline.push(put('domain', 'cn=isp.example,o=mail'));
    pipeline.push(put('account', 'uid=a,CN=ISP.Example,o=mail'));
    pipeline.push(put('other', 'cn=other.example,o=mail'));
    await settle();
    expect([...underWay.keys()]).toEqual(['domain', 'other']);
    underWay.get('domain')?.resolve();
    await settle();
    expect([...underWay.keys()]).toEqual(['domain', 'other', 'account']);
    pipeline.push(put('account', 'uid=b,cn=isp.example,o=mail'));
    const first = underWay.get('account');
    await settle();
    expect(underWay.get('account')).toBe(first);
    first?.resolve();
    await settle();
    expect(underWay.get('account')).not.toBe(first);
    stop.abort();
    for (const one of underWay.values()) one.resolve();
    await running;
  });

  it('does again on the next connection what was not done when the replica was lost', async () => {
    const { pipeline, acknowledged, underWay, apply } = harness();
    const running = pipeline.run(apply, new AbortController().signal);
    for (const uuid of ['1', '2']) pipeline.push(put(uuid, `uid=${uuid},o=mail`));
    await settle();
    underWay.get('2')?.resolve();
    underWay.get('1')?.reject(new Error('the replica hung up'));
    await expect(running).rejects.toThrow('hung up');
    expect(pipeline.backlog).toBe(2);
    underWay.clear();
    const stop = new AbortController();
    const again = pipeline.run(apply, stop.signal);
    await settle();
    expect([...underWay.keys()]).toEqual(['1']);
    underWay.get('1')?.resolve();
    await settle();
    expect(acknowledged).toEqual(['1', '2']);
    stop.abort();
    await again;
  });
});

describe('the limit on deletions', () => {
  it.each([
    [0, 0, 10, true],
    [5, 100, 10, true],
    [20, 100, 10, true],
    [21, 100, 10, false],
    [21, 1000, 10, true],
    [15, 15, 10, false],
    [2, 2, 10, true],
    [1000, 1000, 100, true],
  ])('of %i out of %i entries at %i %% lets the refresh go on: %s', (count, total, percent, isAllowed) => {
    const check = (): void => checkDeletes(count, total, percent, 'ldap-eu');
    if (isAllowed) expect(check).not.toThrow();
    else expect(check).toThrow('would delete');
  });
});
