/**
 * Proxies and mail servers that are not ours ask a frontend where an account is: nginx by auth_http, Dovecot by its Lua passdb, Postfix by
 * tcp_table and socketmap_table. Sessions then go through them to the hosts of a foreign cluster.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, startFederation } from '#deploy/dev/federation.ts';
import { directoryAccess, frontendConfig, layoutOf } from '#deploy/dev/plan.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import { type RunningFrontend, startFrontend } from '#frontend/main.ts';
import { accountLdif, ldapAdmin, ok, run, until } from '../e2e/clients.ts';
import { type DovecotHosts, startDovecots } from './dovecot-server.ts';
import { freePort } from './slapd-server.ts';

const legacy = 'legacy.isp.example';
const secure = 'secure.isp.example';
const mistrusted = 'mistrusted.isp.example';
const accounts = ['dora', 'dirk', 'dana'];
let root: string;
let federation: Federation;
let dovecots: DovecotHosts;
let frontend: RunningFrontend;
const children: ChildProcess[] = [];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-answers-'));
  const authority = await createThrowawayCa(systemClock, systemRandom);
  const issued = await authority.issue([`dove1.${secure}`, `dove2.${secure}`]);
  const [certFile, keyFile, caFile, masterFile] = ['dove.pem', 'dove.key', 'dove-ca.pem', 'master'].map((name) => join(root, name)) as [
    string,
    string,
    string,
    string,
  ];
  await writeFile(certFile, issued.certificate);
  await writeFile(keyFile, issued.key);
  await writeFile(caFile, authority.certificate);
  dovecots = await startDovecots(['127.0.0.23', '127.0.0.24'], { tls: { certFile, keyFile } });
  await writeFile(masterFile, dovecots.masterPassword);
  const ports: Ports = systemPorts(silentLogger);
  federation = await startFederation({ root, ports });
  const { imap, lmtp } = dovecots.ports;
  const lines = [
    `dn: cn=${legacy},ou=topology,o=mail`,
    'objectClass: mailCluster',
    'objectClass: foreignCluster',
    `cn: ${legacy}`,
    `clusterMember: dove1.${legacy} 127.0.0.23`,
    `clusterMember: dove2.${legacy} 127.0.0.24`,
    `foreignService: imap ${imap} none`,
    `foreignService: lmtp ${lmtp} none`,
    '',
    ...accounts.map((uid) => accountLdif(uid, dovecots.password, legacy)),
    ...[secure, mistrusted].flatMap((name) => [
      `dn: cn=${name},ou=topology,o=mail`,
      'objectClass: mailCluster',
      'objectClass: foreignCluster',
      `cn: ${name}`,
      `clusterMember: dove1.${name} 127.0.0.23`,
      `clusterMember: dove2.${name} 127.0.0.24`,
      `foreignService: imap ${imap} starttls`,
      '',
    ]),
    accountLdif('sven', 'known-to-the-directory', secure),
    accountLdif('mia', dovecots.password, mistrusted),
  ];
  await ok('ldapadd', ldapAdmin(federation.ready), { input: `${lines.join('\n')}\n` });
  const layout = layoutOf(root);
  const servers = [federation.ready.directory.master.ldapsUrl];
  const access = directoryAccess(layout, 'frontend', servers, servers[0] as string);
  const own = frontendConfig(layout, 'eu', 'front1.eu.isp.example', () => 0, access);
  const listener = (protocol: FrontendConfig['listeners'][number]['protocol']) => ({
    ...(own.listeners[0] as FrontendConfig['listeners'][number]),
    protocol,
    tls: 'none' as const,
  });
  frontend = await startFrontend(
    {
      ...own,
      listeners: [listener('routes'), listener('tcp-table'), listener('socketmap'), listener('smtp'), listener('imap')],
      foreignClusters: [
        {
          name: secure,
          login: 'master-user',
          masterUser: 'master',
          masterPassword: { file: masterFile },
          masterForm: 'sasl',
          masterSeparator: '*',
          names: 'full',
          forward: 'commands',
          failover: 'automatic',
          early: true,
          caFile,
          connectTimeoutMs: 3000,
          loginTimeoutMs: 20_000,
        },
      ],
      queueDirectory: join(root, 'queue-answers'),
    },
    ports,
  );
});

afterAll(async () => {
  for (const child of children) child.kill('SIGTERM');
  await frontend?.[Symbol.asyncDispose]();
  await federation?.[Symbol.asyncDispose]();
  await dovecots?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

const portOf = (protocol: string): number => frontend.status().listeners.find((each) => each.protocol === protocol)?.port as number;
const homeOf = async (uid: string): Promise<string> =>
  (await frontend.explain(`${uid}@isp.example`)).member === `dove1.${legacy}` ? '127.0.0.23' : '127.0.0.24';

async function statusBy(address: string, user: string, password = dovecots.password): Promise<string> {
  const ran = await run('curl', [
    '-sS',
    '--max-time',
    '10',
    '--user',
    `${user}:${password}`,
    `imap://${address}/`,
    '-X',
    'STATUS INBOX (MESSAGES)',
  ]);
  return `${ran.code} ${ran.out}${ran.err}`;
}

describe('Postfix', () => {
  const ask = (map: string, key: string) => run('postmap', ['-q', key, map]);

  it('finds by tcp_table and socketmap the host that an account is on, and nobody else’s', async () => {
    for (const map of [`tcp:127.0.0.1:${portOf('tcp-table')}`, `socketmap:inet:127.0.0.1:${portOf('socketmap')}:transport`]) {
      for (const uid of accounts) {
        const expected = `lmtp:inet:[${await homeOf(uid)}]:${dovecots.ports.lmtp}\n`;
        expect(await ask(map, `${uid}@isp.example`)).toMatchObject({ code: 0, out: expected });
      }
      // An account of a cluster of ours takes its mail by a frontend.
      expect(await ask(map, 'alice@isp.example')).toMatchObject({ code: 0, out: `smtp:[127.0.0.1]:${portOf('smtp')}\n` });
      expect(await ask(map, 'nobody@isp.example')).toMatchObject({ code: 1, out: '' });
      expect(await ask(map, 'odd name@isp.example')).toMatchObject({ code: 1, out: '' });
    }
  });
});

describe('nginx', () => {
  let port: number;
  let smtpPort: number;
  beforeAll(async () => {
    port = await freePort();
    smtpPort = await freePort();
    const base = join(root, 'nginx');
    await mkdir(base);
    const config = `
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
pid ${base}/pid;
error_log ${base}/log;
events {}
mail {
  auth_http 127.0.0.1:${portOf('routes')}/nginx;
  imap_capabilities IMAP4rev1 SASL-IR;
  server { listen 127.0.0.1:${port}; protocol imap; imap_auth plain login; }
  server { listen 127.0.0.1:${smtpPort}; protocol smtp; smtp_auth none; xclient off; proxy_pass_error_message on; }
}
`;
    await writeFile(join(base, 'nginx.conf'), config);
    children.push(spawn('/usr/sbin/nginx', ['-c', join(base, 'nginx.conf'), '-p', base, '-e', join(base, 'log')], { stdio: 'ignore' }));
    await until(
      () => statusBy(`127.0.0.1:${port}`, 'dora@isp.example'),
      (out) => out.startsWith('0 '),
      20_000,
    );
  });

  it('brings each account to its host', async () => {
    for (const uid of accounts) {
      expect(await statusBy(`127.0.0.1:${port}`, `${uid}@isp.example`), uid).toContain('MESSAGES 0');
      expect(await hostsOf(uid)).toEqual([await homeOf(uid)]);
    }
  });

  it('brings mail of other servers to the SMTP listener, which judges the recipients', async () => {
    const send = (recipient: string) =>
      run('curl', ['-sSv', `smtp://127.0.0.1:${smtpPort}`, '--mail-from', 'x@other.example', '--mail-rcpt', recipient, '-T', '/dev/null']);
    const taken = await send('alice@isp.example');
    expect([taken.code, taken.err]).toEqual([0, expect.stringMatching(/^< 250 2\.0\.0 Queued /m)]);
    expect((await send('nobody@isp.example')).err).toMatch(/^< 550 5\.1\.1 /m);
  });

  it('is told of an account that is nobody’s', async () => {
    expect(await statusBy(`127.0.0.1:${port}`, 'nobody@isp.example')).toMatch(/^67 /);
  });
});

describe('a Dovecot proxy', () => {
  it('brings each account to its host by the Lua passdb', async () => {
    const base = join(root, 'dovecot-proxy');
    await mkdir(base, { mode: 0o755 });
    const script = await readFile(new URL('../../deploy/foreign/dovecot-passdb.lua', import.meta.url), 'utf8');
    await writeFile(join(base, 'passdb.lua'), script.replace('http://127.0.0.1:8090', `http://127.0.0.1:${portOf('routes')}`));
    const port = await freePort();
    const config = `
base_dir = ${base}/run
state_dir = ${base}/run
log_path = ${base}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = maildir:/nonexistent
passdb {
  driver = lua
  args = file=${base}/passdb.lua blocking=yes
}
service imap-login {
  inet_listener imap {
    port = ${port}
  }
  inet_listener imaps {
    port = 0
  }
}
`;
    await writeFile(join(base, 'dovecot.conf'), config);
    await run('chmod', ['755', root]);
    children.push(spawn('/usr/sbin/dovecot', ['-F', '-c', join(base, 'dovecot.conf')], { stdio: 'ignore' }));
    const seen = await until(
      () => statusBy(`127.0.0.1:${port}`, 'dora@isp.example'),
      (out) => out.startsWith('0 '),
      20_000,
    ).catch(async (error: Error) => new Error(`${error.message}\n${await readFile(join(base, 'log'), 'utf8')}`));
    if (seen instanceof Error) throw seen;
    for (const uid of accounts) {
      expect(await statusBy(`127.0.0.1:${port}`, `${uid}@isp.example`), uid).toContain('MESSAGES 0');
      expect(await hostsOf(uid)).toEqual([await homeOf(uid)]);
    }
    expect(await statusBy(`127.0.0.1:${port}`, 'nobody@isp.example')).toMatch(/^67 /);
  });
});

describe('a frontend in front of Dovecots that want TLS', () => {
  const status = async (user: string, password: string): Promise<string> => {
    const options = ['-v', '--max-time', '10', '--interface', '127.0.0.9', '--user', `${user}:${password}`];
    const ran = await run('curl', [...options, `imap://127.0.0.1:${portOf('imap')}/`, '-X', 'STATUS INBOX (MESSAGES)']);
    return `${ran.out}${ran.err}`;
  };

  it('logs in as the master user once the directory has judged the password, and tells the client’s address', async () => {
    expect(await status('sven@isp.example', 'known-to-the-directory')).toContain('MESSAGES 0');
    const lines = (await Promise.all(dovecots.hosts.map((host) => host.log()))).flat();
    expect(lines.find((line) => line.includes('Login:') && line.includes('sven'))).toMatch(/user=<sven@isp\.example>, rip=127\.0\.0\.9,/);
    expect(await status('sven@isp.example', dovecots.password)).toContain('AUTHENTICATIONFAILED');
  });

  it('sends no password to a server whose certificate it does not trust, and says that it is temporary', async () => {
    expect(await status('mia@isp.example', dovecots.password)).toContain('[UNAVAILABLE]');
    const lines = (await Promise.all(dovecots.hosts.map((host) => host.log()))).flat();
    expect(lines.some((line) => line.includes('mia@isp.example'))).toBe(false);
    expect((await frontend.explain('mia@isp.example')).steps.map(({ found }) => found).join()).toMatch(/last error: .*certificate/);
  });
});

describe('whoever asks by HTTP', () => {
  it('is told what is wrong with the question', async () => {
    const ran = await run('curl', ['-sS', `http://127.0.0.1:${portOf('routes')}/account?name=dora@isp.example&protocol=gopher`]);
    expect(JSON.parse(ran.out)).toMatchObject({ status: 400, code: 'ADMIN_BAD_REQUEST' });
  });
});

/** Hosts on which the account has logged in, by the Dovecots' own logs. */
async function hostsOf(uid: string): Promise<string[]> {
  const found = new Set<string>();
  for (const host of dovecots.hosts) {
    if ((await host.log()).some((line) => line.includes('Login:') && line.includes(`user=<${uid}@isp.example>`))) found.add(host.address);
  }
  return [...found];
}
