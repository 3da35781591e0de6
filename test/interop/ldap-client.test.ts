import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAccountName, parseDomainName } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { parseClusterName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { verifyStored } from '#common/passwords/schemes.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import type { ResolvedAccess } from '#directory/client/access.ts';
import type { DirectoryChange } from '#directory/client/directory.ts';
import { followDirectory } from '#directory/client/follow.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { openDirectoryReader } from '#directory/client/lookup.ts';
import { openDirectoryWriter } from '#directory/client/write.ts';
import { Routes } from '#frontend/routing/routes.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { startDs389 } from './ds389-server.ts';
import { startOwnDirectory } from './own-directory.ts';
import type { TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger };

function accessTo(master: TestServer, others: readonly TestServer[] = []): ResolvedAccess {
  return {
    urls: [master.url, ...others.map((one) => one.url)],
    master: master.url,
    suffix: 'o=mail',
    bindDn: master.rootDn,
    password: master.rootPassword,
    timeoutMs: 3000,
  };
}

/** A cluster of the topology; our server refuses a hostServer that names none. */
async function addCluster(admin: LdapConnection, name: string): Promise<void> {
  for (const [dn, ou] of [
    ['ou=topology,o=mail', 'topology'],
    ['ou=clusters,ou=topology,o=mail', 'clusters'],
  ] as const) {
    // Our server has them from the start.
    if ((await admin.readEntry(dn, ['1.1'])) === undefined) {
      await admin.add(dn, [attribute('objectClass', 'organizationalUnit'), attribute('ou', ou)]);
    }
  }
  const attributes = [
    attribute('objectClass', 'mailCluster'),
    attribute('cn', name),
    attribute('clusterMember', `back1.${name} 127.0.0.1:4711`),
  ];
  await admin.add(`cn=${name},ou=clusters,ou=topology,o=mail`, attributes);
}

function directoryClientSuite(start: () => Promise<TestServer>, keepsCsn = true): void {
  let server: TestServer;
  const isp = parseDomainName('isp.example');

  beforeAll(async () => {
    server = await start();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  it('creates, finds, renames and removes an account', async () => {
    await using writer = openDirectoryWriter({ access: accessTo(server), ports });
    await using reader = openDirectoryReader({ access: accessTo(server), withPasswords: true, ports });
    await writer.createDomain(isp);
    await writer.createDomain(parseDomainName('other.example'));
    await using admin = await server.connect();
    await addCluster(admin, 'west.isp.example');
    await admin.modify('cn=isp.example,o=mail', [{ kind: 'add', attribute: attribute('mailDomainAlias', 'alias.example') }]);
    const name = parseAccountName('alice@isp.example');
    const made = await writer.createAccount({
      name,
      hostServer: parseClusterName('west.isp.example'),
      password: new Secret('correct horse'),
      displayName: 'Alice Ünlü',
      quotaBytes: 1_000_000,
    });
    expect(made).toMatchObject({
      name,
      hostServer: 'west.isp.example',
      quotaBytes: 1_000_000,
      displayName: 'Alice Ünlü',
      status: 'active',
    });
    await expect(writer.createAccount({ name })).rejects.toMatchObject({ code: 'DIR_EXISTS' });
    await expect(writer.createAccount({ name: parseAccountName('a@none.example') })).rejects.toMatchObject({ code: 'DIR_NOT_FOUND' });

    for (const address of ['alice@isp.example', 'alice@alias.example']) {
      const answer = await reader.findAccount(parseAccountName(address));
      expect(answer.record?.uuid).toBe(made.uuid);
      const [stored] = answer.record?.passwords.reveal() ?? [];
      expect(stored).toMatch(/^\{(ARGON2|PBKDF2-SHA512)\}/);
      expect(await verifyStored(stored as string, Buffer.from('correct horse'))).toBe(true);
    }
    expect((await reader.findAccount(parseAccountName('nobody@isp.example'), { authoritative: true })).record).toBeUndefined();
    expect(await reader.findDomain(parseDomainName('alias.example'))).toMatchObject({ name: 'isp.example' });
    expect(await reader.findDomain(parseDomainName('foreign.example'))).toBeUndefined();

    const renamed = await writer.renameAccount(made.uuid, parseAccountName('alicia@other.example'));
    expect(renamed).toMatchObject({ uuid: made.uuid, name: 'alicia@other.example', addresses: [] });
    await writer.setStatus(made.uuid, 'locked');
    expect((await reader.findAccountByUuid(made.uuid)).record).toMatchObject({ name: 'alicia@other.example', status: 'locked' });
    expect(await reader.listAccounts({ text: 'lici' }, 10)).toHaveLength(1);
    await writer.removeAccount(made.uuid);
    await expect(writer.removeAccount(made.uuid)).rejects.toMatchObject({ code: 'DIR_NOT_FOUND' });
    expect(await reader.servers()).toMatchObject([{ isMaster: true, reachable: true, lagMs: keepsCsn ? 0 : undefined }]);
  });

  it('follows additions, renames, domain renames and removals, and resumes after a restart of the server', async () => {
    const changes: DirectoryChange[] = [];
    const known = new Map<string, string>();
    await using follower = followDirectory({
      access: accessTo(server),
      withPasswords: false,
      ports,
      onChange: (change) => {
        changes.push(change);
        if (change.type === 'put') known.set(change.record.uuid, change.record.name);
        if (change.type === 'remove') known.delete(change.uuid);
      },
    });
    await follower.whenRefreshed(AbortSignal.timeout(5000));
    await using writer = openDirectoryWriter({ access: accessTo(server), ports });
    const bob = await writer.createAccount({ name: parseAccountName('bob@isp.example') });
    await expect.poll(() => known.get(bob.uuid)).toBe('bob@isp.example');
    await writer.renameAccount(bob.uuid, parseAccountName('robert@other.example'));
    await expect.poll(() => known.get(bob.uuid)).toBe('robert@other.example');
    await using admin = await server.connect();
    await admin.modifyDn({ dn: 'cn=other.example,o=mail', newRdn: 'cn=new.example', deleteOldRdn: true, newSuperior: undefined });
    await expect.poll(() => known.get(bob.uuid), { timeout: 5000 }).toBe('robert@new.example');
    await server.stop();
    await expect.poll(() => follower.status().state, { timeout: 5000 }).toBe('frozen');
    await server.start();
    await expect.poll(() => follower.status().state, { timeout: 20_000 }).toBe('following');
    expect(known.get(bob.uuid)).toBe('robert@new.example');
    await using writerAfter = openDirectoryWriter({ access: accessTo(server), ports });
    await writerAfter.removeAccount(bob.uuid);
    await expect.poll(() => known.has(bob.uuid)).toBe(false);
  });

  it('goes on to the next server, and does not believe one that was restored empty', async () => {
    await using first = await start();
    await using empty = await start();
    await using admin = await first.connect();
    await admin.add('cn=isp.example,o=mail', [attribute('objectClass', 'mailDomain'), attribute('cn', 'isp.example')]);
    for (let i = 0; i < 30; i += 1) {
      await admin.add(`uid=u${i},cn=isp.example,o=mail`, [
        attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
        attribute('uid', `u${i}`),
        attribute('cn', 'x'),
        attribute('sn', 'x'),
      ]);
    }
    let known = 0;
    await using follower = followDirectory({
      access: accessTo(first, [empty]),
      withPasswords: false,
      ports,
      onChange: (change) => {
        known += change.type === 'put' ? 1 : change.type === 'remove' ? -1 : 0;
      },
    });
    await follower.whenRefreshed(AbortSignal.timeout(5000));
    expect(known).toBe(31);
    // As frontends follow: their index is what is known.
    const routes = new Routes({ random: systemRandom, clock: systemClock });
    await using routing = followDirectory({
      access: accessTo(first, [empty]),
      withPasswords: false,
      ports,
      content: routes,
      onChange: (change) => routes.apply(change),
    });
    await routing.whenRefreshed(AbortSignal.timeout(20_000));
    expect([routes.index.accounts, routes.domains.count]).toEqual([30, 1]);
    await first.stop('SIGKILL');
    for (const each of [follower, routing]) await expect.poll(() => each.status().lastError, { timeout: 20_000 }).toContain('not believed');
    expect(known).toBe(31);
    expect([routes.index.accounts, routes.domains.count]).toEqual([30, 1]);
    await expect.poll(() => follower.status().state).toBe('frozen');
  });
}

describe('the directory client against OpenLDAP', () => {
  directoryClientSuite(() => startSlapd({ isProvider: true, sessionLog: 1000 }));
});

describe('the directory client against our server', () => {
  directoryClientSuite(() => startOwnDirectory('master'));
});

describe('the directory client against 389 Directory Server', () => {
  directoryClientSuite(() => startDs389(), false);
});
