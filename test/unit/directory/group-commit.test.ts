import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { type CommitHooks, GroupCommit, type LogSync, type WriteKind } from '#directory/store/group-commit.ts';

const hooks: CommitHooks = {
  begin: () => {},
  hasWritten: () => true,
  beforeCommit: () => {},
  committed: () => {},
  durable: () => {},
  isFollowed: () => false,
  undone: () => {},
};

/** A disk that takes what it is given when the test says so. */
class Disk implements LogSync {
  readonly waiting: ((failure: Error | undefined) => void)[] = [];
  nowCount = 0;

  start(done: (failure: Error | undefined) => void): void {
    this.waiting.push(done);
  }

  now(): void {
    this.nowCount += 1;
  }

  close(): void {}
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Lets batches that have nothing to wait for come to their end. */
async function turns(): Promise<void> {
  for (let one = 0; one < 20; one += 1) await turn();
}

describe('writes and a disk that takes its time', () => {
  let database: DatabaseSync;
  let disk: Disk;
  let commit: GroupCommit;
  const answered: number[] = [];

  beforeEach(() => {
    database = new DatabaseSync(':memory:');
    database.exec('CREATE TABLE number (value INTEGER)');
    disk = new Disk();
    commit = new GroupCommit(database, hooks, disk);
    answered.length = 0;
  });
  afterEach(() => database.close());

  const numbers = (): number[] =>
    database
      .prepare('SELECT value FROM number')
      .all()
      .map((row) => row.value as number);
  const put = (value: number, kind?: WriteKind): Promise<void> =>
    commit
      .write(() => database.prepare('INSERT INTO number VALUES (?)').run(value), kind)
      .then(() => {
        answered.push(value);
      });

  test('a write is answered when the disk has it; meanwhile the next one works, and is committed after it', async () => {
    void put(1);
    await turns();
    expect([numbers(), answered, disk.waiting.length]).toEqual([[1], [], 1]);
    void put(2);
    await turns();
    expect([numbers(), answered, disk.waiting.length, database.isTransaction]).toEqual([[1, 2], [], 1, true]);
    disk.waiting[0]?.(undefined);
    await turns();
    expect([answered, disk.waiting.length, database.isTransaction]).toEqual([[1], 2, false]);
    disk.waiting[1]?.(undefined);
    await turns();
    expect(answered).toEqual([1, 2]);
  });

  test('who waits to read sees what the disk has and nothing of what comes after', async () => {
    void put(1);
    await turns();
    const seen = commit.settled()?.then(() => numbers());
    void put(2);
    void put(3);
    await turns();
    expect(numbers()).toEqual([1]);
    disk.waiting[0]?.(undefined);
    expect(await seen).toEqual([1]);
    await turns();
    expect(numbers()).toEqual([1, 2, 3]);
    disk.waiting[1]?.(undefined);
    await turns();
    expect(answered).toEqual([1, 2, 3]);
    expect(commit.settled()).toBeUndefined();
  });

  test('a relaxed write waits for no disk', async () => {
    void put(1);
    await turns();
    await put(2, 'relaxed');
    expect([numbers(), answered]).toEqual([[1, 2], [2]]);
    disk.waiting[0]?.(undefined);
    await turns();
    expect(answered).toEqual([2, 1]);
  });

  test('readers and relaxed writes do not wait while a shown write is brought to the disk', async () => {
    await put(1, 'relaxed');
    void put(2, 'shown');
    expect([numbers(), answered, disk.waiting.length, commit.settled()]).toEqual([[1, 2], [1], 1, undefined]);
    await put(3, 'relaxed');
    expect([numbers(), answered, commit.settled()]).toEqual([[1, 2, 3], [1, 3], undefined]);
    disk.waiting[0]?.(undefined);
    await turns();
    expect(answered).toEqual([1, 3, 2]);
  });

  test('what must not be seen yet is not, whichever shown write is in its batch', async () => {
    void put(1);
    void put(2, 'shown');
    await turns();
    const seen = commit.settled()?.then(() => [...answered]);
    expect(disk.waiting.length).toBe(1);
    disk.waiting[0]?.(undefined);
    expect(await seen).toEqual([1, 2]);
    // And behind a flush that is under way a shown write has one of its own.
    void put(3);
    await turns();
    void put(4, 'shown');
    await turns();
    expect([answered, disk.waiting.length]).toEqual([[1, 2], 2]);
    disk.waiting[1]?.(undefined);
    await turns();
    expect([answered, disk.waiting.length, commit.settled()]).toEqual([[1, 2, 3], 3, undefined]);
    disk.waiting[2]?.(undefined);
    await turns();
    expect(answered).toEqual([1, 2, 3, 4]);
  });

  test('all that was asked for is on the disk when a flush returns', async () => {
    void put(1);
    await turns();
    void commit.settled();
    void put(2);
    commit.flush();
    expect(numbers()).toEqual([1, 2]);
    expect(disk.nowCount).toBe(2);
    await turns();
    expect(answered).toEqual([1, 2]);
    // What the disk says late of what was flushed otherwise is no news.
    for (const late of disk.waiting) late(new Error('too late'));
    void put(3);
    await turns();
    disk.waiting.at(-1)?.(undefined);
    await turns();
    expect(answered).toEqual([1, 2, 3]);
  });

  test('after a failure of the disk no write is answered well, and reads go on', async () => {
    const outcomes: string[] = [];
    const tried = (value: number): void => {
      put(value).then(
        () => outcomes.push(`${value} written`),
        (error: Error) => outcomes.push(`${value} ${error.message}`),
      );
    };
    tried(1);
    await turns();
    tried(2);
    await turns();
    disk.waiting[0]?.(new Error('EIO: i/o error, fdatasync'));
    tried(3);
    await turns();
    const why =
      'the disk did not take what was written (EIO: i/o error, fdatasync): no write is possible until the disk is in order and this server is started again; reads go on';
    expect(outcomes).toEqual([`1 ${why}`, `2 ${why}`, `3 ${why}`]);
    expect([numbers(), database.isTransaction, commit.settled()]).toEqual([[1], false, undefined]);
  });
});

describe('a store under steady writes', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'archipelago-commit-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test.each([false, true])('shows to readers and followers what was answered and no more (followed: %s)', async (isFollowed) => {
    using store = new EntryStore(join(folder, 'directory.sqlite'), { keysOf: () => [], talliesOf: () => [] });
    let answered = 0;
    let told = 0;
    if (isFollowed) {
      store.onCommit(() => {
        told = store.lastChangeNumber();
      });
    }
    const writer = async (from: number): Promise<void> => {
      for (let one = from; one < from + 100; one += 1) {
        const uuid = `00000000-0000-4000-8000-${String(one).padStart(12, '0')}`;
        await store.write(() => {
          store.add({ parentId: rootId, rdn: `cn=${one}`, rdnNorm: `cn=${one}`, uuid, csn: `csn-${one}`, attributes: [] });
        });
        answered += 1;
        if (isFollowed) expect(told).toBeGreaterThanOrEqual(answered);
      }
    };
    let isOver = false;
    let reads = 0;
    const reader = async (): Promise<void> => {
      while (!isOver) {
        await turn();
        await store.settled();
        expect(store.lastChangeNumber()).toBe(answered);
        reads += 1;
      }
    };
    const reading = [reader(), reader()];
    await Promise.all(Array.from({ length: 8 }, (_, at) => writer(at * 100)));
    isOver = true;
    await Promise.all(reading);
    expect(answered).toBe(800);
    expect(reads).toBeGreaterThan(0);
  });
});
