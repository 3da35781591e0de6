/**
 * Access rules as OpenLDAP's tools meet them: a group that administers its own domain, entries that are not shown, rules that are read again, and
 * the command that explains them.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { identityDn, servicePassword, startTestDirectory, type TestDirectory } from '../unit/directory/test-directory.ts';
import { type Ran, run } from './run-tool.ts';

const program = new URL('../../bin/archipelago.mjs', import.meta.url).pathname;
const group = 'cn=admins of one,ou=groups,o=mail';
const configured = [
  `to dn.subtree="cn=one.example,o=mail" attrs=entry,children,@inetOrgPerson,@mailAccount,objectClass by group="${group}" write by * break`,
  'to filter=(objectClass=mailAccount) attrs=entry,uid,cn,objectClass by users read by * break',
  'to filter=(objectClass=mailAccount) attrs=telephoneNumber by users compare by * break',
];

let directory: TestDirectory;
let folder: string;
let rules: readonly string[] = configured;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-access-'));
  await writeFile(join(folder, 'password'), servicePassword);
  directory = await startTestDirectory({ access: configured }, { readRules: async () => rules });
  const added = await tool('ldapadd', [], { stdin: frame });
  expect(added.code, added.stderr).toBe(0);
});
afterAll(async () => {
  await directory?.[Symbol.asyncDispose]();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

const account = (uid: string, domain: string): string =>
  `dn: uid=${uid},cn=${domain},o=mail\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: ${uid}\ncn: ${uid}\nsn: ${uid}\nuserPassword: secret\ntelephoneNumber: 1 2 3\n\n`;
const frame = `dn: cn=west.isp.example,ou=clusters,ou=topology,o=mail
objectClass: mailCluster
cn: west.isp.example

dn: cn=one.example,o=mail
objectClass: mailDomain
cn: one.example

dn: cn=two.example,o=mail
objectClass: mailDomain
cn: two.example

${account('head', 'one.example')}${account('user', 'one.example')}${account('user', 'two.example')}dn: ou=groups,o=mail
objectClass: organizationalUnit
ou: groups

dn: ${group}
objectClass: groupOfNames
cn: admins of one
member: uid=head,cn=one.example,o=mail
`;
const head = 'uid=head,cn=one.example,o=mail';
const user = 'uid=user,cn=two.example,o=mail';

function tool(name: string, args: readonly string[], options: { stdin?: string; as?: string } = {}): Promise<Ran> {
  const [dn, password] = options.as === undefined ? [identityDn('admin'), servicePassword] : [options.as, 'secret'];
  return run(
    name,
    ['-x', '-H', directory.url, '-D', dn, '-w', password, ...args],
    options.stdin === undefined ? {} : { stdin: options.stdin },
  );
}

function acl(...args: readonly string[]): Promise<Ran> {
  const connect = ['--url', directory.url, '--bind-dn', identityDn('admin'), '--password-file', join(folder, 'password')];
  return run(process.execPath, [program, 'directory', 'acl', ...args, ...connect]);
}

describe('a group that administers one domain', () => {
  const steps: readonly [what: string, name: string, args: readonly string[], stdin: string | undefined, code: number][] = [
    ['adds an account to it', 'ldapadd', [], account('new', 'one.example'), 0],
    ['adds none elsewhere', 'ldapadd', [], account('new', 'two.example'), 50],
    [
      'changes an account of it',
      'ldapmodify',
      [],
      'dn: uid=user,cn=one.example,o=mail\nchangetype: modify\nreplace: mailQuota\nmailQuota: 7\n-\nadd: displayName\ndisplayName: U\n',
      0,
    ],
    ['changes none elsewhere', 'ldapmodify', [], `dn: ${user}\nchangetype: modify\nreplace: mailQuota\nmailQuota: 7\n`, 50],
    [
      'changes not the domain itself beyond what it may',
      'ldapmodify',
      [],
      'dn: cn=one.example,o=mail\nchangetype: modify\nadd: mailDomainAlias\nmailDomainAlias: x.example\n',
      50,
    ],
    ['changes not the group', 'ldapmodify', [], `dn: ${group}\nchangetype: modify\nadd: member\nmember: ${user}\n`, 50],
    ['renames within it', 'ldapmodrdn', ['-r', 'uid=new,cn=one.example,o=mail', 'uid=newer'], undefined, 0],
    [
      'moves nothing out of it',
      'ldapmodrdn',
      ['-r', '-s', 'cn=two.example,o=mail', 'uid=newer,cn=one.example,o=mail', 'uid=newer'],
      undefined,
      50,
    ],
    ['sets passwords in it', 'ldappasswd', ['-s', 'neu', 'uid=user,cn=one.example,o=mail'], undefined, 0],
    ['sets none elsewhere', 'ldappasswd', ['-s', 'neu', user], undefined, 1],
    [
      'uses no relax control',
      'ldapmodify',
      ['-e', 'relax'],
      'dn: uid=user,cn=one.example,o=mail\nchangetype: modify\nreplace: mailQuota\nmailQuota: 8\n',
      50,
    ],
    ['removes an account of it', 'ldapdelete', ['uid=newer,cn=one.example,o=mail'], undefined, 0],
    ['removes none elsewhere', 'ldapdelete', [user], undefined, 50],
    ['removes not the domain with all below it', 'ldapdelete', ['-e', '!1.2.840.113556.1.4.805', 'cn=one.example,o=mail'], undefined, 50],
  ];
  test.each(steps)('%s', async (_what, name, args, stdin, code) => {
    const ran = await tool(name, args, { as: head, ...(stdin === undefined ? {} : { stdin }) });
    expect(ran.code, ran.stderr).toBe(code);
  });

  test('is what the group holds now: a member that goes loses the right, on the connection it has', async () => {
    const change = 'dn: uid=user,cn=one.example,o=mail\nchangetype: modify\nreplace: mailQuota\nmailQuota: 9\n';
    const swap = (from: string, to: string): string =>
      `dn: ${group}\nchangetype: modify\nadd: member\nmember: ${to}\n-\ndelete: member\nmember: ${from}\n`;
    expect((await tool('ldapmodify', [], { stdin: swap(head, user) })).code).toBe(0);
    expect((await tool('ldapmodify', [], { stdin: change, as: head })).code).toBe(50);
    expect((await tool('ldapmodify', [], { stdin: swap(user, head) })).code).toBe(0);
    expect((await tool('ldapmodify', [], { stdin: change, as: head })).code).toBe(0);
  });
});

describe('what is not to be seen', () => {
  test('is left out of answers, and an entry that is not disclosed is not there', async () => {
    const seen = await tool('ldapsearch', ['-LLL', '-b', user, '-s', 'base'], { as: head });
    expect(seen.stdout).toBe(`dn: ${user}\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: user\ncn: user\n\n`);
    expect((await tool('ldapsearch', ['-b', group, '-s', 'base'], { as: head })).code).toBe(0);
    const hidden = await run('ldapsearch', ['-x', '-H', directory.url, '-b', user, '-s', 'base']);
    expect([hidden.code, /matchedDN: (.*)/.exec(hidden.stdout)?.[1]]).toEqual([32, 'o=mail']);
    expect((await run('ldapsearch', ['-x', '-H', directory.url, '-b', 'o=mail'])).code).toBe(50);
  });

  test('decides no filter: neither it nor its opposite finds anything', async () => {
    const found = async (filter: string): Promise<number> =>
      (await tool('ldapsearch', ['-LLL', '-b', 'cn=two.example,o=mail', filter, '1.1'], { as: head })).stdout.match(/^dn: /gm)?.length ?? 0;
    expect(await found('(uid=user)')).toBe(1);
    for (const filter of [
      '(sn=user)',
      '(!(sn=user))',
      '(!(sn=*))',
      '(telephoneNumber=123)',
      '(|(sn=user)(!(sn=user)))',
      '(sn:caseExactMatch:=user)',
    ]) {
      expect(await found(filter), filter).toBe(0);
    }
    expect(await found('(|(sn=user)(uid=user))')).toBe(1);
  });

  test('may be compared where just that is allowed', async () => {
    expect((await tool('ldapcompare', [user, 'telephoneNumber:123'], { as: head })).code).toBe(6);
    expect((await tool('ldapcompare', [user, 'sn:user'], { as: head })).code).toBe(50);
  });
});

describe('archipelago directory acl', () => {
  test('explains which rule decides', async () => {
    const explained = await acl('explain', head, user, 'mailQuota');
    expect(explained.code, explained.stderr).toBe(0);
    expect(explained.stdout).toContain(`${head} has on mailQuota of ${user}: none`);
    expect(explained.stdout).toMatch(/^ {2}1 configured: .*\n +the entry is not in dn\.subtree$/m);
    expect(explained.stdout).toMatch(/^> \d+ built-in: to filter=\(objectClass=mailAccount\) .*\n +"by \* none" holds$/m);
    const own = JSON.parse((await acl('explain', head, 'uid=user,cn=one.example,o=mail', 'mailQuota', '--json')).stdout);
    expect(own.steps.at(-1)).toMatchObject({ number: 1, outcome: `"by group="${group}" write" holds`, decides: true });
    expect((await acl('test', head, user, 'mailQuota', 'read')).code).toBe(6);
    expect((await acl('test', 'u:user@two.example', user, 'mailQuota', 'read')).code).toBe(0);
    expect((await acl('test', 'anonymous', user, 'userPassword', 'auth')).code).toBe(0);
    expect((await acl('explain', head, user, 'nonsense')).stderr).toContain('attribute nonsense is not known here');
  });

  test('has rules read again, and shows what is wrong with them', async () => {
    const search = (): Promise<Ran> => tool('ldapsearch', ['-LLL', '-b', user, '-s', 'base', 'uid'], { as: head });
    expect((await search()).stdout).toContain('uid: user');
    rules = ['to * by * reed', ...configured];
    const refused = await acl('reload');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/the rules stay as they are: rule 1: .*"reed" is none of/)]);
    expect((await search()).stdout).toContain('uid: user');
    rules = [];
    expect((await acl('reload')).stdout).not.toContain('configured');
    expect((await search()).code).toBe(32);
    rules = configured;
    expect((await acl('reload')).code).toBe(0);
    expect((await acl('show')).stdout).toContain('1 configured: to dn.subtree="cn=one.example,o=mail"');
  });

  test('is for the right admin', async () => {
    await writeFile(join(folder, 'other'), 'secret');
    const ran = await run(process.execPath, [
      program,
      'directory',
      'acl',
      'show',
      '--url',
      directory.url,
      '--bind-dn',
      head,
      '--password-file',
      join(folder, 'other'),
    ]);
    expect([ran.code, ran.stderr]).toEqual([1, expect.stringContaining('for the right admin only')]);
  });
});

test('SIGHUP has a running server read the rules of its node file again; a mistake in them changes nothing', async () => {
  const node = join(folder, 'node.yaml');
  const write = (right: string): Promise<void> =>
    writeFile(
      node,
      `log: { level: info, file: ${join(folder, 'log')} }
services:
  - role: directory
    name: ldap.isp.example
    mode: master
    dataDirectory: ${join(folder, 'node-data')}
    listeners: [{ port: 0, tls: none }]
    identities: []
    access: ['to dn.base="o=mail" by anonymous ${right} by * break']
`,
    );
  const log = (): Promise<string> => readFile(join(folder, 'log'), 'utf8').catch(() => '');
  await write('read');
  const server = spawn(process.execPath, [program, 'up', '--config', node], { stdio: 'ignore' });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  try {
    const listens = /"urls":\["(ldap:[^"]*)"/;
    await expect.poll(log, { timeout: 30_000 }).toMatch(listens);
    const url = listens.exec(await log())?.[1] as string;
    const code = async (): Promise<number> => (await run('ldapsearch', ['-x', '-H', url, '-b', 'o=mail', '-s', 'base'])).code;
    expect(await code()).toBe(0);
    await write('reed');
    server.kill('SIGHUP');
    await expect.poll(log, { timeout: 30_000 }).toMatch(/"outcome":"refused"[^\n]*access rules were not changed/);
    expect(await log()).toContain('is none of *, anonymous');
    expect(await code()).toBe(0);
    await write('none');
    server.kill('SIGHUP');
    await expect.poll(code, { timeout: 30_000 }).toBe(32);
    expect(server.exitCode).toBeNull();
  } finally {
    server.kill('SIGTERM');
    await ended;
  }
});
