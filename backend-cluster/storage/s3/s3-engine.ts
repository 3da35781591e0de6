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
 *     <prefix>cluster/notes/<name>                 how far the check of all accounts is; versions of the settings
 *     <prefix>tombstones/<uuid>                    a removed account
 *     <prefix>damaged/<uuid>                       an account in which damage was found
 */
import type { StorageEngine } from '#backend-cluster/storage/storage-engine.ts';
import { type AccountUuid, tryParseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { Bucket, type BucketOptions } from './bucket.ts';
import { accountKey, beginOpening, eachAtOnce, headKey, s3Reader } from './s3-log.ts';
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
    damaged: new S3Records(bucket, random, 'damaged/'),
    notes: new S3Records(bucket, random, 'cluster/notes/'),
    probe: () => probeBucket(bucket, clock, random),
    begin: (uuid, openId) => beginOpening(bucket, random, uuid, openId),
    reader: (uuid) => s3Reader(bucket, uuid),
    exists: async (uuid) => (await bucket.head(headKey(uuid))) !== undefined,
    accounts: (after) => listAccounts(bucket, after),
    moveAccount: (from, to) => moveAccount(bucket, from, to),
    async removeAccount(uuid) {
      // The head first: whoever still has the account open is deposed by that.
      await bucket.remove(headKey(uuid));
      await removeAll(bucket, accountKey(uuid));
    },
  };
}

async function* listAccounts(bucket: Bucket, after: string): AsyncGenerator<AccountUuid> {
  for await (const name of bucket.listFolders('accounts/', after)) {
    const uuid = tryParseAccountUuid(name);
    if (uuid !== undefined && uuid > after) yield uuid;
  }
}

/** Object by object, the head last: until then the account is whole under its old name. */
async function moveAccount(bucket: Bucket, from: AccountUuid, to: AccountUuid): Promise<void> {
  const head = await bucket.get(headKey(from));
  if (head !== undefined) {
    const names: string[] = [];
    for await (const { key } of bucket.list(accountKey(from))) if (key !== headKey(from)) names.push(key.slice(accountKey(from).length));
    await eachAtOnce(names, async (name) => {
      const object = await bucket.get(`${accountKey(from)}${name}`);
      if (object !== undefined) await bucket.put(`${accountKey(to)}${name}`, [object.body]);
    });
    const outcome = await bucket.putIfAbsent(headKey(to), [head.body]);
    if (outcome.kind === 'full' || outcome.kind === 'unknown') throw outcome.cause;
  } else if ((await bucket.head(headKey(to))) === undefined) {
    throw new PlatformError('ACCT_NOT_FOUND', `there is no account ${from} in this storage`);
  }
  await bucket.remove(headKey(from));
  await removeAll(bucket, accountKey(from));
}
