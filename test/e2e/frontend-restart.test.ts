/**
 * A frontend that goes on in a new process: clients come and go all the while and none is refused or cut, sessions of before are served to
 * their end, and a new process that does not come up changes nothing.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import type { KickReport, RestartReport } from '#frontend/client/status.ts';
import { run, until } from './clients.ts';
import { type FrontendProcess, imapLogin, imapRound, LineClient, startFrontendProcess } from './frontend-process.ts';

const patienceMs = 60_000;
const alice = ['alice@isp.example', 'alice-secret'] as const;

let root: string;
let federation: Federation;
let frontend: FrontendProcess;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-restart-'));
  federation = await startFederation({
    root,
    ports: systemPorts(createLogger('info', {}, logFileOf(root))),
  });
  frontend = await startFrontendProcess(federation, root);
});

afterAll(async () => {
  await frontend?.[Symbol.asyncDispose]();
  await federation?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

const restart = (terms: object = {}): Promise<RestartReport> => frontend.ask(`/api/v1/frontends/${frontend.name}/restart`, 'POST', terms);

/** Clients that come and go until they are told to stop. */
class Crowd {
  readonly failures: string[] = [];
  done = 0;
  #isOver = false;
  readonly #running: Promise<void>[];

  constructor() {
    const imap = frontend.port('imap', 'starttls');
    const smtp = frontend.port('smtp', 'starttls');
    const http = frontend.port('http', 'none');
    const rounds = [
      () => imapRound(imap, ...alice),
      () => imapRound(imap, 'bob@isp.example', 'bob-secret'),
      async () => {
        const client = new LineClient(smtp);
        await client.hears(/^220 [^\r]*\r\n/m);
        await client.says('EHLO client.example', /^250 [^\r]*\r\n/m);
        await client.says('QUIT', /^221 [^\r]*\r\n/m);
      },
      async () => {
        const answer = await fetch(`http://127.0.0.1:${http}/readyz`, { headers: { connection: 'close' } });
        if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
        await answer.text();
      },
    ];
    this.#running = rounds.map(async (round) => {
      while (!this.#isOver) {
        try {
          await round();
          this.done += 1;
        } catch (error) {
          this.failures.push(String(error));
        }
      }
    });
  }

  async goesOn(): Promise<void> {
    const wanted = this.done + 40;
    await until(
      async () => this.done,
      (done) => done >= wanted,
      patienceMs,
    );
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }
}

it('goes on in a new process without refusing or cutting anybody, and serves earlier sessions to their end', async () => {
  const imap = frontend.port('imap', 'starttls');
  const idle = await imapLogin(imap, ...alice);
  await idle.says('i SELECT INBOX', /^i OK [^\r]*\r\n/m);
  await idle.says('j IDLE', /^\+ [^\r]*\r\n/m);
  const kicked = await imapLogin(imap, 'bob@isp.example', 'bob-secret');
  const sender = new LineClient(frontend.port('smtp', 'starttls'));
  await sender.hears(/^220 [^\r]*\r\n/m);
  await sender.says('EHLO client.example', /^250 [^\r]*\r\n/m);
  await sender.says('MAIL FROM:<someone@elsewhere.example>', /^250 [^\r]*\r\n/m);
  await sender.says('RCPT TO:<alice@isp.example>', /^250 [^\r]*\r\n/m);

  const crowd = new Crowd();
  await crowd.goesOn();
  const before = await frontend.status();
  const report = await restart();
  expect(report.from.pid).toBe(frontend.child.pid);
  expect(report.to.pid).not.toBe(report.from.pid);
  await crowd.goesOn();
  await crowd.stop();
  expect(crowd.failures).toEqual([]);

  // The crowd's last connections may take a moment to end at the server.
  const { answer: after } = await until(
    () => frontend.status(),
    ({ processes }) => processes?.[1]?.connections === 3 && processes[0]?.connections === 0,
    patienceMs,
  );
  expect(after.listeners.map(({ port }) => port)).toEqual(before.listeners.map(({ port }) => port));
  expect(after.processes).toMatchObject([
    { pid: report.to.pid, state: 'serving' },
    { pid: report.from.pid, state: 'leaving', sessions: 2 },
  ]);
  expect(after.sessionCount).toBe(2);
  expect((await frontend.sessions()).sessions.map(({ account }) => account).sort()).toEqual(['alice@isp.example', 'bob@isp.example']);

  // What the old process still takes is delivered by the new one, and told to the session that idles at the old one.
  await sender.says('DATA', /^354 [^\r]*\r\n/m);
  await sender.says('Subject: over the restart\r\n\r\nHello.\r\n.', /^250 [^\r]*\r\n/m);
  await sender.says('QUIT', /^221 [^\r]*\r\n/m);
  await idle.hears(/^\* \d+ EXISTS\r\n/m);

  const ended = await frontend.ask<KickReport>(`/api/v1/frontends/${frontend.name}/kick`, 'POST', { what: 'bob@isp.example' });
  expect(ended.ended).toBe(1);
  await kicked.hears(/^\* BYE /m);

  await idle.says('DONE', /^j OK [^\r]*\r\n/m);
  await idle.says('k LOGOUT', /^k OK [^\r]*\r\n/m);
  await until(
    () => frontend.status(),
    ({ processes }) => processes?.length === 1,
    patienceMs,
  );
  // Whoever started the first process still has one to wait for.
  expect(frontend.child.exitCode).toBeNull();
});

it('goes on as it is when the new process does not come up, and says why', async () => {
  const good = await readFile(frontend.nodeFile, 'utf8');
  const pidBefore = (await frontend.status()).processes?.[0]?.pid;
  const crowd = new Crowd();
  await writeFile(frontend.nodeFile, good.replace('"implicit"', '"implict"'));
  await expect(restart()).rejects.toMatchObject({ message: expect.stringContaining('"implict" is not one of') });
  await crowd.goesOn();
  await writeFile(frontend.nodeFile, good.replace(/"certFile":"[^"]*"/, '"certFile":"gone.pem"'));
  await expect(restart()).rejects.toMatchObject({ message: expect.stringContaining('gone.pem') });
  // Fails late, with the queue and the first listeners taken over: the last one's port is somebody else's.
  const taken = Number(federation.ready.directory.master.url.split(':').at(-1));
  const node = JSON.parse(good) as { services: { listeners: object[] }[] };
  node.services[0]?.listeners.push({ protocol: 'http', tls: 'none', port: taken });
  await writeFile(frontend.nodeFile, JSON.stringify(node));
  await expect(restart()).rejects.toMatchObject({ message: expect.stringContaining(`cannot listen on 127.0.0.1:${taken}`) });
  await crowd.goesOn();
  await crowd.stop();
  expect(crowd.failures).toEqual([]);
  await writeFile(frontend.nodeFile, good);
  expect((await frontend.status()).processes?.[0]?.pid).toBe(pidBefore);

  const sender = new LineClient(frontend.port('smtp', 'starttls'));
  await sender.hears(/^220 [^\r]*\r\n/m);
  await sender.says('HELO client.example', /^250 [^\r]*\r\n/m);
  await sender.says('MAIL FROM:<someone@elsewhere.example>', /^250 [^\r]*\r\n/m);
  await sender.says('RCPT TO:<alice@isp.example>', /^250 [^\r]*\r\n/m);
  await sender.says('DATA', /^354 [^\r]*\r\n/m);
  await sender.says('Subject: still here\r\n\r\nHello.\r\n.', /^250 [^\r]*\r\n/m);
  await until(
    () => frontend.status(),
    ({ queue }) => queue.messages === 0,
    patienceMs,
  );
});

/** `undefined` where the process that ends took the question and was gone before it answered. */
async function processesNow() {
  try {
    return (await frontend.status()).processes;
  } catch (error) {
    if (error instanceof PlatformError && error.code === 'NET_CLOSED') return undefined;
    throw error;
  }
}

it('says bye to whoever is left at the deadline, and hears a signal at its first process', async () => {
  const idle = await imapLogin(frontend.port('imap', 'starttls'), ...alice);
  await idle.says('i SELECT INBOX', /^i OK [^\r]*\r\n/m);
  await idle.says('j IDLE', /^\+ [^\r]*\r\n/m);
  const sender = new LineClient(frontend.port('smtp', 'starttls'));
  await sender.hears(/^220 [^\r]*\r\n/m);
  const before = (await frontend.status()).processes?.[0]?.pid;
  await restart({ deadlineMs: 1 });
  await idle.hears(/^\* BYE [^\r]*\r\n/m);
  await sender.hears(/^421 [^\r]*\r\n/m);
  const { answer } = await until(processesNow, (processes) => processes?.length === 1, patienceMs);
  const after = answer?.[0]?.pid;
  expect(after).not.toBe(before);

  frontend.child.kill('SIGUSR2');
  await until(processesNow, (processes) => processes !== undefined && processes[0]?.pid !== after, patienceMs);
  await imapRound(frontend.port('imap', 'starttls'), ...alice);
});

it('has any number of generations, which an operator and a signal reach through the first', async () => {
  const port = frontend.port('imap', 'starttls');
  const byCommand = (...more: readonly string[]) =>
    run(process.execPath, ['bin/archipelago.mjs', 'frontend', 'restart', frontend.name, '-o', 'json', ...frontend.cliOptions, ...more], {
      limitMs: patienceMs,
    });
  const first = await imapLogin(port, ...alice);
  const restarted = await byCommand();
  expect(restarted.err).toBe('');
  const { deadlineMs } = JSON.parse(restarted.out) as RestartReport;
  expect(deadlineMs).toBe(3_600_000);
  const second = await imapLogin(port, ...alice);
  expect((await byCommand('--deadline', '600')).code).toBe(0);
  const third = await imapLogin(port, ...alice);
  const { processes = [], sessionCount } = await frontend.status();
  expect(processes.map(({ sessions }) => sessions)).toEqual([1, 1, 1]);
  expect(sessionCount).toBe(3);
  await second.says('z LOGOUT', /^z OK [^\r]*\r\n/m);
  await third.says('n NOOP', /^n OK [^\r]*\r\n/m);
  await first.says('n NOOP', /^n OK [^\r]*\r\n/m);

  const ended = once(frontend.child, 'exit');
  frontend.child.kill('SIGTERM');
  await ended;
  expect(frontend.child.exitCode).toBe(0);
  await until(
    async () => [first, third].every(({ isClosed }) => isClosed),
    (isOver) => isOver,
    patienceMs,
  );
  await expect(imapRound(port, ...alice)).rejects.toThrow('ECONNREFUSED');
});

it('tells systemd which process is the main one, and does not stay beside it', async () => {
  const socket = join(root, 'notify');
  const listener = spawn('python3', ['-u', '-c', notifySocket, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  let told = '';
  listener.stdout.on('data', (chunk: Buffer) => {
    told += chunk.toString();
  });
  try {
    await until(
      async () => told,
      (text) => text.includes('bound'),
      patienceMs,
    );
    await using other = await startFrontendProcess(federation, root, undefined, { NOTIFY_SOCKET: socket });
    const ended = once(other.child, 'exit');
    const report = await other.ask<RestartReport>(`/api/v1/frontends/${other.name}/restart`, 'POST', {});
    await ended;
    expect(other.child.exitCode).toBe(0);
    expect(told).toContain(`MAINPID=${report.from.pid}`);
    expect(told).toContain(`MAINPID=${report.to.pid}`);
    await imapRound(other.port('imap', 'starttls'), ...alice);
    process.kill(report.to.pid, 'SIGTERM');
    await until(
      () => imapRound(other.port('imap', 'starttls'), ...alice).then(() => 'served', String),
      (outcome) => outcome.includes('ECONNREFUSED'),
      patienceMs,
    );
  } finally {
    listener.kill();
  }
});

it('is upgraded and set back by a link in the path that it was started by, and earlier sessions go on in the release that they began in', async () => {
  for (const version of ['1.0.0', '1.1.0']) await release(version);
  await turnTo('1.0.0');
  const program = join(root, 'current', 'bin', 'archipelago.mjs');
  // Two processes that serve: helpers are of the release of the first.
  await using upgraded = await startFrontendProcess(federation, root, (config) => ({ ...config, workers: 2 }), {}, program);
  const restartByCommand = async (): Promise<RestartReport> => {
    const args = [program, 'frontend', 'restart', upgraded.name, '-o', 'json', ...upgraded.cliOptions];
    const ran = await run(process.execPath, args, { limitMs: patienceMs });
    expect(ran.err).toBe('');
    return JSON.parse(ran.out) as RestartReport;
  };
  const versions = async (): Promise<string[]> =>
    ((await upgraded.status()).processes ?? []).map(({ version, state }) => `${version} ${state}`).sort();
  const port = upgraded.port('imap', 'starttls');
  await until(versions, (all) => all.length === 2, patienceMs);
  expect(await versions()).toEqual(['1.0.0 serving', '1.0.0 serving']);
  const first = await imapLogin(port, ...alice);
  await first.says('i SELECT INBOX', /^i OK [^\r]*\r\n/m);

  await turnTo('1.1.0');
  const up = await restartByCommand();
  expect([up.from.version, up.to.version]).toEqual(['1.0.0', '1.1.0']);
  await imapRound(port, ...alice);
  await until(versions, (all) => all.filter((each) => each === '1.1.0 serving').length === 2, patienceMs);
  expect(await versions()).toContain('1.0.0 leaving');
  await first.says('n NOOP', /^n OK [^\r]*\r\n/m);
  const second = await imapLogin(port, ...alice);

  await turnTo('1.0.0');
  const down = await restartByCommand();
  expect([down.from.version, down.to.version]).toEqual(['1.1.0', '1.0.0']);
  await second.says('n NOOP', /^n OK [^\r]*\r\n/m);
  await first.says('z LOGOUT', /^z OK [^\r]*\r\n/m);
  await second.says('z LOGOUT', /^z OK [^\r]*\r\n/m);
  await until(versions, (all) => all.length === 2, patienceMs);
  expect(await versions()).toEqual(['1.0.0 serving', '1.0.0 serving']);
  expect(upgraded.child.exitCode).toBeNull();
});

const tree = resolve(import.meta.dirname, '../..');
const rooms = ['backend-cluster', 'bin', 'common', 'deploy', 'directory', 'frontend', 'operate', 'protocol', 'replication'];

/** A copy of this tree as a release of that version. */
async function release(version: string): Promise<void> {
  const folder = join(root, `release-${version}`);
  // A second attempt finds that of the first.
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  for (const room of rooms) await cp(join(tree, room), join(folder, room), { recursive: true });
  await symlink(join(tree, 'node_modules'), join(folder, 'node_modules'));
  const described = JSON.parse(await readFile(join(tree, 'package.json'), 'utf8')) as object;
  await writeFile(join(folder, 'package.json'), JSON.stringify({ ...described, version }));
}

async function turnTo(version: string): Promise<void> {
  await rm(join(root, 'next'), { force: true });
  await symlink(`release-${version}`, join(root, 'next'));
  await rename(join(root, 'next'), join(root, 'current'));
}

/** What systemd listens on; Node has no datagram sockets of that kind. The descriptors that come with a message are what its sender waits for. */
const notifySocket = `
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound')
while True:
    data, ancillary, _, _ = s.recvmsg(4096, 1024)
    print(data.decode())
    for _, kind, sent in ancillary:
        if kind == socket.SCM_RIGHTS:
            for fd in array.array('i', sent[:len(sent) - len(sent) % 4]): os.close(fd)
`;
