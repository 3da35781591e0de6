import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import type { Network } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type AuthorityAnswer, type AuthorityRequest, askAuthority, asOfOid } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { equal as equals } from '#protocol/ldap/filter.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { type RunningReplication, startReplication } from '#replication/main.ts';
import { adminDn, replicatorDn, startOwnDirectory } from './own-directory.ts';
import { PromotionMoments } from './promotion-moments.ts';
import { addAccount, addDomain, exportOf, type TestServer } from './replication-suite.ts';

/** A master `a`, and its replicas `b` and `c`. */
interface Site {
  readonly a: TestServer;
  readonly b: TestServer;
  readonly c: TestServer;
  readonly directory: string;
}

async function startSite(): Promise<Site> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-promotion-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const [a, b, c] = await Promise.all([startOwnDirectory('master'), startOwnDirectory('replica'), startOwnDirectory('replica')]);
  for (const server of [a, b, c]) onTestFinished(() => server[Symbol.asyncDispose]());
  await writeFile(join(directory, 'secret'), a.rootPassword.reveal());
  await using admin = await a.connect();
  await addDomain(admin, 'isp.example');
  await addAccount(admin, 'alice');
  return { a, b, c, directory };
}

/** A replication service of its own state; `a` is the master of its configuration. */
async function startService({ a, b, c, directory }: Site, name = 'one', network: Network = systemNetwork): Promise<RunningReplication> {
  const bindPassword = { file: join(directory, 'secret') };
  const access = ({ url }: TestServer) => ({ url, bindDn: replicatorDn, bindPassword });
  const service = await startReplication(
    {
      role: 'replication',
      name: `${name}.isp.example`,
      suffix: 'o=mail',
      master: { name: 'a', ...access(a) },
      replicas: [
        { name: 'b', ...access(b) },
        { name: 'c', ...access(c) },
      ],
      stateDirectory: join(directory, name),
      refreshDeletesMaxPercent: 100,
      verifySchedule: '17 3 * * *',
    },
    { ...systemPorts(silentLogger), network },
    { schedule: () => ({ cancel: () => {} }) },
  );
  onTestFinished(() => service[Symbol.asyncDispose]());
  return service;
}

async function ask(server: TestServer, request: AuthorityRequest): Promise<AuthorityAnswer> {
  await using connection = await server.connect();
  return await askAuthority(connection, request);
}

/** A connection of somebody who may write, wherever the master is. */
async function asAdmin(server: TestServer): Promise<LdapConnection> {
  const connection = await server.connect();
  await connection.bind(adminDn, server.rootPassword);
  return connection;
}

const modeOf = async (server: TestServer): Promise<string> => {
  const { mode, term } = await ask(server, { op: 'look' });
  return `${mode} ${term}`;
};

const statesOf = (service: RunningReplication): Record<string, string> =>
  Object.fromEntries(service.status().replicas.map((one) => [one.name, one.state]));

async function following(service: RunningReplication, ...names: string[]): Promise<void> {
  const wanted = Object.fromEntries(names.map((name) => [name, 'following']));
  await expect.poll(() => statesOf(service), { timeout: 20_000 }).toMatchObject(wanted);
}

/** Both replicas may become the master. */
async function filled(service: RunningReplication, { b, c }: Site): Promise<void> {
  await following(service, 'b', 'c');
  for (const server of [b, c]) await expect.poll(async () => (await ask(server, { op: 'look' })).isFilled, { timeout: 20_000 }).toBe(true);
}

async function equal(one: TestServer, ...others: TestServer[]): Promise<void> {
  for (const other of others) {
    await expect.poll(() => exportOf(other, true), { timeout: 20_000, interval: 100 }).toBe(await exportOf(one, true));
  }
}

const describes = (connection: LdapConnection, uid: string, text: string): Promise<unknown> =>
  connection.modify(`uid=${uid},cn=isp.example,o=mail`, [{ kind: 'replace', attribute: attribute('description', text) }]);

it('ends a promotion that broke off when nobody was the master any more, when it is asked for again', async () => {
  const site = await startSite();
  {
    await using service = await startService(site);
    await following(service, 'b', 'c');
    await equal(site.a, site.b, site.c);
  }
  // As far as a service comes that is killed there.
  await ask(site.a, { op: 'freeze', seconds: 60 });
  await ask(site.a, { op: 'follow', term: 2, master: site.b.url });
  const service = await startService(site);
  expect(await modeOf(site.b)).toBe('replica 1');
  const report = await service.promote('b', { isForced: false, withinMs: 5000 });
  expect(report.replica).toBe('b');
  expect(await modeOf(site.b)).toBe(`master ${report.term}`);
  await following(service, 'a', 'c');
  await using admin = await asAdmin(site.b);
  await addAccount(admin, 'later');
  await equal(site.b, site.a, site.c);
});

it('makes one master when two are promoted at once, and keeps what was answered', async () => {
  const site = await startSite();
  const [one, two] = [await startService(site, 'one'), await startService(site, 'two')];
  await following(one, 'b', 'c');
  await equal(site.a, site.b, site.c);
  await following(two, 'b', 'c');
  const results = await Promise.allSettled([
    one.promote('b', { isForced: false, withinMs: 5000 }),
    two.promote('c', { isForced: false, withinMs: 5000 }),
    one.promote('c', { isForced: false, withinMs: 5000 }),
  ]);
  const refused = results.flatMap((one) => (one.status === 'rejected' ? String(one.reason.message) : []));
  expect(refused).toHaveLength(2);
  for (const why of refused) expect(why).toMatch(/a does not stop for it|a does not hand over|by now|the master already/);
  const modes = await Promise.all([site.a, site.b, site.c].map(modeOf));
  expect(modes.filter((mode) => mode.startsWith('master'))).toHaveLength(1);
});

it('hands over only what was frozen, and still is', async () => {
  const { a, b } = await startSite();
  const { contextCsn } = await ask(a, { op: 'freeze', seconds: 60 });
  await expect(ask(a, { op: 'freeze', seconds: 60 })).rejects.toThrow('another promotion is under way');
  // As when its time is over.
  await ask(a, { op: 'thaw' });
  const late = { op: 'follow', term: 2, master: b.url, handsOver: contextCsn } as const;
  await expect(ask(a, late)).rejects.toThrow('the freeze is over, or was another one');
  {
    await using admin = await asAdmin(a);
    await addAccount(admin, 'bob');
  }
  await ask(a, { op: 'freeze', seconds: 60 });
  await expect(ask(a, late)).rejects.toThrow('the freeze is over, or was another one');
  expect(await modeOf(a)).toBe('master 1');
});

it('does not end a promotion that broke off with a server that has less than another one, or that may', async () => {
  const site = await startSite();
  {
    await using service = await startService(site);
    await filled(service, site);
  }
  {
    await using admin = await asAdmin(site.a);
    await addAccount(admin, 'bob');
  }
  await ask(site.a, { op: 'freeze', seconds: 60 });
  await ask(site.a, { op: 'follow', term: 2, master: site.b.url });
  const service = await startService(site);
  await expect.poll(() => service.status().master.lastError, { timeout: 20_000 }).toContain('no server takes writes');
  await expect(service.promote('b', { isForced: false, withinMs: 5000 })).rejects.toThrow(/has everything up to .*, and a \(.*\) more/);
  await site.c.stop();
  await expect(service.promote('a', { isForced: false, withinMs: 5000 })).rejects.toThrow(/c cannot be asked and may have more than a/);
  await site.c.start();
  await service.promote('a', { isForced: false, withinMs: 5000 });
  await following(service, 'b', 'c');
  await equal(site.a, site.b, site.c);
});

it('answers no read of a change at a superseded master before it is equal to the new one', async () => {
  const { a, b } = await startSite();
  await using reader = await asAdmin(a);
  await addAccount(reader, 'bob');
  const { contextCsn } = await ask(a, { op: 'look' });
  const asOf = { oid: asOfOid, critical: true, value: Buffer.from(`${contextCsn},20`) };
  const read = (): Promise<unknown> => reader.searchAll({ baseDn: 'o=mail', filter: equals('uid', 'bob'), attributes: ['uid'] }, 1, [asOf]);
  await read();
  await ask(a, { op: 'follow', term: 3, master: b.url });
  // Its own changes have later CSNs than some of the new master's.
  await expect(read()).rejects.toMatchObject({ code: 'DIR_BUSY' });
});

it('goes on waiting for a change when another server becomes the master', async () => {
  const site = await startSite();
  const service = await startService(site);
  await filled(service, site);
  // Of a change to come: its time is not the time of any clock here.
  const { contextCsn } = await ask(site.a, { op: 'look' });
  const late = new AbortController();
  const waiting = service.waitFor(`${Number(contextCsn.slice(0, 4)) + 1}${contextCsn.slice(4)}`, 'c', late.signal);
  const soon = service.waitFor(contextCsn.replace(/#.*/, '#000001#000#000000'), 'c', AbortSignal.timeout(30_000));
  await service.promote('b', { isForced: false, withinMs: 5000 });
  {
    await using admin = await asAdmin(site.b);
    await addAccount(admin, 'bob');
  }
  await soon;
  await equal(site.b, site.c);
  late.abort(new Error('its limit'));
  await expect(waiting).rejects.toThrow('its limit');
});

it('makes a master that comes back equal to the new one, also where it had followed that one before', async () => {
  const site = await startSite();
  const { a, b, c } = site;
  const service = await startService(site);
  await filled(service, site);
  await service.promote('b', { isForced: false, withinMs: 5000 });
  await following(service, 'a', 'c');
  {
    await using admin = await asAdmin(b);
    await addAccount(admin, 'bob');
    await addAccount(admin, 'carol');
  }
  await equal(b, a, c);
  await service.promote('a', { isForced: false, withinMs: 5000 });
  await following(service, 'b', 'c');
  await equal(a, b, c);
  await service[Symbol.asyncDispose]();
  // Nobody is given these.
  {
    await using admin = await asAdmin(a);
    await addAccount(admin, 'only-here');
    await describes(admin, 'alice', 'only here');
    await admin.delete('uid=carol,cn=isp.example,o=mail');
  }
  await a.stop();
  const again = await startService(site);
  await again.promote('b', { isForced: true, withinMs: 5000 });
  {
    await using admin = await asAdmin(b);
    await addAccount(admin, 'dave');
  }
  await a.start();
  await following(again, 'a', 'c');
  await equal(b, a, c);
});

it.each([
  ['freeze', 'a', /^whether a stops for it is not known: .*\. If it has stopped, it takes writes again after 60 s; promote b again/],
  ['follow', 'a', /^whether a has handed over is not known: .*\. Promote b again/],
  ['promote', 'b', /^whether b is the master is not known: .*\. a has handed over and takes no writes; promote b again when it answers/],
])(
  'says what is not known when a server stops before it has answered to "%s", and makes nobody the master on a guess',
  async (op, server, message) => {
    const site = await startSite();
    const moments = new PromotionMoments({ [site.a.url]: 'a', [site.b.url]: 'b', [site.c.url]: 'c' });
    const service = await startService(site, 'one', moments.network);
    await filled(service, site);
    await equal(site.a, site.b, site.c);
    const at = ['freeze a', 'follow a', 'promote b'].indexOf(`${op} ${server}`);
    const victim = server === 'a' ? site.a : site.b;
    moments.arm(at, true, () => victim.stop());
    await expect(service.promote('b', { isForced: false, withinMs: 5000 })).rejects.toThrow(message);
    await moments.struck;
    expect(moments.told.at(-1)).toBe(`${op} ${server}`);
    await victim.start();
    const modes = await Promise.all([site.a, site.b, site.c].map(modeOf));
    expect(modes.filter((mode) => mode.startsWith('master')).length).toBeLessThanOrEqual(1);
    await service.promote('b', { isForced: false, withinMs: 5000 }).catch((error: unknown) => {
      expect(error).toMatchObject({ message: 'b is the master already' });
    });
    await following(service, 'a', 'c');
    await equal(site.b, site.a, site.c);
  },
);

it('lists the servers that have more of a lost master than the one that is promoted', async () => {
  const site = await startSite();
  const { a, b, c } = site;
  {
    await using service = await startService(site);
    await filled(service, site);
    await equal(a, b, c);
  }
  await b.stop();
  {
    await using service = await startService(site);
    await using admin = await asAdmin(a);
    await addAccount(admin, 'bob');
    await equal(a, c);
    await following(service, 'c');
  }
  const { contextCsn } = await ask(c, { op: 'look' });
  await a.stop();
  await b.start();
  const service = await startService(site);
  const { missing } = await service.promote('b', { isForced: true, withinMs: 5000 });
  expect(missing).toContain(`; c (${contextCsn}) has changes of it up to a later one, which are undone there`);
  expect(missing).not.toContain('; a (');
  await following(service, 'c');
  await equal(b, c);
});

it('promotes neither of two that are forced at once, where each was told of the other one before', async () => {
  const { a, b, c } = await startSite();
  // Each has told the other’s server of its own, in the same term, and makes its own the master now.
  await ask(a, { op: 'follow', term: 2, master: b.url });
  await ask(c, { op: 'follow', term: 2, master: b.url });
  await ask(a, { op: 'follow', term: 2, master: c.url });
  await ask(b, { op: 'follow', term: 2, master: c.url });
  const claims = (server: TestServer): Promise<unknown> => ask(server, { op: 'promote', term: 3, claimed: server.url });
  const named = 'another promotion is under way: it has named';
  await expect(claims(b)).rejects.toThrow(named);
  await expect(claims(c)).rejects.toThrow(named);
});

it('lets an operator decide between two masters of one term, as two that were forced at both sides of a cut network leave them', async () => {
  const site = await startSite();
  const { a, b, c } = site;
  {
    await using service = await startService(site);
    await filled(service, site);
    await equal(a, b, c);
  }
  await a.stop();
  await ask(b, { op: 'promote', term: 3, claimed: b.url });
  await ask(c, { op: 'promote', term: 3, claimed: c.url });
  for (const [server, uid] of [
    [b, 'bob'],
    [c, 'carol'],
  ] as const) {
    await using admin = await asAdmin(server);
    await addAccount(admin, uid);
  }
  await a.start();
  const service = await startService(site);
  const ofC = (): unknown => service.status().replicas.find(({ name }) => name === 'c');
  await expect.poll(ofC, { timeout: 20_000 }).toMatchObject({ lastError: expect.stringContaining('a master of term 3 as well') });
  await expect(service.promote('b', { isForced: false, withinMs: 5000 })).rejects.toThrow(
    'c is a master of term 3 as well as b. Say --force',
  );
  const { missing } = await service.promote('b', { isForced: true, withinMs: 5000 });
  expect(missing).toMatch(/; c \(.*\) has changes of it up to a later one, which are undone there/);
  await following(service, 'a', 'c');
  await equal(b, a, c);
  expect(await exportOf(c, true)).not.toContain('carol');
});
