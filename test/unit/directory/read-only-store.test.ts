/** A data directory that may be read and not be written to. Root is held up by no mode, so for the time of a look it is somebody else. */
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { databaseFile, entryFunctions } from '#directory/tools/offline.ts';
import { addFrame, startTestDirectory } from './test-directory.ts';

const nobody = 65_534;

/** Folders of a directory that was stopped, and of one as if it had been killed. */
async function folders(): Promise<{ stopped: string; killed: string }> {
  const root = await mkdtemp(join(tmpdir(), 'archipelago-read-only-'));
  await chmod(root, 0o755);
  const [stopped, killed] = [join(root, 'stopped'), join(root, 'killed')];
  onTestFinished(async () => {
    for (const folder of [stopped, killed]) await chmod(folder, 0o755);
    await rm(root, { recursive: true, force: true });
  });
  for (const folder of [stopped, killed]) await mkdir(folder);
  const directory = await startTestDirectory();
  const data = join(directory.folder, 'data');
  await using admin = await directory.connect();
  await addFrame(admin);
  for (const file of [databaseFile, `${databaseFile}-wal`]) await copyFile(join(data, file), join(killed, file));
  await directory.stop();
  await copyFile(join(data, databaseFile), join(stopped, databaseFile));
  await directory[Symbol.asyncDispose]();
  for (const folder of [stopped, killed]) {
    for (const file of await readdir(folder)) await chmod(join(folder, file), 0o444);
    await chmod(folder, 0o555);
  }
  return { stopped, killed };
}

/** What is found there by one who may not write: entries, and problems. */
function verified(folder: string, isLogLookedFor = true): [number, string[]] {
  const isRoot = process.geteuid?.() === 0;
  const problems: string[] = [];
  if (isRoot) process.seteuid?.(nobody);
  try {
    const entries = verifyDatabase(join(folder, databaseFile), entryFunctions(), {
      ...(isLogLookedFor ? { hasLog: existsSync(join(folder, `${databaseFile}-wal`)) } : {}),
      problem: (text) => problems.push(text),
      progress: () => {},
    });
    return [entries, problems];
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

test('is verified where the server ended in good order, and left as it is', async () => {
  const { stopped } = await folders();
  const [entries, problems] = verified(stopped);
  expect(entries).toBeGreaterThan(3);
  expect(problems).toEqual([]);
  expect(await readdir(stopped)).toEqual([databaseFile]);
});

test('is not verified without the log that a killed server left, and what to do is said', async () => {
  const { killed } = await folders();
  expect(() => verified(killed)).toThrow(
    /nothing can be written to its folder, and .*-wal holds what is not in it yet\. .* copy both files/,
  );
  expect(await readdir(killed)).toEqual([databaseFile, `${databaseFile}-wal`]);
});

test('is not verified either by one who does not say whether there is a log', async () => {
  const { stopped, killed } = await folders();
  for (const folder of [stopped, killed]) expect(() => verified(folder, false)).toThrow(/nothing can be written to its folder/);
});

test('is said not to be there where it is not', async () => {
  const { stopped } = await folders();
  expect(() => verified(join(stopped, 'nowhere'))).toThrow(/cannot open the database .*nowhere.*: unable to open database file/);
});
