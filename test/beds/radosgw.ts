/** A storage engine in a bucket of a real radosgw; each test has a prefix of its own. */
import { openBucketStore } from '#backend-cluster/storage/open-store.ts';
import { Bucket, type BucketOptions } from '#backend-cluster/storage/s3/bucket.ts';
import { systemClock } from '#common/clock.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { type Engine, tuning } from '#test/contracts/storage-suite.ts';
import { uuid } from '#test/unit/backend-cluster/storage/ledger.ts';

/** Where ceph.sh puts its gateway, and the key it makes. */
export const gateway = { endpoint: 'http://127.0.0.1:17480', bucket: 'mail', accessKeyId: 'testkey', secretAccessKey: 'testsecret' };

/** The bucket, below a prefix. */
export function bucketOptions(undo: AsyncDisposableStack, prefix: string): BucketOptions {
  return {
    endpoint: gateway.endpoint,
    bucket: gateway.bucket,
    region: 'us-east-1',
    prefix,
    credentials: { accessKeyId: gateway.accessKeyId, secretAccessKey: new Secret(gateway.secretAccessKey) },
    http: undo.use(openNodeExchange({ clock: systemClock })),
    clock: systemClock,
    random: systemRandom,
  };
}

/** Makes the engine of one test. */
export async function radosgwEngine(undo: AsyncDisposableStack): Promise<Engine> {
  const prefix = `${systemRandom.uuid()}/`;
  const parts = { clock: systemClock, random: systemRandom, log: silentLogger, tuning };
  return {
    async open() {
      const store = openBucketStore(bucketOptions(undo, prefix), { ...parts, metrics: createMetrics() });
      await store.probe();
      return store;
    },
    async stored() {
      const keys: string[] = [];
      for await (const { key } of new Bucket(bucketOptions(undo, prefix)).list(`accounts/${uuid}/`)) keys.push(key);
      return keys;
    },
  };
}
