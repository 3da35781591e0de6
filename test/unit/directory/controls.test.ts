import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { controlOids, findControl, makeAssertion, makePagedResults, readPagedResults } from '#protocol/ldap/controls.ts';
import { equal, filterFromText } from '#protocol/ldap/filter.ts';
import { attribute, type Control, extendedOids, textOf } from '#protocol/ldap/messages.ts';
import { resultCodes, resultName } from '#protocol/ldap/result-codes.ts';
import { makeCancel, makeSortRequest, readSortResponse, type SortKey } from '#protocol/ldap/sort.ts';
import { accountDn, accountEntry, addFrame, domainEntry, identityDn, startTestDirectory, type TestDirectory } from './test-directory.ts';

let directory: TestDirectory;
let admin: LdapConnection;

beforeAll(async () => {
  directory = await startTestDirectory();
  admin = await directory.connect();
  await addFrame(admin);
  const quotas: [string, string | undefined][] = [
    ['carol', '9'],
    ['alice', '10'],
    ['bob', undefined],
    ['dora', '0'],
  ];
  for (const [uid, quota] of quotas) {
    await admin.add(accountDn(uid), accountEntry(uid, ...(quota === undefined ? [] : [attribute('mailQuota', quota)])));
  }
});
afterAll(async () => {
  await admin[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

async function outcome(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'success',
    (error: unknown) => resultName(resultCodeOf(error) ?? -1),
  );
}

const accounts = { baseDn: 'cn=isp.example,o=mail', scope: 'one', filter: filterFromText('(uid=*)'), attributes: ['uid'] } as const;

async function sorted(keys: readonly SortKey[], more: readonly Control[] = []) {
  const search = admin.search(accounts, [makeSortRequest(keys, true), ...more]);
  const names: (string | undefined)[] = [];
  for await (const item of search) if (item.kind === 'entry') names.push(textOf(item.attributes, 'uid'));
  const controls = search.done?.controls ?? [];
  return { names, controls, result: readSortResponse(findControl(controls, controlOids.serverSideSortResponse)?.value) };
}

const key = (name: string, reverse = false, rule?: string): SortKey => ({ attribute: name, reverse, rule });

describe('the assertion control (RFC 4528)', () => {
  test('is about the base of a search', async () => {
    const holds = makeAssertion(equal('cn', 'isp.example'));
    const fails = makeAssertion(equal('cn', 'other.example'));
    expect((await admin.searchAll(accounts, 10, [holds])).length).toBe(4);
    expect(await outcome(admin.searchAll(accounts, 10, [fails]))).toBe('assertionFailed');
  });
});

describe('server-side sort (RFC 2891)', () => {
  test('orders text as text and integers as integers, what is missing last, and in reverse first', async () => {
    expect(await sorted([key('uid')])).toMatchObject({ names: ['alice', 'bob', 'carol', 'dora'], result: 0 });
    expect((await sorted([key('mailQuota')])).names).toEqual(['dora', 'carol', 'alice', 'bob']);
    expect((await sorted([key('mailQuota', true)])).names).toEqual(['bob', 'alice', 'carol', 'dora']);
    expect((await sorted([key('cn', true, 'caseIgnoreOrderingMatch')])).names).toEqual(['dora', 'carol', 'bob', 'alice']);
  });

  test('goes with paged results', async () => {
    const names: (string | undefined)[] = [];
    let cookie: Buffer = Buffer.alloc(0);
    do {
      const page = await sorted([key('uid', true)], [makePagedResults({ size: 3, cookie })]);
      expect(page.names.length).toBeLessThanOrEqual(3);
      names.push(...page.names);
      cookie = readPagedResults(findControl(page.controls, controlOids.pagedResults)?.value)?.cookie ?? Buffer.alloc(0);
    } while (cookie.length > 0);
    expect(names).toEqual(['dora', 'carol', 'bob', 'alice']);
  });

  test('fails when it is critical and cannot be done, else says so and gives what there is', async () => {
    expect(await outcome(admin.searchAll(accounts, 10, [makeSortRequest([key('noSuch')], true)]))).toBe('unavailableCriticalExtension');
    const search = admin.search(accounts, [makeSortRequest([key('jpegPhoto')], false)]);
    let count = 0;
    for await (const _item of search) count += 1;
    expect(count).toBe(4);
    const controls = search.done?.controls ?? [];
    expect(readSortResponse(findControl(controls, controlOids.serverSideSortResponse)?.value)).toBe(resultCodes.inappropriateMatching);
  });

  test('does not sort by what may not be read', async () => {
    await using frontend = await directory.connect('frontend');
    expect(await outcome(frontend.searchAll(accounts, 10, [makeSortRequest([key('userPassword')], true)]))).toBe(
      'unavailableCriticalExtension',
    );
  });
});

describe('tree delete', () => {
  const treeDelete: Control = { oid: controlOids.treeDelete, critical: true, value: undefined };

  test('removes an entry with all below it, and nothing else', async () => {
    await admin.add('cn=gone.example,o=mail', domainEntry('gone.example'));
    for (const uid of ['a', 'b']) await admin.add(accountDn(uid, 'gone.example'), accountEntry(uid));
    const before = directory.running.status();
    expect(await outcome(admin.delete('cn=gone.example,o=mail'))).toBe('notAllowedOnNonLeaf');
    await admin.delete('cn=gone.example,o=mail', [treeDelete]);
    const after = directory.running.status();
    expect([before.entries - after.entries, before.accounts - after.accounts]).toEqual([3, 2]);
    expect(after.lastChangeNumber - before.lastChangeNumber).toBe(3);
    expect(await admin.readEntry('cn=gone.example,o=mail', ['cn'])).toBeUndefined();
  });

  test('removes nothing when one entry below may not be removed', async () => {
    await using provisioner = await directory.connect('provisioner');
    await admin.add('cn=kept.example,o=mail', domainEntry('kept.example'));
    await admin.add('ou=staff,cn=kept.example,o=mail', [attribute('objectClass', 'organizationalUnit'), attribute('ou', 'staff')]);
    await admin.add(accountDn('a', 'kept.example'), accountEntry('a'));
    expect(await outcome(provisioner.delete('cn=kept.example,o=mail', [treeDelete]))).toBe('insufficientAccessRights');
    expect(await admin.readEntry(accountDn('a', 'kept.example'), ['uid'])).toBeDefined();
    expect(await outcome(admin.delete('ou=clusters,ou=topology,o=mail', [treeDelete]))).toBe('unwillingToPerform');
    expect(await admin.readEntry('cn=west.isp.example,ou=clusters,ou=topology,o=mail', ['cn'])).toBeDefined();
    await admin.delete('cn=kept.example,o=mail', [treeDelete]);
  });
});

describe('proxied authorization (RFC 4370)', () => {
  const as = (identity: string, critical = true): Control[] => [
    { oid: controlOids.proxiedAuthorization, critical, value: Buffer.from(identity) },
  ];
  const read = { baseDn: accountDn('alice'), scope: 'base', filter: filterFromText('(objectClass=*)'), attributes: ['uid'] } as const;

  test('lets the right admin act with the rights of another, by DN and by name', async () => {
    expect(await admin.searchAll(read, 10, as('u:alice@isp.example'))).toHaveLength(1);
    expect(await outcome(admin.searchAll({ ...read, baseDn: accountDn('bob') }, 10, as(`dn:${accountDn('alice')}`)))).toBe('noSuchObject');
    expect(await outcome(admin.delete(accountDn('bob'), as(`dn:${identityDn('frontend')}`)))).toBe('insufficientAccessRights');
    expect(await outcome(admin.searchAll(read, 10, as('')))).toBe('noSuchObject');
  });

  test('is denied to all others, for names of nobody, and when it is not critical', async () => {
    await using provisioner = await directory.connect('provisioner');
    expect(await outcome(provisioner.searchAll(read, 10, as('u:alice@isp.example')))).toBe('authorizationDenied');
    expect(await outcome(admin.searchAll(read, 10, as('u:nobody@isp.example')))).toBe('authorizationDenied');
    expect(await outcome(admin.searchAll(read, 10, as('alice')))).toBe('authorizationDenied');
    expect(await outcome(admin.searchAll(read, 10, as('u:alice@isp.example', false)))).toBe('protocolError');
  });
});

describe('cancel (RFC 3909)', () => {
  test('says when there is no such operation, and when the request is malformed', async () => {
    expect(await outcome(admin.extended(extendedOids.cancel, makeCancel(77_777)))).toBe('noSuchOperation');
    expect(await outcome(admin.extended(extendedOids.cancel))).toBe('protocolError');
  });
});

test('the root DSE names these controls and the extended operation', async () => {
  const rootDse = await admin.readEntry('', ['+']);
  const listed = rootDse?.attributes.flatMap(({ values }) => values.map(String)) ?? [];
  for (const name of ['serverSideSort', 'treeDelete', 'proxiedAuthorization'] as const) expect(listed).toContain(controlOids[name]);
  expect(listed).toContain(extendedOids.cancel);
});

describe('cn=Monitor', () => {
  const read = (scope: 'base' | 'one' | 'sub', filter: string) =>
    ({ baseDn: 'cn=Monitor', scope, filter: filterFromText(filter), attributes: ['+'] }) as const;

  test('counts connections, entries and operations, where the root DSE says', async () => {
    expect(textOf((await admin.readEntry('', ['monitorContext']))?.attributes ?? [], 'monitorContext')).toBe('cn=Monitor');
    const entries = await admin.searchAll(read('sub', '(objectClass=monitorCounterObject)'));
    const counters = Object.fromEntries(entries.map(({ dn, attributes }) => [dn, textOf(attributes, 'monitorCounter')]));
    const { entries: stored, accounts } = directory.running.status();
    expect(counters).toMatchObject({
      'cn=Entries,cn=Database,cn=Monitor': String(stored),
      'cn=Accounts,cn=Database,cn=Monitor': String(accounts),
      'cn=Current,cn=Connections,cn=Monitor': '1',
      'cn=CacheBytesMax,cn=Database,cn=Monitor': '268435456',
    });
    const operations = await admin.searchAll(read('sub', '(monitorOpInitiated>=1)'));
    expect(operations.map(({ dn }) => dn)).toContain('cn=Add,cn=Operations,cn=Monitor');
    expect(await admin.searchAll(read('one', '(objectClass=*)'))).toHaveLength(5);
    expect(await admin.searchAll(read('base', '(objectClass=monitorServer)'))).toHaveLength(1);
  });

  test('is not for accounts and names what is not there', async () => {
    await admin.modify(accountDn('bob'), [{ kind: 'replace', attribute: attribute('userPassword', 'secret') }]);
    await using bob = await directory.connect(accountDn('bob'), 'secret');
    expect(await outcome(bob.searchAll(read('sub', '(objectClass=*)')))).toBe('insufficientAccessRights');
    expect(await outcome(admin.searchAll({ ...read('sub', '(objectClass=*)'), baseDn: 'cn=nothing,cn=Monitor' }))).toBe('noSuchObject');
  });
});
