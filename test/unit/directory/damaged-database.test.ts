import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, expect, test } from 'vitest';
import type { SearchOptions } from '#directory/client/search-stream.ts';
import { rebuildIndex, verifyDatabase } from '#directory/store/integrity.ts';
import { databaseFile, entryFunctions } from '#directory/tools/offline.ts';
import { filterFromText } from '#protocol/ldap/filter.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory, type TestDirectory } from './test-directory.ts';

let directory: TestDirectory | undefined;
afterEach(async () => {
  await directory?.[Symbol.asyncDispose]();
  directory = undefined;
});

async function filled(): Promise<TestDirectory> {
  directory = await startTestDirectory();
  await using admin = await directory.connect();
  await addFrame(admin);
  await Promise.all(Array.from({ length: 400 }, (_, i) => admin.add(accountDn(`user${i}`), accountEntry(`user${i}`))));
  await directory.stop();
  return directory;
}

const pathOf = (where: TestDirectory): string => join(where.folder, 'data', databaseFile);

/** Problems that `verify` tells. */
function problems(path: string): string[] {
  const found: string[] = [];
  verifyDatabase(path, entryFunctions(), { problem: (text) => found.push(text), progress: () => {} });
  return found;
}

test('a file that is no database any more is refused at the start, with the tools to run', async () => {
  const where = await filled();
  const content = await readFile(pathOf(where));
  content.fill(0x55, 0, 4096);
  await writeFile(pathOf(where), content);
  await expect(where.restart()).rejects.toMatchObject({
    code: 'DIR_DAMAGED',
    message: expect.stringMatching(/directory\.sqlite is damaged \(SQLite: .*"archipelago directory verify --data DIR".*"restore"/),
  });
  expect(() => problems(pathOf(where))).toThrow(/is damaged/);
});

/** Overwrites the leaves of a table or index. */
async function damage(path: string, name: string): Promise<void> {
  let pages: number[];
  {
    using database = new DatabaseSync(path);
    pages = database
      .prepare("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'")
      .all(name)
      .map((row) => row.pageno as number);
  }
  expect(pages.length).toBeGreaterThan(0);
  await using file = await open(path, 'r+');
  for (const page of pages) await file.write(Buffer.alloc(4096, 0x55), 0, 4096, (page - 1) * 4096);
}

test('a database whose entries cannot be read is refused at the start too', async () => {
  const where = await filled();
  await damage(pathOf(where), 'entry');
  await expect(where.restart()).rejects.toMatchObject({ code: 'DIR_DAMAGED' });
  expect(problems(pathOf(where)).at(-1)).toMatch(/^the rest cannot be read: .*put back a backup$/);
});

test('with a damaged index what needs it is refused as temporary, all else is served, and reindex mends it', async () => {
  const where = await filled();
  await damage(pathOf(where), 'indexed');
  expect(problems(pathOf(where)).join('\n')).toMatch(/^the rest cannot be read: .*; run reindex/);
  await where.restart();
  const byMail: SearchOptions = {
    baseDn: 'o=mail',
    scope: 'sub',
    filter: filterFromText('(mail=user7@isp.example)'),
    attributes: ['uid'],
  };
  {
    await using reader = await where.connect();
    expect((await reader.readEntry(accountDn('user7'), ['uid']))?.dn).toBe(accountDn('user7'));
    await expect(reader.searchAll(byMail)).rejects.toThrow(/unavailable \(52\).*is damaged/);
  }
  await where.stop();
  expect(rebuildIndex(pathOf(where), entryFunctions(), () => {})).toBe(407);
  expect(problems(pathOf(where))).toEqual([]);
  await where.restart();
  await using reader = await where.connect();
  expect(await reader.searchAll(byMail)).toHaveLength(1);
});
