import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { askAuthority } from '#directory/client/authority.ts';
import { csnOfCookie } from '#replication/checkpoint.ts';
import type { RunningReplication } from '#replication/main.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, replicate, type TestServer } from './replication-suite.ts';

async function equal(one: TestServer, other: TestServer): Promise<void> {
  await expect.poll(() => exportOf(other, true), { timeout: 20_000, interval: 100 }).toBe(await exportOf(one, true));
}

/** Resolves once the service has stored how far the replica is, in its own file or at the replica. */
async function stored(service: RunningReplication, replica: TestServer, directory: string): Promise<void> {
  const csn = await service.masterCsn();
  const checkpoint = async (): Promise<string | undefined> => {
    await using connection = await replica.connect();
    const { kept } = await askAuthority(connection, { op: 'look' });
    const text = kept.checkpoint ?? (await readFile(join(directory, 'state/ldap-eu.checkpoint.json'), 'utf8').catch(() => '{}'));
    return csnOfCookie(Buffer.from((JSON.parse(text) as { cookie?: string }).cookie ?? '', 'base64'));
  };
  await expect.poll(checkpoint, { timeout: 20_000 }).toBe(csn);
}

it.each([
  { what: 'from an older copy', runs: true, leaseMs: undefined },
  { what: 'from an older copy', runs: false, leaseMs: undefined },
  { what: 'from an older copy', runs: true, leaseMs: 500 },
  { what: 'from an older copy', runs: false, leaseMs: 500 },
  { what: 'empty', runs: true, leaseMs: undefined },
  { what: 'empty', runs: false, leaseMs: undefined },
])(
  'makes a replica that comes back $what equal to the master; the service runs meanwhile: $runs, its lease: $leaseMs',
  async ({ what, runs, leaseMs }) => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-restored-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    await using admin = await master.connect();
    await addDomain(admin, 'isp.example');
    await addAccount(admin, 'alice');
    await addAccount(admin, 'bob');
    const start = (): Promise<RunningReplication> =>
      replicate(master, replica, directory, { service: leaseMs === undefined ? {} : { leaseMs } });
    let service = await start();
    try {
      await stored(service, replica, directory);
      await replica.stop();
      await cp(replica.dataDirectory, join(directory, 'copy'), { recursive: true });
      await replica.start();
      await addAccount(admin, 'carol');
      await admin.delete('uid=alice,cn=isp.example,o=mail');
      await stored(service, replica, directory);
      if (!runs) await service[Symbol.asyncDispose]();
      await replica.stop();
      await rm(replica.dataDirectory, { recursive: true });
      if (what === 'from an older copy') await cp(join(directory, 'copy'), replica.dataDirectory, { recursive: true });
      await replica.start();
      if (!runs) service = await start();
      await addAccount(admin, 'dave');
      await equal(master, replica);
    } finally {
      await service[Symbol.asyncDispose]();
    }
  },
);
