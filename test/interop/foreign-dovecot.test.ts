/**
 * A pair of stock Dovecots with one store behind the frontends of the demo, in the place of the Dovecot director: accounts stick to a host, are moved between the
 * two, survive the loss of one, and migrate from there to a cluster of ours.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImapFlow } from 'imapflow';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import { accountLdif, curlImap, curlPop3, curlSend, ldapAdmin, ok, until } from '../e2e/clients.ts';
import { type DovecotHosts, startDovecots } from './dovecot-server.ts';

const legacy = 'legacy.isp.example';
const accounts = ['dora', 'dirk', 'dana', 'dean', 'demi', 'duke'];

let root: string;
let federation: Federation;
let dovecots: DovecotHosts;

beforeAll(async () => {
  dovecots = await startDovecots(['127.0.0.21', '127.0.0.22']);
  root = await mkdtemp(join(tmpdir(), 'archipelago-foreign-'));
  federation = await startFederation({
    root,
    withSamples: true,
    ports: systemPorts(createLogger('debug', {}, logFileOf(root))),
  });
  const { imap, pop3, lmtp } = dovecots.ports;
  await ldap('ldapadd', [
    `dn: cn=${legacy},ou=topology,o=mail`,
    'objectClass: mailCluster',
    'objectClass: foreignCluster',
    `cn: ${legacy}`,
    `clusterMember: dove1.${legacy} 127.0.0.21`,
    `clusterMember: dove2.${legacy} 127.0.0.22`,
    `foreignService: imap ${imap} none`,
    `foreignService: pop3 ${pop3} none`,
    `foreignService: lmtp ${lmtp} none`,
    '',
    ...accounts.map((uid) => accountLdif(uid, dovecots.password, legacy)),
  ]);
  for (const uid of accounts)
    await until(
      () => status(uid),
      (out) => out.includes('MESSAGES'),
      20_000,
    );
});

afterAll(async () => {
  await federation?.[Symbol.asyncDispose]();
  await dovecots?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

async function ldap(tool: 'ldapadd' | 'ldapmodify', lines: readonly string[]): Promise<string> {
  return ok(tool, ldapAdmin(federation.ready), { input: `${lines.join('\n')}\n` });
}

const name = (uid: string): string => `${uid}@isp.example`;
const imaps = (subset: 'eu' | 'us'): string => federation.ready.subsets[subset]?.frontends[0]?.imaps as string;

async function status(uid: string, subset: 'eu' | 'us' = 'eu'): Promise<string> {
  return (await curlImap(federation.ready, imaps(subset), name(uid), dovecots.password, 'STATUS INBOX (MESSAGES)')).out;
}

/** Hosts on which the account has logged in, as the Dovecots' own logs say, latest last. */
async function loginsOf(uid: string): Promise<string[]> {
  const found: { at: string; host: string }[] = [];
  for (const host of dovecots.hosts) {
    for (const line of await host.log()) {
      if (line.includes('Login:') && line.includes(`user=<${name(uid)}>`)) found.push({ at: line.slice(0, 15), host: host.address });
    }
  }
  return found.sort((a, b) => a.at.localeCompare(b.at)).map(({ host }) => host);
}

async function homeOf(uid: string): Promise<string> {
  return (await federation.frontends.values().next().value?.explain(name(uid)))?.member as string;
}

describe('a pair of Dovecots behind two subsets', () => {
  it('gets each account on one host, whatever frontend and protocol it comes by, and both hosts get some', async () => {
    for (const uid of accounts) {
      await status(uid, 'us');
      await curlPop3(federation.ready, federation.ready.subsets.eu?.frontends[1]?.pop3s as string, name(uid), dovecots.password);
      expect(new Set(await loginsOf(uid)).size, uid).toBe(1);
    }
    const hosts = new Set((await Promise.all(accounts.map(loginsOf))).map(([host]) => host));
    expect([...hosts].sort()).toEqual(['127.0.0.21', '127.0.0.22']);
  });

  it('refuses a wrong password as Dovecot does', async () => {
    const { code } = await curlImap(federation.ready, imaps('eu'), name('dora'), 'looking-glass', 'NOOP');
    expect(code).toBe(67);
  });

  it('takes mail by LMTP on the host that the account’s sessions are on', async () => {
    const smtp = federation.ready.subsets.eu?.frontends[0]?.smtp as string;
    const sent = await curlSend(federation.ready, smtp, 'alice@isp.example', name('dora'), 'hello', 'hello dora');
    expect(sent.code).toBe(0);
    await until(
      () => status('dora', 'us'),
      (out) => out.includes('MESSAGES 1'),
      20_000,
    );
    const stored: string[] = [];
    for (const host of dovecots.hosts)
      if ((await host.log()).some((line) => line.includes('saved mail to INBOX'))) stored.push(host.address);
    expect(stored).toEqual([(await loginsOf('dora')).at(-1)]);
  });

  it('moves an account with its session when hostServer names the other host', async () => {
    const before = await homeOf('dirk');
    const after = before === `dove1.${legacy}` ? `dove2.${legacy}` : `dove1.${legacy}`;
    const [host, port] = imaps('eu').split(':') as [string, string];
    const client = new ImapFlow({
      host,
      port: Number(port),
      secure: true,
      auth: { user: name('dirk'), pass: dovecots.password },
      tls: { rejectUnauthorized: false },
      logger: false,
    });
    client.on('error', () => {});
    await client.connect();
    const closed = new Promise((resolve) => client.on('close', resolve));
    await ldap('ldapmodify', [`dn: uid=dirk,cn=isp.example,o=mail`, 'changetype: modify', 'replace: hostServer', `hostServer: ${after}`]);
    await closed;
    await until(
      () => homeOf('dirk'),
      (home) => home === after,
      20_000,
    );
    // Their logs tell time in seconds, in one of which it may have been at both: so by what comes anew.
    const earlier = await loginsOf('dirk');
    await status('dirk');
    const newHost = after.startsWith('dove1') ? '127.0.0.21' : '127.0.0.22';
    const on = (logins: readonly string[], wanted: boolean): number => logins.filter((where) => (where === newHost) === wanted).length;
    const later = await loginsOf('dirk');
    expect([on(later, true), on(later, false)]).toEqual([on(earlier, true) + 1, on(earlier, false)]);
  });

  it('serves all accounts by the host that is left, and by their own again once it is back', async () => {
    const [lost] = dovecots.hosts;
    const before = new Map(await Promise.all(accounts.map(async (uid) => [uid, await homeOf(uid)] as const)));
    await lost?.stop();
    for (const uid of accounts) expect(await status(uid), uid).toContain('MESSAGES');
    expect(new Set(await Promise.all(accounts.map(homeOf)))).toEqual(new Set([`dove2.${legacy}`]));
    await lost?.start();
    await until(
      () => Promise.all(accounts.map(homeOf)),
      (now) => accounts.every((uid, index) => now[index] === before.get(uid)),
      60_000,
    );
  });

  it('lets an account go to a cluster of ours once its mail has been moved', async () => {
    await ok('ldapmodify', [...ldapAdmin(federation.ready), '-e', 'relax'], {
      input: ['dn: uid=duke,cn=isp.example,o=mail', 'changetype: modify', 'replace: hostServer', 'hostServer: west.isp.example', ''].join(
        '\n',
      ),
    });
    await until(
      () => homeOf('duke'),
      (home) => home.endsWith('.west.isp.example'),
      20_000,
    );
    expect(await status('duke')).toContain('MESSAGES 0');
  });

  it('explains where an account is, and why', async () => {
    const explained = await federation.frontends.values().next().value?.explain(name('dirk'));
    expect(explained).toMatchObject({ verdict: 'routed', hostServer: legacy, memberReason: 'pinned by hostServer' });
  });
});
