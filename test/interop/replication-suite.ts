/**
 * What replication must do between any two servers: run by the tests beside this file with OpenLDAP and with our own server in each role.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import type { Schedule } from '#common/schedule.ts';
import type { Secret } from '#common/secret.ts';
import { systemPorts } from '#common/system-ports.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import type { ReplicationConfig } from '#replication/config.ts';
import { type RunningReplication, startReplication } from '#replication/main.ts';
import { readAllEntries } from '#replication/replica.ts';

/** A directory server under test. */
export interface TestServer extends AsyncDisposable {
  readonly url: string;
  readonly rootDn: string;
  readonly rootPassword: Secret<string>;
  connect(): Promise<LdapConnection>;
  stop(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
}

const ports = () => systemPorts(silentLogger);

/** Starts the service between two servers, with its state in `directory`. */
export async function replicate(
  master: Pick<TestServer, 'url' | 'rootDn' | 'rootPassword'>,
  replica: Pick<TestServer, 'url' | 'rootDn' | 'rootPassword'>,
  directory: string,
  own: {
    readonly ports?: Partial<Ports>;
    readonly replica?: Partial<ReplicationConfig['replicas'][number]>;
    readonly service?: Partial<ReplicationConfig>;
    readonly schedule?: Schedule;
  } = {},
): Promise<RunningReplication> {
  await writeFile(join(directory, 'master.secret'), master.rootPassword.reveal());
  await writeFile(join(directory, 'replica.secret'), replica.rootPassword.reveal());
  return startReplication(
    {
      role: 'replication',
      name: 'replication.isp.example',
      suffix: 'o=mail',
      master: { url: master.url, bindDn: master.rootDn, bindPassword: { file: join(directory, 'master.secret') } },
      replicas: [
        {
          name: 'ldap-eu',
          url: replica.url,
          bindDn: replica.rootDn,
          bindPassword: { file: join(directory, 'replica.secret') },
          ...own.replica,
        },
      ],
      stateDirectory: join(directory, 'state'),
      refreshDeletesMaxPercent: 10,
      verifySchedule: '17 3 * * *',
      ...own.service,
    },
    { ...ports(), ...own.ports },
    { schedule: own.schedule ?? (() => ({ cancel: () => {} })) },
  );
}

/** Adds an account below a domain. */
export async function addAccount(connection: LdapConnection, uid: string, domain = 'isp.example'): Promise<void> {
  await connection.add(`uid=${uid},cn=${domain},o=mail`, [
    attribute('objectClass', 'top', 'person', 'organizationalPerson', 'inetOrgPerson', 'mailAccount'),
    attribute('uid', uid),
    attribute('cn', uid),
    attribute('sn', uid),
    attribute('mail', `${uid}@${domain}`),
    attribute('userPassword', '{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=='),
  ]);
}

export async function addDomain(connection: LdapConnection, domain: string): Promise<void> {
  await connection.add(`cn=${domain},o=mail`, [attribute('objectClass', 'top', 'mailDomain'), attribute('cn', domain)]);
}

export function rename(connection: LdapConnection, from: string, to: string, newSuperior?: string): Promise<unknown> {
  return connection.modifyDn({ dn: from, newRdn: to, deleteOldRdn: true, newSuperior });
}

/** A whole server as sorted LDIF, with what replication carries: user attributes, `entryUUID`, and `entryCSN` where it is kept. */
export async function exportOf(server: TestServer, withCsn: boolean): Promise<string> {
  await using connection = await server.connect();
  const entries: string[] = [];
  for await (const entry of readAllEntries(connection, 'o=mail', withCsn ? ['*', 'entryCSN'] : ['*'])) {
    const lines = entry.attributes.flatMap((one) => one.values.map((value) => `${one.type.toLowerCase()}: ${value.toString('utf8')}`));
    entries.push([`dn: ${entry.dn}`, ...lines.sort()].join('\n'));
  }
  return entries.sort().join('\n\n');
}

/** UUID to name and marks of content, of a whole server. */
async function contentOf(server: TestServer): Promise<Record<string, string>> {
  await using connection = await server.connect();
  const content: Record<string, string> = {};
  for await (const entry of readAllEntries(connection, 'o=mail', ['*'])) {
    content[entry.uuid] =
      `${entry.dn} ${textOf(entry.attributes, 'uid')} ${textOf(entry.attributes, 'mail')} ${textOf(entry.attributes, 'description')} ${textOf(entry.attributes, 'userPassword')}`;
  }
  return content;
}

async function settled(master: TestServer, replica: TestServer): Promise<void> {
  const wanted = await contentOf(master);
  await expect.poll(() => contentOf(replica), { timeout: 20_000, interval: 20 }).toEqual(wanted);
}

/** The suite. `start` makes a fresh server in that role, a master with the suffix entry, a replica empty. */
export function replicationSuite(start: (role: 'master' | 'replica') => Promise<TestServer>): void {
  let master: TestServer;
  let replica: TestServer;
  let directory: string;
  let service: RunningReplication;
  let admin: LdapConnection;

  beforeAll(async () => {
    [master, replica] = await Promise.all([start('master'), start('replica')]);
    directory = await mkdtemp(join(tmpdir(), 'archipelago-replication-'));
    admin = await master.connect();
    await addDomain(admin, 'isp.example');
    await addDomain(admin, 'other.example');
    for (let i = 0; i < 50; i += 1) await addAccount(admin, `user${i}`);
    service = await replicate(master, replica, directory);
  });

  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
    await admin?.[Symbol.asyncDispose]();
    await master?.[Symbol.asyncDispose]();
    await replica?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  it('loads an empty replica with names, UUIDs and password hashes', async () => {
    await settled(master, replica);
    await expect.poll(() => service.status().replicas[0]?.state).toBe('following');
    expect(service.status().replicas[0]?.applied.add).toBeGreaterThanOrEqual(52);
  });

  it('carries additions, changes, renames, moves and removals', async () => {
    await addAccount(admin, 'alice');
    await admin.modify('uid=alice,cn=isp.example,o=mail', [{ kind: 'add', attribute: attribute('description', 'changed') }]);
    // slapd sends an entry as it is when its turn comes: a rename met too early is part of the addition.
    await settled(master, replica);
    await rename(admin, 'uid=alice,cn=isp.example,o=mail', 'uid=alicia');
    await rename(admin, 'uid=user1,cn=isp.example,o=mail', 'uid=moved', 'cn=other.example,o=mail');
    await admin.delete('uid=user2,cn=isp.example,o=mail');
    await settled(master, replica);
    expect(service.status().replicas[0]).toMatchObject({ applied: { rename: 2, delete: 1 }, conflicts: 0 });
  });

  it('sorts out swaps, chains, and a new account under a name given up', async () => {
    const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;
    for (const uid of ['a', 'b', 'c']) await addAccount(admin, uid);
    await Promise.all([settled(master, replica)]);
    await rename(admin, at('a'), 'uid=swap');
    await rename(admin, at('b'), 'uid=a');
    await rename(admin, at('swap'), 'uid=b');
    await rename(admin, at('c'), 'uid=c2');
    await rename(admin, at('c2'), 'uid=c3');
    await addAccount(admin, 'c');
    await rename(admin, at('user3'), 'uid=USER3');
    await settled(master, replica);
  });

  it('carries the rename of a domain to its accounts', async () => {
    await rename(admin, 'cn=other.example,o=mail', 'cn=renamed.example');
    await addAccount(admin, 'late', 'renamed.example');
    await settled(master, replica);
  });

  it('catches up with what happened while the replica was down', async () => {
    await replica.stop();
    await expect.poll(() => service.status().replicas[0]?.state, { timeout: 10_000 }).toBe('retrying');
    const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;
    // A swap met as its outcome only.
    await rename(admin, at('user10'), 'uid=tmp');
    await rename(admin, at('user11'), 'uid=user10');
    await rename(admin, at('tmp'), 'uid=user11');
    await admin.delete(at('user12'));
    await addAccount(admin, 'user12');
    await replica.start();
    await settled(master, replica);
  });

  it('goes on where it was after a restart of the service', async () => {
    await service[Symbol.asyncDispose]();
    await rename(admin, 'uid=user20,cn=isp.example,o=mail', 'uid=swap');
    await rename(admin, 'uid=user21,cn=isp.example,o=mail', 'uid=user20');
    await rename(admin, 'uid=swap,cn=isp.example,o=mail', 'uid=user21');
    await admin.delete('uid=user22,cn=isp.example,o=mail');
    await addAccount(admin, 'after');
    service = await replicate(master, replica, directory);
    await settled(master, replica);
    await expect.poll(() => service.status().replicas[0]?.state, { timeout: 5000 }).toBe('following');
    // Five changes, not the whole tree.
    expect(service.status().replicas[0]?.applied.add).toBeLessThan(10);
  });

  it('goes on after a restart of the master', async () => {
    await admin[Symbol.asyncDispose]();
    await master.stop();
    await master.start();
    admin = await master.connect();
    await admin.delete('uid=user30,cn=isp.example,o=mail');
    await addAccount(admin, 'again');
    await settled(master, replica);
  });

  it('finds what was changed at the replica by hand, exactly', async () => {
    await expect.poll(() => service.status().replicas[0]?.backlogChanges).toBe(0);
    expect(await service.verify()).toMatchObject([{ replica: 'ldap-eu', differing: 0, differences: [] }]);
    await using hand = await replica.connect();
    await hand.modify('uid=user40,cn=isp.example,o=mail', [{ kind: 'replace', attribute: attribute('mail', 'wrong@isp.example') }]);
    await hand.delete('uid=user41,cn=isp.example,o=mail');
    const [report] = await service.verify();
    expect(report?.differences.map((one) => [one.kind, one.dn.split(',')[0], one.what.includes('mail')]).sort()).toEqual([
      ['different', 'uid=user40', true],
      ['missing', 'uid=user41', false],
    ]);
    await using fix = await master.connect();
    await fix.modify('uid=user40,cn=isp.example,o=mail', [{ kind: 'replace', attribute: attribute('description', 'touched') }]);
    await fix.modify('uid=user41,cn=isp.example,o=mail', [{ kind: 'replace', attribute: attribute('description', 'touched') }]);
    await settled(master, replica);
  });

  it('stops before a refresh that would empty the replica, and goes on when told to', async () => {
    await service[Symbol.asyncDispose]();
    await using empty = await start('master');
    service = await replicate(empty, replica, directory);
    await expect.poll(() => service.status().replicas[0]?.state, { timeout: 10_000 }).toBe('stopped');
    expect(service.status().replicas[0]?.lastError).toContain('would delete');
    expect(Object.keys(await contentOf(replica)).length).toBeGreaterThan(50);
    service.allowDeletes('ldap-eu');
    await settled(empty, replica);
  });
}
