import { describe, expect, it } from 'vitest';
import { ImageEncoder } from '#protocol/ldap/image-batch.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { type Change, Pipeline, type Queued, queuedMax } from '#replication/pipeline.ts';
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

describe('the room of a pipeline', () => {
  const value = Buffer.alloc(1_000_000);
  const attributes = [{ type: 'jpegPhoto', values: [value] }];
  const change: Change = { uuid: '1', entry: { dn: 'uid=1,o=mail', attributes }, isNew: false, cookie: undefined, receivedMs: 0 };
  const encoder = new ImageEncoder();
  encoder.add({ uuid: '00000000-0000-4000-8000-000000000001', dn: 'uid=1,o=mail', attributes });
  const block: Change = { uuid: '', entry: undefined, isNew: true, cookie: undefined, receivedMs: 0, block: encoder.take() };

  it.each([
    ['changes', change],
    ['changes that are passed on as they came', { ...change, entry: { dn: 'uid=1,o=mail', attributes: [], attributesBer: value } }],
    ['blocks', block],
  ])('is used up by a few large %s, and there again when they are acknowledged', async (_, one) => {
    const { pipeline } = harness();
    let pushed = 0;
    for (; pipeline.hasRoom && pushed < queuedMax; pushed += 1) pipeline.push(one);
    expect(pushed).toBe(17);
    const stop = new AbortController();
    const running = pipeline.run(() => Promise.resolve(), stop.signal, { of: 'changes', send: () => Promise.resolve([]) });
    await settle();
    expect(pipeline.backlog).toBe(0);
    for (pushed = 0; pipeline.hasRoom && pushed < queuedMax; pushed += 1) pipeline.push(one);
    expect(pushed).toBe(17);
    pipeline.clear();
    expect(pipeline.hasRoom).toBe(true);
    stop.abort();
    await running;
  });

  it('has a limit of its own for small ones', () => {
    const { pipeline } = harness();
    let pushed = 0;
    for (; pipeline.hasRoom && pushed < 10_000; pushed += 1) pipeline.push(put(`${pushed}`, `uid=${pushed},o=mail`));
    expect(pushed).toBe(queuedMax);
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

describe('blocks of new entries', () => {
  const entries = ['1', '2', '3'].map((uuid) => ({ uuid: `00000000-0000-4000-8000-00000000000${uuid}`, dn: `uid=${uuid},o=mail` }));
  function block(): Change {
    const encoder = new ImageEncoder();
    for (const { uuid, dn } of entries) encoder.add({ uuid, dn, attributes: [attribute('cn', dn)] });
    return { uuid: '', entry: undefined, isNew: true, cookie: undefined, receivedMs: 0, block: encoder.take() };
  }
  const cookie: Change = { uuid: '', entry: undefined, isNew: false, cookie: Buffer.from('later'), receivedMs: 0 };

  it('count as their entries, and are done when what was refused of them is', async () => {
    const { pipeline, underWay, apply } = harness();
    const stop = new AbortController();
    const sent: (readonly Queued[])[] = [];
    const send = (changes: readonly Queued[]): Promise<readonly number[]> => {
      sent.push(changes);
      return Promise.resolve(changes[0]?.block === undefined ? [] : [0, 2]);
    };
    pipeline.push(put('before', 'uid=before,o=mail'));
    pipeline.push(block());
    pipeline.push(cookie);
    expect(pipeline.backlog).toBe(5);
    const running = pipeline.run(apply, stop.signal, { of: 'changes', send });
    await settle();
    // By itself, and not together with what came before it.
    expect(sent.slice(0, 2).map((changes) => changes.map((one) => one.block?.count ?? one.uuid))).toEqual([['before'], [3]]);
    expect([...underWay.keys()]).toEqual([entries[0]?.uuid, entries[2]?.uuid]);
    expect(pipeline.isPending(entries[0]?.uuid ?? '')).toBe(true);
    underWay.get(entries[0]?.uuid ?? '')?.resolve();
    await settle();
    expect(pipeline.backlog).toBe(4);
    underWay.get(entries[2]?.uuid ?? '')?.resolve();
    await settle();
    expect(pipeline.backlog).toBe(0);
    expect(pipeline.isPending(entries[0]?.uuid ?? '')).toBe(false);
    stop.abort();
    await running;
  });

  it('are sent again as a whole when the replica was lost, and entry by entry to one that takes no batches', async () => {
    const { pipeline, underWay, apply } = harness();
    pipeline.push(block());
    const lost = pipeline.run(apply, new AbortController().signal, { of: 'blocks', send: () => Promise.resolve([1]) });
    await settle();
    underWay.get(entries[1]?.uuid ?? '')?.reject(new Error('the replica hung up'));
    await expect(lost).rejects.toThrow('hung up');
    expect(pipeline.backlog).toBe(3);
    underWay.clear();
    const stop = new AbortController();
    const again = pipeline.run(apply, stop.signal);
    await settle();
    expect([...underWay.keys()]).toEqual(entries.map((one) => one.uuid));
    for (const one of underWay.values()) one.resolve();
    await settle();
    expect(pipeline.backlog).toBe(0);
    stop.abort();
    await again;
  });
});
