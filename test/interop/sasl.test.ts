/**
 * Log-ins by access token and by SCRAM with clients that are not ours: curl, imapflow, nodemailer, GNU SASL (channel binding included) and mbsync
 * with Cyrus SASL, against the demo's federation.
 */

import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImapFlow } from 'imapflow';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import type { FrontendEndpoints } from '#deploy/dev/ready-document.ts';
import { accountLdif, ldapAdmin, ok, type Ran, run, until } from '../e2e/clients.ts';

const user = 'sam@isp.example';
const password = 'pencil';
const issuerKey = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const oauth = {
  issuer: 'https://login.isp.example',
  audience: 'mail',
  claim: 'email',
  clockSkewSeconds: 30,
  timeoutMs: 5000,
};

let root: string;
let federation: Federation;
let front: FrontendEndpoints;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-sasl-'));
  const jwksFile = join(root, 'jwks.json');
  await writeFile(jwksFile, JSON.stringify({ keys: [{ ...issuerKey.publicKey.export({ format: 'jwk' }), kid: 'k1', use: 'sig' }] }));
  await writeFile(join(root, 'scram-secret'), 'one secret for all frontends\n', { mode: 0o600 });
  federation = await startFederation({
    root,
    withSamples: false,
    adjust: {
      directory: { scramIterations: 4096 },
      member: { oauth: { ...oauth, jwksFile } },
      frontend: { oauth: { ...oauth, jwksFile }, scram: { secret: { file: join(root, 'scram-secret') }, iterations: 4096 } },
    },
    ports: systemPorts(createLogger('debug', {}, logFileOf(root))),
  });
  front = federation.ready.subsets.eu?.frontends[0] as FrontendEndpoints;
  const domain = 'dn: cn=isp.example,o=mail\nobjectClass: mailDomain\ncn: isp.example\n\n';
  await ok('ldapadd', [...ldapAdmin(federation.ready), '-c'], {
    input: `${domain}${accountLdif('sam', password, 'west.isp.example')}\n${accountLdif('old', '{CLEARTEXT}pencil', 'west.isp.example')}`,
  });
  await until(
    () => run('curl', [...tls(), '--user', `${user}:${password}`, `imaps://${front.imaps}/`, '-X', 'NOOP']),
    ({ code }) => code === 0,
    30_000,
  );
});

afterAll(async () => {
  await federation?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

const tls = (): string[] => ['--silent', '--show-error', '--cacert', federation.ready.caFile];
const hostOf = (address: string): string => address.split(':')[0] as string;
const portOf = (address: string): string => address.split(':')[1] as string;

function token(more: object = {}): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { iss: oauth.issuer, aud: oauth.audience, exp: systemClock.nowMs() / 1000 + 600, email: user, ...more };
  const text = `${part({ alg: 'ES256', kid: 'k1', typ: 'at+jwt' })}.${part(claims)}`;
  return `${text}.${sign('sha256', Buffer.from(text), { key: issuerKey.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

describe('an access token', () => {
  const bearer = (bearerToken: string, ...rest: string[]): Promise<Ran> =>
    run('curl', [...tls(), '--user', `${user}:`, '--oauth2-bearer', bearerToken, ...rest]);

  it('opens the account by IMAP and POP3, with curl', async () => {
    expect(await bearer(token(), `imaps://${front.imaps}/`, '-X', 'STATUS INBOX (MESSAGES)')).toMatchObject({ code: 0 });
    expect(await bearer(token(), `pop3s://${front.pop3s}/`)).toMatchObject({ code: 0 });
    expect(await bearer(token(), `imaps://${front.imaps}/`, '--login-options', 'AUTH=XOAUTH2', '-X', 'NOOP')).toMatchObject({ code: 0 });
  });

  it('submits mail, with curl', async () => {
    const file = join(root, 'mail.txt');
    await writeFile(file, `From: ${user}\r\nTo: ${user}\r\nSubject: by token\r\n\r\nhello\r\n`);
    const sent = ['--ssl-reqd', '--mail-from', user, '--mail-rcpt', user, '--upload-file', file, `smtp://${front.submission}/`];
    expect(await bearer(token(), ...sent)).toMatchObject({ code: 0 });
  });

  it.each([
    ['has expired', { exp: 1 }],
    ['is for another account', { email: 'old@isp.example' }],
    ['is for another service', { aud: 'web' }],
  ])('that %s is refused as a wrong login', async (_what, more) => {
    expect((await bearer(token(more), `imaps://${front.imaps}/`, '-X', 'NOOP')).code).toBe(67);
    expect((await bearer(token(more), `pop3s://${front.pop3s}/`)).code).toBe(67);
  });

  it('is enough for imapflow, which hears why a bad one is refused', async () => {
    const session = (accessToken: string): ImapFlow =>
      new ImapFlow({
        host: hostOf(front.imaps),
        port: Number(portOf(front.imaps)),
        secure: true,
        auth: { user, accessToken },
        tls: { rejectUnauthorized: false },
        logger: false,
      });
    const client = session(token());
    await client.connect();
    expect((await client.status('INBOX', { messages: true })) as object).toHaveProperty('messages');
    await client.logout();
    const refused = (await session(token({ exp: 1 }))
      .connect()
      .then(() => undefined)
      .catch((error: unknown) => error)) as { oauthError?: { status?: string } } | undefined;
    expect(refused?.oauthError?.status).toBe('invalid_token');
  });
});

describe('SCRAM-SHA-256', () => {
  const clientArguments = (mechanism: string, host: string, who: string, word: string): string[] => [
    ...['--mechanism', mechanism, '--connect', host, '--x509-ca-file', federation.ready.caFile],
    ...['--authentication-id', who, '--password', word, '--verbose'],
  ];
  const gsasl = (mechanism: string, word: string, host: string, ...more: string[]): Promise<Ran> =>
    run('gsasl', ['--client', ...clientArguments(mechanism, host, user, word), ...more], { input: '\n' });

  it('lets mbsync with Cyrus SASL fetch the mail', async () => {
    const config = join(root, 'mbsyncrc');
    const maildir = join(root, 'maildir');
    await mkdir(maildir);
    await writeFile(
      config,
      [
        'IMAPStore far',
        'Host localhost',
        `Port ${portOf(front.imaps)}`,
        `User ${user}`,
        `Pass ${password}`,
        'SSLType IMAPS',
        `CertificateFile ${federation.ready.caFile}`,
        'AuthMechs SCRAM-SHA-256',
        '',
        'MaildirStore near',
        `Path ${maildir}/`,
        `Inbox ${maildir}/INBOX`,
        '',
        'Channel mail',
        'Far :far:',
        'Near :near:',
        'Create Near',
        `SyncState ${root}/`,
        '',
      ].join('\n'),
    );
    const ran = await run('mbsync', ['-c', config, '-a']);
    expect(ran, ran.err).toMatchObject({ code: 0 });
  });

  it.each([
    ['SCRAM-SHA-256', ['--no-cb']],
    ['SCRAM-SHA-256-PLUS', []],
  ])('is taken from GNU SASL by IMAP after STARTTLS, as %s', async (mechanism, more) => {
    const ran = await gsasl(mechanism, password, front.imap, '--imap', '--starttls', ...more);
    expect(ran.out, ran.err).toMatch(/OK \[CAPABILITY .*\] Logged in/);
    expect((await gsasl(mechanism, 'pen', front.imap, '--imap', '--starttls', ...more)).out).toMatch(/NO \[AUTHENTICATIONFAILED\]/);
  });

  it('is taken from GNU SASL by submission', async () => {
    const ran = await gsasl('SCRAM-SHA-256', password, front.submission, '--smtp', '--starttls', '--no-cb');
    expect(ran.out + ran.err).toMatch(/^235 2\.7\.0 /m);
  });

  it('knows a password that was changed by LDAP', async () => {
    const dn = 'uid=pat,cn=isp.example,o=mail';
    await ok('ldapadd', ldapAdmin(federation.ready), { input: accountLdif('pat', 'first', 'west.isp.example') });
    await ok('ldappasswd', [...ldapAdmin(federation.ready), '-s', 'second', dn]);
    const { answer } = await until(
      () => run('gsasl', ['--client', ...clientArguments('SCRAM-SHA-256', front.imap, 'pat@isp.example', 'second'), '--imap', '--no-cb']),
      ({ out }) => out.includes('Logged in'),
      30_000,
    );
    expect(answer.out).toContain('Logged in');
  });

  it('tells nobody which accounts exist or have keys', async () => {
    const saltOf = async (name: string, frontend: FrontendEndpoints): Promise<string> => {
      const first = Buffer.from(`n,,n=${name},r=clientnonce`).toString('base64');
      const { out } = await run('openssl', ['s_client', '-quiet', '-connect', frontend.imaps], {
        input: `a AUTHENTICATE SCRAM-SHA-256 ${first}\r\n*\r\nb LOGOUT\r\n`,
      });
      const challenge = /^\+ (\S+)/m.exec(out)?.[1] ?? '';
      return Buffer.from(challenge, 'base64')
        .toString()
        .replace(/^r=[^,]*,/, '');
    };
    const other = federation.ready.subsets.us?.frontends[0] as FrontendEndpoints;
    for (const name of [user, 'old@isp.example', 'nobody@isp.example', 'nobody@elsewhere.example']) {
      const salt = await saltOf(name, front);
      expect(salt).toMatch(/^s=[A-Za-z0-9+/]{22}==,i=4096$/);
      expect([await saltOf(name, front), await saltOf(name, other)]).toEqual([salt, salt]);
    }
  });
});
