import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Network } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import { readAllEntries } from '#replication/replica.ts';
import { startOwnDirectory } from './own-directory.ts';
import { startReplicationProcess } from './replication-process.ts';
import { addAccount, addDomain, exportOf, rename, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

async function addAccounts(admin: LdapConnection, prefix: string, count: number): Promise<void> {
  for (let i = 0; i < count; i += 100) {
    await Promise.all(Array.from({ length: Math.min(100, count - i) }, (_, j) => addAccount(admin, `${prefix}${i + j}`)));
  }
}

async function csnOf(admin: LdapConnection, dn: string): Promise<string> {
  return textOf((await admin.readEntry(dn, ['entryCSN']))?.attributes ?? [], 'entryCSN') ?? '';
}

async function countOf(server: TestServer): Promise<number> {
  await using connection = await server.connect();
  let count = 0;
  for await (const _entry of readAllEntries(connection, 'o=mail', ['1.1'])) count += 1;
  return count;
}

describe('a replication service and a replica that are lost for a while', () => {
  it('is killed as a process in the middle of a load, and its successor completes it', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-kill-'));
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    await using admin = await master.connect();
    try {
      await addDomain(admin, 'isp.example');
      await addAccounts(admin, 'user', 3000);
      for (const atLeast of [200, 1200]) {
        const victim = await startReplicationProcess(master, { 'ldap-eu': replica }, directory);
        try {
          await expect
            .poll(
              () => {
                if (victim.hasExited()) throw new Error(victim.describe());
                return countOf(replica);
              },
              { timeout: 30_000, interval: 10 },
            )
            .toBeGreaterThan(atLeast);
        } finally {
          await victim.kill();
        }
        await rename(admin, at(`user${atLeast}`), `uid=renamed${atLeast}`);
        await admin.delete(at(`user${atLeast + 1}`));
      }
      await using successor = await replicate(master, replica, directory);
      await successor.waitFor(await csnOf(admin, at('renamed1200')), undefined, AbortSignal.timeout(30_000));
      expect(await exportOf(replica, true)).toBe(await exportOf(master, true));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('is a slapd that is killed in the middle of a first load, over two connections, and has everything after it', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-load-'));
    await using master = await startSlapd({ isProvider: true, sessionLog: 100 });
    await using replica = await startSlapd({ withSuffix: false, isDurable: true });
    await using admin = await master.connect();
    let opened = 0;
    const network: Network = Object.create(systemNetwork, {
      connect: {
        value: async (options: Parameters<Network['connect']>[0]) => {
          const connection = await systemNetwork.connect(options);
          if (options.port === replica.port) opened += 1;
          return connection;
        },
      },
    });
    try {
      await addDomain(admin, 'isp.example');
      await addAccounts(admin, 'user', 3000);
      // Of several additions at a time slapd's contextCSN may name one that is not the last.
      await addAccount(admin, 'last');
      await using service = await replicate(master, replica, directory, { ports: { network } });
      // Its own connection, and another one for the load.
      await expect.poll(() => opened, { timeout: 60_000, interval: 1 }).toBeGreaterThanOrEqual(2);
      await replica.stop('SIGKILL');
      opened = 0;
      await replica.start();
      const isOver = (): boolean => service.status().replicas[0]?.state === 'following';
      await expect.poll(() => opened >= 2 || isOver(), { timeout: 60_000, interval: 1 }).toBe(true);
      await replica.stop('SIGKILL');
      await replica.start();
      await service.waitFor(await csnOf(admin, at('last')), undefined, AbortSignal.timeout(60_000));
      expect(await exportOf(replica, false)).toBe(await exportOf(master, false));
      expect(service.status().replicas[0]).toMatchObject({ state: 'following', refused: { entries: 0 } });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }, 240_000);

  it('carries a thousand renames that happened while the replica was down', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-renames-'));
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    await using admin = await master.connect();
    try {
      await addDomain(admin, 'isp.example');
      await addAccounts(admin, 'user', 500);
      await using service = await replicate(master, replica, directory);
      await service.waitFor(await csnOf(admin, at('user499')), undefined, AbortSignal.timeout(30_000));
      await replica.stop();
      // Everybody gets the name of the next one, twice over: each name is free only once its holder has moved.
      for (let turn = 0; turn < 2; turn += 1) {
        await rename(admin, at('user499'), 'uid=aside');
        for (let i = 498; i >= 0; i -= 1) await rename(admin, at(`user${i}`), `uid=user${i + 1}`);
        await rename(admin, at('aside'), 'uid=user0');
      }
      const csn = await csnOf(admin, at('user0'));
      await replica.start();
      await service.waitFor(csn, undefined, AbortSignal.timeout(30_000));
      expect(await exportOf(replica, true)).toBe(await exportOf(master, true));
      expect(service.status().replicas[0]).toMatchObject({ conflicts: 0, applied: { delete: 0 } });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});
