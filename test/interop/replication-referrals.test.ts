import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { manageDsaIt } from '#protocol/ldap/controls.ts';
import { attribute, textsOf } from '#protocol/ldap/messages.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addDomain, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const masters = {
  ours: () => startOwnDirectory('master'),
  slapd: () => startSlapd({ isProvider: true, sessionLog: 100 }),
} as const;
const replicas = {
  ours: () => startOwnDirectory('replica'),
  slapd: () => startSlapd({ withSuffix: false }),
} as const;

/** Where that entry says that its part of the tree is. */
async function referralOf(server: TestServer, dn: string): Promise<readonly string[]> {
  await using connection = await server.connect();
  const found = await connection.searchAll({ baseDn: 'o=mail', attributes: ['ref'] }, 100, [manageDsaIt]);
  return textsOf(found.find((one) => one.dn === dn)?.attributes ?? [], 'ref');
}

it.each([
  ['ours', 'ours'],
  ['slapd', 'slapd'],
  ['slapd', 'ours'],
  ['ours', 'slapd'],
] as const)('entries that refer elsewhere are replicated as such: %s to %s', async (from, to) => {
  await using master: TestServer = await masters[from]();
  await using replica: TestServer = await replicas[to]();
  await using admin = await master.connect();
  await addDomain(admin, 'isp.example');
  const elsewhere = (place: string) => attribute('ref', `ldap://${place}.isp.example/o=mail`);
  const add = (cn: string): Promise<unknown> => {
    const attributes = [attribute('objectClass', 'referral', 'extensibleObject'), attribute('cn', cn), elsewhere('north')];
    return admin.add(`cn=${cn},o=mail`, attributes, [manageDsaIt]);
  };
  await add('before');
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-referrals-'));
  try {
    await using service = await replicate(master, replica, directory);
    const shown = (dn: string) => expect.poll(() => referralOf(replica, dn), { timeout: 20_000, interval: 20 });
    await shown('cn=before,o=mail').toEqual(['ldap://north.isp.example/o=mail']);
    await add('later');
    await shown('cn=later,o=mail').toEqual(['ldap://north.isp.example/o=mail']);
    await admin.modify('cn=later,o=mail', [{ kind: 'replace', attribute: elsewhere('south') }], [manageDsaIt]);
    await shown('cn=later,o=mail').toEqual(['ldap://south.isp.example/o=mail']);
    const rename = { dn: 'cn=before,o=mail', newRdn: 'cn=after', deleteOldRdn: true, newSuperior: undefined };
    await admin.modifyDn(rename, [manageDsaIt]);
    await shown('cn=after,o=mail').toEqual(['ldap://north.isp.example/o=mail']);
    expect((await service.verify())[0]?.differing).toBe(0);
    await admin.delete('cn=after,o=mail', [manageDsaIt]);
    await shown('cn=after,o=mail').toEqual([]);
    expect(service.status().replicas[0]).toMatchObject({ refused: { entries: 0 }, lastError: undefined });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
