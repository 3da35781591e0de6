import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { type Attribute, attribute, textOf } from '#protocol/ldap/messages.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, exportOf, rename, replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const at = (uid: string, domain = 'isp.example'): string => `uid=${uid},cn=${domain},o=mail`;
const replace = (type: string, ...values: string[]): { kind: 'replace'; attribute: Attribute } => ({
  kind: 'replace',
  attribute: attribute(type, ...values),
});

describe('a slapd replica, of which the service knows what it holds', () => {
  let master: TestServer;
  let replica: TestServer;
  let directory: string;
  let admin: LdapConnection;

  const shadow = (): string => join(directory, 'state', 'ldap-eu.shadow.sqlite');
  const arrived = async (service: { waitFor(csn: string, replica: undefined, signal: AbortSignal): Promise<void> }): Promise<void> => {
    const csns = (await admin.readEntry('o=mail', ['contextCSN']))?.attributes ?? [];
    await service.waitFor(textOf(csns, 'contextCSN') ?? '', undefined, AbortSignal.timeout(60_000));
  };
  const same = async (): Promise<void> => expect(await exportOf(replica, false)).toBe(await exportOf(master, false));

  beforeAll(async () => {
    [master, replica] = await Promise.all([startOwnDirectory('master'), startSlapd({ withSuffix: false })]);
    directory = await mkdtemp(join(tmpdir(), 'archipelago-shadow-'));
    admin = await master.connect();
    await addDomain(admin, 'isp.example');
    for (const uid of ['a', 'b', 'c', 'd', 'e']) await addAccount(admin, uid);
  });

  afterAll(async () => {
    await admin?.[Symbol.asyncDispose]();
    await replica?.[Symbol.asyncDispose]();
    await master?.[Symbol.asyncDispose]();
    if (directory !== undefined) await rm(directory, { recursive: true, force: true });
  });

  it('gets a change without being read, and the comparison finds and repairs what was changed there by hand', async () => {
    await using service = await replicate(master, replica, directory);
    await arrived(service);
    {
      await using hand = await replica.connect();
      await hand.modify(at('a'), [replace('sn', 'by hand')]);
    }
    await admin.modify(at('a'), [replace('description', 'from the master')]);
    await arrived(service);
    {
      await using reader = await replica.connect();
      const read = (await reader.readEntry(at('a'), ['sn', 'description']))?.attributes ?? [];
      // Reading it first would have shown the other difference as well.
      expect([textOf(read, 'sn'), textOf(read, 'description')]).toEqual(['by hand', 'from the master']);
    }
    expect((await service.verify())[0]).toMatchObject({ differing: 1 });
    expect((await service.repair('ldap-eu', { isDryRun: false })).after).toMatchObject({ differing: 0 });
    await same();
  });

  it('is read where it is not as it is known to be', async () => {
    await using service = await replicate(master, replica, directory);
    await arrived(service);
    {
      await using hand = await replica.connect();
      await rename(hand, at('b'), 'uid=moved');
      await rename(hand, at('c'), 'uid=b');
      await hand.delete(at('d'));
    }
    for (const uid of ['b', 'c', 'd']) await admin.modify(at(uid), [replace('description', 'changed')]);
    await rename(admin, at('e'), 'uid=e2');
    await arrived(service);
    await same();
  });

  it('follows containers and what is below them to their new names', async () => {
    await using service = await replicate(master, replica, directory);
    await arrived(service);
    await rename(admin, 'cn=isp.example,o=mail', 'cn=new.example');
    await admin.modify(at('a', 'new.example'), [replace('description', 'below the new name')]);
    await rename(admin, at('b', 'new.example'), 'uid=b2');
    await admin.delete(at('c', 'new.example'));
    await rename(admin, 'cn=new.example,o=mail', 'cn=isp.example');
    await arrived(service);
    await same();
  });

  it('ends equal when what is known of it is of an earlier time, or lost', async () => {
    {
      await using service = await replicate(master, replica, directory);
      await arrived(service);
    }
    await copyFile(shadow(), join(directory, 'earlier.sqlite'));
    {
      await using service = await replicate(master, replica, directory);
      await admin.modify(at('a'), [replace('description', 'for a while')]);
      await rename(admin, at('d'), 'uid=d2');
      await arrived(service);
    }
    for (const suffix of ['-wal', '-shm']) await rm(`${shadow()}${suffix}`, { force: true });
    await copyFile(join(directory, 'earlier.sqlite'), shadow());
    {
      await using service = await replicate(master, replica, directory);
      await arrived(service);
      await admin.modify(at('a'), [replace('description', 'below the new name')]);
      await rename(admin, at('d2'), 'uid=d');
      await arrived(service);
      await same();
    }
    await rm(shadow(), { force: true });
    await using service = await replicate(master, replica, directory);
    await arrived(service);
    await admin.modify(at('a'), [replace('description', 'the last')]);
    await arrived(service);
    await same();
  });
});
