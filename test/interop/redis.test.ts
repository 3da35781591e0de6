/** The redis coordinator against a real Redis that fails in the ways Redis fails. The common suite is test/contracts/coordinator.test.ts. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import { systemClock } from '#common/clock.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { freePort, openRedis, type RedisServer, startRedis, until } from './redis-server.ts';

let undo = new AsyncDisposableStack();
afterEach(async () => {
  await undo.disposeAsync();
  undo = new AsyncDisposableStack();
});

const unavailable = { code: 'STORE_UNAVAILABLE', kind: 'unavailable' };

function door(server: RedisServer, options: Parameters<typeof openRedis>[1] = {}): LeaseStore {
  return undo.use(openRedis(server.url, options));
}

function isTaken(store: LeaseStore, key: string, holder: string): Promise<boolean> {
  return store.take(key, holder, null, 60_000).then(
    (answer) => answer.isTaken,
    () => false,
  );
}

describe('a Redis that is down', () => {
  it('fails every call as something temporary, and is used again once it is back', async () => {
    const server = undo.use(await startRedis());
    const a = door(server);
    await a.take('member/a', 'a', null, 60_000);
    await server.kill();
    await until(async () => !(await isTaken(a, 'member/a', 'a')));
    await expect(a.list('')).rejects.toMatchObject(unavailable);
    await expect(a.release('member/b', 'b')).rejects.toMatchObject(unavailable);
    expect(a.status()).toMatchObject({ ok: false, detail: expect.stringContaining(`redis://127.0.0.1:${server.port}: `) });
    await server.start();
    await until(() => isTaken(a, 'member/a', 'a'));
    expect(a.status()).toMatchObject({
      ok: true,
      detail: expect.stringContaining(`redis://127.0.0.1:${server.port}: master, 0 of 0 replicas in step`),
    });
  });

  it('need not be there when a member starts', async () => {
    const server = undo.use(await startRedis());
    await server.kill();
    const a = door(server);
    await expect(a.take('controller', 'a', null, 60_000)).rejects.toMatchObject(unavailable);
    await server.start();
    await until(() => isTaken(a, 'controller', 'a'));
  });

  it('is dialled by few of many calls, and queues none of them', async () => {
    const server = undo.use(await startRedis());
    const a = door(server);
    await a.take('member/a', 'a', null, 60_000);
    server.signal('SIGSTOP');
    const calls = await Promise.allSettled(Array.from({ length: 1_000 }, (_, i) => a.take(`member/${i}`, 'a', null, 60_000)));
    server.signal('SIGCONT');
    expect(calls.filter((call) => call.status === 'fulfilled')).toEqual([]);
    // What waited in the hung server's socket is answered to nobody; nothing is sent again.
    await until(() => isTaken(a, 'member/a', 'a'));
    const stats = await server.client.info('stats');
    expect(Number(/total_connections_received:(\d+)/.exec(stats)?.[1])).toBeLessThan(20);
  });
});

describe('a Redis that hangs', () => {
  it('holds up no call, neither over the connection that was there nor over a new one', async () => {
    const server = undo.use(await startRedis());
    const a = door(server);
    await a.take('member/a', 'a', null, 60_000);
    server.signal('SIGSTOP');
    // The kernel still accepts connections, so dialling succeeds and every greeting is left without an answer.
    const fresh = door(server);
    for (const store of [a, fresh, a, fresh]) await expect(store.list('')).rejects.toMatchObject(unavailable);
    expect(a.status().ok).toBe(false);
    server.signal('SIGCONT');
    await until(async () => (await isTaken(a, 'member/a', 'a')) && (await isTaken(fresh, 'member/b', 'b')));
  });

  it('does not keep a member from closing', async () => {
    const server = undo.use(await startRedis());
    const a = openRedis(server.url);
    await a.list('');
    server.signal('SIGSTOP');
    const call = a.list('').catch((error: unknown) => error);
    await a[Symbol.asyncDispose]();
    expect(await call).toMatchObject(unavailable);
    await expect(a.list('')).rejects.toMatchObject(unavailable);
  });
});

describe('a Redis that loses its memory', () => {
  const losses: Record<string, (server: RedisServer) => Promise<unknown>> = {
    'by FLUSHALL': (server) => server.client.flushall(),
    'by an empty restart': async (server) => {
      await server.kill();
      await server.start();
    },
  };

  it.each(Object.keys(losses))('%s: gives a lease to no other before its holder had the time to claim it', async (how) => {
    const server = undo.use(await startRedis());
    const [a, b] = [door(server, { leaseMs: 60_000 }), door(server, { leaseMs: 60_000 })];
    expect(await isTaken(a, 'controller', 'a')).toBe(true);
    expect(await isTaken(b, 'member/b', 'b')).toBe(true);
    await losses[how]?.(server);
    let refusal: unknown;
    await until(async () => {
      refusal = await b.take('controller', 'b', null, 60_000).catch((error: unknown) => error);
      return String(refusal).includes('memory');
    });
    expect(refusal).toMatchObject(unavailable);
    expect(b.status()).toMatchObject({ ok: true, detail: expect.stringContaining('has lost its memory') });
    await until(() => isTaken(a, 'controller', 'a'));
    expect(await b.take('controller', 'b', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'a' } });
    // What one held oneself is there again at once.
    expect(await isTaken(b, 'member/b', 'b')).toBe(true);
    expect((await a.list('')).map((lease) => lease.key)).toEqual(['controller', 'member/b']);
  });

  it('does not wait for a holder that is known to be gone', async () => {
    const server = undo.use(await startRedis());
    const [a, b] = [door(server, { leaseMs: 60_000 }), door(server, { leaseMs: 60_000 })];
    await a.take('controller', 'a', null, 60_000);
    await b.list('');
    await b.take('member/b', 'b', null, 60_000);
    await server.client.flushall();
    expect(await isTaken(b, 'controller', 'b')).toBe(false);
    await b.release('controller', 'a');
    expect(await isTaken(b, 'controller', 'b')).toBe(true);
  });

  it('gives out what nobody has claimed once a lease has passed', async () => {
    const server = undo.use(await startRedis());
    const [a, b] = [door(server, { leaseMs: 100 }), door(server, { leaseMs: 100 })];
    await a.take('controller', 'a', null, 60_000);
    await b.take('member/b', 'b', null, 60_000);
    await server.client.flushall();
    await until(() => isTaken(b, 'controller', 'b'));
    expect(await a.take('controller', 'a', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'b' } });
  });

  it('comes back with an old snapshot: who is in it counts until it is released or lapses', async () => {
    const server = undo.use(await startRedis());
    const [a, b] = [door(server), door(server)];
    await a.take('controller', 'old', null, 60_000);
    await server.client.save();
    await a.release('controller', 'old');
    expect(await isTaken(b, 'controller', 'new')).toBe(true);
    await server.kill();
    await server.start();
    await until(async () => (await b.list('').catch(() => [])).length > 0);
    expect(await b.take('controller', 'new', null, 60_000)).toMatchObject({ isTaken: false, by: { holder: 'old' } });
    await b.release('controller', 'old');
    expect(await isTaken(b, 'controller', 'new')).toBe(true);
  });
});

describe('a Redis with replicas', () => {
  async function replicated(settings: readonly string[] = []): Promise<[RedisServer, RedisServer]> {
    const master = undo.use(await startRedis(['repl-ping-replica-period 1', ...settings]));
    const replica = undo.use(await startRedis([`replicaof 127.0.0.1 ${master.port}`]));
    await until(async () => /slave0:.*state=online/.test(await master.client.info('replication')));
    return [master, replica];
  }

  it('is found to give out leases while it is cut off, when min-replicas-to-write is 0', async () => {
    const [master] = await replicated();
    const said: string[] = [];
    const log: Logger = { ...silentLogger, child: () => log, warn: (_fields, message) => void said.push(message) };
    const a = door(master, { log });
    await a.list('');
    expect(said).toEqual([expect.stringContaining('set min-replicas-to-write 1')]);
    expect(a.status().detail).toMatch(/master, 1 of 1 replicas in step; it has 1 replica and min-replicas-to-write is 0/);
  });

  it('is found in order when min-replicas-to-write is set, and says why it refuses when the replicas are gone', async () => {
    const [master, replica] = await replicated(['min-replicas-to-write 1', 'min-replicas-max-lag 10']);
    const a = door(master);
    await until(() => isTaken(a, 'controller', 'a'));
    expect(a.status().detail).toMatch(/: master, 1 of 1 replicas in step$/);
    await replica.kill();
    await until(async () => !(await isTaken(a, 'controller', 'a')));
    await expect(a.take('controller', 'a', null, 60_000)).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining('NOREPLICAS'),
    });
    expect(a.status()).toMatchObject({ ok: false, detail: expect.stringContaining('NOREPLICAS') });
    await replica.start();
    await until(() => isTaken(a, 'controller', 'a'));
  });

  it('gives the Controller’s lease only with a replica that has it; other leases without', async () => {
    const [master, replica] = await replicated();
    const a = door(master);
    await a.list('');
    replica.signal('SIGSTOP');
    await expect(a.take('controller', 'a', null, 60_000)).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining('no replica of Redis confirmed'),
    });
    expect(await isTaken(a, 'member/a', 'a')).toBe(true);
    expect((await a.list('')).map((lease) => lease.key)).toEqual(['member/a']);
    replica.signal('SIGCONT');
    await until(() => isTaken(a, 'controller', 'a'));
    expect(await replica.client.keys('*lease:controller')).toHaveLength(1);
  });

  it('is left for its new master’s address when it became a replica: it refuses, and nothing is believed to be taken', async () => {
    const [master, replica] = await replicated();
    const a = door(master);
    await until(() => isTaken(a, 'member/a', 'a'));
    await master.client.replicaof('127.0.0.1', String(replica.port));
    await expect(a.take('member/a', 'a', null, 60_000)).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining('READONLY'),
    });
    await master.client.replicaof('NO', 'ONE');
    await until(() => isTaken(a, 'member/a', 'a'));
  });
});

describe('a Redis shared with others', () => {
  it('keeps clusters apart, and leaves nothing of a lapsed lease behind', async () => {
    const server = undo.use(await startRedis());
    const [west, east] = [door(server), door(server, { cluster: 'east.isp.example' })];
    expect(await isTaken(west, 'controller', 'w')).toBe(true);
    expect(await isTaken(east, 'controller', 'e')).toBe(true);
    await west.take('member/short', 'w', null, 20);
    await until(async () => (await west.list('')).length === 1);
    const keys = await server.client.keys('*');
    expect(keys.sort()).toEqual(
      ['east', 'west'].flatMap((name) =>
        ['generation', 'index', 'lease:controller'].map((key) => `{archipelago:${name}.isp.example}:${key}`),
      ),
    );
    expect(await server.client.zrange('{archipelago:west.isp.example}:index', '0', '-1')).toEqual(['controller']);
    for (const key of keys) expect(await server.client.pttl(key)).toBeGreaterThan(0);
  });

  it('takes the password, and says when it is wrong', async () => {
    const server = undo.use(await startRedis(['requirepass right']));
    expect(await isTaken(door(server, { password: 'right' }), 'controller', 'a')).toBe(true);
    const wrong = door(server, { password: 'wrong' });
    await expect(wrong.list('')).rejects.toMatchObject({ ...unavailable, message: expect.stringContaining('WRONGPASS') });
    await expect(door(server).list('')).rejects.toMatchObject({ ...unavailable, message: expect.stringContaining('NOAUTH') });
  });

  it('needs no more rights than docs/operate/coordinator.md says', async () => {
    const server = undo.use(await startRedis());
    const page = await readFile(new URL('../../docs/operate/coordinator.md', import.meta.url), 'utf8');
    const commands = /`(eval [a-z| \n]+)`/.exec(page)?.[1]?.split(/\s+/) ?? [];
    const rights = ['on', '>right', '~{archipelago:*', '-@all', ...commands.map((command) => `+${command}`)];
    await server.client.call('ACL', 'SETUSER', 'mail', ...rights);
    const a = undo.use(openRedis(`redis://mail@127.0.0.1:${server.port}/0`, { password: 'right' }));
    expect(await isTaken(a, 'controller', 'a')).toBe(true);
    expect(await a.list('')).toHaveLength(1);
    await a.release('controller', 'a');
    await a.take('member/short', 'a', null, 1);
    await until(async () => (await a.list('')).length === 0);
    expect(await server.client.call('ACL', 'LOG')).toEqual([]);
  });

  it('is spoken to by TLS, and only when its certificate comes from the CA that was named', async () => {
    const authority = await createThrowawayCa(systemClock, systemRandom);
    const issued = await authority.issue(['127.0.0.1']);
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-redis-tls-'));
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    const [certFile, keyFile] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
    await writeFile(certFile, issued.certificate);
    await writeFile(keyFile, issued.key);
    const tlsPort = await freePort();
    undo.use(
      await startRedis([
        `tls-port ${tlsPort}`,
        `tls-cert-file ${certFile}`,
        `tls-key-file ${keyFile}`,
        'tls-auth-clients no',
        `tls-ca-cert-file ${certFile}`,
      ]),
    );
    const url = `rediss://127.0.0.1:${tlsPort}`;
    expect(await isTaken(undo.use(openRedis(url, { ca: authority.certificate })), 'controller', 'a')).toBe(true);
    const other = (await createThrowawayCa(systemClock, systemRandom)).certificate;
    await expect(undo.use(openRedis(url, { ca: other })).list('')).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringMatching(/certificate/),
    });
  });

  it('is told apart from a stranger’s data under a lease’s name', async () => {
    const server = undo.use(await startRedis());
    await server.client.set('{archipelago:west.isp.example}:lease:controller', 'hello');
    const a = door(server);
    await expect(a.take('controller', 'a', null, 60_000)).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining('remove {archipelago:west.isp.example}:lease:controller'),
    });
    expect(await isTaken(a, 'member/a', 'a')).toBe(true);
  });
});
