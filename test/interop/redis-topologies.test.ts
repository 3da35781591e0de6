/** The redis coordinator where Redis is more than one server: a fail-over by Sentinel, and a Redis Cluster. */
import { afterEach, describe, expect, it } from 'vitest';
import type { LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import { openRedis, type RedisServer, startRedis, until } from './redis-server.ts';

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

function isTaken(store: LeaseStore, key: string, holder: string): Promise<boolean> {
  return store.take(key, holder, null, 60_000).then(
    (answer) => answer.isTaken,
    () => false,
  );
}

describe('a master under Sentinel', () => {
  it('is followed to the server that replaces it', async () => {
    const master = undo.use(await startRedis());
    const replica = undo.use(await startRedis([`replicaof 127.0.0.1 ${master.port}`]));
    await until(async () => /slave0:.*state=online/.test(await master.client.info('replication')));
    const sentinel = undo.use(
      await startRedis(
        [
          `sentinel monitor mail 127.0.0.1 ${master.port} 1`,
          'sentinel down-after-milliseconds mail 500',
          'sentinel failover-timeout mail 2000',
        ],
        { sentinel: true },
      ),
    );
    // It cannot replace a master by a replica that it has not heard of.
    await until(async () => /slaves=1/.test(await sentinel.client.info('sentinel')));
    const url = `redis-sentinel://127.0.0.1:${sentinel.port}/mail`;
    const [a, b] = [undo.use(openRedis(url)), undo.use(openRedis(url))];
    await until(() => isTaken(a, 'controller', 'a'));
    expect(a.status().detail).toMatch(/^redis-sentinel:\/\/127\.0\.0\.1:\d+\/mail: master, 1 of 1 replicas in step/);
    expect(await b.take('controller', 'b', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'a' } });

    await master.kill();
    let answer: unknown;
    await until(async () => {
      answer = await b.take('controller', 'b', null, 60_000).catch(() => undefined);
      return answer !== undefined;
    });
    // A replica had it, so the fail-over did not lose it.
    expect(answer).toMatchObject({ isTaken: false, by: { holder: 'a' } });
    await until(() => isTaken(a, 'controller', 'a'));
    expect(await replica.client.keys('*lease:controller')).toHaveLength(1);
  });

  it('is not found by a name that the Sentinels do not know, and the reason is told', async () => {
    const master = undo.use(await startRedis());
    const sentinel = undo.use(await startRedis([`sentinel monitor mail 127.0.0.1 ${master.port} 1`], { sentinel: true }));
    const a = undo.use(openRedis(`redis-sentinel://127.0.0.1:${sentinel.port}/post`));
    await expect(a.list('')).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', message: expect.stringMatching(/[Ss]entinel/) });
  });
});

describe('a Redis Cluster', () => {
  async function startCluster(): Promise<RedisServer[]> {
    const settings = ['cluster-enabled yes', 'cluster-node-timeout 2000', 'cluster-require-full-coverage no'];
    const nodes: RedisServer[] = [];
    for (let index = 0; index < 3; index += 1) nodes.push(undo.use(await startRedis(settings)));
    const bounds = [0, 5461, 10_923, 16_384];
    for (const [index, { client }] of nodes.entries()) {
      await client.call('CLUSTER', 'ADDSLOTSRANGE', String(bounds[index]), String((bounds[index + 1] as number) - 1));
      await client.call('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1));
    }
    for (const { port } of nodes.slice(1)) await nodes[0]?.client.call('CLUSTER', 'MEET', '127.0.0.1', String(port));
    await until(async () => {
      const infos = await Promise.all(nodes.map(({ client }) => client.call('CLUSTER', 'INFO') as Promise<string>));
      return infos.every((info) => /cluster_state:ok/.test(info) && /cluster_known_nodes:3/.test(info) && /cluster_size:3/.test(info));
    });
    return nodes;
  }

  it('keeps all leases of a cluster on one node, and is used again when that node is back', async () => {
    const nodes = await startCluster();
    const url = `redis-cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`;
    const [a, b] = [undo.use(openRedis(url)), undo.use(openRedis(url))];
    await until(() => isTaken(a, 'controller', 'a'));
    await until(() => isTaken(b, 'member/b', 'b'));
    expect(await b.take('controller', 'b', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'a' } });
    expect((await a.list('')).map((lease) => lease.key)).toEqual(['controller', 'member/b']);
    const keys = await Promise.all(nodes.map(({ client }) => client.keys('*')));
    const owner = nodes[keys.findIndex((found) => found.length > 0)] as RedisServer;
    expect(keys.map((found) => found.length).sort()).toEqual([0, 0, 4]);

    await owner.kill();
    await expect(a.take('controller', 'a', null, 60_000)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', kind: 'unavailable' });
    await owner.start();
    await until(() => isTaken(a, 'controller', 'a'));
    expect(await b.take('controller', 'b', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'a' } });
  });
});
