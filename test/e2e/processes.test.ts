/**
 * The sample node files, one process each: what an installation has. A member dies by kill -9 and comes back.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Processes, startProcesses } from '#deploy/examples/processes.ts';
import { ok, run, until } from './clients.ts';
import { LineClient } from './frontend-process.ts';

// Fixed in deploy/examples/*.yaml.
const imaps = '127.0.0.1:21993';
const smtp = '127.0.0.1:21025';

let folder: string;
let processes: Processes;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-processes-'));
  processes = await startProcesses(folder, () => {});
});

afterAll(async () => {
  await processes?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

function imap(command: string) {
  return run('curl', [
    '-sS',
    '--max-time',
    '20',
    '--cacert',
    processes.layout.caFile,
    '--user',
    'alice@isp.example:alice-secret',
    `imaps://${imaps}/`,
    '-X',
    command,
  ]);
}

async function send(subject: string): Promise<void> {
  const input = `From: bob@isp.example\r\nTo: alice@isp.example\r\nSubject: ${subject}\r\n\r\nHello.\r\n`;
  const to = ['--mail-from', 'bob@isp.example', '--mail-rcpt', 'alice@isp.example'];
  await ok('curl', ['-sS', '--max-time', '20', '--cacert', processes.layout.caFile, '--ssl-reqd', `smtp://${smtp}`, ...to, '-T', '-'], {
    input,
  });
}

it('serves mail through separate processes, and goes on when a member is killed', async () => {
  await until(
    () => imap('STATUS INBOX (MESSAGES)'),
    ({ code }) => code === 0,
    15_000,
  );
  await send('before');
  await until(
    () => imap('STATUS INBOX (MESSAGES)'),
    ({ out }) => out.includes('MESSAGES 1'),
    15_000,
  );

  const east = ['east-back1', 'east-back2'];
  for (const victim of east) {
    const child = processes.running.get(victim);
    expect(child, `deploy/examples has ${victim}.yaml`).toBeDefined();
    const died = once(child as NonNullable<typeof child>, 'exit');
    child?.kill('SIGKILL');
    await died;
    // Whichever member had the account, it is served by the other one now, with all that was acknowledged.
    const { answer } = await until(
      () => imap('STATUS INBOX (MESSAGES)'),
      ({ code }) => code === 0,
      30_000,
    );
    expect(answer.out).toContain('MESSAGES 1');
    await processes.restart(victim);
  }
  await send('after');
  await until(
    () => imap('STATUS INBOX (MESSAGES)'),
    ({ out }) => out.includes('MESSAGES 2'),
    15_000,
  );
});

it('shows all processes in one answer', async () => {
  const args = ['status', '-o', 'json', '--url', 'https://127.0.0.1:21080'];
  const credentials = ['--token-file', processes.layout.secret('console'), '--ca-file', processes.layout.caFile];
  // Exit code 4 while a member that came back is still joining.
  const { answer } = await until(
    () => run(process.execPath, ['bin/archipelago.mjs', ...args, ...credentials]),
    ({ code }) => code === 0,
    20_000,
  );
  const status = JSON.parse(answer.out) as { replies: { asked: number; replied: number } };
  expect(status.replies.asked).toBe(processes.running.size);
  expect(status.replies.replied).toBe(status.replies.asked);
});

it('logs every known account in while all directory servers are stopped, at a frontend that is started meanwhile too', {
  timeout: 240_000,
}, async () => {
  const directories = [...processes.running.keys()].filter((name) => name.startsWith('ldap-'));
  expect(directories).toHaveLength(3);
  const stop = async (name: string, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
    const child = processes.running.get(name) as NonNullable<ReturnType<typeof processes.running.get>>;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  };
  const known = ['alice', 'bob', 'carol', 'dave'];
  const ports = { 'eu-front1': 21143, 'eu-front2': 22143, 'us-front1': 23143 } as const;
  const answer = async (port: number, uid: string, password: string): Promise<string> => {
    const client = new LineClient(port);
    try {
      await client.hears(/^\* OK [^\r]*\r\n/m);
      return (await client.says(`a LOGIN ${uid}@isp.example ${password}`, /^a [^\r]*\r\n/m)).trim();
    } finally {
      client.socket.destroy();
    }
  };
  const rounds = async (count: number): Promise<string[]> => {
    const refused: string[] = [];
    for (let round = 0; round < count; round += 1) {
      for (const [name, port] of Object.entries(ports)) {
        const uid = known[round % known.length] as string;
        const told = await answer(port, uid, `${uid}-secret`).catch(String);
        if (!told.startsWith('a OK')) refused.push(`${uid} at ${name}: ${told}`);
      }
    }
    return refused;
  };
  try {
    for (const name of directories) await stop(name, 'SIGKILL');
    expect(await rounds(40)).toEqual([]);
    await stop('eu-front2', 'SIGTERM');
    await processes.restart('eu-front2');
    expect(await rounds(20)).toEqual([]);
    // What is not known may exist: nothing permanent is said of it, and a wrong password is one.
    expect(await answer(ports['eu-front2'], 'nobody', 'x')).toMatch(/^a NO \[UNAVAILABLE\]/);
    expect(await answer(ports['us-front1'], 'alice', 'x')).toMatch(/^a NO \[AUTHENTICATIONFAILED\]/);
  } finally {
    for (const name of directories) await processes.restart(name);
  }
  await until(
    () => answer(ports['eu-front2'], 'nobody', 'x'),
    (told) => told.startsWith('a NO [AUTHENTICATIONFAILED]'),
    60_000,
  );
});
