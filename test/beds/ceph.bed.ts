/**
 * The store on a real Ceph: in a bucket of radosgw, and on CephFS through two clients of their own. Brings up a one-machine Ceph in memory
 * (root, Debian's packages; install.mjs gets them), about 20 s.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { Bucket } from '#backend-cluster/storage/s3/bucket.ts';
import { probeBucket } from '#backend-cluster/storage/s3/s3-probe.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { describeStorage, type Engine, tuning } from '#test/contracts/storage-suite.ts';
import { uuid } from '#test/unit/backend-cluster/storage/ledger.ts';
import { bucketOptions, gateway, radosgwEngine } from './radosgw.ts';

const run = promisify(execFile);
const script = fileURLToPath(new URL('ceph.sh', import.meta.url));
let directory: string;
let rooms = 0;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'archipelago-ceph-'));
  await run('bash', [script, 'up', directory]);
  await run('bash', [script, 'bucket', directory, gateway.bucket]);
  for (const client of ['1', '2']) await run('bash', [script, 'mount', directory, client]);
}, 180_000);

afterAll(async () => {
  await run('bash', [script, 'down', directory]);
  await rm(directory, { recursive: true, force: true });
}, 60_000);

/** The same directory through two clients in turn: neither sees what the other one's cache holds. */
async function cephfsEngine(): Promise<Engine> {
  rooms += 1;
  const room = `room-${rooms}`;
  await mkdir(join(directory, 'm1', room));
  let opened = 0;
  return {
    open() {
      opened += 1;
      const root = join(directory, opened % 2 === 0 ? 'm2' : 'm1', room);
      const ports = { clock: systemClock, random: systemRandom, log: silentLogger, metrics: createMetrics() };
      return openAccountStore({ root, files: nodeFiles, ...ports, tuning });
    },
    async stored() {
      const at = join(directory, 'm1', room, 'accounts', uuid.slice(0, 2), uuid.slice(2, 4));
      return (await nodeFiles.size(at)) === undefined ? [] : nodeFiles.list(at);
    },
  };
}

describeStorage('s3, on radosgw', radosgwEngine);
describeStorage('posix, on CephFS through two clients', cephfsEngine);

describe('radosgw', () => {
  it('wants ETags without quotes, which the probe finds out, and lets one of many conditional writes win', async () => {
    await using undo = new AsyncDisposableStack();
    const bucket = new Bucket(bucketOptions(undo, `${systemRandom.uuid()}/`));
    const { checks } = await probeBucket(bucket, systemClock, systemRandom);
    expect(checks.length).toBeGreaterThan(7);
    expect(bucket.etagForm).toBe('bare');
    const others = new Set<string>();
    for (let round = 0; round < 20; round += 1) {
      const key = `race-${round}`;
      // None of the racers writes this: the same octets have the same ETag, and another one could rightly win after it.
      const first = await bucket.putIfAbsent(key, [Buffer.from('start')]);
      if (first.kind !== 'stored') throw first.cause;
      const outcomes = await Promise.all(Array.from({ length: 8 }, (_, i) => bucket.putIfMatch(key, first.etag, [Buffer.from(`${i}`)])));
      const winners = outcomes.flatMap((outcome, i) => (outcome.kind === 'stored' ? [i] : []));
      expect(winners.length).toBe(1);
      expect((await bucket.get(key))?.body.toString()).toBe(String(winners[0]));
      for (const { kind } of outcomes) if (kind !== 'stored') others.add(kind);
    }
    // `unknown` is what an error 500 comes to: whoever loses a race must look again, and does.
    expect([...others].every((kind) => kind === 'lost' || kind === 'unknown')).toBe(true);
  });
});
