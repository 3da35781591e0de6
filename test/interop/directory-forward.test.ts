/**
 * A replica and its writers, seen by OpenLDAP's tools: referred to the master, or served by it through the replica, under their own names.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { checkDirectory } from '#directory/config.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { type RunningReplication, startReplication } from '#replication/main.ts';
import {
  accountDn,
  accountEntry,
  addFrame,
  identityDn,
  servicePassword,
  startTestDirectory,
  type TestDirectory,
} from '../unit/directory/test-directory.ts';
import { type Ran, run } from './run-tool.ts';

let folder: string;
let master: TestDirectory;
let forwarding: TestDirectory;
let referring: TestDirectory;
let replication: RunningReplication;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-forward-'));
  const secret = { file: join(folder, 'secret') };
  await writeFile(secret.file, servicePassword);
  const identity = { dn: 'cn=eu,ou=services,o=mail', rights: 'frontend', password: secret, actsForOthers: true } as const;
  const services = (['admin', 'replicator', 'cluster', 'provisioner', 'frontend'] as const).map((rights) => ({
    dn: identityDn(rights),
    rights,
    password: secret,
  }));
  master = await startTestDirectory({ identities: [...services, identity] });
  const admin = await master.connect();
  await addFrame(admin);
  for (const uid of ['alice', 'bob']) await admin.add(accountDn(uid), accountEntry(uid, attribute('userPassword', 'secret')));
  await admin[Symbol.asyncDispose]();
  const replica = { mode: 'replica', master: master.url } as const;
  referring = await startTestDirectory(replica);
  forwarding = await startTestDirectory({
    ...replica,
    writes: 'forward',
    forwardAs: { bindDn: identity.dn, bindPassword: secret, timeoutMs: 10_000, waitMs: 20_000 },
  });
  replication = await startReplication(
    {
      role: 'replication',
      name: 'replication.isp.example',
      suffix: 'o=mail',
      master: { url: master.url, bindDn: identityDn('replicator'), bindPassword: secret },
      replicas: [referring, forwarding].map(({ url }, i) => ({
        name: `ldap-${i}`,
        url,
        bindDn: identityDn('replicator'),
        bindPassword: secret,
      })),
      stateDirectory: join(folder, 'state'),
      refreshDeletesMaxPercent: 10,
      verifySchedule: '17 3 * * *',
    },
    systemPorts(silentLogger),
  );
});
afterAll(async () => {
  await replication?.[Symbol.asyncDispose]();
  for (const one of [forwarding, referring, master]) await one?.[Symbol.asyncDispose]();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

function tool(at: TestDirectory, name: string, args: readonly string[], options: { stdin?: string; as?: string } = {}): Promise<Ran> {
  const [dn, password] = options.as === undefined ? [identityDn('provisioner'), servicePassword] : [options.as, 'secret'];
  return run(name, ['-x', '-H', at.url, '-D', dn, '-w', password, ...args], options.stdin === undefined ? {} : { stdin: options.stdin });
}
const change = (uid: string, quota: number): string =>
  `dn: ${accountDn(uid)}\nchangetype: modify\nreplace: mailQuota\nmailQuota: ${quota}\n`;
const carol = `dn: ${accountDn('carol')}\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: carol\ncn: Carol\nsn: C\nuserPassword: secret\n`;

test('both replicas are filled', async () => {
  for (const one of [referring, forwarding]) {
    await expect.poll(() => one.running.status().accounts, { timeout: 30_000 }).toBe(2);
  }
});

describe('a replica that refers', () => {
  test('answers every kind of write with the master’s URL and the name', async () => {
    const referral = (ran: Ran): unknown => [ran.code, /ref(?:errals?)?: ?\s*(ldap:\S+)/i.exec(ran.stdout + ran.stderr)?.[1]];
    const url = (uid: string): string => `${master.url}/${accountDn(uid)}`;
    expect(referral(await tool(referring, 'ldapmodify', [], { stdin: change('alice', 1) }))).toEqual([10, url('alice')]);
    expect(referral(await tool(referring, 'ldapadd', [], { stdin: carol }))).toEqual([10, url('carol')]);
    expect(referral(await tool(referring, 'ldapdelete', [accountDn('bob')]))).toEqual([10, url('bob')]);
    expect(referral(await tool(referring, 'ldapmodrdn', ['-r', accountDn('bob'), 'uid=rob']))).toEqual([10, url('bob')]);
    const password = await tool(referring, 'ldappasswd', ['-s', 'neu', accountDn('bob')]);
    expect(password.stdout + password.stderr).toMatch(/Referral \(10\)/);
  });
});

describe('a replica that forwards', () => {
  test('adds, changes, renames and removes at the master, and answers once the change is here', async () => {
    expect((await tool(forwarding, 'ldapadd', [], { stdin: carol })).code).toBe(0);
    const here = await tool(forwarding, 'ldapsearch', ['-LLL', '-b', accountDn('carol'), '-s', 'base', 'hostServer', 'creatorsName']);
    expect(here.stdout).toMatch(/^hostServer: (?:east|west)\.isp\.example$/m);
    expect(here.stdout).toContain(`creatorsName: ${identityDn('provisioner')}`);
    expect((await tool(forwarding, 'ldapmodrdn', ['-r', accountDn('carol'), 'uid=caro'])).code).toBe(0);
    expect((await tool(forwarding, 'ldapsearch', ['-b', accountDn('caro'), '-s', 'base'])).code).toBe(0);
    expect((await tool(forwarding, 'ldapdelete', [accountDn('caro')])).code).toBe(0);
    expect((await tool(forwarding, 'ldapsearch', ['-b', accountDn('caro'), '-s', 'base'])).code).toBe(32);
  });

  test('carries controls there and back, and the master’s refusals', async () => {
    const changed = await tool(forwarding, 'ldapmodify', ['-e', '!assert=(uid=alice)', '-e', '!preread=uid', '-e', '!postread=mailQuota'], {
      stdin: change('alice', 4711),
    });
    expect(changed.stdout).toContain('mailQuota: 4711');
    expect(changed.stdout).toContain('uid: alice');
    expect((await tool(forwarding, 'ldapmodify', ['-e', '!assert=(mailQuota=7)'], { stdin: change('alice', 1) })).code).toBe(122);
    expect((await tool(forwarding, 'ldapadd', [], { stdin: carol.replaceAll('carol', 'bob') })).code).toBe(68);
    const wrong = await tool(forwarding, 'ldapadd', [], { stdin: carol.replace('sn: C', 'sn: C\nhostServer: north.example') });
    expect([wrong.code, wrong.stderr]).toEqual([19, expect.stringContaining('known clusters: east.isp.example, west.isp.example')]);
    expect((await tool(forwarding, 'ldapmodify', ['-e', '!1.2.3'], { stdin: change('alice', 1) })).code).toBe(12);
  });

  test('gives nobody more rights than it has at the master', async () => {
    expect((await tool(forwarding, 'ldapmodify', [], { stdin: change('alice', 1), as: accountDn('alice') })).code).toBe(50);
    expect((await tool(forwarding, 'ldapmodify', [], { stdin: change('bob', 1), as: accountDn('alice') })).code).toBe(32);
    expect((await run('ldapdelete', ['-x', '-H', forwarding.url, accountDn('alice')])).code).not.toBe(0);
    const own = await tool(forwarding, 'ldappasswd', ['-a', 'secret', '-s', 'other'], { as: accountDn('alice') });
    expect(own.code, own.stderr).toBe(0);
    expect((await run('ldapwhoami', ['-x', '-H', forwarding.url, '-D', accountDn('alice'), '-w', 'other'])).code).toBe(0);
  });

  test('says so when the master is away, and still answers searches', async () => {
    await master.stop();
    const away = await tool(forwarding, 'ldapmodify', [], { stdin: change('bob', 1) });
    expect([away.code, away.stderr]).toEqual([52, expect.stringMatching(/the master (?:cannot be reached|did not answer)/)]);
    expect((await tool(forwarding, 'ldapsearch', ['-b', accountDn('bob'), '-s', 'base'])).code).toBe(0);
  });
});

test('a configuration that cannot forward is told so', () => {
  expect(checkDirectory({ mode: 'replica', writes: 'forward' }).map(({ message }) => message)).toEqual([
    '"forward" needs master',
    '"forward" needs forwardAs',
  ]);
  expect(checkDirectory({ mode: 'master', writes: 'forward' })).toHaveLength(1);
  expect(checkDirectory({ mode: 'replica', writes: 'forward', master: 'x', forwardAs: {} })).toEqual([]);
});
