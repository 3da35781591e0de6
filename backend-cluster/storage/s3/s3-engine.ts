/**
 * The storage engine `s3`: a bucket that all members share.
 *
 *     <prefix>accounts/<uuid>/head                 what the account is; the only object that is ever replaced (head.ts)
 *     <prefix>accounts/<uuid>/log/<o>-<n>-<lot>    consecutive slots that no longer travel in the head (o: the opening that wrote it)
 *     <prefix>accounts/<uuid>/snap/<slot>-<o>-…    all of the account after that slot
 *     <prefix>accounts/<uuid>/body/s<slot>         a slot that left the log, because messages in it are still wanted
 *     <prefix>accounts/<uuid>/body/f<number>       one large message
 *     <prefix>cluster/terms/<term>                 who is Controller in that term
 *     <prefix>cluster/intents/<id>                 a half-done account operation
 *     <prefix>cluster/probe/<uuid>/…               left by a probe that was cut off; may be removed by hand
 *     <prefix>tombstones/<uuid>                    a removed account
 */
import type { StorageEngine } from '#backend-cluster/storage/storage-engine.ts';
import { Bucket, type BucketOptions } from './bucket.ts';
import { accountKey, beginOpening, headKey, s3Reader } from './s3-log.ts';
import { probeBucket, removeAll } from './s3-probe.ts';
import { S3Records } from './s3-records.ts';

/** Opens the engine. Nothing is asked of the server before the first use. */
export function openS3Engine(options: BucketOptions): StorageEngine {
  const { random, clock } = options;
  const bucket = new Bucket(options);
  return {
    terms: new S3Records(bucket, random, 'cluster/terms/'),
    intents: new S3Records(bucket, random, 'cluster/intents/'),
    tombstones: new S3Records(bucket, random, 'tombstones/'),
    probe: () => probeBucket(bucket, clock, random),
    begin: (uuid, openId) => beginOpening(bucket, random, uuid, openId),
    reader: (uuid) => s3Reader(bucket, uuid),
    exists: async (uuid) => (await bucket.head(headKey(uuid))) !== undefined,
    async removeAccount(uuid) {
      // The head first: whoever still has the account open is deposed by that.
      await bucket.remove(headKey(uuid));
      await removeAll(bucket, accountKey(uuid));
    },
  };
}
