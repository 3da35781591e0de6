/**
 * Dovecot servers that are told whose session it is: by the PROXY header, before TLS where TLS comes first, and by XCLIENT; that have access tokens passed
 * on to them; and whose submission service judges the log-ins of clients that submit mail.
 */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, startFederation } from '#deploy/dev/federation.ts';
import { directoryAccess, frontendConfig, layoutOf } from '#deploy/dev/plan.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import type { FrontendConfig, FrontendListener } from '#frontend/config.ts';
import { type RunningFrontend, startFrontend } from '#frontend/main.ts';
import { LineClient } from '#test/transcripts/line-transcript.ts';
import { accountLdif, ldapAdmin, ok, run } from '../e2e/clients.ts';
import { type DovecotHosts, startDovecots } from './dovecot-server.ts';
import { freePort } from './slapd-server.ts';

const host = '127.0.0.25';
/** Clients come from here, and the frontend from elsewhere. */
const clientAddress = '127.0.0.9';
const clusters = { first: 'first.isp.example', started: 'started.isp.example', told: 'told.isp.example' } as const;
const forwards = { first: 'proxy-v2', started: 'proxy-v1', told: 'commands' } as const;
let root: string;
let federation: Federation;
let dovecots: DovecotHosts;
let frontend: RunningFrontend;
/** The issuer of tokens, whom Dovecot asks about them: a good one is `good-for-NAME`. */
let issuer: Server;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-forwarding-'));
  const authority = await createThrowawayCa(systemClock, systemRandom);
  const issued = await authority.issue(Object.values(clusters).map((cluster) => `dove1.${cluster}`));
  const [certFile, keyFile, caFile] = ['dove.pem', 'dove.key', 'dove-ca.pem'].map((name) => join(root, name)) as [string, string, string];
  await writeFile(certFile, issued.certificate);
  await writeFile(keyFile, issued.key);
  await writeFile(caFile, authority.certificate);
  issuer = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const name = /good-for-([a-z]+)/.exec(body)?.[1];
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(name === undefined ? { active: false } : { active: true, username: `${name}@isp.example` }));
    });
  });
  await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
  const introspectionUrl = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/`;
  const [tokenFile, jwksFile] = [join(root, 'oauth2.conf'), join(root, 'jwks.json')];
  await writeFile(
    tokenFile,
    `introspection_url = ${introspectionUrl}\nintrospection_mode = post\nusername_attribute = username\nactive_attribute = active\nactive_value = true\n`,
  );
  await writeFile(jwksFile, '{"keys":[]}');
  const [imap, imaps, pop3, pop3s, sieve, submission] = await Promise.all(Array.from({ length: 6 }, freePort));
  const proxied = (port: number | undefined, name: string, ssl = ''): string =>
    `inet_listener ${name} {\nport = ${port}\nhaproxy = yes\n${ssl}\n}`;
  const extra = `
haproxy_trusted_networks = 127.0.0.0/8
protocols = imap pop3 lmtp sieve submission
submission_relay_host = 127.0.0.1
submission_relay_port = 9
auth_mechanisms = plain oauthbearer xoauth2
auth_failure_delay = 0
passdb {
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = ${tokenFile}
}
service imap-login {
  ${proxied(imap, 'imap_px')}
  ${proxied(imaps, 'imaps_px', 'ssl = yes')}
}
service pop3-login {
  ${proxied(pop3, 'pop3_px')}
  ${proxied(pop3s, 'pop3s_px', 'ssl = yes')}
}
service managesieve-login {
  ${proxied(sieve, 'sieve_px')}
}
service submission-login {
  inet_listener submission {
    port = ${submission}
  }
}
`;
  dovecots = await startDovecots([host], { tls: { certFile, keyFile }, extra });
  const ports: Ports = systemPorts(silentLogger);
  federation = await startFederation({ root, ports });
  const services: Record<keyof typeof clusters, string[]> = {
    first: [`imap ${imaps} implicit`, `pop3 ${pop3s} implicit`, `managesieve ${sieve} none`],
    started: [`imap ${imap} starttls`, `pop3 ${pop3} starttls`, `managesieve ${sieve} starttls`],
    told: [
      `imap ${dovecots.ports.imap} starttls`,
      `pop3 ${dovecots.ports.pop3} none`,
      `managesieve ${dovecots.ports.managesieve} starttls`,
      `submission ${submission} starttls`,
    ],
  };
  const names = Object.keys(clusters) as (keyof typeof clusters)[];
  const lines = names.flatMap((name) => [
    `dn: cn=${clusters[name]},ou=topology,o=mail`,
    'objectClass: mailCluster',
    'objectClass: foreignCluster',
    `cn: ${clusters[name]}`,
    `clusterMember: dove1.${clusters[name]} ${host}`,
    ...services[name].map((service) => `foreignService: ${service}`),
    '',
    accountLdif(name, dovecots.password, clusters[name]),
  ]);
  await ok('ldapadd', ldapAdmin(federation.ready), { input: `${lines.join('\n')}\n` });
  const layout = layoutOf(root);
  const servers = [federation.ready.directory.master.ldapsUrl];
  const own = frontendConfig(
    layout,
    'eu',
    'front1.eu.isp.example',
    () => 0,
    directoryAccess(layout, 'frontend', servers, servers[0] as string),
  );
  const listener = (protocol: FrontendListener['protocol']): FrontendListener => ({
    ...(own.listeners[0] as FrontendListener),
    protocol,
    tls: 'none',
  });
  const common = { login: 'passed', masterForm: 'sasl', masterSeparator: '*', names: 'full', failover: 'automatic', early: true } as const;
  const config: FrontendConfig = {
    ...own,
    listeners: [listener('imap'), listener('pop3'), listener('managesieve'), listener('submission')],
    foreignClusters: names.map((name) => ({
      ...common,
      name: clusters[name],
      forward: forwards[name],
      caFile,
      connectTimeoutMs: 3000,
      loginTimeoutMs: 20_000,
    })),
    oauth: { issuer: 'https://login.isp.example', audience: 'mail', jwksFile, claim: 'email', clockSkewSeconds: 30, timeoutMs: 5000 },
    queueDirectory: join(root, 'queue-forwarding'),
  };
  frontend = await startFrontend(config, ports);
});

afterAll(async () => {
  await frontend?.[Symbol.asyncDispose]();
  await federation?.[Symbol.asyncDispose]();
  await dovecots?.[Symbol.asyncDispose]();
  issuer?.close();
  await rm(root, { recursive: true, force: true });
});

const portOf = (protocol: string): number => frontend.status().listeners.find((each) => each.protocol === protocol)?.port as number;

async function curl(user: string, ...rest: readonly string[]): Promise<string> {
  const options = ['-sS', '--max-time', '20', '--interface', clientAddress, '--user', `${user}@isp.example:${dovecots.password}`];
  const ran = await run('curl', [...options, ...rest]);
  return `${ran.code} ${ran.out}${ran.err}`;
}

/** What Dovecot's log says of the account's last login by this protocol. */
async function seen(protocol: string, user: string): Promise<string | undefined> {
  const lines = (await dovecots.hosts[0]?.log()) ?? [];
  return lines.findLast((line) => line.includes(`${protocol}-login: Info: Login: user=<${user}@isp.example>`));
}

describe.each(Object.keys(clusters) as (keyof typeof clusters)[])('the servers of a foreign cluster (%s)', (name) => {
  it('learn whose session it is, by IMAP, POP3 and ManageSieve', async () => {
    expect(await curl(name, `imap://127.0.0.1:${portOf('imap')}/`, '-X', 'STATUS INBOX (MESSAGES)')).toContain('MESSAGES 0');
    expect(await seen('imap', name)).toContain(`rip=${clientAddress},`);
    expect(await curl(name, `pop3://127.0.0.1:${portOf('pop3')}/`)).toMatch(/^0 /);
    expect(await seen('pop3', name)).toContain(`rip=${clientAddress},`);
    const client = new LineClient(
      await systemNetwork.connect({ host: '127.0.0.1', port: portOf('managesieve'), localAddress: clientAddress }),
    );
    const plain = Buffer.from(`\0${name}@isp.example\0${dovecots.password}`).toString('base64');
    client.send(`AUTHENTICATE "PLAIN" "${plain}"\r\nLISTSCRIPTS\r\nLOGOUT\r\n`);
    let text = '';
    for (let line = await client.line(); line !== undefined; line = await client.line()) text += `${line}\n`;
    expect(text).toMatch(/OK "Logged in[\s\S]*OK "Listscripts completed/i);
    expect(await seen('managesieve', name)).toContain(`rip=${clientAddress},`);
  });
});

describe('a client that submits mail', () => {
  const sent = (password: string): Promise<{ code: number; out: string; err: string }> =>
    run('curl', [
      ...['-sSv', '--max-time', '20', '--interface', clientAddress, '--user', `told@isp.example:${password}`],
      ...[
        `smtp://127.0.0.1:${portOf('submission')}`,
        '--mail-from',
        'told@isp.example',
        '--mail-rcpt',
        'alice@isp.example',
        '-T',
        '/dev/null',
      ],
    ]);

  it('has its password judged by the submission service, which learns who it is', async () => {
    const wrong = await sent('guessed');
    expect(wrong.err).toMatch(/^< 535 5\.7\.8 /m);
    const right = await sent(dovecots.password);
    expect(right.err).toMatch(/^< 235 /m);
    expect(right.code).toBe(0);
    expect(await seen('submission', 'told')).toContain(`rip=${clientAddress},`);
  });
});

describe.each([
  ['OAUTHBEARER', '127.0.0.10'],
  ['XOAUTH2', '127.0.0.11'],
])('an access token that comes by %s', (mechanism, from) => {
  const shown = (url: string, token: string, ...rest: readonly string[]) =>
    run('curl', [
      ...[
        '-sSv',
        '--max-time',
        '20',
        '--interface',
        from,
        '--login-options',
        `AUTH=${mechanism}`,
        '--user',
        'told@isp.example',
        '--oauth2-bearer',
        token,
      ],
      ...[url, ...rest],
    ]);

  it('is judged by the server, whatever protocol the client speaks', async () => {
    const [imap, pop3, submission] = [
      [`imap://127.0.0.1:${portOf('imap')}/`, '-X', 'STATUS INBOX (MESSAGES)'],
      [`pop3://127.0.0.1:${portOf('pop3')}/`],
      [
        `smtp://127.0.0.1:${portOf('submission')}`,
        '--mail-from',
        'told@isp.example',
        '--mail-rcpt',
        'alice@isp.example',
        '-T',
        '/dev/null',
      ],
    ] as const;
    for (const [url, ...rest] of [imap, pop3, submission])
      expect(await shown(url, 'good-for-told', ...rest), url).toMatchObject({ code: 0 });
    expect((await shown(imap[0], 'good-for-first')).err).toMatch(/^< A\d+ NO \[AUTHENTICATIONFAILED\]/m);
    expect((await shown(pop3[0], 'stolen')).err).toMatch(/^< -ERR \[AUTH\]/m);
  });
});
