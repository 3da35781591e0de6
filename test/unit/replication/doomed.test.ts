import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ReadEntry } from '#replication/replica.ts';
import { Doomed, findDoomed } from '#replication/resync.ts';
import { NamedEntries } from '#replication/store/named-entries.ts';

const uuidOf = (number: number): string => `00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`;

/** A replica with a domain, ten accounts in it, and something below the first of them. */
function replicaOf(gone: ReadonlySet<string>) {
  const names = [
    'cn=a.example,o=mail',
    ...Array.from({ length: 10 }, (_, i) => `uid=u${i},cn=a.example,o=mail`),
    'cn=x,uid=u0,cn=a.example,o=mail',
  ];
  return {
    async *readAll(): AsyncGenerator<ReadEntry> {
      for (const [i, dn] of names.entries()) if (!gone.has(uuidOf(i))) yield { uuid: uuidOf(i), dn, attributes: [] };
    },
  };
}

describe('what a refresh deletes', () => {
  it.each([1000, 2])('is known by what the master said last of each, with %i in memory at most', async (inMemoryMax) => {
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-doomed-'));
    try {
      const doomed = new Doomed(join(directory, 'x.sqlite'), inMemoryMax);
      for (const round of [1, 2]) {
        for (const number of [1, 2, 3, 4, 4]) doomed.add(uuidOf(number));
        for (const number of [2, 3, 9]) doomed.delete(uuidOf(number));
        doomed.add(uuidOf(3));
        expect([round, doomed.size, [...doomed].sort()]).toEqual([round, 3, [1, 3, 4].map(uuidOf)]);
        expect([1, 2, 3, 4, 9].map((number) => doomed.has(uuidOf(number)))).toEqual([true, false, true, true, false]);
        doomed.clear();
        expect([doomed.size, [...doomed], doomed.has(uuidOf(1))]).toEqual([0, [], false]);
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  it('is what the master names as gone, as far as the replica still has it', async () => {
    using named = new NamedEntries();
    const doomed = new Doomed();
    for (const number of [1, 2, 3, 99]) doomed.add(uuidOf(number));
    doomed.delete(uuidOf(3));
    expect(await findDoomed(replicaOf(new Set([uuidOf(2)])), named, doomed)).toEqual({
      total: 11,
      named: 0,
      doomed: 1,
      uuids: [uuidOf(1)],
    });
  });

  it('is who was not named, the deepest first, and in turns when there are many', async () => {
    using named = new NamedEntries();
    for (const number of [4, 5]) named.mark(uuidOf(number));
    const doomed = new Doomed();
    doomed.addUnnamed((uuid) => named.isMarked(uuid));
    const gone = new Set<string>();
    const order: string[] = [];
    for (;;) {
      const found = await findDoomed(replicaOf(gone), named, doomed, 4);
      expect(found.named).toBe(2);
      expect(found.uuids).toHaveLength(Math.min(4, found.doomed));
      if (found.doomed === 0) break;
      for (const uuid of found.uuids) gone.add(uuid);
      order.push(...found.uuids);
    }
    expect(order[0]).toBe(uuidOf(11));
    expect(order.at(-1)).toBe(uuidOf(0));
    expect(new Set(order).size).toBe(10);
    doomed.clear();
    expect(doomed.has(uuidOf(1))).toBe(false);
  });
});
