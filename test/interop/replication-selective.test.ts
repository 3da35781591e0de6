import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, rename, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

async function region(admin: LdapConnection, uid: string, value: string): Promise<string> {
  await admin.modify(at(uid), [{ kind: 'replace', attribute: attribute('mailRegion', value) }]);
  return textOf((await admin.readEntry(at(uid), ['entryCSN']))?.attributes ?? [], 'entryCSN') ?? '';
}

async function namesOf(replica: TestServer): Promise<string[]> {
  await using connection = await replica.connect();
  const entries = await connection.searchAll({ baseDn: 'cn=isp.example,o=mail', scope: 'one', attributes: ['uid', 'userPassword'] });
  return entries.map((one) => `${textOf(one.attributes, 'uid')} ${textOf(one.attributes, 'userPassword') ?? '-'}`).sort();
}

async function regional(master: TestServer, replica: TestServer): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-selective-'));
  await using admin = await master.connect();
  await addDomain(admin, 'isp.example');
  for (const uid of ['anna', 'ben', 'carla']) await addAccount(admin, uid);
  await region(admin, 'anna', 'eu');
  await region(admin, 'ben', 'us');
  let csn = await region(admin, 'carla', 'eu');
  const eu = { filter: '(mailRegion=eu)', excludeAttributes: ['userPassword'] };
  let service = await replicate(master, replica, directory, { replica: eu });
  try {
    await service.waitFor(csn, undefined, AbortSignal.timeout(20_000));
    expect(await namesOf(replica)).toEqual(['anna -', 'carla -']);
    await region(admin, 'ben', 'eu');
    await rename(admin, at('ben'), 'uid=benno');
    csn = await region(admin, 'anna', 'us');
    await service.waitFor(csn, undefined, AbortSignal.timeout(20_000));
    expect(await namesOf(replica)).toEqual(['benno -', 'carla -']);
    expect(await service.verify()).toMatchObject([{ differing: 0 }]);
    await service[Symbol.asyncDispose]();
    // The operator changes his mind: everything, with passwords, although no CSN has changed.
    service = await replicate(master, replica, directory);
    await service.waitFor(csn, undefined, AbortSignal.timeout(20_000));
    const all = ['anna', 'benno', 'carla'].map((uid) => expect.stringMatching(new RegExp(`^${uid} .SSHA.`)));
    expect(await namesOf(replica)).toEqual(all);
    expect(await service.verify()).toMatchObject([{ differing: 0 }]);
  } finally {
    await service[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  }
}

describe('replication of a part', () => {
  it('gives our replica its region’s accounts without their passwords, and all once the operator says so', async () => {
    await using master = await startOwnDirectory('master');
    await using replica = await startOwnDirectory('replica');
    await regional(master, replica);
  });

  it('does so from OpenLDAP to OpenLDAP', async () => {
    await using master = await startSlapd({ isProvider: true, sessionLog: 100 });
    await using replica = await startSlapd({ withSuffix: false });
    await regional(master, replica);
  });
});
