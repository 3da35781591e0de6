/** `archipelago store --path`: what an administrator and a script are told of damage, on a directory without a running cluster. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { Ledger, opening, uuid } from '#test/unit/backend-cluster/storage/ledger.ts';
import { type Ran, run } from './clients.ts';

const limitMs = 100_000;

let root: string;
const logDirectory = (): string => join(root, 'accounts', uuid.slice(0, 2), uuid.slice(2, 4), uuid, 'log');

function tool(...args: string[]): Promise<Ran> {
  return run(process.execPath, ['bin/archipelago.mjs', 'store', ...args, '--path', root], { limitMs });
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-store-tool-'));
  const store = await openAccountStore({ root, ...systemPorts(silentLogger) });
  const account = await store.open(uuid, opening('back1'));
  const ledger = new Ledger();
  for (const id of ['one', 'two', 'three']) await ledger.deliver(account, [id]);
  await account.close();
});
afterEach(() => rm(root, { recursive: true, force: true }));

it('says what is damaged, what a repair would lose before it does, and when all is whole again', async () => {
  expect(await tool('check')).toMatchObject({ code: 0, out: '' });
  expect(await tool('stat')).toMatchObject({ code: 0, out: '1 accounts, 0 damaged, 0 removed and kept\n' });
  expect(await tool('repair', uuid, '--dry-run')).toMatchObject({ code: 0, out: `${uuid}: nothing is damaged\n` });

  const third = join(logDirectory(), (await readdir(logDirectory())).sort().at(2) as string);
  const content = await readFile(third);
  await writeFile(third, content.subarray(0, 100));
  const check = await tool('check');
  expect(check.code).toBe(4);
  expect(check.out).toContain('/log/000000000003: the file ends within its records');
  const before = await readdir(root, { recursive: true });
  const dry = await tool('repair', uuid, '--dry-run');
  expect(dry).toMatchObject({ code: 4, out: expect.stringContaining('--discard-lost') });
  expect(dry.out).toContain('lost: the changes of 1 log slots');
  expect((await tool('repair', uuid, '--dry-run', '--discard-lost')).code).toBe(4);
  expect(await readdir(root, { recursive: true })).toEqual(before);
  expect((await tool('repair', uuid)).code).toBe(4);
  expect((await tool('stat')).code).toBe(4);

  // As if it came back from a backup; a copy that is damaged in its header only is mended without a loss.
  content[30] = (content[30] as number) ^ 1;
  await writeFile(third, content);
  expect(await tool('repair', uuid, '--dry-run')).toMatchObject({ code: 0, out: expect.stringContaining('can be repaired without loss') });
  expect(await tool('repair', uuid)).toMatchObject({ code: 0, out: expect.stringContaining(`${uuid}: repaired`) });
  expect((await tool('check')).code).toBe(0);
  expect((await tool('stat')).code).toBe(0);
});

it('goes on with the other accounts where one is beyond reading, and tells a mistake from damage', async () => {
  const other = '99999999-2222-4333-8444-555555555555';
  const copy = join(root, 'accounts', other.slice(0, 2), other.slice(2, 4), other);
  await cp(join(logDirectory(), '..'), copy, { recursive: true });
  for (const name of await readdir(join(copy, 'log'))) await writeFile(join(copy, 'log', name), '');
  await writeFile(join(root, 'damaged', other), '');
  await writeFile(join(root, 'tombstones', other), 'not what it was');
  const check = await tool('check', '--json');
  expect(check.code).toBe(4);
  const reports = check.out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(reports.map((report) => [report.uuid, report.isComplete])).toEqual([
    [uuid, true],
    [other, false],
  ]);
  const stat = await tool('stat');
  expect(stat.code).toBe(4);
  expect(stat.out).toContain(`damaged ${other}: damaged/${other}:`);
  expect(stat.out).toContain(`removed ${other}: its record in tombstones/ is damaged`);
  expect((await tool('check', '11111111-0000-4000-8000-000000000000')).code).toBe(3);
  expect((await tool('repair')).code).toBe(2);
});
