/**
 * The demo as a newcomer starts it: `npm run demo`, the ready file, the commands it prints, Ctrl-C.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { ReadyDocument } from '#deploy/dev/ready-document.ts';
import { curlImap, ok, run, until } from './clients.ts';

let folder: string;
let demo: ChildProcess | undefined;
let output = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-demo-test-'));
  output = '';
});

afterEach(async () => {
  if (demo?.pid !== undefined && isGroupAlive()) process.kill(-demo.pid, 'SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

async function startDemo(...args: string[]): Promise<ReadyDocument> {
  const readyFile = join(folder, 'ready.json');
  // A process group of its own: Ctrl-C reaches every process of the group, as from a terminal.
  demo = spawn('npm', ['run', 'demo', '--', '--ready-file', readyFile, ...args], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: folder, XDG_CONFIG_HOME: join(folder, 'config') },
  });
  for (const stream of [demo.stdout, demo.stderr]) stream?.on('data', (chunk: Buffer) => (output += chunk));
  await until(
    async () => ({ isReady: existsSync(readyFile), exitCode: demo?.exitCode, output }),
    ({ isReady, exitCode }) => isReady || exitCode !== null,
    60_000,
  );
  if (!existsSync(readyFile)) throw new Error(`the demo ended with ${demo.exitCode}: ${output}`);
  return JSON.parse(await readFile(readyFile, 'utf8')) as ReadyDocument;
}

/** Ctrl-C, as the terminal sends it: to every process of the group. Resolves once none of them is left. */
async function ctrlC(): Promise<void> {
  const { pid } = demo as ChildProcess;
  process.kill(-(pid as number), 'SIGINT');
  await until(
    async () => isGroupAlive(),
    (isAlive) => !isAlive,
    10_000,
  );
}

function isGroupAlive(): boolean {
  try {
    process.kill(-(demo?.pid as number), 0);
    return true;
  } catch {
    // ESRCH: no process of the group is left.
    return false;
  }
}

it('serves, prints what to try, and leaves nothing behind on Ctrl-C', async () => {
  const ready = await startDemo();
  expect(Object.keys(ready.subsets)).toEqual(['eu', 'us']);
  expect(Object.keys(ready.clusters)).toEqual(['east.isp.example', 'west.isp.example']);
  expect(ready.directory.replicas).toHaveLength(2);

  for (const account of ready.accounts) {
    for (const subset of Object.values(ready.subsets)) {
      const status = await curlImap(ready, subset.imaps, account.name, account.password, 'STATUS INBOX (MESSAGES)');
      expect(status).toMatchObject({ code: 0, err: '' });
      expect(status.out).toContain('MESSAGES 3');
    }
  }
  await until(
    async () => output,
    (text) => text.includes('Try this in another terminal'),
    5000,
  );

  const env = { XDG_CONFIG_HOME: join(folder, 'config') };
  const why = await run(process.execPath, ['bin/archipelago.mjs', 'user', 'why', 'alice@isp.example'], { env });
  expect(why).toMatchObject({ code: 0, err: '' });
  expect(why.out).toContain('east.isp.example');
  const status = await run(process.execPath, ['bin/archipelago.mjs', 'status', '-o', 'json'], { env });
  expect(status.code).toBe(0);

  await ctrlC();
  expect(readdirSync(folder).filter((name) => name.startsWith('archipelago-demo'))).toEqual([]);
  expect(existsSync(join(folder, 'ready.json'))).toBe(false);
  expect(existsSync(dirname(ready.caFile))).toBe(false);
  const [host, port] = (ready.subsets.eu?.imap ?? '').split(':') as [string, string];
  expect((await run('curl', ['-sS', '--max-time', '5', `telnet://${host}:${port}`])).code).not.toBe(0);
});

it('goes on from its data folder', async () => {
  const data = join(folder, 'data');
  const first = await startDemo('--data', data);
  const added = [
    'dn: uid=ivan,cn=isp.example,o=mail',
    'objectClass: inetOrgPerson',
    'objectClass: mailAccount',
    'cn: Ivan',
    'sn: Ivan',
    'userPassword: ivan-secret',
    '',
  ];
  await ok('ldapadd', ['-x', '-H', first.directory.master.url, '-D', first.directory.adminDn, '-w', first.directory.adminPassword], {
    input: added.join('\n'),
  });
  await ctrlC();

  const again = await startDemo('--data', data);
  expect(again.adminPassword).toBe(first.adminPassword);
  expect((await curlImap(again, again.subsets.us?.imaps ?? '', 'ivan@isp.example', 'ivan-secret', 'NOOP')).code).toBe(0);
  const kept = await curlImap(again, again.subsets.eu?.imaps ?? '', 'alice@isp.example', 'alice-secret', 'STATUS INBOX (MESSAGES)');
  expect(kept.out).toContain('MESSAGES 3');
  await ctrlC();
});
