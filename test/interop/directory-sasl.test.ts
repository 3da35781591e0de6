/**
 * Ways to bind other than simple bind over TLS, as OpenLDAP's tools use them: SASL PLAIN, SASL EXTERNAL with a client certificate, ldapi.
 */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attribute } from '#protocol/ldap/messages.ts';
import {
  accountEntry,
  addFrame,
  identityDn,
  servicePassword,
  startTestDirectory,
  type TestDirectory,
} from '../unit/directory/test-directory.ts';
import { type Ran, run } from './run-tool.ts';

let directory: TestDirectory;
let folder: string;
let caFile: string;

/** A certificate with these names, signed by the CA unless it is the CA itself. */
function makeCertificate(name: string, subjectAltName: string, signer?: string): void {
  const file = (kind: string): string => join(folder, `${name}.${kind}`);
  const request = [
    'req',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    file('key'),
    '-subj',
    `/CN=${name}`,
    '-addext',
    `subjectAltName=${subjectAltName}`,
  ];
  const sign = signer === undefined ? [] : ['-CA', join(folder, `${signer}.pem`), '-CAkey', join(folder, `${signer}.key`)];
  execFileSync('openssl', [...request, '-x509', '-days', '2', '-out', file('pem'), ...sign], { stdio: 'ignore' });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-sasl-'));
  caFile = join(folder, 'ca.pem');
  makeCertificate('ca', 'IP:127.0.0.1');
  makeCertificate('front1', 'DNS:front1.isp.example', 'ca');
  makeCertificate('stranger', 'DNS:stranger.isp.example', 'ca');
  makeCertificate('forged', 'DNS:front1.isp.example');
  const passwordFile = join(folder, 'password');
  await writeFile(passwordFile, servicePassword);
  directory = await startTestDirectory({
    tls: { certFile: caFile, keyFile: join(folder, 'ca.key') },
    clientCaFile: caFile,
    passwordPolicy: { failuresMax: 100, windowSeconds: 60, lockoutSeconds: 60 },
    ldapiPath: join(folder, 'ldapi'),
    listeners: [
      { address: '127.0.0.1', port: 0, tls: 'starttls' },
      { address: '127.0.0.1', port: 0, tls: 'implicit' },
    ],
    identities: [
      { dn: identityDn('admin'), rights: 'admin', password: { file: passwordFile } },
      { dn: identityDn('frontend'), rights: 'frontend', password: { file: passwordFile }, certificateName: 'front1.isp.example' },
    ],
  });
  await using admin = await directory.connect();
  await addFrame(admin);
  await admin.add('uid=alice,cn=isp.example,o=mail', accountEntry('alice', attribute('userPassword', 'secret')));
});
afterAll(async () => {
  await directory?.[Symbol.asyncDispose]();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

function environment(certificate: string | undefined): Record<string, string> {
  const file = (kind: string): string => join(folder, `${certificate}.${kind}`);
  return { LDAPTLS_CACERT: caFile, ...(certificate === undefined ? {} : { LDAPTLS_CERT: file('pem'), LDAPTLS_KEY: file('key') }) };
}

function whoami(url: string, args: readonly string[], certificate?: string): Promise<Ran> {
  return run('ldapwhoami', ['-Q', '-H', url, ...args], { env: environment(certificate) });
}

async function mechanisms(url: string, certificate?: string): Promise<string[]> {
  const args = ['-x', '-LLL', '-H', url, '-b', '', '-s', 'base', 'supportedSASLMechanisms'];
  const { stdout } = await run('ldapsearch', args, { env: environment(certificate) });
  return [...stdout.matchAll(/^supportedSASLMechanisms: (.*)$/gm)].map((line) => line[1] as string);
}

const alice = 'dn:uid=alice,cn=isp.example,o=mail';

describe('SASL PLAIN', () => {
  const plain = (user: string, password: string): string[] => ['-Y', 'PLAIN', '-O', 'none', '-U', user, '-w', password];

  test("takes an account's name over StartTLS, ldaps and loopback", async () => {
    const [clear, ldaps] = directory.running.urls as [string, string];
    expect((await whoami(clear, ['-ZZ', ...plain('alice@isp.example', 'secret')])).stdout.trim()).toBe(alice);
    expect((await whoami(ldaps, plain('alice@isp.example', 'secret'))).stdout.trim()).toBe(alice);
    expect((await whoami(clear, plain('alice@isp.example', 'secret'))).stdout.trim()).toBe(alice);
  });

  test('refuses a wrong password, an unknown name and an identity that is not ones own', async () => {
    const url = directory.url;
    expect((await whoami(url, plain('alice@isp.example', 'wrong'))).code).toBe(49);
    expect((await whoami(url, plain('nobody@isp.example', 'secret'))).code).toBe(49);
    expect((await whoami(url, [...plain('alice@isp.example', 'secret'), '-X', `dn:${identityDn('admin')}`])).code).toBe(123);
    expect((await whoami(url, [...plain('alice@isp.example', 'secret'), '-X', 'u:alice@isp.example'])).stdout.trim()).toBe(alice);
  });
});

describe('SASL EXTERNAL', () => {
  const external = ['-Y', 'EXTERNAL'];

  test('binds as the identity that the verified client certificate names', async () => {
    const ldaps = directory.running.urls[1] as string;
    expect((await whoami(ldaps, external, 'front1')).stdout.trim()).toBe(`dn:${identityDn('frontend')}`);
  });

  test('is neither offered nor taken with a strange certificate, a forged one, none, or after StartTLS', async () => {
    const [clear, ldaps] = directory.running.urls as [string, string];
    for (const certificate of ['stranger', 'forged', undefined]) {
      expect((await whoami(ldaps, external, certificate)).code).not.toBe(0);
      expect(await mechanisms(ldaps, certificate)).toEqual(['PLAIN']);
    }
    expect((await whoami(clear, ['-ZZ', ...external], 'front1')).code).not.toBe(0);
    expect(await mechanisms(ldaps, 'front1')).toEqual(['PLAIN', 'EXTERNAL']);
  });
});

describe('ldapi', () => {
  test('takes a simple bind on a Unix socket, also after a restart', async () => {
    const url = directory.running.urls[2] as string;
    expect(url).toMatch(/^ldapi:\/\/%2F/);
    const simple = ['-x', '-D', identityDn('admin'), '-w', servicePassword];
    expect((await run('ldapwhoami', ['-H', url, ...simple])).stdout.trim()).toBe(`dn:${identityDn('admin')}`);
    await directory.restart();
    expect((await run('ldapwhoami', ['-H', url, ...simple])).stdout.trim()).toBe(`dn:${identityDn('admin')}`);
    // Whose process it is that connects cannot be told on a Unix socket here, so without an identity for it EXTERNAL is not on offer.
    expect(await mechanisms(url)).toEqual(['PLAIN']);
  });

  test('binds by EXTERNAL as the identity for the socket, whose file then is for the server’s own user', async () => {
    const path = join(folder, 'own');
    const mask = process.umask(0);
    await using own = await startTestDirectory({ ldapiPath: path, ldapiIdentity: identityDn('provisioner') });
    process.umask(mask);
    const url = own.running.urls[1] as string;
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await mechanisms(url)).toEqual(['PLAIN', 'EXTERNAL']);
    const external = ['-Y', 'EXTERNAL', '-Q', '-H', url];
    expect((await run('ldapwhoami', external)).stdout.trim()).toBe(`dn:${identityDn('provisioner')}`);
    expect((await run('ldapwhoami', [...external, '-X', `dn:${identityDn('admin')}`])).code).not.toBe(0);
    // Over TCP, from the same machine, it is not.
    expect((await run('ldapwhoami', ['-Y', 'EXTERNAL', '-Q', '-H', own.url])).code).not.toBe(0);
    const wrong = startTestDirectory({ ldapiPath: join(folder, 'wrong'), ldapiIdentity: 'cn=nobody,o=mail' });
    await expect(wrong).rejects.toThrow(/ldapiIdentity .* is none of cn=admin/);
  });
});

describe('the password policy control (draft-behera-ldap-password-policy)', () => {
  test('tells ldapwhoami that the password must be changed', async () => {
    await using admin = await directory.connect();
    await admin.add(
      'uid=reset,cn=isp.example,o=mail',
      accountEntry('reset', attribute('userPassword', 'secret'), attribute('pwdReset', 'TRUE')),
    );
    const asReset = ['-x', '-D', 'uid=reset,cn=isp.example,o=mail', '-w', 'secret', '-H', directory.url];
    const seen = await run('ldapwhoami', [...asReset, '-e', 'ppolicy']);
    expect(seen.stdout + seen.stderr).toMatch(/Password must be changed/);
    expect((await run('ldapsearch', [...asReset, '-b', 'uid=reset,cn=isp.example,o=mail'])).code).toBe(50);
  });

  test('tells ldapwhoami and ldapsearch that the account is locked, and nothing of a wrong password', async () => {
    await using strict = await startTestDirectory({ passwordPolicy: { failuresMax: 2, windowSeconds: 3600, lockoutSeconds: 0 } });
    await using admin = await strict.connect();
    await addFrame(admin);
    const dn = 'uid=lock,cn=isp.example,o=mail';
    await admin.add(dn, accountEntry('lock', attribute('userPassword', 'secret')));
    const bind = async (password: string): Promise<string> => {
      const ran = await run('ldapwhoami', ['-x', '-D', dn, '-w', password, '-H', strict.url, '-e', 'ppolicy']);
      return ran.stdout + ran.stderr;
    };
    for (let i = 0; i < 2; i += 1) expect(await bind('wrong')).toMatch(/\(49\)(?![\s\S]*ocked)/);
    expect(await bind('secret')).toMatch(/Account locked/);
    const state = await run('ldapsearch', [
      '-x',
      '-LLL',
      '-H',
      strict.url,
      '-D',
      identityDn('admin'),
      '-w',
      servicePassword,
      '-b',
      dn,
      '+',
    ]);
    expect(state.stdout.match(/^pwdFailureTime: /gm)).toHaveLength(2);
    expect(state.stdout).toMatch(/^pwdAccountLockedTime: \d{14}/m);
  });
});
