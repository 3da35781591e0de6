/**
 * `archipelago directory`: import, export, verify, reindex, backup, restore, status and search, as an administrator types them.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attribute } from '#protocol/ldap/messages.ts';
import {
  accountDn,
  accountEntry,
  addFrame,
  identityDn,
  servicePassword,
  startTestDirectory,
  type TestDirectory,
} from '../unit/directory/test-directory.ts';
import { type Ran, run } from './run-tool.ts';

const program = fileURLToPath(new URL('../../bin/archipelago.mjs', import.meta.url));
let directory: TestDirectory;
let folder: string;
let online: string[];

function tool(...args: string[]): Promise<Ran> {
  return run(process.execPath, [program, 'directory', ...args]);
}

/** Entries of an LDIF text in one order. */
function entriesOf(ldif: string): string[] {
  // The state of the whole is no part of an entry.
  return ldif
    .replace(/^contextCSN: .*\n/m, '')
    .split('\n\n')
    .sort();
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-offline-'));
  directory = await startTestDirectory({ backupDirectory: join(folder, 'backups') });
  const passwordFile = join(folder, 'password');
  await writeFile(passwordFile, servicePassword);
  online = ['--url', directory.url, '--bind-dn', identityDn('admin'), '--password-file', passwordFile];
  await using admin = await directory.connect();
  await addFrame(admin);
  for (const uid of ['alice', 'bob', 'zoe']) {
    await admin.add(accountDn(uid), accountEntry(uid, attribute('description', ' needs base64 é', 'x'.repeat(200))));
  }
  await admin.delete(accountDn('bob'));
});
afterAll(async () => {
  await directory[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe('with a server that runs', () => {
  test('status and search speak LDAP to it', async () => {
    const status = await tool('status', ...online);
    expect(status.stdout).toMatch(/^suffix: o=mail$/m);
    expect(status.stdout).toMatch(/^Entries: 9$/m);
    expect(status.stdout).toMatch(/^Add: \d+$/m);
    expect(status.stdout).toMatch(/^state: \d{14}\.\d{6}Z#/m);
    const search = await tool('search', ...online, 'o=mail', '(uid=alice)', 'mail');
    expect(search.stdout).toBe(`dn: ${accountDn('alice')}\nmail: alice@isp.example\n\n`);
  });

  test('export and import speak LDAP to it too, and answer programs in JSON', async () => {
    const whole = await tool('export', ...online);
    expect(whole.code, whole.stderr).toBe(0);
    const part = await tool('export', 'cn=isp.example,o=mail', ...online);
    expect(part.stdout.match(/^dn: .*/gm)).toEqual(['dn: cn=isp.example,o=mail', `dn: ${accountDn('alice')}`, `dn: ${accountDn('zoe')}`]);
    await using other = await startTestDirectory();
    const there = ['--url', other.url, ...online.slice(2)];
    const file = join(folder, 'online.ldif');
    await writeFile(file, `${whole.stdout}dn: uid=x,cn=nowhere,o=mail\nobjectClass: mailAccount\nuid: x\n`);
    const imported = await tool('import', file, ...there, '--json');
    expect([imported.code, JSON.parse(imported.stdout)]).toEqual([1, { added: 5, skipped: 4, failed: 1 }]);
    expect(imported.stderr).toMatch(/online\.ldif:\d+: uid=x,cn=nowhere,o=mail: /);
    const identity = async (at: readonly string[]): Promise<string> =>
      (await tool('search', 'o=mail', '(uid=alice)', 'entryUUID', 'entryCSN', 'createTimestamp', ...at)).stdout;
    expect(await identity(there)).toBe(await identity(online));
    const found = JSON.parse((await tool('search', 'o=mail', '(uid=alice)', 'mail', ...online, '--json')).stdout);
    expect(found).toEqual({ dn: accountDn('alice'), attributes: { mail: ['alice@isp.example'] } });
    expect(JSON.parse((await tool('status', ...online, '--json')).stdout)).toMatchObject({ suffix: 'o=mail', counters: { Entries: 9 } });
  });

  test('the offline tools refuse its data directory', async () => {
    const refused = await tool('verify', '--data', join(directory.folder, 'data'));
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('another directory server uses this data directory')]);
  });

  test('backup makes a copy while it runs, which restore puts in place under a new database id', async () => {
    const made = await tool('backup', ...online);
    expect(made.stderr).toBe('');
    const copy = made.stdout.trim();
    expect(copy.startsWith(join(folder, 'backups', 'directory-'))).toBe(true);
    const data = join(folder, 'restored');
    expect((await tool('restore', '--data', data, copy)).code).toBe(0);
    expect((await tool('restore', '--data', data, copy)).code).toBe(1);
    expect((await tool('verify', '--data', data)).stdout).toBe('9 entries, 0 problems\n');
    const idOf = (path: string): unknown => {
      using database = new DatabaseSync(path, { readOnly: true });
      return database.prepare("SELECT value FROM meta WHERE name = 'databaseId'").get()?.value;
    };
    expect(idOf(join(data, 'directory.sqlite'))).not.toBe(idOf(copy));
  });
});

describe('on a data directory', () => {
  test('export and import give the same tree again, entryUUID and entryCSN included, and a second import skips all', async () => {
    await directory.stop();
    const source = join(directory.folder, 'data');
    const exported = await tool('export', '--data', source);
    expect(exported.code, exported.stderr).toBe(0);
    expect(exported.stdout).toMatch(/^entryUUID: [0-9a-f-]{36}$/m);
    const file = join(folder, 'all.ldif');
    await writeFile(file, exported.stdout);
    const target = join(folder, 'imported');
    expect(await tool('import', '--data', target, file)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('9 entries added, 0 were'),
    });
    expect(entriesOf((await tool('export', '--data', target)).stdout)).toEqual(entriesOf(exported.stdout));
    expect((await tool('import', '--data', target, file)).stderr).toContain('0 entries added, 9 were there already, 0 failed');
    expect((await tool('verify', '--data', target)).code).toBe(0);
    expect(JSON.parse((await tool('verify', '--data', target, '--json')).stdout)).toEqual({ entries: 9, problems: 0, shown: [] });
    const below = await tool('export', '--data', target, 'cn=isp.example,o=mail');
    expect(below.stdout.match(/^dn: /gm)).toHaveLength(3);
    const offline = await tool(
      'search',
      '--data',
      target,
      'o=mail',
      '(&(mail=zoe@isp.example)(hasSubordinates=FALSE))',
      'uid',
      'hasSubordinates',
    );
    expect(offline.stdout).toBe(`dn: ${accountDn('zoe')}\nuid: zoe\nhasSubordinates: FALSE\n\n`);
  });

  test('import reports what is wrong by line and takes the rest', async () => {
    const file = join(folder, 'wrong.ldif');
    const good = `dn: cn=new.example,o=mail\nobjectClass: mailDomain\ncn: new.example\n`;
    await writeFile(file, `dn: uid=x,cn=nowhere,o=mail\nobjectClass: mailAccount\nuid: x\n\n${good}`);
    const imported = await tool('import', '--data', join(folder, 'partly'), file);
    expect(imported.code).toBe(1);
    expect(imported.stderr).toContain(`${file}:1: uid=x,cn=nowhere,o=mail: `);
    expect(imported.stderr).toContain('1 entries added, 0 were there already, 1 failed');
  });

  test('verify finds a damaged index and wrong counters, and reindex mends them', async () => {
    const data = join(folder, 'imported');
    {
      using database = new DatabaseSync(join(data, 'directory.sqlite'));
      database.exec("DELETE FROM indexed WHERE value = 'alice'; UPDATE tally SET count = 77 WHERE name = 'accounts'");
    }
    const damaged = await tool('verify', '--data', data);
    expect(damaged.code).toBe(4);
    expect(damaged.stdout).toMatch(/uid=alice\) is missing in the index of uid; run reindex/);
    expect(damaged.stdout).toContain('the counter accounts says 77, there are 2; run reindex');
    expect((await tool('reindex', '--data', data)).stdout).toBe('9 entries indexed\n');
    expect((await tool('verify', '--data', data)).stdout).toBe('9 entries, 0 problems\n');
  });

  test('verify reads a file system that cannot be written to, and says what to do where a log lies there', async () => {
    const data = join(folder, 'imported');
    const namespace = process.getuid?.() === 0 ? ['--mount'] : ['--user', '--map-root-user', '--mount'];
    const mounted = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"';
    const verified = (): Promise<Ran> =>
      run('unshare', [...namespace, 'sh', '-c', mounted, data, process.execPath, program, 'directory', 'verify', '--data', data]);
    expect(await verified()).toMatchObject({ code: 0, stdout: '9 entries, 0 problems\n' });
    const log = join(data, 'directory.sqlite-wal');
    await writeFile(log, '');
    expect(await verified()).toMatchObject({ code: 1, stderr: expect.stringContaining(`${log} holds what is not in it yet`) });
    await rm(log);
  });

  test('a wrong command line shows how to use it', async () => {
    expect(await tool('explode')).toMatchObject({ code: 2, stderr: expect.stringContaining('usage: archipelago directory COMMAND') });
    expect((await tool('verify', '--data', join(folder, 'nowhere'))).code).toBe(1);
    expect(await tool('search', 'o=mail', '(uid=*)')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('one of --data DIR and --url URL'),
    });
  });
});
