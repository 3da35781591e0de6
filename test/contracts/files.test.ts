import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { errnoOf, type Files } from '#common/files/files.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';

const bytes = (text: string): Uint8Array[] => [Buffer.from(text)];
const codeOf = (work: Promise<unknown>): Promise<string | undefined> =>
  work.then(
    () => 'no failure',
    (error: unknown) => errnoOf(error),
  );

describe.each(['the file system', 'the double'])('files of %s', (kind) => {
  let root: string;
  let files: Files;
  beforeAll(async () => {
    root = kind === 'the double' ? '/data' : await mkdtemp(join(tmpdir(), 'files-contract-'));
    files = kind === 'the double' ? new MemoryDisk().client() : nodeFiles;
    await files.mkdirAll(root);
  });
  afterAll(async () => {
    if (kind === 'the file system') await rm(root, { recursive: true });
  });

  it('creates a file once and gives back its bytes, whole and in part', async () => {
    await files.writeNew(`${root}/a`, [Buffer.from('hello '), Buffer.alloc(0), Buffer.from('world')]);
    expect((await files.read(`${root}/a`)).toString()).toBe('hello world');
    expect((await files.readRange(`${root}/a`, 6, 3)).toString()).toBe('wor');
    expect((await files.readRange(`${root}/a`, 6, 300)).toString()).toBe('world');
    expect((await files.readRange(`${root}/a`, 60, 3)).length).toBe(0);
    expect(await files.size(`${root}/a`)).toBe(11);
    expect(await codeOf(files.writeNew(`${root}/a`, bytes('other')))).toBe('EEXIST');
  });

  it('says ENOENT of what is missing, and undefined for its size', async () => {
    for (const work of [
      () => files.read(`${root}/none`),
      () => files.readRange(`${root}/none`, 0, 1),
      () => files.unlink(`${root}/none`),
      () => files.rmdir(`${root}/none`),
      () => files.list(`${root}/none`),
      () => files.syncDirectory(`${root}/none`),
      () => files.link(`${root}/none`, `${root}/other`),
      () => files.rename(`${root}/none`, `${root}/other`),
      () => files.writeNew(`${root}/none/file`, bytes('')),
      () => files.mkdir(`${root}/none/directory`),
    ]) {
      expect(await codeOf(work())).toBe('ENOENT');
    }
    expect(await files.size(`${root}/none`)).toBeUndefined();
  });

  it('gives a file a second name that outlives the first, and takes no name twice', async () => {
    await files.writeNew(`${root}/one`, bytes('one'));
    await files.link(`${root}/one`, `${root}/two`);
    await files.writeNew(`${root}/three`, bytes('three'));
    expect(await codeOf(files.link(`${root}/three`, `${root}/two`))).toBe('EEXIST');
    await files.unlink(`${root}/one`);
    expect((await files.read(`${root}/two`)).toString()).toBe('one');
  });

  it('replaces by rename and by replace', async () => {
    await files.writeNew(`${root}/old`, bytes('old'));
    await files.writeNew(`${root}/new`, bytes('new'));
    await files.rename(`${root}/new`, `${root}/old`);
    expect((await files.read(`${root}/old`)).toString()).toBe('new');
    await files.replace(`${root}/old`, 'newest');
    expect((await files.read(`${root}/old`)).toString()).toBe('newest');
  });

  it('makes directories, lists them, and removes only empty ones unless asked for the tree', async () => {
    await files.mkdirAll(`${root}/x/y`);
    await files.mkdirAll(`${root}/x/y`);
    expect(await codeOf(files.mkdir(`${root}/x/y`))).toBe('EEXIST');
    await files.writeNew(`${root}/x/y/file`, bytes('1'));
    await files.syncDirectory(`${root}/x/y`);
    expect(await files.list(`${root}/x`)).toEqual(['y']);
    expect(await codeOf(files.rmdir(`${root}/x/y`))).toBe('ENOTEMPTY');
    await files.removeTree(`${root}/x`);
    await files.removeTree(`${root}/none/none`);
    await files.removeTree(`${root}/x`);
    expect(await files.size(`${root}/x`)).toBeUndefined();
  });
});

describe('the double of a disk', () => {
  it('loses at a power cut the names that were not made durable', async () => {
    const disk = new MemoryDisk();
    const files = disk.client();
    await files.mkdirAll('/d');
    await files.writeNew('/d/kept', bytes('1'));
    await files.syncDirectory('/d');
    await files.writeNew('/d/lost', bytes('2'));
    await files.unlink('/d/kept');
    disk.powerCut();
    expect(await files.list('/d')).toEqual(['kept']);
  });

  it('lets a held operation happen later, when its source may be gone', async () => {
    const disk = new MemoryDisk();
    const sleeper = disk.client(({ name }) => (name === 'link' ? { kind: 'held' } : undefined));
    const other = disk.client();
    await other.mkdirAll('/d');
    await sleeper.writeNew('/d/source', bytes('1'));
    const pending = codeOf(sleeper.link('/d/source', '/d/target'));
    await other.unlink('/d/source');
    expect(sleeper.isStuck).toBe(true);
    sleeper.release();
    expect(await pending).toBe('ENOENT');
  });
});
