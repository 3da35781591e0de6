/** A process for directory-faults.test.ts: `full-disk.ts FOLDER` in a mount namespace of its own fills a small disk by adds; prints what it saw. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '#common/errors/platform-error.ts';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { databaseFile, entryFunctions } from '#directory/tools/offline.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory } from '../unit/directory/test-directory.ts';

const disk = join(process.argv[2] as string, 'disk');
mkdirSync(disk);
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk]);
const dataDirectory = join(disk, 'data');
const directory = await startTestDirectory({ dataDirectory });
const admin = await directory.connect();
await addFrame(admin);
const padding = attribute('description', 'x'.repeat(2000));
const added: string[] = [];
const refusals: string[] = [];
const add = async (uid: string): Promise<boolean> => {
  try {
    await admin.add(accountDn(uid), accountEntry(uid, padding));
    added.push(uid);
    return true;
  } catch (error) {
    refusals.push(messageOf(error));
    return false;
  }
};
for (let i = 0; await add(`before${i}`); i += 1);
const addedBeforeFull = added.length;
for (let i = 0; i < 3; i += 1) await add(`full${i}`);
const reader = await directory.connect();
const asked = [added[0] as string, added.at(-1) as string];
const found = await Promise.all(asked.map((uid) => reader.readEntry(accountDn(uid), ['mail'])));
execFileSync('mount', ['-o', 'remount,size=64m', disk]);
const before = added.length;
for (let i = 0; i < 3; i += 1) await add(`after${i}`);
const addedAfter = added.length - before;
await directory.restart();
let lostAfterRestart = 0;
{
  await using again = await directory.connect();
  for (const uid of added) if ((await again.readEntry(accountDn(uid), ['1.1'])) === undefined) lostAfterRestart += 1;
}
await directory.stop();
const problems: string[] = [];
verifyDatabase(join(dataDirectory, databaseFile), entryFunctions(), { problem: (text) => problems.push(text), progress: () => {} });
const readsWhileFull = found.filter((one) => one !== undefined).length;
process.stdout.write(JSON.stringify({ addedBeforeFull, refusals, readsWhileFull, addedAfter, lostAfterRestart, problems }));
process.exit(0);
