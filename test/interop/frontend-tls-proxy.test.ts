/**
 * HAProxy before a frontend's mail listener, with version 1 and 2 of the PROXY protocol and its own TLS; and OpenSSL's client against several
 * listeners that share a ticket secret, while certificates change below them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa, type IssuedCertificate } from '#deploy/dev/throwaway-ca.ts';
import type { FrontendListener, FrontendTlsConfig } from '#frontend/config.ts';
import { startImap } from '#frontend/listeners/imap.ts';
import { FrontendTls } from '#frontend/tls/frontend-tls.ts';
import { federation } from '#test/unit/frontend/fakes.ts';

let folder: string;
let ca: string;
let certificates: Record<'mail' | 'other' | 'renewed', IssuedCertificate>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'frontend-tls-'));
  const authority = await createThrowawayCa(systemClock, systemRandom);
  ca = authority.certificate;
  certificates = {
    mail: await authority.issue(['localhost', 'mail.isp.example']),
    other: await authority.issue(['*.other.example']),
    renewed: await authority.issue(['localhost', 'renewed.isp.example']),
  };
  for (const [name, { certificate, key }] of Object.entries(certificates)) {
    await writeFile(join(folder, `${name}.pem`), certificate);
    await writeFile(join(folder, `${name}.key`), key);
    await writeFile(join(folder, `${name}.both`), `${certificate}\n${key}`);
  }
  await writeFile(join(folder, 'secret'), 'the subset’s own\n');
});
afterAll(() => rm(folder, { recursive: true }));

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function tlsOf(name: string, more: Partial<FrontendTlsConfig> = {}): Promise<FrontendTls> {
  const files = { certFile: join(folder, `${name}.pem`), keyFile: join(folder, `${name}.key`) };
  const config: FrontendTlsConfig = { ...files, ticketSecret: { file: join(folder, 'secret') }, ...more };
  const tls = await FrontendTls.read(config, { files: nodeFiles, clock: systemClock, log: silentLogger });
  undo.push(() => tls.stop());
  return tls;
}

async function listening(options: { listener?: Partial<FrontendListener>; tls: FrontendTls | undefined }) {
  const world = federation();
  const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: world.log, metrics: createMetrics() };
  const listener: FrontendListener = {
    protocol: 'imap',
    tls: 'implicit',
    address: '127.0.0.1',
    port: 0,
    perAddressMax: 100,
    connectionsMax: 100,
    allowPlaintextLogin: true,
    ...options.listener,
  };
  const session = { opener: world.opener, listener, tls: options.tls, loginTimeoutMs: 60_000, ports };
  const running = await startImap({ listener, tls: options.tls, ports }, session);
  undo.push(async () => {
    running.drop();
    await running.close();
  });
  return { ...world, port: running.status().port };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

/** HAProxy with one frontend and one backend; resolves once it accepts. */
async function haproxy(bind: string, server: string): Promise<number> {
  const port = await freePort();
  const path = join(folder, `haproxy-${port}.cfg`);
  await writeFile(
    path,
    `global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n` +
      `frontend f\n  bind 127.0.0.1:${port} ${bind}\n  default_backend b\nbackend b\n  server s ${server}\n`,
  );
  const child: ChildProcess = spawn('/usr/sbin/haproxy', ['-db', '-f', path], { stdio: 'ignore' });
  undo.push(async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  for (let tries = 0; tries < 500; tries += 1) {
    if (child.exitCode !== null) throw new Error(`haproxy ended with ${child.exitCode}`);
    const socket = connect({ host: '127.0.0.1', port });
    const isUp = await new Promise<boolean>((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)));
    socket.destroy();
    if (isUp) return port;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('haproxy does not accept');
}

/** Writes lines and reads until what is waited for has come. */
async function dialogue(socket: ReturnType<typeof connect>, send: string, until: string): Promise<string> {
  let text = '';
  socket.on('error', () => {});
  return new Promise((resolve, reject) => {
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (text.includes(until)) resolve(text);
    });
    socket.once('close', () => reject(new Error(`closed after ${JSON.stringify(text)}`)));
    socket.write(send);
  });
}

describe('a listener behind HAProxy', () => {
  it.each(['send-proxy', 'send-proxy-v2'])(
    'knows the client by %s, in clear and with TLS of its own that follows the header',
    async (version) => {
      for (const tls of [undefined, await tlsOf('mail')]) {
        const { port, link } = await listening({
          listener: { proxyFrom: ['127.0.0.0/8'], tls: tls === undefined ? 'none' : 'implicit' },
          tls,
        });
        const through = await haproxy('', `127.0.0.1:${port} ${version}`);
        const socket =
          tls === undefined ? connect({ host: '127.0.0.1', port: through }) : connectTls({ port: through, ca, servername: 'localhost' });
        undo.push(() => socket.destroy());
        expect(await dialogue(socket, 'a LOGIN alice wonderland\r\n', 'Logged in\r\n')).toContain('a OK');
        const client = link.requests[0]?.request.client;
        // What the client's own socket is, and not HAProxy's.
        expect(client).toMatchObject({ address: '127.0.0.1', port: socket.localPort, localAddress: '127.0.0.1', tls: tls !== undefined });
      }
    },
  );

  it('takes the client’s TLS facts where HAProxy ends TLS, and lets it log in without TLS of ours', async () => {
    const { port, link } = await listening({
      listener: { proxyFrom: ['127.0.0.1'], allowPlaintextLogin: false },
      tls: await tlsOf('mail'),
    });
    const through = await haproxy(
      `ssl crt ${join(folder, 'mail.both')}`,
      `127.0.0.1:${port} send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c`,
    );
    const socket = connectTls({ port: through, ca, servername: 'mail.isp.example' });
    undo.push(() => socket.destroy());
    await dialogue(socket, 'a LOGIN alice wonderland\r\n', 'Logged in\r\n');
    expect(link.requests[0]?.request.client).toMatchObject({
      tls: true,
      tlsProtocol: 'TLSv1.3',
      tlsCipher: socket.getCipher().standardName,
      tlsServerName: 'mail.isp.example',
    });
  });

  it('believes no header from elsewhere, and does not wait for ever for one that should come', async () => {
    const { port, link } = await listening({ listener: { proxyFrom: ['192.0.2.0/24'], tls: 'none' }, tls: undefined });
    const socket = connect({ host: '127.0.0.1', port });
    undo.push(() => socket.destroy());
    const text = await dialogue(socket, 'PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\na LOGIN alice wonderland\r\n', 'Logged in\r\n');
    expect(text).toContain('PROXY BAD');
    expect(link.requests[0]?.request.client.address).toBe('127.0.0.1');
    const strict = await listening({ listener: { proxyFrom: ['127.0.0.1'], tls: 'none' }, tls: undefined });
    const garbage = connect({ host: '127.0.0.1', port: strict.port });
    garbage.write('a LOGIN alice wonderland\r\n');
    await once(garbage, 'close');
    expect(strict.link.requests).toEqual([]);
  });
});

/** One run of `openssl s_client`; its standard output. */
async function openssl(args: readonly string[], input = 'a LOGOUT\r\n'): Promise<string> {
  const child = spawn('openssl', ['s_client', ...args], { stdio: ['pipe', 'pipe', 'ignore'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const wasReady = text.includes('IMAP server ready');
    text += chunk.toString('latin1');
    if (!wasReady && text.includes('IMAP server ready')) child.stdin.end(input);
  });
  const [code] = (await once(child, 'close')) as [number];
  expect(code).toBe(0);
  return text;
}

describe('TLS of the frontends of a subset', () => {
  it.each(['-tls1_2', '-tls1_3'])('resumes a session that another frontend began, with %s', async (version) => {
    const [one, two] = [await listening({ tls: await tlsOf('mail') }), await listening({ tls: await tlsOf('mail') })];
    const alien = await listening({ tls: await tlsOf('mail', { ticketSecret: { file: join(folder, 'mail.key') } }) });
    const session = join(folder, `session${version}`);
    const of = (port: number): string[] => ['-connect', `127.0.0.1:${port}`, '-servername', 'localhost', version, '-ign_eof'];
    expect(await openssl([...of(one.port), '-sess_out', session])).toMatch(/^New, TLSv1\.[23]/m);
    expect(await openssl([...of(two.port), '-sess_in', session])).toMatch(/^Reused, TLSv1\.[23]/m);
    expect(await openssl([...of(alien.port), '-sess_in', session])).toMatch(/^New, TLSv1\.[23]/m);
  });

  it('shows each name its certificate, and a renewed one without a restart; a broken file changes nothing', async () => {
    await copyFile(join(folder, 'mail.pem'), join(folder, 'live.pem'));
    await copyFile(join(folder, 'mail.key'), join(folder, 'live.key'));
    const tls = await tlsOf('live', { further: [{ certFile: join(folder, 'other.pem'), keyFile: join(folder, 'other.key') }] });
    const { port } = await listening({ tls });
    const shown = async (servername: string): Promise<string> => {
      const socket = connectTls({ port, ca, servername, checkServerIdentity: () => undefined });
      await once(socket, 'secureConnect');
      const { subjectaltname } = socket.getPeerCertificate();
      socket.destroy();
      return subjectaltname ?? '';
    };
    expect(await shown('imap.other.example')).toBe('DNS:*.other.example');
    expect(await shown('elsewhere.example')).toContain('DNS:mail.isp.example');
    await copyFile(join(folder, 'renewed.pem'), join(folder, 'live.pem'));
    expect(await tls.reload()).toBe(false);
    expect(await shown('localhost')).toContain('DNS:mail.isp.example');
    await copyFile(join(folder, 'renewed.key'), join(folder, 'live.key'));
    expect([await tls.reload(), await tls.reload()]).toEqual([true, false]);
    expect(await shown('localhost')).toContain('DNS:renewed.isp.example');
  });

  it('speaks no version older than configured, and asks for client certificates where a CA is named', async () => {
    const strict = await listening({ tls: await tlsOf('mail', { minVersion: 'TLSv1.3' }) });
    const old = connectTls({ port: strict.port, ca, servername: 'localhost', maxVersion: 'TLSv1.2' });
    const [error] = (await once(old, 'error')) as [Error];
    expect(error.message).toMatch(/protocol version|disconnected/);
    await writeFile(join(folder, 'ca.pem'), ca);
    const certified = { clientCaFile: join(folder, 'ca.pem') };
    const { port, link } = await listening({ tls: await tlsOf('mail', certified) });
    const { certificate: cert, key } = certificates.other;
    for (const credentials of [{}, { cert, key }]) {
      const socket = connectTls({ port, ca, servername: 'localhost', ...credentials });
      undo.push(() => socket.destroy());
      await dialogue(socket, 'a LOGIN alice wonderland\r\n', 'Logged in\r\n');
    }
    expect(link.requests.map(({ request }) => request.client.tlsClientName)).toEqual([undefined, '*.other.example']);
    const closed = await listening({ tls: await tlsOf('mail', { ...certified, clientCertificate: 'required' }) });
    const stranger = connectTls({ port: closed.port, ca, servername: 'localhost' });
    await expect(dialogue(stranger, 'a NOOP\r\n', 'ready')).rejects.toThrow(/closed/);
  });
});
