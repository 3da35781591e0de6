import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { encodeSyncInfo, readSyncInfo, type SyncInfo } from '#protocol/ldap/controls.ts';

const uuidOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const setOf = (count: number): SyncInfo => ({
  kind: 'syncIdSet',
  cookie: Buffer.from('c'),
  refreshDeletes: true,
  uuids: Array.from({ length: count }, (_, n) => uuidOf(n)),
});

/** What this process holds on to. */
function bytesKept(): number {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

describe('a set of UUIDs', () => {
  it('is read as it was written, more than once', () => {
    const info = readSyncInfo(encodeSyncInfo(setOf(3)));
    expect(info).toMatchObject({ kind: 'syncIdSet', cookie: Buffer.from('c'), refreshDeletes: true });
    const { uuids } = info as SyncInfo & { kind: 'syncIdSet' };
    expect(uuids).toHaveLength(3);
    for (let i = 0; i < 2; i += 1) expect([...uuids]).toEqual([0, 1, 2].map(uuidOf));
  });

  it('takes no more than its octets, however many they are', () => {
    const value = encodeSyncInfo(setOf(100_000));
    const before = bytesKept();
    const info = readSyncInfo(value) as SyncInfo & { kind: 'syncIdSet' };
    expect(bytesKept() - before).toBeLessThan(1_000_000);
    expect(info.uuids).toHaveLength(100_000);
  });

  it('is refused where something in it is no UUID, or cut off', () => {
    const value = encodeSyncInfo(setOf(2));
    const short = Buffer.from(value);
    short[short.length - 17] = 15;
    expect(readSyncInfo(short)).toBeUndefined();
    expect(readSyncInfo(value.subarray(0, -1))).toBeUndefined();
  });
});
