import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { systemRandom } from '#common/random.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { exportLdif } from '#directory/tools/export.ts';
import { openOffline } from '#directory/tools/offline.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, rename, replicate, type TestServer } from './replication-suite.ts';
import { type Slapd, startSlapd } from './slapd-server.ts';

const accounts = 200;
const patience = { timeout: 30_000, interval: 50 };
const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

describe('an OpenLDAP replica that is filled from our master’s export', () => {
  let master: Awaited<ReturnType<typeof startOwnDirectory>>;
  let admin: LdapConnection;
  let directory: string;
  let seedLdif: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'archipelago-seed-'));
    master = await startOwnDirectory('master');
    admin = await master.connect();
    await addDomain(admin, 'isp.example');
    for (let i = 0; i < accounts; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => addAccount(admin, `user${i + j}`)));
    await admin[Symbol.asyncDispose]();
    await master.stop();
    seedLdif = join(directory, 'seed.ldif');
    const offline = openOffline({ dataDirectory: master.dataDirectory, suffix: 'o=mail' }, { clock: systemClock, random: systemRandom });
    await writeFile(seedLdif, [...exportLdif(offline.tree)].join(''));
    offline.tree.store[Symbol.dispose]();
    await master.start();
    admin = await master.connect();
    // What happens between the export and the start of the replica.
    await rename(admin, at('user1'), 'uid=renamed');
    await admin.delete(at('user2'));
    await addAccount(admin, 'late');
    await admin.modify(at('user3'), [{ kind: 'replace', attribute: attribute('description', 'changed since') }]);
  });

  afterAll(async () => {
    await admin[Symbol.asyncDispose]();
    await master[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  async function isEqual(replica: Slapd): Promise<void> {
    const wanted = await exportOf(master as TestServer, false);
    await expect.poll(() => exportOf(replica as TestServer, false), patience).toBe(wanted);
  }

  it('goes on by its own syncrepl from where the export ended', async () => {
    await using replica = await startSlapd({ seedLdif, syncrepl: master });
    await isEqual(replica);
    await addAccount(admin, 'later');
    await isEqual(replica);
  });

  it('is brought up to date by our service, which writes nothing that was in the export', async () => {
    await using replica = await startSlapd({ seedLdif });
    await using service = await replicate(master, replica, directory);
    await isEqual(replica);
    await expect.poll(() => service.status().replicas[0]?.state, patience).toBe('following');
    expect(service.status().replicas[0]?.applied.add).toBeLessThan(5);
    expect(service.status().replicas[0]?.applied.modify).toBeLessThan(10);
    await admin.delete(at('user5'));
    await isEqual(replica);
  });
});
