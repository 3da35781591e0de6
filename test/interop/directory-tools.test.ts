/**
 * The directory server as OpenLDAP's tools, a stock slapd, ldapjs and ldapts see it.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ldapjs from 'ldapjs';
import { Client, EqualityFilter } from 'ldapts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mailAttributeTypes, mailObjectClasses } from '#directory/schema/mail-definitions.ts';
import { identityDn, servicePassword, startTestDirectory, type TestDirectory } from '../unit/directory/test-directory.ts';
import { type Ran, run } from './run-tool.ts';

const slapdProgram = '/usr/sbin/slapd';

let directory: TestDirectory;
let folder: string;
let caFile: string;

beforeAll(async () => {
  for (const tool of ['ldapsearch', 'ldapadd', 'ldapmodify', 'ldapmodrdn', 'ldapdelete', 'ldapcompare', 'ldappasswd', 'ldapwhoami']) {
    await run('which', [tool]).catch(() => {
      throw new Error(`${tool} is missing: install ldap-utils (apt-get install ldap-utils slapd)`);
    });
  }
  if (!existsSync(slapdProgram)) throw new Error(`${slapdProgram} is missing: install slapd (apt-get install ldap-utils slapd)`);
  folder = await mkdtemp(join(tmpdir(), 'archipelago-tools-'));
  caFile = join(folder, 'cert.pem');
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', join(folder, 'key.pem'), '-out', caFile, ...subject],
    { stdio: 'ignore' },
  );
  const tls = { certFile: caFile, keyFile: join(folder, 'key.pem') };
  directory = await startTestDirectory({
    tls,
    listeners: [
      { address: '127.0.0.1', port: 0, tls: 'starttls' },
      { address: '127.0.0.1', port: 0, tls: 'implicit' },
    ],
  });
  const added = await tool('ldapadd', [], { stdin: frame });
  expect(added.code, added.stderr).toBe(0);
});
afterAll(async () => {
  await directory?.[Symbol.asyncDispose]();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

const frame = `dn: cn=west.isp.example,ou=clusters,ou=topology,o=mail
objectClass: mailCluster
cn: west.isp.example
clusterMember: back1.west.isp.example 127.0.0.1:4711

dn: cn=isp.example,o=mail
objectClass: mailDomain
cn: isp.example

dn: uid=alice,cn=isp.example,o=mail
objectClass: inetOrgPerson
objectClass: mailAccount
uid: alice
cn: Alice Ångström
sn: Ångström
userPassword: secret
`;

/** Runs one of OpenLDAP's tools, as admin over StartTLS unless told otherwise. */
function tool(
  name: string,
  args: readonly string[],
  options: { stdin?: string; as?: [string, string] | 'anonymous'; plain?: boolean } = {},
): Promise<Ran> {
  const [dn, password] = options.as === undefined ? [identityDn('admin'), servicePassword] : options.as;
  const bind = options.as === 'anonymous' ? [] : ['-D', dn as string, '-w', password as string];
  const tls = options.plain === true ? [] : ['-ZZ'];
  return run(name, ['-x', '-H', directory.url, ...tls, ...bind, ...args], {
    ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
    env: { LDAPTLS_CACERT: caFile },
  });
}

describe("OpenLDAP's tools over StartTLS", () => {
  test('ldapsearch shows an account with its operational attributes', async () => {
    const { stdout, code } = await tool('ldapsearch', [
      '-LLL',
      '-b',
      'o=mail',
      '(&(objectClass=mailAccount)(cn=alice ångström))',
      '*',
      '+',
    ]);
    expect(code).toBe(0);
    for (const line of [
      'dn: uid=alice,cn=isp.example,o=mail',
      'hostServer: west.isp.example',
      'mail: alice@isp.example',
      'hasSubordinates: FALSE',
    ]) {
      expect(stdout).toContain(line);
    }
    expect(stdout).toMatch(/^entryCSN: \d{14}\.\d{6}Z#000000#000#000000$/m);
  });

  test('ldapsearch pages, types only, and reads root DSE and subschema without binding', async () => {
    expect((await tool('ldapsearch', ['-LLL', '-E', 'pr=2/noprompt', '-b', 'o=mail', '1.1'])).stdout.match(/^dn: /gm)?.length).toBe(7);
    expect((await tool('ldapsearch', ['-LLL', '-A', '-b', 'o=mail', '(uid=alice)', 'mail'])).stdout).toMatch(/^mail:$/m);
    const rootDse = await tool('ldapsearch', ['-LLL', '-b', '', '-s', 'base', '+'], { as: 'anonymous', plain: true });
    expect(rootDse.stdout).toContain('supportedExtension: 1.3.6.1.4.1.1466.20037');
    const subschema = await tool('ldapsearch', ['-LLL', '-o', 'ldif-wrap=no', '-b', 'cn=Subschema', '-s', 'base', 'objectClasses'], {
      as: 'anonymous',
    });
    for (const definition of mailObjectClasses) expect(subschema.stdout).toContain(`objectClasses: ${definition}`);
    expect((await tool('ldapsearch', ['-b', 'o=mail'], { as: 'anonymous' })).code).toBe(50);
  });

  test('ldapmodify, ldapcompare and the assertion control', async () => {
    const dn = 'uid=alice,cn=isp.example,o=mail';
    const change = `dn: ${dn}\nchangetype: modify\nreplace: mailQuota\nmailQuota: 1000\n`;
    expect((await tool('ldapmodify', ['-e', '!assert=(mailQuota=7)'], { stdin: change })).code).toBe(122);
    const changed = await tool('ldapmodify', ['-e', '!assert=(uid=alice)', '-e', '!postread=mailQuota'], { stdin: change });
    expect(changed.stdout).toContain('mailQuota: 1000');
    expect((await tool('ldapcompare', [dn, 'mailQuota:1000'])).code).toBe(6);
    expect((await tool('ldapcompare', [dn, 'mailQuota:1'])).code).toBe(5);
    const wrong = await tool('ldapmodify', [], {
      stdin: `dn: ${dn}\nchangetype: modify\nreplace: hostServer\nhostServer: north.example\n`,
    });
    expect(wrong.code).toBe(19);
    expect(wrong.stderr).toContain('known clusters: west.isp.example');
  });

  test('ldappasswd, ldapwhoami', async () => {
    const dn = 'uid=alice,cn=isp.example,o=mail';
    expect((await tool('ldappasswd', ['-a', 'wrong', '-s', 'neu'], { as: [dn, 'secret'] })).code).not.toBe(0);
    expect((await tool('ldappasswd', ['-a', 'secret', '-s', 'neu'], { as: [dn, 'secret'] })).code).toBe(0);
    expect((await tool('ldapwhoami', [], { as: [dn, 'neu'] })).stdout.trim()).toBe(`dn:${dn}`);
    expect((await tool('ldapwhoami', [], { as: [dn, 'secret'] })).code).toBe(49);
    const made = /New password: (\S+)/.exec((await tool('ldappasswd', [dn])).stdout)?.[1];
    expect((await tool('ldapwhoami', [], { as: [dn, made as string] })).code).toBe(0);
  });

  test('ldapmodrdn with and without the old name, with a new superior, and ldapdelete', async () => {
    const bob = 'dn: uid=bob,cn=isp.example,o=mail\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: bob\ncn: b\nsn: b\n';
    expect(
      (await tool('ldapadd', [], { stdin: `${bob}\ndn: cn=two.example,o=mail\nobjectClass: mailDomain\ncn: two.example\n` })).code,
    ).toBe(0);
    expect((await tool('ldapmodrdn', ['-r', 'uid=bob,cn=isp.example,o=mail', 'uid=robert'])).code).toBe(0);
    expect((await tool('ldapmodrdn', ['-s', 'cn=two.example,o=mail', 'uid=robert,cn=isp.example,o=mail', 'uid=rob'])).code).toBe(0);
    const found = await tool('ldapsearch', ['-LLL', '-b', 'cn=two.example,o=mail', '(uid=rob)', 'uid', 'mail']);
    expect(found.stdout).toBe('dn: uid=rob,cn=two.example,o=mail\nuid: robert\nuid: rob\nmail: rob@two.example\n\n');
    expect((await tool('ldapdelete', ['cn=two.example,o=mail'])).code).toBe(66);
    expect((await tool('ldapdelete', ['uid=rob,cn=two.example,o=mail', 'cn=two.example,o=mail'])).code).toBe(0);
    expect((await tool('ldapdelete', ['cn=two.example,o=mail'])).code).toBe(32);
  });

  test('ldapsearch sorts, ldapsearch and ldapdelete act for others, ldapdelete removes a tree, ldapexop cancels', async () => {
    const people = ['alf', 'bea'].map(
      (uid) => `dn: uid=${uid},cn=tree.example,o=mail\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: ${uid}\ncn: b\nsn: b\n\n`,
    );
    const domain = 'dn: cn=tree.example,o=mail\nobjectClass: mailDomain\ncn: tree.example\n\n';
    expect((await tool('ldapadd', [], { stdin: domain + people.join('') })).code).toBe(0);
    const sorted = await tool('ldapsearch', ['-LLL', '-E', '!sss=-uid', '-b', 'cn=tree.example,o=mail', '-s', 'one', 'uid']);
    expect([...sorted.stdout.matchAll(/^uid: (.*)$/gm)].map((line) => line[1])).toEqual(['bea', 'alf']);
    const asFrontend = ['-e', `!authzid=dn:${identityDn('frontend')}`];
    expect((await tool('ldapwhoami', asFrontend)).stdout.trim()).toBe(`dn:${identityDn('frontend')}`);
    expect((await tool('ldapdelete', [...asFrontend, 'uid=alf,cn=tree.example,o=mail'])).code).toBe(50);
    expect((await tool('ldapdelete', ['-e', '!1.2.840.113556.1.4.805', 'cn=tree.example,o=mail'])).code).toBe(0);
    expect((await tool('ldapsearch', ['-b', 'cn=tree.example,o=mail'])).code).toBe(32);
    const cancel = await tool('ldapexop', ['cancel', '77']);
    expect(cancel.stdout + cancel.stderr).toMatch(/\(119\)/);
    expect((await tool('ldapexop', ['whoami'])).stdout).toContain(`dn:${identityDn('admin')}`);
  });

  test('ldaps and the message for a wrong control', async () => {
    const secure = directory.running.urls[1] as string;
    expect(secure).toMatch(/^ldaps:/);
    const who = ['-x', '-H', secure, '-D', identityDn('frontend'), '-w', servicePassword];
    expect((await run('ldapwhoami', who, { env: { LDAPTLS_CACERT: caFile } })).stdout.trim()).toBe(`dn:${identityDn('frontend')}`);
    expect((await tool('ldapsearch', ['-e', '!1.2.3', '-b', 'o=mail'])).code).toBe(12);
  });
});

describe('ldapjs', () => {
  test('adds, searches, renames and deletes', async () => {
    const client = ldapjs.createClient({ url: directory.url });
    const call = <T>(start: (done: (error: Error | null, value?: T) => void) => void): Promise<T | undefined> =>
      new Promise((resolve, reject) => start((error, value) => (error ? reject(error) : resolve(value))));
    await call((done) => client.bind(identityDn('provisioner'), servicePassword, done));
    const entry = { objectClass: ['inetOrgPerson', 'mailAccount'], uid: 'js', cn: 'J S', sn: 'S', userPassword: 'secret' };
    await call((done) => client.add('uid=js,cn=isp.example,o=mail', entry, done));
    await expect(call((done) => client.add('uid=js,cn=isp.example,o=mail', entry, done))).rejects.toThrow(/Already/);
    // Its string filters do not decode escapes, so filters are objects here.
    const filter = new ldapjs.EqualityFilter({ attribute: 'mail', value: 'js@isp.example' });
    const found = await new Promise<string[]>((resolve, reject) => {
      client.search('o=mail', { scope: 'sub', filter, attributes: ['hostServer'] }, (error, search) => {
        if (error) return reject(error);
        const names: string[] = [];
        search.on('searchEntry', (item) => names.push(`${item.pojo.objectName} ${item.pojo.attributes[0]?.values[0]}`));
        search.on('error', reject);
        search.on('end', () => resolve(names));
      });
    });
    expect(found).toEqual(['uid=js,cn=isp.example,o=mail west.isp.example']);
    await call((done) => client.modifyDN('uid=js,cn=isp.example,o=mail', 'uid=typescript', done));
    await call((done) => client.del('uid=typescript,cn=isp.example,o=mail', done));
    await call((done) => client.unbind(done));
  });
});

describe('ldapts', () => {
  test('binds over StartTLS, adds, searches with special characters, renames and deletes', async () => {
    const client = new Client({ url: directory.url });
    await client.startTLS({ ca: [await readFile(caFile)], host: '127.0.0.1' });
    await client.bind(identityDn('admin'), servicePassword);
    const dn = 'uid=ts,cn=isp.example,o=mail';
    await client.add(dn, { objectClass: ['inetOrgPerson', 'mailAccount'], uid: 'ts', cn: 'star* (é)\\', sn: 'S' });
    const { searchEntries } = await client.search('o=mail', {
      filter: new EqualityFilter({ attribute: 'cn', value: 'STAR* (É)\\' }),
      attributes: ['cn', 'entryUUID'],
    });
    expect(searchEntries.map((entry) => [entry.dn, entry.cn])).toEqual([[dn, 'star* (é)\\']]);
    await client.modifyDN(dn, 'uid=ts2');
    await client.del('uid=ts2,cn=isp.example,o=mail');
    await client.unbind();
  });
});

describe('the schema for other servers', () => {
  test('for OpenLDAP holds the definitions that our server enforces', async () => {
    const ldif = (await readFile(new URL('../../deploy/openldap/archipelago.ldif', import.meta.url), 'utf8'))
      .replaceAll('\n ', '')
      .split('\n');
    expect(ldif.filter((line) => line.startsWith('olc'))).toEqual([
      ...mailAttributeTypes.map((definition) => `olcAttributeTypes: ${definition}`),
      ...mailObjectClasses.map((definition) => `olcObjectClasses: ${definition}`),
    ]);
    const conf = (await readFile(new URL('../../deploy/openldap/archipelago.schema', import.meta.url), 'utf8')).split('\n');
    expect(conf.filter((line) => /^(attributetype|objectclass)/.test(line))).toEqual([
      ...mailAttributeTypes.map((definition) => `attributetype ${definition}`),
      ...mailObjectClasses.map((definition) => `objectclass ${definition}`),
    ]);
  });

  test('for 389 Directory Server holds them too, save the two that it brings itself', async () => {
    const ldif = (await readFile(new URL('../../deploy/389ds/98archipelago.ldif', import.meta.url), 'utf8'))
      .replaceAll('\n ', '')
      .split('\n');
    expect(ldif.filter((line) => /^(attributeTypes|objectClasses)/.test(line))).toEqual([
      ...mailAttributeTypes
        .filter((definition) => !/'(mailAlternateAddress|mailQuota)'/.test(definition))
        .map((definition) => `attributeTypes: ${definition}`),
      ...mailObjectClasses.map((definition) => `objectClasses: ${definition}`),
    ]);
  });

  test('lets a stock slapd replicate from us: adds, changes, renames and deletes, and what happened while it was down', async () => {
    const port = await freePort();
    const data = join(folder, 'slapd');
    await mkdir(data, { recursive: true });
    const schemaFile = new URL('../../deploy/openldap/archipelago.schema', import.meta.url).pathname;
    await writeFile(
      join(folder, 'slapd.conf'),
      `${['core', 'cosine', 'inetorgperson'].map((name) => `include /etc/ldap/schema/${name}.schema`).join('\n')}
include ${schemaFile}
pidfile ${folder}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix o=mail
rootdn cn=root,o=mail
rootpw root
directory ${data}
syncrepl rid=001 provider=${directory.url} type=refreshAndPersist retry="1 +" searchbase=o=mail scope=sub schemachecking=off
  attrs="*,+" bindmethod=simple binddn=${identityDn('replicator')} credentials=${servicePassword}
`,
    );
    const start = () =>
      spawn(slapdProgram, ['-d', '0', '-h', `ldap://127.0.0.1:${port}`, '-f', join(folder, 'slapd.conf')], { stdio: 'ignore' });
    const dump = async (url: string, as: [string, string]): Promise<string> =>
      (
        await run('ldapsearch', [
          '-x',
          '-LLL',
          '-o',
          'ldif-wrap=no',
          '-H',
          url,
          '-D',
          as[0],
          '-w',
          as[1],
          '-b',
          'o=mail',
          'uid',
          'mail',
          'hostServer',
          'entryUUID',
          'entryCSN',
        ])
      ).stdout
        .split('\n\n')
        .map((entry) => entry.split('\n').sort().join('\n'))
        .sort()
        .join('\n\n');
    const same = () => expect.poll(() => dump(`ldap://127.0.0.1:${port}`, ['cn=root,o=mail', 'root']), { timeout: 20_000 }).toBe(awaited);
    let awaited = '';
    const settle = async (): Promise<void> => {
      awaited = await dump(directory.url, [identityDn('admin'), servicePassword]);
      await same();
    };
    let slapd = start();
    try {
      await settle();
      const eve = 'dn: uid=eve,cn=isp.example,o=mail\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: eve\ncn: e\nsn: e\n';
      expect((await tool('ldapadd', [], { stdin: eve })).code).toBe(0);
      await settle();
      await tool('ldapmodrdn', ['-r', 'uid=eve,cn=isp.example,o=mail', 'uid=eva']);
      await settle();
      const exited = new Promise((resolve) => slapd.once('exit', resolve));
      slapd.kill('SIGTERM');
      await exited;
      await tool('ldapdelete', ['uid=eva,cn=isp.example,o=mail']);
      await tool('ldapadd', [], { stdin: eve.replaceAll('eve', 'adam') });
      slapd = start();
      await settle();
      expect(awaited).toContain('uid: adam');
      expect(awaited).not.toContain('uid: eva');
    } finally {
      const exited = new Promise((resolve) => slapd.once('exit', resolve));
      slapd.kill('SIGKILL');
      await exited;
    }
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
