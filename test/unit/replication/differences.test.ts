import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Difference } from '#replication/client/status.ts';
import { Differences } from '#replication/store/differences.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'archipelago-differences-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const uuid = (number: number): string => `11111111-2222-4333-8444-${number.toString(16).padStart(12, '0')}`;
const found: readonly Difference[] = [
  { uuid: uuid(1), dn: 'cn=own.example,o=mail', kind: 'extra', what: [] },
  { uuid: uuid(2), dn: 'uid=x,cn=own.example,o=mail', kind: 'extra', what: [] },
  { uuid: uuid(3), dn: 'uid=a,cn=isp.example,o=mail', kind: 'missing', what: [] },
  {
    uuid: uuid(4),
    dn: 'uid=b,cn=isp.example,o=mail',
    kind: 'different',
    what: ['dn', 'mail'],
    replicaDn: 'uid=y\\,z,cn=isp.example,o=mail',
  },
  { uuid: uuid(5), dn: 'cn=isp.example,o=mail', kind: 'missing', what: [] },
];
const inOrder = [5, 3, 4, 2, 1].map((number) => found[number - 1]);

describe('what a comparison has found', () => {
  it.each([['in memory'], ['in a file']])('comes out whole, parents first and removals from the bottom up, %s', (where) => {
    using differences = new Differences(where === 'in memory' ? undefined : join(directory, 'x.sqlite'));
    expect([...differences.all()]).toEqual([]);
    for (const one of found) expect(differences.add(one)).toBe(true);
    expect(differences.size).toBe(5);
    expect([...differences.all()]).toEqual(inOrder);
    // Twice, and to an end that comes early.
    for (const one of differences.all()) if (one.kind === 'missing') break;
    expect([...differences.all()]).toEqual(inOrder);
  });

  it('has a limit, and says when it is met', () => {
    using differences = new Differences(undefined, 2);
    expect(found.slice(0, 3).map((one) => differences.add(one))).toEqual([true, true, false]);
    expect(differences.size).toBe(2);
  });

  it('leaves nothing behind, and is not disturbed by what an earlier one left', async () => {
    const path = join(directory, 'x.sqlite');
    for (let round = 0; round < 2; round += 1) {
      using differences = new Differences(path);
      for (let i = 0; i < 20_000; i += 1) differences.add({ uuid: uuid(i), dn: `uid=u${i},o=mail`, kind: 'missing', what: [] });
      expect(differences.size).toBe(20_000);
    }
    expect((await stat(path)).size).toBeLessThan(16_384);
  });

  it('says what to do when its file cannot be used', async () => {
    await writeFile(join(directory, 'file'), '');
    using differences = new Differences(join(directory, 'file', 'x.sqlite'));
    expect(() => differences.add(found[0] as Difference)).toThrow(/state directory/);
  });
});
