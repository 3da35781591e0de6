/** A store in the bucket of a test server. */
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { openBucketStore, type StoreParts } from '#backend-cluster/storage/open-store.ts';
import type { BucketOptions } from '#backend-cluster/storage/s3/bucket.ts';
import { systemClock } from '#common/clock.ts';
import type { HttpExchange } from '#common/http/exchange.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { type S3Server, s3Keys, s3Region } from './s3-server.ts';

/** The bucket of a server. */
export function bucketOf(server: S3Server, http: HttpExchange): BucketOptions {
  return {
    endpoint: server.endpoint,
    bucket: server.bucket,
    region: s3Region,
    prefix: 'west/',
    credentials: { accessKeyId: s3Keys.accessKeyId, secretAccessKey: new Secret(s3Keys.secretAccessKey) },
    http,
    clock: systemClock,
    random: systemRandom,
    timeoutMs: 5_000,
    pauseMs: 2,
  };
}

/** A store there. */
export function storeIn(server: S3Server, http: HttpExchange, tuning: StoreParts['tuning'] = {}): AccountStore {
  return openBucketStore(bucketOf(server, http), {
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    metrics: createMetrics(),
    tuning,
  });
}
