import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '#common/clock.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { databaseFile } from '#directory/tools/offline.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import type { RunningReplication } from '#replication/main.ts';
import { FaultProxy } from '#test/fakes/fault-proxy.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, rename, replicate, type TestServer } from './replication-suite.ts';
import { startOwnServer } from './server-process.ts';
import { startSlapd } from './slapd-server.ts';

/** Accounts of these tests, and renames of the long absence. The whole hundred thousand: `REPLICATION_RENAMES=100000 npm test ...`. */
const accounts = 300;
const renames = Number(process.env.REPLICATION_RENAMES ?? 1500);

const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;
const patience = { timeout: 60_000, interval: 50 };

/** Our clock, wrong by as much as is set. */
class WrongClock implements Clock {
  offMs = 0;
  nowMs(): number {
    return systemClock.nowMs() + this.offMs;
  }
  monotonicMs = systemClock.monotonicMs;
  after = systemClock.after;
  every = systemClock.every;
}

async function fill(admin: LdapConnection): Promise<void> {
  await addDomain(admin, 'isp.example');
  for (let i = 0; i < accounts; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => addAccount(admin, `user${i + j}`)));
}

/** Some of each kind of change; `round` makes them new ones. */
async function change(admin: LdapConnection, round: number): Promise<void> {
  for (let i = 0; i < 20; i += 1) {
    const uid = `user${(round * 31 + i * 7) % accounts}`;
    await addAccount(admin, `new${round}-${i}`);
    await admin.modify(at(`new${round}-${i}`), [{ kind: 'replace', attribute: attribute('description', `${round}`) }]);
    if (i % 4 === 0) {
      await rename(admin, at(uid), `uid=aside${round}-${i}`);
      await rename(admin, at(`new${round}-${i}`), `uid=${uid}`);
      await rename(admin, at(`aside${round}-${i}`), `uid=new${round}-${i}`);
    }
    if (i % 5 === 1) await admin.delete(at(`new${round}-${i}`));
  }
}

async function equal(master: TestServer, replica: Pick<TestServer, 'url' | 'connect'>): Promise<void> {
  const wanted = await exportOf(master, false);
  await expect.poll(() => exportOf(replica as TestServer, false), patience).toBe(wanted);
}

describe.each(['ours', 'slapd'] as const)('replication to a replica of %s under faults', (kind) => {
  let master: Awaited<ReturnType<typeof startOwnDirectory>>;
  let replica: TestServer;
  let toMaster: FaultProxy;
  let toReplica: FaultProxy;
  let directory: string;
  let service: RunningReplication;
  let admin: LdapConnection;
  let clock: WrongClock;

  const start = async (): Promise<RunningReplication> =>
    replicate({ ...master, url: toMaster.url }, { ...replica, url: toReplica.url }, directory, { ports: { clock } });
  const state = () => service.status().replicas[0];

  beforeEach(async () => {
    clock = new WrongClock();
    [master, replica] = await Promise.all([
      startOwnDirectory('master', undefined, clock),
      kind === 'ours' ? startOwnDirectory('replica') : startSlapd({ withSuffix: false }),
    ]);
    [toMaster, toReplica] = await Promise.all([FaultProxy.before(master.url), FaultProxy.before(replica.url)]);
    directory = await mkdtemp(join(tmpdir(), 'archipelago-faults-'));
    admin = await master.connect();
    await fill(admin);
    service = await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
  });

  afterEach(async () => {
    await service[Symbol.asyncDispose]();
    await admin[Symbol.asyncDispose]();
    for (const one of [toMaster, toReplica, master, replica]) await one[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  it('goes on when the network to either side is cut and comes back, again and again', async () => {
    for (let round = 0; round < 3; round += 1) {
      for (const link of [toMaster, toReplica]) {
        const changes = change(admin, round * 2 + (link === toMaster ? 0 : 1));
        link.cut();
        await changes;
        await expect.poll(() => state()?.lastError, patience).toBeDefined();
        link.heal();
      }
    }
    await equal(master, replica);
  });

  it('notices a network that swallows everything, and goes on when it is whole again', async () => {
    toReplica.silence();
    await change(admin, 1);
    await expect.poll(() => state()?.backlogChanges, patience).toBeGreaterThan(0);
    toReplica.heal();
    await equal(master, replica);
  });

  it('keeps up on a slow link', async () => {
    toReplica.slow(5, 500_000);
    toMaster.slow(5, 500_000);
    await change(admin, 1);
    await equal(master, replica);
    expect(state()?.conflicts).toBe(0);
  });

  it('compares everything when the master has lost its journal', async () => {
    await service[Symbol.asyncDispose]();
    await change(admin, 1);
    await admin[Symbol.asyncDispose]();
    await master.stop();
    const database = new DatabaseSync(join(master.dataDirectory, databaseFile));
    database.exec("INSERT OR REPLACE INTO meta SELECT 'trimmedTo', max(changeNumber) FROM journal");
    database.exec('DELETE FROM journal WHERE changeNumber < (SELECT max(changeNumber) FROM journal)');
    database.exec("INSERT OR REPLACE INTO meta SELECT 'floorCsn', value FROM meta WHERE name = 'contextCsn'");
    database.close();
    await master.start();
    admin = await master.connect();
    await change(admin, 2);
    service = await start();
    await equal(master, replica);
    await expect.poll(() => state()?.state, patience).toBe('following');
  });

  it('compares everything when the master refuses its cookie', async () => {
    await service[Symbol.asyncDispose]();
    await change(admin, 1);
    const file = join(directory, 'state', 'ldap-eu.checkpoint.json');
    const cookie = Buffer.from('rid=000,csn=20200101000000.000000Z#000000#000#000000,pos=0123456789abcdef.7').toString('base64');
    await writeFile(file, JSON.stringify({ master: toMaster.url, cookie, changes: 1, scope: '' }));
    service = await start();
    await equal(master, replica);
    await expect.poll(() => state()?.state, patience).toBe('following');
  });

  it('repeats deletions that the replica has had already, and does not take them for too many', async () => {
    const file = join(directory, 'state', 'ldap-eu.checkpoint.json');
    await service[Symbol.asyncDispose]();
    const before = await readFile(file);
    service = await start();
    for (let i = 0; i < accounts / 3; i += 1) await admin.delete(at(`user${i}`));
    await equal(master, replica);
    await service[Symbol.asyncDispose]();
    await writeFile(file, before);
    service = await start();
    await change(admin, 5);
    await equal(master, replica);
    await expect.poll(() => state()?.state, patience).toBe('following');
  });

  it('loses nothing when clocks are wrong by hours', async () => {
    for (const hours of [-5, 7, 0]) {
      clock.offMs = hours * 3_600_000;
      await admin[Symbol.asyncDispose]();
      await service[Symbol.asyncDispose]();
      await master.stop();
      await master.start();
      admin = await master.connect();
      await change(admin, hours + 10);
      service = await start();
      await change(admin, hours + 20);
      await equal(master, replica);
    }
    const csn = textOf((await admin.readEntry('o=mail', ['contextCSN']))?.attributes ?? [], 'contextCSN') ?? '';
    await service.waitFor(csn, undefined, AbortSignal.timeout(20_000));
    expect(state()?.lagMs).toBe(0);
  });

  it(`carries ${renames} renames that happened while the replica was away`, { timeout: 60_000 + renames * 20 }, async () => {
    await replica.stop();
    // Rings in which everybody gets the next one's name: each name is free only once its holder has moved.
    const ring = async (first: number): Promise<void> => {
      await rename(admin, at(`user${first + 9}`), `uid=aside${first}`);
      for (let i = 8; i >= 0; i -= 1) await rename(admin, at(`user${first + i}`), `uid=user${first + i + 1}`);
      await rename(admin, at(`aside${first}`), `uid=user${first}`);
    };
    for (let done = 0; done < renames; done += (accounts / 10) * 11) {
      await Promise.all(Array.from({ length: accounts / 10 }, (_, i) => ring(i * 10)));
    }
    await replica.start();
    await equal(master, replica);
    expect(state()).toMatchObject({ conflicts: 0, applied: { delete: 0 } });
  });
});

describe('a replica that is killed while changes arrive', () => {
  it('of ours is equal in the end, whatever of its last commits it had', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-faults-'));
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnServer('replica');
    await using admin = await master.connect();
    const alike = { ...replica, start: async () => {}, stop: async () => {} } as TestServer;
    const service = await replicate(master, alike, directory);
    try {
      await fill(admin);
      for (let round = 0; round < 3; round += 1) {
        const changes = change(admin, round);
        await replica.killAndRestart();
        await changes;
      }
      await equal(master, replica as unknown as TestServer);
      expect(await service.verify()).toMatchObject([{ differing: 0 }]);
    } finally {
      await service[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('of slapd is equal in the end', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-faults-'));
    await using master = await startSlapd({ isProvider: true, sessionLog: 1000 });
    await using replica = await startSlapd({ withSuffix: false, isDurable: true });
    await using admin = await master.connect();
    const service = await replicate(master, replica, directory);
    try {
      await fill(admin);
      for (let round = 0; round < 3; round += 1) {
        const changes = change(admin, round);
        await replica.stop('SIGKILL');
        await replica.start();
        await changes;
      }
      await equal(master, replica);
      expect(service.status().replicas[0]?.conflicts).toBe(0);
    } finally {
      await service[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  });
});
