import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { askAuthority, readRole } from '#directory/client/authority.ts';
import type { ReplicaStatus } from '#replication/client/status.ts';
import { promote } from '#replication/promote.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addDomain, replicate, type TestServer } from './replication-suite.ts';

async function lookAt(server: TestServer) {
  await using connection = await server.connect();
  return { role: await readRole(connection), look: await askAuthority(connection, { op: 'look' }) };
}

it('does not promote a replica in its first load, and neither stops the master for it nor tells the others', async () => {
  await using master = await startOwnDirectory('master');
  await using empty = await startOwnDirectory('replica');
  await using other = await startOwnDirectory('replica');
  {
    await using admin = await master.connect();
    await addDomain(admin, 'isp.example');
  }
  const access = ({ url, rootDn, rootPassword }: TestServer) => ({
    url,
    bindDn: rootDn,
    password: rootPassword,
    ca: undefined,
    timeoutMs: 5000,
  });
  const asked = {
    target: { name: 'empty', access: access(empty) },
    master: { name: 'master', access: access(master) },
    term: 2,
    withinMs: 200,
    fed: () => undefined,
    ports: systemPorts(silentLogger),
  };
  const others = [{ name: 'other', access: access(other) }];
  const before = { master: await lookAt(master), other: await lookAt(other) };
  await expect(promote({ ...asked, others, isForced: false })).rejects.toThrow('still being filled');
  expect(await lookAt(master)).toEqual(before.master);
  await master.stop();
  await expect(promote({ ...asked, others, isForced: true })).rejects.toThrow('still being filled');
  expect(await lookAt(other)).toEqual(before.other);
});

it('does not promote a replica that is stopped or refuses entries, however far it says to be, unless that is forced', async () => {
  await using master = await startOwnDirectory('master');
  await using replica = await startOwnDirectory('replica');
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-promote-'));
  try {
    await using admin = await master.connect();
    await addDomain(admin, 'isp.example');
    let status: ReplicaStatus;
    {
      await using service = await replicate(master, replica, directory);
      await expect
        .poll(async () => (await lookAt(replica)).look.contextCsn, { timeout: 20_000 })
        .toBe((await lookAt(master)).look.contextCsn);
      status = service.status().replicas[0] as ReplicaStatus;
    }
    const access = ({ url, rootDn, rootPassword }: TestServer) => ({
      url,
      bindDn: rootDn,
      password: rootPassword,
      ca: undefined,
      timeoutMs: 5000,
    });
    const promoteOne = (fed: ReplicaStatus | undefined, isForced = false) =>
      promote({
        target: { name: 'ldap-eu', access: access(replica) },
        master: { name: 'ldap-master', access: access(master) },
        others: [],
        term: 2,
        withinMs: 200,
        isForced,
        fed: () => fed,
        ports: systemPorts(silentLogger),
      });
    const before = await lookAt(master);
    const refused = { entries: 1, first: [{ uuid: 'u', dn: 'uid=alice,cn=isp.example,o=mail', reason: 'no', sinceMs: 0 }] };
    await expect(promoteOne({ ...status, state: 'stopped' })).rejects.toThrow('ldap-eu is stopped');
    await expect(promoteOne({ ...status, refused })).rejects.toThrow('refuses 1 entries, which it lacks');
    // Of another history: later than anything that came from this master.
    await expect(promoteOne({ ...status, state: 'following', contextCsn: '' })).rejects.toThrow('does not catch up');
    expect(await lookAt(master)).toEqual(before);
    const { missing } = await promoteOne({ ...status, refused }, true);
    expect(missing).toContain('uid=alice,cn=isp.example,o=mail');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
