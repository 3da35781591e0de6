import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { settle } from '#test/fakes/clock.ts';
import { QueueHarness } from './queue-harness.ts';

let h: QueueHarness;

beforeEach(async () => {
  h = new QueueHarness();
  await h.open();
});

afterEach(async () => {
  await h.close();
});

const drained = (): Promise<void> => expect.poll(() => h.queue.status().messages).toBe(0);
const deferred = (count = 1): Promise<void> => expect.poll(() => h.queue.status().deferred).toBe(count);

describe('the queue', () => {
  it('delivers at once to every cluster concerned, in one transaction each', async () => {
    const id = await h.accept(['alice@isp.example', 'bob@isp.example', 'carol@isp.example']);
    await drained();
    expect(h.west.deliveries.map((entry) => entry.recipient).sort()).toEqual(['alice@isp.example', 'bob@isp.example']);
    expect(h.west.connections).toBe(1);
    expect(h.east.deliveries).toEqual([{ recipient: 'carol@isp.example', deliveryId: id }]);
    expect(h.queue.status()).toMatchObject({ delivered: 3, deferred: 0, bounced: 0 });
    expect(h.names('messages')).toEqual([]);
  });

  it('keeps a connection for the next message', async () => {
    for (let i = 0; i < 5; i += 1) {
      await h.accept(['bob@isp.example']);
      await drained();
    }
    expect(h.west.connections).toBe(1);
    expect(await h.west.texts('bob@isp.example')).toHaveLength(5);
  });

  it('opens another connection when the kept one was closed meanwhile', async () => {
    await h.accept(['bob@isp.example']);
    await drained();
    h.west.serverEnds[0]?.end();
    await h.accept(['bob@isp.example']);
    await drained();
    expect(await h.west.texts('bob@isp.example')).toHaveLength(2);
    expect(h.queue.status().deferred).toBe(0);
  });

  it('goes on at once when the member said goodbye to the kept connection', async () => {
    await h.accept(['bob@isp.example']);
    await drained();
    h.west.sessions[0]?.bye('Going down');
    await settle();
    await h.accept(['bob@isp.example']);
    await drained();
    expect(h.west.connections).toBe(2);
    expect(await h.west.texts('bob@isp.example')).toHaveLength(2);
    expect(h.queue.status().deferred).toBe(0);
  });

  it('has the message on disk before accept resolves', async () => {
    h.router.isDown = true;
    const id = await h.accept(['bob@isp.example'], { text: 'Subject: kept\n\nx\n' });
    const file = h.disk.file(`/queue/messages/${id}`).content.toString();
    expect(file).toContain('"bob@isp.example"');
    expect(file.endsWith('Subject: kept\r\n\r\nx\r\n')).toBe(true);
  });

  it('delivers after a crash what was accepted before it', async () => {
    h.router.isDown = true;
    await h.accept(['bob@isp.example', 'carol@isp.example']);
    await deferred();
    await h.queue[Symbol.asyncDispose]();
    h.router.isDown = false;
    await h.open();
    await drained();
    expect(await h.west.texts('bob@isp.example')).toHaveLength(1);
    expect(await h.east.texts('carol@isp.example')).toHaveLength(1);
  });

  it('stores once when the frontend dies between the delivery and its record', async () => {
    await h.queue[Symbol.asyncDispose]();
    h.files = h.disk.client((operation) => (operation.name === 'unlink' ? { kind: 'dies-before' } : undefined));
    await h.open();
    await h.accept(['bob@isp.example']);
    await expect.poll(() => h.west.deliveries.length).toBe(1);
    const dying = h.queue;
    const stopped = dying[Symbol.asyncDispose]();
    await h.clock.advance(1000);
    await stopped;
    h.files = h.disk.client();
    await h.open();
    await drained();
    expect(h.west.deliveries).toHaveLength(2);
    expect(await h.west.texts('bob@isp.example')).toHaveLength(1);
  });

  it('stores once when the answer of a delivery is lost', async () => {
    h.west.afterDelivery = () => {
      h.west.afterDelivery = undefined;
      h.west.serverEnds[0]?.destroy();
    };
    await h.accept(['bob@isp.example']);
    await deferred();
    await h.clock.advance(10_000);
    await drained();
    expect(h.west.deliveries).toHaveLength(2);
    expect(await h.west.texts('bob@isp.example')).toHaveLength(1);
    expect(h.queue.status().bounced).toBe(0);
  });

  it('tries again only those recipients that are not finished, also after a restart', async () => {
    h.west.failures.set('alice@isp.example', new PlatformError('STORE_UNAVAILABLE', 'storage away'));
    await h.accept(['alice@isp.example', 'bob@isp.example']);
    await deferred();
    await h.queue[Symbol.asyncDispose]();
    h.west.failures.clear();
    await h.open();
    await drained();
    expect(h.west.deliveries.map((entry) => entry.recipient)).toEqual(['bob@isp.example', 'alice@isp.example']);
    expect(h.names('progress')).toEqual([]);
  });

  it('waits longer from attempt to attempt: 1 s at first, 15 min at most', async () => {
    h.west.failures.set('bob@isp.example', new PlatformError('STORE_UNAVAILABLE', 'storage away'));
    let attempts = 0;
    h.west.checkRecipient = async () => {
      attempts += 1;
    };
    await h.accept(['bob@isp.example']);
    await deferred();
    expect(attempts).toBe(1);
    await h.clock.advance(700);
    expect(attempts).toBe(1);
    await h.clock.advance(600);
    await expect.poll(() => attempts).toBe(2);
    // Each step waits for the attempt that it caused.
    const times: number[] = [];
    for (let seen = 2; seen < 26; seen = attempts) {
      await h.clock.advance(1000);
      for (let turn = 0; turn < 20; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
      if (attempts > seen) times.push(h.clock.monotonicMs());
    }
    const gaps = times.slice(1).map((at, i) => at - (times[i] as number));
    expect(Math.max(...gaps)).toBeLessThanOrEqual(15 * 60_000 * 1.25 + 1000);
    expect(gaps.at(-1)).toBeGreaterThan(10 * 60_000);
  });

  it('follows a rename between RCPT and delivery', async () => {
    h.router.isDown = true;
    await h.accept(['bob@isp.example']);
    await deferred();
    h.router.isDown = false;
    h.router.rename('bob@isp.example', 'robert@isp.example');
    h.west.accounts.set('robert@isp.example', h.west.accounts.get('bob@isp.example') as never);
    h.west.accounts.delete('bob@isp.example');
    await h.clock.advance(10_000);
    await drained();
    expect(await h.west.texts('robert@isp.example')).toHaveLength(1);
    expect(h.queue.status().bounced).toBe(0);
  });

  it('follows a move to another cluster', async () => {
    h.west.refusals.set('bob@isp.example', new PlatformError('LINK_MOVED', 'moved'));
    await h.accept(['bob@isp.example']);
    await deferred();
    const route = h.router.routes.get('bob@isp.example');
    const east = h.router.routes.get('carol@isp.example')?.cluster;
    if (route === undefined || east === undefined) throw new Error('no route');
    route.cluster = east;
    h.east.accounts.set('bob@isp.example', h.west.accounts.get('bob@isp.example') as never);
    await h.clock.advance(10_000);
    await drained();
    expect(await h.east.texts('bob@isp.example')).toHaveLength(1);
  });

  it('takes no member’s word for it that an account does not exist', async () => {
    h.west.refusals.set('bob@isp.example', new PlatformError('ACCT_NOT_FOUND', 'not heard of yet'));
    await h.accept(['bob@isp.example']);
    await deferred();
    h.west.refusals.clear();
    await h.clock.advance(10_000);
    await drained();
    expect(h.queue.status()).toMatchObject({ delivered: 1, bounced: 0 });
  });

  it('delivers a message once to an account that was named by two addresses', async () => {
    const uuid = h.router.routes.get('bob@isp.example')?.uuid;
    const id = h.queue.newId();
    const recipients = ['bob@isp.example', 'robert@isp.example'].map((address) => ({ address, uuid }));
    await h.queue.accept({ id, sender: '', recipients, sessionId: 's', raw: Buffer.from('x\r\n') });
    await drained();
    expect(await h.west.texts('bob@isp.example')).toHaveLength(1);
    expect(h.queue.status().delivered).toBe(2);
  });

  it('refuses when it is full, and takes mail again when it is not', async () => {
    await h.queue[Symbol.asyncDispose]();
    h.limits = { messagesMax: 1, bytesMax: 1000 };
    h.router.isDown = true;
    await h.open();
    await expect(h.accept(['bob@isp.example'], { text: 'x'.repeat(1001) })).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    await h.accept(['bob@isp.example']);
    await deferred();
    await expect(h.accept(['bob@isp.example'])).rejects.toMatchObject({ code: 'QUEUE_FULL', kind: 'limit' });
    h.router.isDown = false;
    await h.clock.advance(10_000);
    await drained();
    await h.accept(['bob@isp.example']);
    await drained();
  });

  it.each([
    ['ENOSPC', 'QUEUE_FULL'],
    ['EIO', 'QUEUE_UNAVAILABLE'],
  ])('does not accept what the disk refuses with %s', async (errno, code) => {
    await h.queue[Symbol.asyncDispose]();
    await h.open();
    h.files.decideBy((operation) => (operation.name === 'syncDirectory' ? { kind: 'fails', code: errno } : undefined));
    await expect(h.accept(['bob@isp.example'])).rejects.toMatchObject({ code });
    expect(h.queue.status().messages).toBe(0);
  });

  it('puts a damaged file aside and delivers the others', async () => {
    await h.queue[Symbol.asyncDispose]();
    await h.files.writeNew('/queue/messages/garbage', [Buffer.from('not a message')]);
    await h.files.writeNew('/queue/incoming/half', [Buffer.from('{"version":1')]);
    h.router.isDown = true;
    await h.open();
    const id = await h.accept(['bob@isp.example']);
    await deferred();
    await h.queue[Symbol.asyncDispose]();
    h.disk.damage(`/queue/messages/${id}`, (content) => content.subarray(0, -3));
    h.router.isDown = false;
    await h.open();
    await h.accept(['bob@isp.example']);
    await drained();
    expect(h.names('damaged')).toEqual([id, 'garbage'].sort());
    expect(h.names('incoming')).toEqual([]);
    expect(await h.west.texts('bob@isp.example')).toHaveLength(1);
  });
});

describe('a cluster that is down', () => {
  it('holds up its own mail only', async () => {
    h.west.isDown = true;
    for (let i = 0; i < 20; i += 1) await h.accept(['bob@isp.example']);
    await h.accept(['carol@isp.example']);
    await expect.poll(() => h.east.deliveries.length).toBe(1);
    await deferred(20);
  });

  it('is not asked again for every message while it rests', async () => {
    h.west.isDown = true;
    let asked = 0;
    const open = h.west.open.bind(h.west);
    h.west.open = () => {
      asked += 1;
      return open();
    };
    for (let i = 0; i < 20; i += 1) await h.accept(['bob@isp.example']);
    await deferred(20);
    expect(asked).toBeLessThanOrEqual(8);
  });

  it('gets all its waiting mail as soon as it answers again, long before the messages’ own retries', async () => {
    h.west.isDown = true;
    for (let i = 0; i < 20; i += 1) await h.accept(['bob@isp.example']);
    await deferred(20);
    for (let minute = 0; minute < 60; minute += 1) await h.clock.advance(60_000);
    expect(h.queue.status()).toMatchObject({ messages: 20, deferred: 20 });
    h.west.isDown = false;
    const upAtMs = h.clock.monotonicMs();
    while (h.queue.status().messages > 0 && h.clock.monotonicMs() - upAtMs < 60_000) await h.clock.advance(1000);
    expect(h.queue.status().messages).toBe(0);
    expect(h.clock.monotonicMs() - upAtMs).toBeLessThanOrEqual(39_000);
    expect(await h.west.texts('bob@isp.example')).toHaveLength(20);
  });
});
