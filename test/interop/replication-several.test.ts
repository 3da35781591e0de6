import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import { type RunningReplication, startReplication } from '#replication/main.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, type TestServer } from './replication-suite.ts';

describe('replication to several replicas', () => {
  let master: TestServer;
  let eu: TestServer;
  let us: TestServer;
  let directory: string;
  let service: RunningReplication;
  let admin: LdapConnection;
  const metrics = createMetrics();

  beforeAll(async () => {
    [master, eu, us] = await Promise.all([startOwnDirectory('master'), startOwnDirectory('replica'), startOwnDirectory('replica')]);
    directory = await mkdtemp(join(tmpdir(), 'archipelago-replication-'));
    const secret = { file: join(directory, 'secret') };
    await writeFile(secret.file, master.rootPassword.reveal());
    admin = await master.connect();
    await addDomain(admin, 'isp.example');
    service = await startReplication(
      {
        role: 'replication',
        name: 'replication.isp.example',
        suffix: 'o=mail',
        master: { url: master.url, bindDn: master.rootDn, bindPassword: secret },
        replicas: [
          { name: 'ldap-eu', url: eu.url, bindDn: eu.rootDn, bindPassword: secret },
          { name: 'ldap-us', url: us.url, bindDn: us.rootDn, bindPassword: secret },
        ],
        stateDirectory: join(directory, 'state'),
        refreshDeletesMaxPercent: 10,
        verifySchedule: '17 3 * * *',
      },
      { clock: systemClock, random: systemRandom, network: systemNetwork, files: nodeFiles, log: silentLogger, metrics },
    );
  });

  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
    await admin?.[Symbol.asyncDispose]();
    await Promise.all([master, eu, us].map((one) => one?.[Symbol.asyncDispose]()));
    await rm(directory, { recursive: true, force: true });
  });

  async function csnOf(dn: string): Promise<string> {
    const entry = await admin.readEntry(dn, ['entryCSN']);
    return textOf(entry?.attributes ?? [], 'entryCSN') ?? '';
  }

  it('lets a writer wait until every replica has its change', async () => {
    await expect.poll(() => service.readiness().every((one) => one.ok), { timeout: 10_000 }).toBe(true);
    await addAccount(admin, 'alice');
    await service.waitFor(await csnOf('uid=alice,cn=isp.example,o=mail'), undefined, AbortSignal.timeout(5000));
    for (const replica of [eu, us]) {
      await using connection = await replica.connect();
      expect(await connection.readEntry('uid=alice,cn=isp.example,o=mail', ['1.1'])).toBeDefined();
    }
  });

  it('delays no replica for one that is down, counts what that one misses, and catches it up', async () => {
    await us.stop();
    await expect.poll(() => service.status().replicas[1]?.state, { timeout: 10_000 }).toBe('retrying');
    for (let i = 0; i < 20; i += 1) await addAccount(admin, `user${i}`);
    const last = await csnOf('uid=user19,cn=isp.example,o=mail');
    await service.waitFor(last, 'ldap-eu', AbortSignal.timeout(5000));
    await expect(service.waitFor(last, 'ldap-us', AbortSignal.timeout(50))).rejects.toBeDefined();
    expect(service.status().replicas[1]).toMatchObject({ backlogChanges: 20, lastError: expect.any(String) });
    expect(service.status().replicas[1]?.lagMs).toBeGreaterThan(0);
    expect(await metrics.render()).toMatch(/archipelago_replication_backlog_changes\{replica="ldap-us"\} 20/);
    await us.start();
    await service.waitFor(last, 'ldap-us', AbortSignal.timeout(10_000));
    expect(await service.verify()).toMatchObject([{ differing: 0 }, { differing: 0 }]);
  });

  it('says at the replica as of which change it is current', async () => {
    await admin.modify('uid=user1,cn=isp.example,o=mail', [{ kind: 'replace', attribute: attribute('description', 'x') }]);
    const csn = await csnOf('uid=user1,cn=isp.example,o=mail');
    await using connection = await eu.connect();
    const contextCsn = async (): Promise<string> =>
      textOf((await connection.readEntry('o=mail', ['contextCSN']))?.attributes ?? [], 'contextCSN') ?? '';
    await expect.poll(contextCsn).toBe(csn);
    expect(service.status()).toMatchObject({ master: { state: 'connected', contextCsn: csn } });
  });

  it('replaces an entry that a replica has of its own under a name of the master, and counts the conflict', async () => {
    await using hand = await eu.connect();
    await hand.add('uid=new,cn=isp.example,o=mail', [
      attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
      attribute('uid', 'new'),
      attribute('cn', 'by hand'),
      attribute('sn', 'by hand'),
    ]);
    await addAccount(admin, 'new');
    await service.waitFor(await csnOf('uid=new,cn=isp.example,o=mail'), undefined, AbortSignal.timeout(5000));
    expect(service.status().replicas[0]?.conflicts).toBe(1);
    expect(await service.verify('ldap-eu')).toMatchObject([{ differing: 0 }]);
  });
  it('lists what was changed at a replica by hand, says what it would do, and makes it the master’s', async () => {
    await using hand = await us.connect();
    await hand.add('uid=stranger,cn=isp.example,o=mail', [
      attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
      attribute('uid', 'stranger'),
      attribute('cn', 'by hand'),
      attribute('sn', 'by hand'),
    ]);
    await hand.modify('uid=user2,cn=isp.example,o=mail', [{ kind: 'replace', attribute: attribute('mail', 'x@isp.example') }]);
    await hand.modifyDn({ dn: 'uid=user3,cn=isp.example,o=mail', newRdn: 'uid=elsewhere', deleteOldRdn: true, newSuperior: undefined });
    await hand.delete('uid=user4,cn=isp.example,o=mail');
    const { before } = await service.repair('ldap-us', { isDryRun: true });
    expect(before.differences.map((one) => [one.kind, one.dn.split(',')[0]]).sort()).toEqual([
      ['different', 'uid=user2'],
      ['different', 'uid=user3'],
      ['extra', 'uid=stranger'],
      ['missing', 'uid=user4'],
    ]);
    expect(await service.verify('ldap-us')).toMatchObject([{ differing: 4 }]);
    expect(await service.repair('ldap-us', { isDryRun: false })).toMatchObject({ before: { differing: 4 }, after: { differing: 0 } });
    expect(await exportOf(us, true)).toBe(await exportOf(master, true));
  });
});
