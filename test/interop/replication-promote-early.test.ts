import { expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { askAuthority, readRole } from '#directory/client/authority.ts';
import { promote } from '#replication/promote.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addDomain, type TestServer } from './replication-suite.ts';

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
    backlog: () => 0,
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
