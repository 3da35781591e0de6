import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, rename, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

/** Few names and much churn, so that names change hands all the time; the replica and the service come and go in the middle. */
async function storm(master: TestServer, replica: TestServer, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-storm-'));
  await using admin = await master.connect();
  const domains = ['d0.example', 'd1.example', 'd2.example'];
  for (const domain of domains) await addDomain(admin, domain);
  let service = await replicate(master, replica, directory);
  let renames = 0;
  const uid = (): string => `u${random.integer(15)}`;
  const domain = (): string => domains[random.integer(3)] as string;
  const someone = (): string => `uid=${uid()},cn=${domain()},o=mail`;
  const change = async (): Promise<void> => {
    const dice = random.integer(20);
    if (dice < 6) await addAccount(admin, uid(), domain());
    else if (dice < 9) await admin.modify(someone(), [{ kind: 'replace', attribute: attribute('description', `${dice}`) }]);
    else if (dice < 14) await rename(admin, someone(), `uid=${uid()}`);
    else if (dice < 16) await rename(admin, someone(), `uid=${uid()}`, `cn=${domain()},o=mail`);
    else if (dice < 19) await admin.delete(someone());
    else {
      const which = random.integer(3);
      renames += 1;
      await rename(admin, `cn=${domains[which]},o=mail`, `cn=e${renames}.example`);
      domains[which] = `e${renames}.example`;
    }
  };
  const changes = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i += 1) {
      try {
        await change();
      } catch (error) {
        // A name that is taken, or that nobody has, is part of the storm.
        if (!(error instanceof PlatformError) || (error.code !== 'DIR_EXISTS' && error.code !== 'DIR_NOT_FOUND')) throw error;
      }
    }
  };
  try {
    for (let round = 0; round < 8; round += 1) {
      await changes(120);
      if (round % 3 === 0) {
        await replica.stop('SIGKILL');
        await replica.start();
      } else {
        await service[Symbol.asyncDispose]();
        if (round % 3 === 1) await changes(20);
        service = await replicate(master, replica, directory);
      }
    }
    await expect
      .poll(
        async () => {
          const status = service.status().replicas[0];
          // With so few entries a short absence replaces most of them: the operator of this test knows why.
          if (status?.state === 'stopped') service.allowDeletes('ldap-eu');
          if (status?.state !== 'following' || status.backlogChanges > 0) return status?.lastError ?? status?.state;
          const [report] = await service.verify();
          return report?.differences;
        },
        { timeout: 20_000, interval: 50 },
      )
      .toEqual([]);
  } finally {
    await service[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  }
}

describe('replication in a storm of renames with restarts in between', () => {
  it.each([1, 2])('leaves our replica equal to our master (seed %i)', async (seed) => {
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    await storm(master, replica, seed);
  });

  it.each([2, 3])('leaves our replica equal to an OpenLDAP master (seed %i)', async (seed) => {
    await using master = await startSlapd({ isProvider: true });
    await using replica = await startOwnDirectory('replica');
    await storm(master, replica, seed);
  });

  it.each([2, 3])('leaves an OpenLDAP replica equal to our master (seed %i)', async (seed) => {
    await using master = await startOwnDirectory('master');
    await using replica = await startSlapd({ withSuffix: false });
    await storm(master, replica, seed);
  });
});
