import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { type LeaseStore, valueBytesMax } from '#backend-cluster/coordination/lease-store.ts';
import { openSocketCoordinator } from '#backend-cluster/coordination/socket.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseClusterName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { openRedis, startRedis } from '../interop/redis-server.ts';

/** Doors to one coordinator, as many as a test wants. */
type Engine = (undo: AsyncDisposableStack) => Promise<() => LeaseStore>;

const engines: Record<string, Engine> = {
  embedded: async () => {
    const coordinators = createEmbeddedCoordinators();
    return () => coordinators.open(parseClusterName('west.isp.example'), systemClock);
  },
  socket: async (undo) => {
    const path = await socketPath(undo);
    return () => undo.use(openSocket(path));
  },
  redis: async (undo) => {
    const server = undo.use(await startRedis());
    return () => undo.use(openRedis(server.url));
  },
};

async function socketPath(undo: AsyncDisposableStack): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-coordinator-'));
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  return join(directory, 'west.sock');
}

function openSocket(path: string, leaseMs = 10_000): LeaseStore {
  return openSocketCoordinator({
    path,
    leaseMs,
    clock: systemClock,
    random: systemRandom,
    network: systemNetwork,
    files: nodeFiles,
    log: silentLogger,
  });
}

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error('the condition did not come true in time');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe.each(Object.keys(engines))('the %s coordinator', (name) => {
  const open = async (): Promise<() => LeaseStore> => (engines[name] as Engine)(undo);

  it('gives a lease to one holder and tells the others whose it is', async () => {
    const door = await open();
    const [a, b] = [door(), door()];
    expect(await a.take('controller', 'a', { term: 1 }, 60_000)).toEqual({ isTaken: true });
    expect(await b.take('controller', 'b', { term: 2 }, 60_000)).toEqual({
      isTaken: false,
      by: { key: 'controller', holder: 'a', value: { term: 1 } },
    });
  });

  it('gives it to exactly one of many that ask at once', async () => {
    const door = await open();
    const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => door().take('controller', `m${i}`, null, 60_000)));
    expect(answers.filter((answer) => answer.isTaken)).toHaveLength(1);
  });

  it('prolongs a lease for its holder, with a new value', async () => {
    const door = await open();
    const [a, b] = [door(), door()];
    await a.take('member/a', 'a1', { state: 'active' }, 60_000);
    expect(await a.take('member/a', 'a1', { state: 'draining' }, 60_000)).toEqual({ isTaken: true });
    expect(await b.list('member/')).toEqual([{ key: 'member/a', holder: 'a1', value: { state: 'draining' } }]);
  });

  it('lets a lease lapse that nobody prolongs', async () => {
    const door = await open();
    const [a, b] = [door(), door()];
    await a.take('controller', 'a', null, 30);
    await until(async () => (await b.take('controller', 'b', null, 60_000)).isTaken);
    expect((await a.take('controller', 'a', null, 30)).isTaken).toBe(false);
  });

  it('frees a lease for its holder only', async () => {
    const door = await open();
    const [a, b] = [door(), door()];
    await a.take('controller', 'a', null, 60_000);
    await b.release('controller', 'b');
    expect((await b.take('controller', 'b', null, 60_000)).isTaken).toBe(false);
    await a.release('controller', 'a');
    expect((await b.take('controller', 'b', null, 60_000)).isTaken).toBe(true);
  });

  it('lists by prefix and in order', async () => {
    const door = await open();
    const a = door();
    for (const key of ['member/c', 'controller', 'member/a', 'member/b']) await a.take(key, 'x', key, 60_000);
    expect((await a.list('member/')).map((lease) => lease.key)).toEqual(['member/a', 'member/b', 'member/c']);
  });

  it('refuses a value that is too large, and goes on', async () => {
    const door = await open();
    const a = door();
    await expect(a.take('controller', 'a', 'x'.repeat(valueBytesMax + 1), 60_000)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect((await a.take('controller', 'a', null, 60_000)).isTaken).toBe(true);
    expect(a.status()).toMatchObject({ ok: true });
  });
});

describe('the socket coordinator whose hosting process ends', () => {
  it('is hosted by another, and those who hold leases keep them', async () => {
    const path = await socketPath(undo);
    const host = openSocket(path);
    await host.list('');
    const [a, b] = [undo.use(openSocket(path)), undo.use(openSocket(path))];
    await a.take('controller', 'a', { term: 3 }, 60_000);
    await b.list('');
    await host[Symbol.asyncDispose]();
    // Until the holders have spoken up nothing new is given out.
    await expect(b.take('controller', 'b', null, 60_000)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(await a.take('controller', 'a', { term: 3 }, 60_000)).toEqual({ isTaken: true });
    expect(await b.take('controller', 'b', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'a' } });
  });

  it('does not wait for a holder that is known to be gone', async () => {
    const path = await socketPath(undo);
    const host = openSocket(path);
    await host.take('controller', 'gone', null, 60_000);
    const b = undo.use(openSocket(path));
    await b.list('');
    await host[Symbol.asyncDispose]();
    await b.release('controller', 'gone');
    expect(await b.take('controller', 'b', null, 60_000)).toEqual({ isTaken: true });
  });

  it('gives out what nobody has claimed once a lease has passed', async () => {
    const path = await socketPath(undo);
    const host = openSocket(path, 100);
    await host.list('');
    const b = undo.use(openSocket(path, 100));
    await host.take('controller', 'gone', null, 100);
    await b.list('');
    await host[Symbol.asyncDispose]();
    await until(async () =>
      b
        .take('controller', 'b', null, 60_000)
        .then((answer) => answer.isTaken)
        .catch(() => false),
    );
  });

  it('is hosted by another when the process is stopped: it is connected to and says nothing', async () => {
    const path = await socketPath(undo);
    const stopped = await systemNetwork.listen({ path }, (connection) => connection.handle({ data: () => {}, close: () => {} }));
    undo.defer(() => stopped.close());
    const a = undo.use(openSocket(path, 100));
    expect(await a.take('controller', 'a', null, 60_000)).toEqual({ isTaken: true });
    const b = undo.use(openSocket(path, 100));
    expect(await b.take('controller', 'b', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'a' } });
  });

  it('survives a stranger that speaks garbage', async () => {
    const path = await socketPath(undo);
    const a = undo.use(openSocket(path));
    await a.take('controller', 'a', null, 60_000);
    const stranger = await systemNetwork.connect({ path });
    const gone = new Promise<void>((resolve) => stranger.handle({ data: () => {}, close: () => resolve() }));
    stranger.write('EHLO there\n');
    await gone;
    expect(await a.list('')).toHaveLength(1);
  });
});
