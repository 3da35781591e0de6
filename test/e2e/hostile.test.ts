/**
 * Hostile clients against the running federation: each attack ends in a clear answer or a closed connection, and an innocent client of
 * every protocol is served all the while. The federation is a process of its own, so that it is its event loop and its memory that are watched.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ReadyDocument } from '#deploy/dev/ready-document.ts';

/** Longest wait of an innocent client: well below what a person takes for broken, well above what a busy test machine adds. */
const innocentWaitMsMax = 3000;
/** Memory that all attacks together may add. */
const grownBytesMax = 1024 * 1024 * 1024;
const bindAddress = '127.0.0.1';

let root: string;
let demo: ChildProcess;
let ready: ReadyDocument;
let eu: ReadyDocument['subsets'][string];
let memoryAtStart = 0;
let innocentsStopped = false;
let innocents: Promise<void>;
const waits = new Map<string, number>();
const failures: string[] = [];
const open: Socket[] = [];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-hostile-'));
  const readyFile = join(root, 'ready.json');
  demo = spawn(process.execPath, ['bin/archipelago.mjs', 'demo', '--data', join(root, 'data'), '--ready-file', readyFile], {
    stdio: 'ignore',
    env: { ...process.env, XDG_CONFIG_HOME: join(root, 'config') },
  });
  await eventually('the federation to serve', async () => {
    const text = await readFile(readyFile, 'utf8').catch(() => '');
    if (text === '') return false;
    ready = JSON.parse(text);
    return true;
  });
  eu = ready.subsets.eu as ReadyDocument['subsets'][string];
  memoryAtStart = await memoryOf(ready.pid);
  innocents = Promise.all([
    innocent(
      'IMAP',
      async (client) => {
        await client.line(/^\* OK/);
        client.send('a LOGIN carol@isp.example carol-secret\r\nb SELECT INBOX\r\n');
        await client.line(/^b OK/);
      },
      () => eu.imap,
    ),
    innocent(
      'POP3',
      async (client) => {
        await client.line(/^\+OK/);
        client.send('CAPA\r\n');
        await client.line(/^\.$/);
      },
      () => eu.pop3,
    ),
    innocent(
      'SMTP',
      (client) => client.line(/^220 /),
      () => eu.smtp,
    ),
  ]).then(() => undefined);
});

afterEach(() => {
  for (const socket of open.splice(0)) socket.destroy();
});

afterAll(async () => {
  innocentsStopped = true;
  await innocents;
  const ended = new Promise((resolve) => demo.once('exit', resolve));
  demo.kill('SIGTERM');
  await ended;
  await rm(root, { recursive: true, force: true });
});

/** Waits until it holds; says what did not come. */
async function eventually(what: string, holds: () => boolean | Promise<boolean>, limitMs = 20_000): Promise<void> {
  const startedMs = performance.now();
  while (!(await holds())) {
    if (performance.now() - startedMs > limitMs) throw new Error(`waited ${limitMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A client that sends any bytes and reads lines. */
class RawClient {
  readonly socket: Socket;
  isClosed = false;
  #text = '';
  #at = 0;

  constructor(address: string) {
    const [host, port] = address.split(':') as [string, string];
    this.socket = connect({ host, port: Number(port), localAddress: bindAddress });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.isClosed = true;
    });
    this.socket.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('latin1');
    });
  }

  send(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  /** The next line like this; lines before it are passed over. */
  async line(pattern: RegExp): Promise<string> {
    let found: string | undefined;
    await eventually(`a line like ${pattern}`, () => {
      for (let end = this.#text.indexOf('\r\n', this.#at); end >= 0 && found === undefined; end = this.#text.indexOf('\r\n', this.#at)) {
        const line = this.#text.slice(this.#at, end);
        this.#at = end + 2;
        if (pattern.test(line)) found = line;
      }
      return found !== undefined;
    });
    return found as string;
  }

  async closed(): Promise<void> {
    await eventually('the connection to be closed', () => this.isClosed);
  }
}

/** A client that is hung up on at the end of its test. */
function attacker(address: string): RawClient {
  const client = new RawClient(address);
  open.push(client.socket);
  return client;
}

async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

async function innocent(name: string, visit: (client: RawClient) => Promise<unknown>, address: () => string): Promise<void> {
  while (!innocentsStopped) {
    const startedMs = performance.now();
    const client = new RawClient(address());
    try {
      await visit(client);
    } catch (error) {
      failures.push(`${name}: ${String(error)}`);
    }
    client.socket.destroy();
    waits.set(name, Math.max(waits.get(name) ?? 0, performance.now() - startedMs));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function loggedIn(user = 'alice'): Promise<RawClient> {
  const client = attacker(eu.imap);
  client.send(`l LOGIN ${user}@isp.example ${user}-secret\r\n`);
  await client.line(/^l OK/);
  return client;
}

describe('hostile clients', () => {
  it.each([
    ['imap', 'a'.repeat(100_000), /^\* BYE Line too long/],
    ['imap', 'a LOGIN {99999999+}\r\n', /^\* BYE Literal too large/],
    ['imap', 'a FOO\r\n'.repeat(100), /^\* BYE Too many commands/],
    ['pop3', 'A'.repeat(100_000), /^-ERR Line too long/],
    ['smtp', 'A'.repeat(100_000), /^421 /],
    ['smtp', 'FOO\r\n'.repeat(100), /^421 /],
  ] as const)('at the %s port are sent away before login: %#', async (listener, bytes, answer) => {
    const client = attacker(eu[listener]);
    client.send(bytes);
    await client.line(answer);
    await client.closed();
  });

  it('after login do not stop the others by LIST, SEARCH or combining marks', async () => {
    const client = await loggedIn();
    for (let i = 0; i < 50; i += 1) client.send(`c CREATE "${'a'.repeat(240)}${i}"\r\n`);
    for (let i = 0; i < 50; i += 1) await client.line(/^c OK/);
    client.send(`d LIST "" (${Array.from({ length: 60 }, () => `"${'%a'.repeat(400)}z"`).join(' ')})\r\n`);
    await client.line(/^d BAD .*wildcards/);
    client.send(`e LIST "" "${'%a'.repeat(100)}z"\r\n`);
    await client.line(/^e OK/);
    const text = `Subject: ${'\u0301\u0316'.repeat(10_000)}\r\n\r\n${'\u0301\u0316'.repeat(100_000)}${'nothing of it \r\n'.repeat(40_000)}`;
    client.send(`f APPEND INBOX {${Buffer.byteLength(text)}+}\r\n`);
    client.send(`${text}\r\ng SELECT INBOX\r\n`);
    await client.line(/^g OK/);
    client.send(`h SEARCH ${Array.from({ length: 300 }, (_, i) => `NOT BODY zz${i}`).join(' ')}\r\n`);
    await client.line(/^h OK/);
    client.send(`i SEARCH ${'('.repeat(20_000)}\r\n`);
    await client.line(/^i BAD/);
  });

  it('cannot fill the memory by APPEND', async () => {
    const clients = await Promise.all(Array.from({ length: 8 }, () => loggedIn('bob')));
    const chunk = Buffer.alloc(1024 * 1024, 0x78);
    for (const client of clients) client.send('a APPEND INBOX {50000000+}\r\n');
    for (let i = 0; i < 30; i += 1) for (const client of clients) if (!client.isClosed) client.send(chunk);
    await eventually('one of them to be cut', () => clients.some(({ isClosed }) => isClosed));
  });

  it('do not reach the admin API by writing its paths differently', async () => {
    for (const path of ['/%61pi/v1/status', 'http://x/api/v1/status', '/api/v1/login/../status']) {
      const url = new URL(ready.console);
      const socket = connectTls({ host: url.hostname, port: Number(url.port), rejectUnauthorized: false });
      open.push(socket);
      const answer = new Promise<string>((resolve) => socket.once('data', (chunk: Buffer) => resolve(chunk.toString('latin1'))));
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
      expect(await answer).toMatch(/^HTTP\/1.1 40[14] /);
    }
  });

  it('with garbage at the LDAP and link ports are hung up on', async () => {
    const member = ready.clusters['east.isp.example']?.members[0]?.link as string;
    for (const address of [new URL(ready.directory.master.url).host, member, eu.imaps, eu.pop3s]) {
      const client = attacker(address);
      client.send(Buffer.alloc(70_000, 0xff));
      await client.closed();
    }
  });

  it('disturbed nobody', async () => {
    expect(failures).toEqual([]);
    for (const [name, waitMs] of waits) expect(waitMs, name).toBeLessThan(innocentWaitMsMax);
    expect(waits.size).toBe(3);
    expect((await memoryOf(ready.pid)) - memoryAtStart).toBeLessThan(grownBytesMax);
  });
});
