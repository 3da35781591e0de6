import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { type SyncEvent, syncEvents } from '#directory/client/sync-session.ts';
import { controlOids, findControl, makeSyncRequest, readSyncDone, readSyncInfo, readSyncState, relax } from '#protocol/ldap/controls.ts';
import { filterFromText, present } from '#protocol/ldap/filter.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { accountDn, accountEntry, addFrame, domainEntry, startTestDirectory, type TestDirectory } from './test-directory.ts';

let directory: TestDirectory;
let admin: LdapConnection;

beforeEach(async () => {
  directory = await startTestDirectory();
  admin = await directory.connect();
  await addFrame(admin);
  await admin.add(accountDn('alice'), accountEntry('alice'));
});
afterEach(async () => {
  await admin[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

/** What one refreshOnly search says. */
async function refresh(connection: LdapConnection, cookie: Buffer | undefined, filter = '(objectClass=*)', reloadHint = false) {
  const search = connection.search({ baseDn: 'o=mail', filter: filterFromText(filter), attributes: ['*', '+'] }, [
    makeSyncRequest({ mode: 'refreshOnly', cookie, reloadHint }),
  ]);
  const entries: string[] = [];
  const deleted: string[] = [];
  for await (const item of search) {
    if (item.kind === 'entry') {
      expect(readSyncState(findControl(item.controls, controlOids.syncState)?.value)?.state).toBe('add');
      entries.push(item.dn);
    } else if (item.kind === 'intermediate') {
      const info = readSyncInfo(item.value);
      if (info?.kind === 'syncIdSet' && info.refreshDeletes) deleted.push(...info.uuids);
    }
  }
  const done = readSyncDone(search.done?.controls[0]?.value);
  return { entries, deleted, cookie: done?.cookie as Buffer, refreshDeletes: done?.refreshDeletes };
}

/** Follows until told to stop; events are taken one by one. */
function follow(connection: LdapConnection, cookie?: Buffer, filter = present('objectClass')) {
  const events = syncEvents(connection, { baseDn: 'o=mail', filter, attributes: ['*', '+'], cookie });
  return {
    async next(): Promise<SyncEvent> {
      return (await events.next()).value;
    },
    /** Skips to the end of the refresh. */
    async refreshed(): Promise<SyncEvent & { type: 'refreshed' }> {
      for (;;) {
        const event = (await events.next()).value;
        if (event.type === 'refreshed') return event;
      }
    },
  };
}

async function uuidOf(dn: string): Promise<string> {
  return textOf((await admin.readEntry(dn, ['entryUUID']))?.attributes ?? [], 'entryUUID') as string;
}

describe('refreshOnly', () => {
  test('gives the whole content without a cookie, and only what changed with one, deletes by UUID', async () => {
    const first = await refresh(admin, undefined);
    expect(first.entries).toContain(accountDn('alice'));
    expect(first.refreshDeletes).toBe(false);
    const nothing = await refresh(admin, first.cookie);
    expect(nothing).toMatchObject({ entries: [], deleted: [], refreshDeletes: true });

    const gone = await uuidOf(accountDn('alice'));
    await admin.add(accountDn('bob'), accountEntry('bob'));
    await admin.add(accountDn('carol'), accountEntry('carol'));
    await admin.modify(accountDn('bob'), [{ kind: 'replace', attribute: attribute('title', 'x') }]);
    await admin.modifyDn({ dn: accountDn('carol'), newRdn: 'uid=carla', deleteOldRdn: true, newSuperior: undefined });
    await admin.delete(accountDn('alice'));
    const second = await refresh(admin, first.cookie);
    expect(second.entries).toEqual([accountDn('bob'), accountDn('carla')]);
    expect(second.deleted).toEqual([gone]);
  });

  test.each([
    ['what routing asks for', ['objectClass', 'hostServer', 'mail', 'mailAlternateAddress', 'mailDomainAlias']],
    ['everything of the user', ['*']],
    ['with names and times', ['*', 'entryUUID', 'entryCSN', 'createTimestamp', 'structuralObjectClass']],
    ['what is computed as well', ['*', '+']],
    ['subtypes', ['name']],
    ['nothing', ['1.1']],
  ])('shows of every entry what a search shows: %s', async (_, attributes) => {
    const many = Array.from({ length: 300 }, (_, i) => `a${i}@isp.example`);
    const entries = [
      accountEntry('bob', attribute('mailAlternateAddress', ...many), attribute('description', 'x'.repeat(70_000))),
      accountEntry('carol', attribute('cn;lang-de', 'K\u00e4rol'), attribute('TITLE', 'a', 'b'), attribute('telephoneNumber', '+1 2')),
      [attribute('objectClass', 'InetOrgPerson', 'MAILACCOUNT'), ...accountEntry('dave').filter(({ type }) => type !== 'objectClass')],
      [attribute('objectClass', 'person'), attribute('cn', 'x'), attribute('sn', 'y')],
    ];
    for (const [i, entry] of entries.entries())
      await admin.add(i === 3 ? 'cn=x,ou=services,o=mail' : accountDn(['bob', 'carol', 'dave'][i] as string), entry);
    for (const filter of ['(objectClass=*)', '(|(objectClass=mailAccount)(objectClass=mailDomain))', '(!(objectClass=mailaccount))']) {
      const searched = await admin.searchAll({ baseDn: 'o=mail', filter: filterFromText(filter), attributes });
      const refreshed: typeof searched = [];
      const search = admin.search({ baseDn: 'o=mail', filter: filterFromText(filter), attributes }, [
        makeSyncRequest({ mode: 'refreshOnly', cookie: undefined, reloadHint: false }),
      ]);
      for await (const item of search) if (item.kind === 'entry') refreshed.push(item);
      const plain = (found: typeof searched) =>
        found.map(({ dn, attributes: shown }) => [dn, shown.map(({ type, values }) => [type, values.map(String)])]);
      expect(plain(refreshed)).toEqual(plain(searched));
      expect(refreshed.length).toBeGreaterThan(2);
      const uuids = refreshed.map(({ controls }) => readSyncState(findControl(controls, controlOids.syncState)?.value)?.uuid);
      expect(uuids).toEqual(await Promise.all(refreshed.map(({ dn }) => uuidOf(dn))));
    }
  });

  test('resumes after a restart, also from a cookie that holds only the CSN as OpenLDAP consumers send it', async () => {
    const first = await refresh(admin, undefined);
    await admin.delete(accountDn('alice'));
    await directory.restart();
    await using again = await directory.connect('replicator');
    const csn = /csn=([^,]+)/.exec(first.cookie.toString())?.[1];
    for (const cookie of [first.cookie, Buffer.from(`rid=001,csn=${csn}`)]) {
      const second = await refresh(again, cookie);
      expect(second).toMatchObject({ entries: [], refreshDeletes: true });
      expect(second.deleted.length).toBe(1);
    }
  });

  test('answers an unknown cookie with everything, or with e-syncRefreshRequired when the client hints so', async () => {
    for (const cookie of [
      'garbage',
      'rid=001,csn=20000101000000.000000Z#000000#000#000000',
      'rid=001,csn=29990101000000.000000Z#000000#000#000000',
    ]) {
      const all = await refresh(admin, Buffer.from(cookie));
      expect(all.refreshDeletes).toBe(false);
      expect(all.entries).toContain(accountDn('alice'));
      const refused = await refresh(admin, Buffer.from(cookie), undefined, true).catch((error: unknown) => resultCodeOf(error));
      expect(refused).toBe(resultCodes.syncRefreshRequired);
    }
  });

  test('names an entry as gone once it no longer matches the filter', async () => {
    const filter = '(hostServer=east.isp.example)';
    await admin.add(accountDn('mover'), accountEntry('mover', attribute('hostServer', 'east.isp.example')));
    const first = await refresh(admin, undefined, filter);
    expect(first.entries).toContain(accountDn('mover'));
    const move = [{ kind: 'replace', attribute: attribute('hostServer', 'west.isp.example') }] as const;
    await admin.modify(accountDn('mover'), move, [relax]);
    expect((await refresh(admin, first.cookie, filter)).deleted).toEqual([await uuidOf(accountDn('mover'))]);
  });

  test('is for services only', async () => {
    await admin.add(accountDn('self'), accountEntry('self', attribute('userPassword', 'p')));
    await using self = await directory.connect(accountDn('self'), 'p');
    expect(await refresh(self, undefined).catch((error: unknown) => resultCodeOf(error))).toBe(resultCodes.insufficientAccessRights);
  });
});

describe('refreshAndPersist', () => {
  test('reports add, modify, rename and delete as they happen, each with a cookie to resume from', async () => {
    await using connection = await directory.connect('frontend');
    const follower = follow(connection);
    await follower.refreshed();
    await admin.add(accountDn('dora'), accountEntry('dora'));
    const added = await follower.next();
    expect(added).toMatchObject({ type: 'entry', isAdd: true, dn: accountDn('dora') });
    const uuid = (added as { uuid: string }).uuid;
    await admin.modify(accountDn('dora'), [{ kind: 'replace', attribute: attribute('mailQuota', '5') }]);
    expect(await follower.next()).toMatchObject({ type: 'entry', isAdd: false, uuid });
    await admin.modifyDn({ dn: accountDn('dora'), newRdn: 'uid=dorothea', deleteOldRdn: true, newSuperior: undefined });
    const renamed = await follower.next();
    expect(renamed).toMatchObject({ type: 'entry', isAdd: false, uuid, dn: accountDn('dorothea') });
    await admin.delete(accountDn('dorothea'));
    expect(await follower.next()).toMatchObject({ type: 'delete', uuids: [uuid] });
    // Resuming from the rename's cookie brings the delete only.
    await using second = await directory.connect('frontend');
    const resumed = follow(second, (renamed as { cookie: Buffer }).cookie);
    const missed = await resumed.next();
    expect(missed.type === 'delete' ? [...missed.uuids] : missed).toEqual([uuid]);
    expect(await resumed.next()).toMatchObject({ type: 'refreshed', unnamedAreGone: false });
  });

  test('sends all that is below a renamed container, and only then a cookie', async () => {
    await admin.add(accountDn('bob'), accountEntry('bob'));
    await using connection = await directory.connect('replicator');
    const follower = follow(connection);
    await follower.refreshed();
    await admin.modifyDn({ dn: 'cn=isp.example,o=mail', newRdn: 'cn=new.example', deleteOldRdn: true, newSuperior: undefined });
    const events = [await follower.next(), await follower.next(), await follower.next(), await follower.next()];
    expect(events.map((event) => (event.type === 'entry' ? event.dn : event.type))).toEqual([
      'cn=new.example,o=mail',
      accountDn('alice', 'new.example'),
      accountDn('bob', 'new.example'),
      'cookie',
    ]);
    expect(events.slice(0, 3).every((event) => (event as { cookie?: Buffer }).cookie === undefined)).toBe(true);
  });

  test('counts its followers, and forgets one that hangs up', async () => {
    const connection = await directory.connect('frontend');
    await follow(connection).refreshed();
    await expect.poll(() => directory.running.status().followers).toBe(1);
    await connection[Symbol.asyncDispose]();
    await expect.poll(() => directory.running.status().followers).toBe(0);
  });

  test('sends an entry that was moved below a later container after that container', async () => {
    await admin.add('cn=late.example,o=mail', domainEntry('late.example'));
    await admin.modifyDn({ dn: accountDn('alice'), newRdn: 'uid=alice', deleteOldRdn: true, newSuperior: 'cn=late.example,o=mail' });
    const { entries } = await refresh(admin, undefined);
    expect(entries.indexOf('cn=late.example,o=mail')).toBeLessThan(entries.indexOf(accountDn('alice', 'late.example')));
    expect(entries.filter((dn) => dn === 'cn=late.example,o=mail').length).toBe(1);
  });
});

describe('a replica', () => {
  test('refers writers to the master, takes entries as they are from the replicator, and serves followers once it is filled', async () => {
    await using replica = await startTestDirectory({ mode: 'replica', master: 'ldap://master.example:389' });
    expect(replica.running.readiness()[0]?.ok).toBe(false);
    await using other = await replica.connect('admin');
    await using replicator = await replica.connect('replicator');
    const csn = (n: number): string => `20260101000000.00000${n}Z#000000#000#000000`;
    const suffix = [attribute('objectClass', 'organization'), attribute('o', 'mail'), attribute('entryCSN', csn(1))];
    await expect(other.add('o=mail', suffix)).rejects.toThrow(/referral.*master/);
    await replicator.add('o=mail', suffix, [relax]);
    expect(await refresh(other, undefined).catch((error: unknown) => resultCodeOf(error))).toBe(resultCodes.unavailable);
    // No schema of ours: a master may hold what we do not know.
    await replicator.add(
      'cn=odd,o=mail',
      [attribute('objectClass', 'strangeThing'), attribute('cn', 'odd'), attribute('colour', 'red'), attribute('entryCSN', csn(3))],
      [relax],
    );
    await replicator.modify('o=mail', [{ kind: 'replace', attribute: attribute('contextCSN', csn(2)) }], [relax]);
    expect(replica.running.status()).toMatchObject({ contextCsn: csn(2), entries: 2 });
    expect(replica.running.readiness()[0]?.ok).toBe(true);
    const follower = follow(replicator);
    await follower.refreshed();
    await other.searchAll({ baseDn: 'o=mail' });
    const writer = await replica.connect('replicator');
    await writer.modify('o=mail', [{ kind: 'replace', attribute: attribute('contextCSN', csn(4)) }], [relax]);
    const moved = await follower.next();
    expect(moved.type === 'cookie' && moved.cookie.toString()).toContain(csn(4));
    await writer[Symbol.asyncDispose]();
  });
});
