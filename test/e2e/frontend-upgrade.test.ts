/**
 * An upgrade as an operator does it: two releases beside each other, a link in the path that the service was started by turned to the newer one, and
 * a restart. Sessions of before go on in the old release, everybody else is served by the new one, and back again.
 */
import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import type { RestartReport } from '#frontend/client/status.ts';
import { run, until } from './clients.ts';
import { type FrontendProcess, imapLogin, imapRound, startFrontendProcess } from './frontend-process.ts';

const patienceMs = 60_000;
const alice = ['alice@isp.example', 'alice-secret'] as const;
const tree = resolve(import.meta.dirname, '../..');
const rooms = ['backend-cluster', 'bin', 'common', 'deploy', 'directory', 'frontend', 'operate', 'protocol', 'replication'];

let root: string;
let federation: Federation;
let frontend: FrontendProcess;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-upgrade-'));
  for (const version of ['1.0.0', '1.1.0']) await release(version);
  await turnTo('1.0.0');
  federation = await startFederation({ root, ports: systemPorts(createLogger('info', {}, logFileOf(root))) });
  // Two processes that serve: helpers are of the release of the first.
  const program = join(root, 'current', 'bin', 'archipelago.mjs');
  frontend = await startFrontendProcess(federation, root, (config) => ({ ...config, workers: 2 }), {}, program);
});

afterAll(async () => {
  await frontend?.[Symbol.asyncDispose]();
  await federation?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

/** A copy of this tree as a release of that version. */
async function release(version: string): Promise<void> {
  const folder = join(root, `release-${version}`);
  await mkdir(folder);
  for (const room of rooms) await cp(join(tree, room), join(folder, room), { recursive: true });
  await symlink(join(tree, 'node_modules'), join(folder, 'node_modules'));
  const described = JSON.parse(await readFile(join(tree, 'package.json'), 'utf8')) as object;
  await writeFile(join(folder, 'package.json'), JSON.stringify({ ...described, version }));
}

async function turnTo(version: string): Promise<void> {
  await symlink(`release-${version}`, join(root, 'next'));
  await rename(join(root, 'next'), join(root, 'current'));
}

/** Restarts by the command line of the release that `current` leads to. */
async function restart(): Promise<RestartReport> {
  const ran = await run(
    process.execPath,
    [join(root, 'current', 'bin', 'archipelago.mjs'), 'frontend', 'restart', frontend.name, '-o', 'json', ...frontend.cliOptions],
    { limitMs: patienceMs },
  );
  expect(ran.err).toBe('');
  return JSON.parse(ran.out) as RestartReport;
}

const versions = async (): Promise<string[]> =>
  ((await frontend.status()).processes ?? []).map(({ version, state }) => `${version} ${state}`).sort();

it('goes on in the release that the link leads to, with the sessions of before in the one that they began in, and back', async () => {
  const port = frontend.port('imap', 'starttls');
  await until(versions, (all) => all.length === 2, patienceMs);
  expect(await versions()).toEqual(['1.0.0 serving', '1.0.0 serving']);
  const first = await imapLogin(port, ...alice);
  await first.says('i SELECT INBOX', /^i OK [^\r]*\r\n/m);

  await turnTo('1.1.0');
  const up = await restart();
  expect([up.from.version, up.to.version]).toEqual(['1.0.0', '1.1.0']);
  await imapRound(port, ...alice);
  // The files of the old release may go once nothing runs from them; until then its session goes on.
  await until(versions, (all) => all.filter((each) => each === '1.1.0 serving').length === 2, patienceMs);
  expect(await versions()).toContain('1.0.0 leaving');
  await first.says('n NOOP', /^n OK [^\r]*\r\n/m);
  const second = await imapLogin(port, ...alice);

  // Whoever finds the new one wanting goes back the same way.
  await turnTo('1.0.0');
  const down = await restart();
  expect([down.from.version, down.to.version]).toEqual(['1.1.0', '1.0.0']);
  await second.says('n NOOP', /^n OK [^\r]*\r\n/m);
  await first.says('z LOGOUT', /^z OK [^\r]*\r\n/m);
  await second.says('z LOGOUT', /^z OK [^\r]*\r\n/m);
  await until(versions, (all) => all.length === 2, patienceMs);
  expect(await versions()).toEqual(['1.0.0 serving', '1.0.0 serving']);
  expect(frontend.child.exitCode).toBeNull();
});
