/**
 * A Directory Server on a disk that is full, and imports that are killed: what stands keeps its content, and work goes on when the cause is gone.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { databaseFile } from '#directory/tools/offline.ts';
import { run } from './run-tool.ts';

const program = fileURLToPath(new URL('../../bin/archipelago.mjs', import.meta.url));
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-faults-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('a full disk refuses writes as busy and loses none that was acknowledged; reads go on, and writes when there is room again, without a restart', async () => {
  // A mount namespace of its own: the small disk in it ends with the process.
  const namespace = process.getuid?.() === 0 ? ['--mount'] : ['--user', '--map-root-user', '--mount'];
  const script = fileURLToPath(new URL('./full-disk.ts', import.meta.url));
  const told = await run('unshare', [...namespace, process.execPath, script, join(folder)]);
  expect(told.code, `unshare ${namespace.join(' ')}: ${told.stderr}`).toBe(0);
  const seen = JSON.parse(told.stdout) as Record<string, unknown>;
  expect(seen).toEqual({
    addedBeforeFull: expect.any(Number),
    refusals: Array(4).fill(expect.stringMatching(/answers busy \(51\).*the disk of the data directory is full/)),
    readsWhileFull: 2,
    addedAfter: 3,
    lostAfterRestart: 0,
    problems: [],
  });
  expect(seen.addedBeforeFull).toBeGreaterThan(50);
}, 60_000);

describe('an import that is killed', () => {
  const accounts = 20_000;
  const frame = [
    'dn: o=mail\nobjectClass: organization\no: mail\n',
    'dn: cn=isp.example,o=mail\nobjectClass: mailDomain\ncn: isp.example\n',
  ].join('\n');
  let file: string;

  beforeAll(async () => {
    file = join(folder, 'accounts.ldif');
    let text = frame;
    for (let i = 0; i < accounts; i += 1) {
      text += `\ndn: uid=u${i},cn=isp.example,o=mail\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: u${i}\ncn: u${i}\nsn: u${i}\n`;
    }
    await writeFile(file, text);
  });

  /** Runs it until it says so, and kills it. */
  async function killedAt(data: string, said: string): Promise<void> {
    const script = fileURLToPath(new URL('../../deploy/run/directory.ts', import.meta.url));
    const child = spawn(process.execPath, [script, 'import', '--data', data, file], { stdio: ['ignore', 'ignore', 'pipe'] });
    const closed = once(child, 'close');
    for await (const line of createInterface(child.stderr)) if (line.includes(said)) child.kill('SIGKILL');
    expect((await closed)[1], `killed at "${said}"`).toBe('SIGKILL');
  }

  test('leaves the directory as it was, wherever it stood, and the next one does the work', async () => {
    const data = join(folder, 'killed');
    const small = join(folder, 'small.ldif');
    await writeFile(small, frame);
    expect((await run(process.execPath, [program, 'directory', 'import', '--data', data, small])).code).toBe(0);
    const before = (await run(process.execPath, [program, 'directory', 'export', '--data', data])).stdout;
    for (const said of ['sorting the names', 'making the index', 'looking for addresses']) {
      await killedAt(data, said);
      expect((await run(process.execPath, [program, 'directory', 'verify', '--data', data])).stdout).toBe('5 entries, 0 problems\n');
      expect((await run(process.execPath, [program, 'directory', 'export', '--data', data])).stdout).toBe(before);
    }
    const done = await run(process.execPath, [program, 'directory', 'import', '--data', data, file]);
    expect(done.stderr).toContain(`${accounts} entries added, 2 were there already, 0 failed`);
    expect(await readdir(data)).toEqual([databaseFile]);
    expect((await run(process.execPath, [program, 'directory', 'verify', '--data', data])).stdout).toBe(
      `${accounts + 5} entries, 0 problems\n`,
    );
  }, 180_000);
});
