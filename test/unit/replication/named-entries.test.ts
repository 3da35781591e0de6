import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NamedEntries } from '#replication/store/named-entries.ts';

const uuid = (number: number): string => `11111111-2222-4333-8444-${number.toString(16).padStart(12, '0')}`;

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'archipelago-named-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('entries with marks', () => {
  it.each([
    ['in memory', 1000],
    ['in a file', 10],
  ])('tell who was named from who was not, %s', (_where, max) => {
    using named = new NamedEntries(join(directory, 'x.sqlite'), max);
    for (let i = 0; i < 40; i += 1) {
      named.put(uuid(i), 0, 0);
      named.put(uuid(i), 0xffff0000 + i, i);
    }
    expect(named.isInFile).toBe(max < 40);
    expect([named.size, named.countUnmarked(), named.isMarked(uuid(3))]).toEqual([40, 40, false]);
    for (let i = 0; i < 40; i += 2) expect(named.mark(uuid(i))).toBe(false);
    expect(named.mark(uuid(99))).toBe(true);
    expect([named.size, named.countUnmarked(), named.isMarked(uuid(2)), named.isMarked(uuid(3)), named.isMarked(uuid(77))]).toEqual([
      41,
      20,
      true,
      false,
      false,
    ]);
    expect([named.hasFingerprint(uuid(3), 0xffff0003, 3), named.hasFingerprint(uuid(3), 0xffff0003, 4)]).toEqual([true, false]);
    expect([named.hasFingerprint(uuid(99), 0, 0), named.hasFingerprint(uuid(77), 0, 0)]).toEqual([true, false]);
  });

  it('keep marks and fingerprints when they go from memory to the file', () => {
    using named = new NamedEntries(join(directory, 'x.sqlite'), 10);
    for (let i = 0; i < 10; i += 1) {
      named.put(uuid(i), i, 7);
    }
    named.mark(uuid(4));
    named.mark(uuid(10));
    expect(named.isInFile).toBe(true);
    expect([named.isMarked(uuid(4)), named.isMarked(uuid(5)), named.isMarked(uuid(10))]).toEqual([true, false, true]);
    expect([named.countUnmarked(), named.hasFingerprint(uuid(5), 5, 7)]).toEqual([9, true]);
  });

  it.each([
    ['in memory', 1000],
    ['in a file', 10],
  ])('hand out those without a mark in lots, which may be marked meanwhile, %s', (_where, max) => {
    using named = new NamedEntries(join(directory, 'x.sqlite'), max);
    for (let i = 0; i < 40; i += 1) named.put(uuid(i), 0, i);
    for (let i = 0; i < 40; i += 4) named.mark(uuid(i));
    const seen: string[] = [];
    for (const lot of named.unmarked(7)) {
      expect(lot.length).toBeLessThanOrEqual(7);
      for (const one of lot) {
        seen.push(one);
        if (seen.length % 2 === 0) named.mark(one);
        else named.put(one, 1, 1);
      }
    }
    expect(seen.sort()).toEqual(Array.from({ length: 40 }, (_, i) => uuid(i)).filter((_one, i) => i % 4 !== 0));
    expect([...named.unmarked(100)].flat()).toHaveLength(15);
    expect(named.countUnmarked()).toBe(15);
  });

  it('throw away what an earlier refresh left, and give the room back', async () => {
    const path = join(directory, 'x.sqlite');
    for (let round = 0; round < 2; round += 1) {
      using named = new NamedEntries(path, 10);
      for (let i = 0; i < 5000; i += 1) named.mark(uuid(i));
      expect([named.size, named.countUnmarked()]).toEqual([5000, 0]);
    }
    expect((await stat(path)).size).toBeLessThan(16_384);
  });

  it('say what to do when their file cannot be used', async () => {
    await writeFile(join(directory, 'file'), '');
    using named = new NamedEntries(join(directory, 'file', 'x.sqlite'), 2);
    expect(() => [1, 2, 3].map((i) => named.mark(uuid(i)))).toThrow(/state directory/);
  });
});
