import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import type { RunningReplication } from '#replication/main.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, rename, replicate, type TestServer } from './replication-suite.ts';

const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

async function lastCsn(server: TestServer): Promise<string> {
  await using connection = await server.connect();
  return textOf((await connection.readEntry('o=mail', ['contextCSN']))?.attributes ?? [], 'contextCSN') ?? '';
}

async function write(server: TestServer, work: (admin: LdapConnection) => Promise<unknown>): Promise<void> {
  await using admin = await server.connect();
  await work(admin);
}

describe('replication from a master that was restored from a backup', () => {
  let master: Awaited<ReturnType<typeof startOwnDirectory>>;
  let replica: TestServer;
  let directory: string;
  let service: RunningReplication;

  beforeEach(async () => {
    [master, replica] = await Promise.all([startOwnDirectory('master'), startOwnDirectory('replica')]);
    directory = await mkdtemp(join(tmpdir(), 'archipelago-backup-'));
    await write(master, async (admin) => {
      await addDomain(admin, 'isp.example');
      for (let i = 0; i < 10; i += 1) await addAccount(admin, `user${i}`);
    });
    await master.stop();
    await cp(master.dataDirectory, join(directory, 'backup'), { recursive: true });
    await master.start();
    service = await replicate(master, replica, directory);
  });

  afterEach(async () => {
    await service[Symbol.asyncDispose]();
    await Promise.all([master[Symbol.asyncDispose](), replica[Symbol.asyncDispose]()]);
    await rm(directory, { recursive: true, force: true });
  });

  const caughtUp = async (): Promise<void> => service.waitFor(await lastCsn(master), undefined, AbortSignal.timeout(20_000));

  async function restore(): Promise<void> {
    await master.stop();
    await rm(master.dataDirectory, { recursive: true });
    await cp(join(directory, 'backup'), master.dataDirectory, { recursive: true });
    await master.start();
  }

  async function loseWrites(): Promise<void> {
    await write(master, async (admin) => {
      await addAccount(admin, 'lost');
      await admin.delete(at('user3'));
      await rename(admin, at('user4'), 'uid=renamed');
    });
    await caughtUp();
  }

  it('stops with the reason, leaves the replica as it is, and follows the older state once told to', async () => {
    await loseWrites();
    const before = await exportOf(replica, true);
    await restore();
    await expect.poll(() => service.status().replicas[0]?.state, { timeout: 20_000 }).toBe('stopped');
    expect(service.status().replicas[0]?.lastError).toContain('older backup');
    expect(service.status().replicas[0]?.lastError).toContain('3 of 1');
    expect(await exportOf(replica, true)).toBe(before);
    service.resume('ldap-eu');
    await expect.poll(() => exportOf(replica, true), { timeout: 20_000 }).toBe(await exportOf(master, true));
    await expect.poll(() => service.status().replicas[0]).toMatchObject({ state: 'following', contextCsn: await lastCsn(master) });
  });

  it('stops as well when it was down meanwhile', async () => {
    await loseWrites();
    await service[Symbol.asyncDispose]();
    await restore();
    service = await replicate(master, replica, directory);
    await expect.poll(() => service.status().replicas[0]?.state, { timeout: 20_000 }).toBe('stopped');
  });

  it('goes on by itself with a backup that has everything', async () => {
    await caughtUp();
    await restore();
    await write(master, (admin) => addAccount(admin, 'next'));
    await caughtUp();
    expect(await exportOf(replica, true)).toBe(await exportOf(master, true));
  });

  it('does not take a later change for the one that its cookie names', async () => {
    await loseWrites();
    await service[Symbol.asyncDispose]();
    await restore();
    // More changes than were lost: the cookie's change number is there again, and stands for something else.
    await write(master, async (admin) => {
      for (let i = 0; i < 6; i += 1) await addAccount(admin, `new${i}`);
    });
    service = await replicate(master, replica, directory);
    await caughtUp();
    expect(await exportOf(replica, true)).toBe(await exportOf(master, true));
  });
});
