/** Members of one cluster that coordinate through a real Redis, which fails under them. Storage, link and sessions are the product's. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RunningBackend } from '#backend-cluster/member.ts';
import type { Connection } from '#common/network/network.ts';
import { Dialogue, TestCluster } from '../unit/backend-cluster/cluster/test-cluster.ts';
import { openRedis, type RedisServer, startRedis, until } from './redis-server.ts';

const leaseMs = 3_000;
let cluster: TestCluster;
let redis: RedisServer;
beforeEach(async () => {
  redis = await startRedis();
  cluster = await TestCluster.create();
});
afterEach(async () => {
  await cluster[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const start = (label: string): Promise<RunningBackend> => cluster.start(label, { leaseMs, leases: openRedis(redis.url, { leaseMs }) });

async function pair(): Promise<[RunningBackend, RunningBackend]> {
  const a = await start('back1');
  await until(() => a.status().isController);
  const b = await start('back2');
  await until(() => b.status().cluster.controller === a.name && a.status().cluster.members.length === 2);
  return [a, b];
}

/** What STAT tells of a session that is open already. */
async function stat(channel: Connection, dialogue: Dialogue): Promise<string> {
  dialogue.clear();
  channel.write('STAT\r\n');
  return (await dialogue.until(/\r\n$/)).split(' ').slice(0, 2).join(' ');
}

describe('two members that coordinate through Redis', () => {
  it('serve on while Redis is down, and have one Controller when it is back and empty', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    const bob = cluster.directory.add('bob@isp.example');
    const open = await cluster.open(b, alice);
    const dialogue = new Dialogue(open.channel as Connection);
    const term = a.status().cluster.term;

    await redis.kill();
    await until(() => [a, b].every((member) => !member.status().coordinator.ok));
    expect(a.status().coordinator).toMatchObject({ engine: 'redis', detail: expect.stringContaining('redis://') });
    // Longer than a lease: nobody is declared dead for the coordinator's silence, and the Controller leads on by its members' word.
    const downAt = a.status().cluster.members.map((member) => member.lastSeenAtMs);
    await until(() => a.status().cluster.members.every((member, index) => member.lastSeenAtMs > (downAt[index] ?? 0) + 1.5 * leaseMs));
    expect(await stat(open.channel as Connection, dialogue)).toBe('+OK 0');
    expect(await cluster.deliver(a, 'alice@isp.example', 'while Redis is down')).toMatch(/^250 /);
    // A new one is opened, or refused for now; never for good.
    const answer = (await cluster.open(a, bob)).answer;
    if (answer.outcome === 'refused') expect(answer.kind).toBe('unavailable');
    else expect(['opened', 'at']).toContain(answer.outcome);

    await redis.start();
    await until(() => [a, b].every((member) => member.status().coordinator.ok));
    await until(() => [a, b].filter((member) => member.status().isController).length === 1);
    const leader = [a, b].find((member) => member.status().isController) as RunningBackend;
    await until(() => [a, b].every((member) => member.status().cluster.controller === leader.name));
    expect(a.status().cluster.term).toBe(b.status().cluster.term);
    expect(a.status().cluster.term).toBeGreaterThanOrEqual(term);
    // The table is what it was: alice's account is still known to be open on back2.
    expect((await cluster.open(a, alice)).answer).toMatchObject({ outcome: 'at', member: b.name });
    const second = await cluster.open(b, alice);
    expect(await stat(second.channel as Connection, new Dialogue(second.channel as Connection))).toMatch(/^\+OK/);
    expect(cluster.warnings.filter((line) => line.includes('deposed'))).toEqual([]);
  });

  it('keep their Controller and its term through FLUSHALL', async () => {
    const [a, b] = await pair();
    const term = a.status().cluster.term;
    await redis.client.flushall();
    await until(async () => (await redis.client.keys('*lease:*')).length === 3);
    expect(a.status().isController).toBe(true);
    expect([a.status().cluster.term, b.status().cluster.term]).toEqual([term, term]);
  });

  it('go on when Redis hangs, and when it goes on', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    await cluster.open(b, alice);
    redis.signal('SIGSTOP');
    await until(() => [a, b].every((member) => !member.status().coordinator.ok));
    expect(await cluster.deliver(a, 'alice@isp.example', 'while Redis hangs')).toMatch(/^250 /);
    redis.signal('SIGCONT');
    await until(() => [a, b].every((member) => member.status().coordinator.ok));
    await until(() => [a, b].filter((member) => member.status().isController).length === 1);
    expect(await cluster.deliver(b, 'alice@isp.example', 'afterwards')).toMatch(/^250 /);
  });

  it('serve each other’s accounts when one of them is killed', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    const term = b.status().cluster.term;
    await cluster.open(a, alice);
    expect(await cluster.deliver(b, 'alice@isp.example', 'kept')).toMatch(/^250 /);
    await a.kill();
    let opened = await cluster.open(b, alice);
    await until(async () => {
      if (opened.answer.outcome !== 'opened') opened = await cluster.open(b, alice);
      return opened.answer.outcome === 'opened';
    });
    const dialogue = new Dialogue(opened.channel as Connection);
    expect(await stat(opened.channel as Connection, dialogue)).toBe('+OK 1');
    expect(b.status().isController).toBe(true);
    expect(b.status().cluster.term).toBeGreaterThan(term);
    const c = await start('back3');
    await until(() => c.status().cluster.controller === b.name);
  });
});
