import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { backupOid } from '#directory/client/backup.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { makeAssertion, makePagedResults, makeReadEntry, readPagedResults, readReadEntryResponse, relax } from '#protocol/ldap/controls.ts';
import { equal, filterFromText } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute, extendedOids, type Modification, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { type ResultName, resultCodes, resultName } from '#protocol/ldap/result-codes.ts';
import { accountDn, accountEntry, addFrame, domainEntry, startTestDirectory, type TestDirectory } from './test-directory.ts';

let directory: TestDirectory;
let admin: LdapConnection;

beforeAll(async () => {
  directory = await startTestDirectory();
  admin = await directory.connect();
  await addFrame(admin);
});
afterAll(async () => {
  await admin[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

/** Awaits a refusal and gives its name and the server's text. */
async function refusal(work: Promise<unknown>): Promise<{ name: string; text: string }> {
  const error = await work.then(
    () => new Error('it was not refused'),
    (thrown: unknown) => thrown as Error,
  );
  const code = resultCodeOf(error);
  return { name: code === undefined ? error.message : resultName(code), text: error.message };
}

async function expectRefusal(work: Promise<unknown>, name: ResultName, text?: RegExp): Promise<void> {
  const seen = await refusal(work);
  expect(seen.name).toBe(name);
  if (text !== undefined) expect(seen.text).toMatch(text);
}

async function attributesOf(dn: string, names: readonly string[] = ['*', '+']): Promise<readonly Attribute[]> {
  return (await admin.readEntry(dn, names))?.attributes ?? [];
}

function replace(type: string, ...values: string[]): Modification {
  return { kind: 'replace', attribute: attribute(type, ...values) };
}

describe('adding an account', () => {
  test('places it on the cluster with the fewest accounts and gives it its name as mail', async () => {
    await admin.add(accountDn('placed1'), accountEntry('placed1'));
    await admin.add(accountDn('placed2'), accountEntry('placed2'));
    const hosts = [await attributesOf(accountDn('placed1')), await attributesOf(accountDn('placed2'))].map((entry) =>
      textOf(entry, 'hostServer'),
    );
    expect(hosts.sort()).toEqual(['east.isp.example', 'west.isp.example']);
    expect(textsOf(await attributesOf(accountDn('placed1')), 'mail')).toEqual(['placed1@isp.example']);
  });

  test('says what is missing to who asks for a backup and may, where no directory for backups is configured', async () => {
    await expect(admin.extended(backupOid)).rejects.toThrow(/unwillingToPerform.*set backupDirectory/);
    await using frontend = await directory.connect('frontend');
    await expect(frontend.extended(backupOid)).rejects.toThrow(/insufficientAccessRights/);
  });

  test('stores a password in clear as argon2id, and one that is hashed as given', async () => {
    const ssha = '{SSHA}jvTmovr2PCXiBBdGbdcMyRqJkN0cjz9d';
    await admin.add(accountDn('clear'), accountEntry('clear', attribute('userPassword', 'geheim')));
    await admin.add(accountDn('hashed'), accountEntry('hashed', attribute('userPassword', ssha)));
    expect(textOf(await attributesOf(accountDn('clear')), 'userPassword')).toMatch(/^\{ARGON2\}\$argon2id\$/);
    expect(textOf(await attributesOf(accountDn('hashed')), 'userPassword')).toBe(ssha);
    await (await directory.connect(accountDn('clear'), 'geheim'))[Symbol.asyncDispose]();
    await (await directory.connect(accountDn('hashed'), 'secret'))[Symbol.asyncDispose]();
  });

  test('takes the naming value from its name when the attributes lack it', async () => {
    await admin.add(
      accountDn('named'),
      accountEntry('named').filter((one) => one.type !== 'uid'),
    );
    expect(textsOf(await attributesOf(accountDn('named')), 'uid')).toEqual(['named']);
  });

  test.each<[string, Attribute[], ResultName, RegExp]>([
    [
      'a hostServer that is no cluster',
      [attribute('hostServer', 'north.example')],
      'constraintViolation',
      /known clusters: east\.isp\.example, west/,
    ],
    ['two hostServers', [attribute('hostServer', 'east.isp.example', 'west.isp.example')], 'constraintViolation', /holds one value/],
    ['an unknown status', [attribute('accountStatus', 'asleep')], 'constraintViolation', /active, locked, maintenance, closed/],
    ['a quota that is no number', [attribute('mailQuota', '5 GB')], 'invalidAttributeSyntax', /INTEGER/],
    ['a negative quota', [attribute('mailQuota', '-1')], 'constraintViolation', /0 or more/],
    [
      'an address of another account',
      [attribute('mailAlternateAddress', 'PLACED1@isp.example')],
      'constraintViolation',
      /belongs to uid=placed1/,
    ],
    ['an attribute that nobody knows', [attribute('shoeSize', '43')], 'undefinedAttributeType', /shoeSize/],
    ['an attribute that its classes do not allow', [attribute('clusterWeight', '1')], 'objectClassViolation', /not allowed/],
    [
      'an attribute that the server keeps',
      [attribute('entryUUID', '00000000-0000-4000-8000-000000000000')],
      'constraintViolation',
      /kept by the server/,
    ],
    ['text that is not ASCII in mail', [attribute('mail', 'ü@isp.example')], 'invalidAttributeSyntax', /IA5/],
  ])('with %s is refused', async (_what, more, name, text) => {
    await expectRefusal(admin.add(accountDn('wrong'), accountEntry('wrong', ...more)), name, text);
    expect(await admin.readEntry(accountDn('wrong'), ['1.1'])).toBeUndefined();
  });

  test('without what its classes require, in no domain, or twice is refused', async () => {
    const withoutSn = accountEntry('wrong').filter((one) => one.type !== 'sn');
    await expectRefusal(
      admin.add(accountDn('wrong'), withoutSn),
      'objectClassViolation',
      /person requires attribute sn|requires attribute sn/,
    );
    await expectRefusal(admin.add('uid=wrong,ou=services,o=mail', accountEntry('wrong')), 'namingViolation', /below its mailDomain/);
    await expectRefusal(admin.add(accountDn('wrong', 'nowhere.example'), accountEntry('wrong')), 'noSuchObject');
    await expectRefusal(admin.add(accountDn('PLACED1'), accountEntry('placed1')), 'entryAlreadyExists');
    await expectRefusal(admin.add('uid=;x', accountEntry('x')), 'invalidDNSyntax');
  });
});

describe('renaming', () => {
  test('takes mail along when it equalled the name, keeps the UUID, and raises the CSN', async () => {
    await admin.add(accountDn('before'), accountEntry('before', attribute('mail', 'before@isp.example', 'extra@isp.example')));
    const was = await attributesOf(accountDn('before'));
    await admin.modifyDn({ dn: accountDn('before'), newRdn: 'uid=after', deleteOldRdn: true, newSuperior: undefined });
    const is = await attributesOf(accountDn('after'));
    expect(textsOf(is, 'mail')).toEqual(['after@isp.example', 'extra@isp.example']);
    expect(textsOf(is, 'uid')).toEqual(['after']);
    expect(textOf(is, 'entryUUID')).toBe(textOf(was, 'entryUUID'));
    expect((textOf(is, 'entryCSN') ?? '') > (textOf(was, 'entryCSN') ?? '')).toBe(true);
    expect(await admin.readEntry(accountDn('before'), ['1.1'])).toBeUndefined();
  });

  test('keeps the old value without deleteOldRdn, and can move to another domain', async () => {
    await admin.add('cn=other.example,o=mail', domainEntry('other.example'));
    await admin.add(accountDn('mover'), accountEntry('mover'));
    await admin.modifyDn({ dn: accountDn('mover'), newRdn: 'uid=moved', deleteOldRdn: false, newSuperior: 'CN=Other.Example, O=Mail' });
    const entry = await admin.readEntry(accountDn('moved', 'other.example'), ['uid', 'mail']);
    expect(entry?.dn).toBe('uid=moved,cn=other.example,o=mail');
    expect(textsOf(entry?.attributes ?? [], 'uid').sort()).toEqual(['moved', 'mover']);
    expect(textsOf(entry?.attributes ?? [], 'mail')).toEqual(['moved@other.example']);
  });

  test('to a taken name, below itself or of the base is refused', async () => {
    await admin.add(accountDn('taken'), accountEntry('taken'));
    const rename = (dn: string, newRdn: string, newSuperior?: string) => admin.modifyDn({ dn, newRdn, deleteOldRdn: true, newSuperior });
    await expectRefusal(rename(accountDn('taken'), 'uid=placed1'), 'entryAlreadyExists');
    await expectRefusal(rename('cn=other.example,o=mail', 'cn=other.example', 'cn=other.example,o=mail'), 'unwillingToPerform');
    await expectRefusal(rename('o=mail', 'o=post'), 'unwillingToPerform');
    await expectRefusal(rename(accountDn('taken'), 'uid=a,cn=b'), 'invalidDNSyntax');
    await expectRefusal(rename(accountDn('nobody'), 'uid=a'), 'noSuchObject');
  });
});

describe('modifying', () => {
  const dn = accountDn('target');
  beforeAll(() => admin.add(dn, accountEntry('target', attribute('mailQuota', '100'), attribute('description', 'one', 'two'))));

  test('does all changes in order or none', async () => {
    await admin.modify(dn, [
      { kind: 'delete', attribute: attribute('description', 'ONE') },
      { kind: 'add', attribute: attribute('description', 'three') },
      { kind: 'increment', attribute: attribute('mailQuota', '-30') },
    ]);
    expect(textsOf(await attributesOf(dn), 'description')).toEqual(['two', 'three']);
    expect(textOf(await attributesOf(dn), 'mailQuota')).toBe('70');
    const changes = [replace('description', 'lost'), { kind: 'delete', attribute: attribute('title') } as Modification];
    await expectRefusal(admin.modify(dn, changes), 'noSuchAttribute');
    expect(textsOf(await attributesOf(dn), 'description')).toEqual(['two', 'three']);
  });

  test.each<[string, Modification, ResultName]>([
    ['a value that is there', { kind: 'add', attribute: attribute('description', 'TWO') }, 'attributeOrValueExists'],
    ['away a value that is not there', { kind: 'delete', attribute: attribute('description', 'nine') }, 'noSuchAttribute'],
    ['away the naming value', { kind: 'delete', attribute: attribute('uid') }, 'notAllowedOnRDN'],
    ['away what a class requires', { kind: 'delete', attribute: attribute('sn') }, 'objectClassViolation'],
    ['another hostServer', { kind: 'replace', attribute: attribute('hostServer', 'west.isp.example') }, 'unwillingToPerform'],
    ['no hostServer any more', { kind: 'delete', attribute: attribute('hostServer') }, 'unwillingToPerform'],
    ['a second hostServer', { kind: 'add', attribute: attribute('hostServer', 'x.example') }, 'constraintViolation'],
    ['text incremented', { kind: 'increment', attribute: attribute('description', '1') }, 'constraintViolation'],
    ['the structural class', replace('objectClass', 'mailDomain'), 'objectClassModsProhibited'],
    ['entryCSN', replace('entryCSN', '20260101000000.000000Z#000000#000#000000'), 'constraintViolation'],
  ])('%s is refused', async (_what, change, name) => {
    await expectRefusal(admin.modify(dn, [change]), name);
  });

  test('obeys the assertion control and shows the entry before and after', async () => {
    await expectRefusal(admin.modify(dn, [replace('title', 'x')], [makeAssertion(equal('hostServer', 'nowhere'))]), 'assertionFailed');
    const answer = await admin.modify(
      dn,
      [replace('mailQuota', '71')],
      [
        makeAssertion(filterFromText('(mailQuota=70)')),
        makeReadEntry('preRead', ['mailQuota']),
        makeReadEntry('postRead', ['mailQuota', 'entryCSN']),
      ],
    );
    const [pre, post] = answer.controls.map((control) => readReadEntryResponse(control.value)?.attributes ?? []);
    expect(textOf(pre ?? [], 'mailQuota')).toBe('70');
    expect(textOf(post ?? [], 'mailQuota')).toBe('71');
    expect(textOf(post ?? [], 'entryCSN')).toBe(textOf(await attributesOf(dn), 'entryCSN'));
  });

  test('with relax keeps UUID, CSN and times as given', async () => {
    const csn = '20200101000000.000000Z#000001#000#000000';
    const uuid = 'aaaaaaaa-0000-4000-8000-000000000001';
    const given = { entryUUID: uuid, entryCSN: csn, createTimestamp: '20200101000000Z', modifiersName: 'cn=someone,o=mail' };
    const more = Object.entries(given).map(([type, value]) => attribute(type, value));
    await admin.add(accountDn('relaxed'), accountEntry('relaxed', ...more), [relax]);
    const entry = await attributesOf(accountDn('relaxed'));
    for (const [type, value] of Object.entries(given)) expect(textOf(entry, type)).toBe(value);
    await using cluster = await directory.connect('cluster');
    await expectRefusal(cluster.add(accountDn('relaxed2'), accountEntry('relaxed2'), [relax]), 'insufficientAccessRights');
  });
});

describe('deleting', () => {
  test('takes leaves only, and a cluster only when nobody is hosted by it', async () => {
    await expectRefusal(admin.delete('cn=isp.example,o=mail'), 'notAllowedOnNonLeaf');
    await expectRefusal(
      admin.delete('cn=west.isp.example,ou=clusters,ou=topology,o=mail'),
      'unwillingToPerform',
      /accounts have hostServer west/,
    );
    await admin.add(accountDn('gone'), accountEntry('gone'));
    await admin.delete(accountDn('gone'));
    await expectRefusal(admin.delete(accountDn('gone')), 'noSuchObject');
  });
});

describe('searching', () => {
  test('pages through all entries once, and keeps the size limit', async () => {
    const all = await admin.searchAll({ baseDn: 'o=mail', attributes: ['1.1'] });
    const paged: string[] = [];
    let cookie: Buffer = Buffer.alloc(0);
    do {
      const search = admin.search({ baseDn: 'o=mail', attributes: ['1.1'] }, [makePagedResults({ size: 3, cookie })]);
      for await (const item of search) if (item.kind === 'entry') paged.push(item.dn);
      cookie = readPagedResults(search.done?.controls[0]?.value)?.cookie ?? Buffer.alloc(0);
    } while (cookie.length > 0);
    expect(paged).toEqual(all.map((entry) => entry.dn));
    const limited = await refusal(admin.searchAll({ baseDn: 'o=mail', sizeLimit: 2 }));
    expect(limited.name).toBe('sizeLimitExceeded');
  });

  test('stops a search that looks for many pieces in a long value, and goes on with what costs little', async () => {
    const name = accountDn('long');
    await admin.add(name, [...accountEntry('long'), attribute('description', 'x'.repeat(60_000))]);
    const pieces = (count: number) => filterFromText(`(|${Array.from({ length: count }, (_, i) => `(description=*piece${i}*)`).join('')})`);
    const found = (filter: ReturnType<typeof pieces>) => admin.searchAll({ baseDn: 'o=mail', filter, attributes: ['1.1'] }, 100);
    expect(await found(pieces(100))).toEqual([]);
    await expectRefusal(found(pieces(1000)), 'adminLimitExceeded', /characters of one entry/);
    await admin.delete(name);
  });

  test('tells scopes apart', async () => {
    const dns = async (scope: 'base' | 'one' | 'sub') =>
      (await admin.searchAll({ baseDn: 'ou=topology,o=mail', scope, attributes: ['1.1'] })).map((entry) => entry.dn);
    expect(await dns('base')).toEqual(['ou=topology,o=mail']);
    expect(await dns('one')).toEqual(['ou=clusters,ou=topology,o=mail']);
    expect((await dns('sub')).length).toBe(4);
  });

  test('refuses unknown critical controls and passes over others', async () => {
    const control = (critical: boolean) => [{ oid: '1.2.3.4.5', critical, value: undefined }];
    await expectRefusal(admin.searchAll({ baseDn: 'o=mail', scope: 'base' }, 9, control(true)), 'unavailableCriticalExtension');
    expect((await admin.searchAll({ baseDn: 'o=mail', scope: 'base' }, 9, control(false))).length).toBe(1);
  });
});

describe('access', () => {
  test.each<[string, string[], string[]]>([
    ['admin', ['userPassword', 'mail', 'cn'], []],
    ['replicator', ['userPassword', 'mail', 'cn'], []],
    ['cluster', ['userPassword', 'mail', 'cn'], []],
    ['provisioner', ['mail', 'cn', 'sn'], ['userPassword']],
    ['frontend', ['mail', 'hostServer', 'uid'], ['userPassword', 'sn', 'modifiersName']],
  ])('%s reads %j and not %j', async (who, shown, hidden) => {
    await using connection = await directory.connect(who);
    const entry = await connection.readEntry(accountDn('clear'), ['*', '+']);
    const types = entry?.attributes.map((one) => one.type) ?? [];
    expect(types).toEqual(expect.arrayContaining(shown));
    for (const type of hidden) expect(types).not.toContain(type);
    const byPassword = await connection.searchAll({ baseDn: 'o=mail', filter: filterFromText('(userPassword=*)') });
    expect(byPassword.length > 0).toBe(shown.includes('userPassword'));
  });

  test.each<[string, boolean, boolean, boolean]>([
    ['admin', true, true, true],
    ['cluster', true, false, false],
    ['provisioner', true, true, false],
    ['frontend', false, false, false],
    ['replicator', false, false, false],
  ])('%s writes accounts: %s, domains: %s, topology: %s', async (who, accounts, domains, topology) => {
    await using connection = await directory.connect(who);
    const outcome = async (work: Promise<unknown>): Promise<boolean> => {
      const seen = await work.then(
        () => undefined,
        (error: unknown) => resultCodeOf(error),
      );
      if (seen !== undefined) expect(seen).toBe(resultCodes.insufficientAccessRights);
      return seen === undefined;
    };
    expect(await outcome(connection.add(accountDn(`by-${who}`), accountEntry(`by-${who}`)))).toBe(accounts);
    expect(await outcome(connection.add(`cn=${who}.example,o=mail`, domainEntry(`${who}.example`)))).toBe(domains);
    expect(await outcome(connection.modify('ou=topology,o=mail', [replace('description', who)]))).toBe(topology);
  });

  test('an account sees itself only and changes its own password only', async () => {
    await using self = await directory.connect(accountDn('clear'), 'geheim');
    expect((await self.searchAll({ baseDn: 'o=mail' })).map((entry) => entry.dn)).toEqual([accountDn('clear')]);
    await expectRefusal(self.modify(accountDn('clear'), [replace('mailQuota', '1')]), 'insufficientAccessRights');
    await expectRefusal(self.modify(accountDn('hashed'), [replace('userPassword', 'x')]), 'noSuchObject');
    await self.modify(accountDn('clear'), [replace('userPassword', 'neu')]);
    await (await directory.connect(accountDn('clear'), 'neu'))[Symbol.asyncDispose]();
    expect((await refusal(directory.connect(accountDn('clear'), 'geheim'))).name).toBe('invalidCredentials');
  });

  test('anonymous sees the root DSE and the subschema, and nothing of the tree', async () => {
    await using anonymous = await LdapConnection.open(systemNetwork, systemClock, { url: directory.url });
    expect(textsOf((await anonymous.readEntry('', ['namingContexts']))?.attributes ?? [], 'namingContexts')).toEqual(['o=mail']);
    const subschema = await anonymous.readEntry('cn=Subschema', ['objectClasses'], { filter: filterFromText('(objectClass=subschema)') });
    expect(textsOf(subschema?.attributes ?? [], 'objectClasses').some((text) => text.includes("NAME 'mailAccount'"))).toBe(true);
    await expectRefusal(anonymous.searchAll({ baseDn: 'o=mail' }), 'insufficientAccessRights');
    await expectRefusal(anonymous.delete(accountDn('clear')), 'noSuchObject');
    expect((await anonymous.extended(extendedOids.whoAmI)).value?.toString()).toBe('');
  });

  test('a locked account, an unknown one and a wrong password get the same answer', async () => {
    await admin.add(accountDn('locked'), accountEntry('locked', attribute('userPassword', 'p'), attribute('accountStatus', 'locked')));
    const answers = await Promise.all(
      [accountDn('locked'), accountDn('nobody'), accountDn('clear')].map(async (dn) =>
        (await refusal(directory.connect(dn, 'p'))).text.replace(/"?uid=[^ ]*/, ''),
      ),
    );
    expect(new Set(answers).size).toBe(1);
  });
});
