import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Bucket, type BucketOptions } from '#backend-cluster/storage/s3/bucket.ts';
import { probeBucket } from '#backend-cluster/storage/s3/s3-probe.ts';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { S3Server } from '#test/fakes/s3-server.ts';
import { bucketOf } from '#test/fakes/s3-store.ts';

let undo: AsyncDisposableStack;
let server: S3Server;
beforeEach(async () => {
  undo = new AsyncDisposableStack();
  server = undo.use(await S3Server.start());
});
afterEach(() => undo.disposeAsync());

const bucketWith = (options: Partial<BucketOptions> = {}): Bucket =>
  new Bucket({ ...bucketOf(server, undo.use(openNodeExchange({ clock: systemClock }))), ...options });
const probe = (bucket: Bucket) => probeBucket(bucket, systemClock, systemRandom);
const failureOf = (bucket: Bucket): Promise<string> =>
  probe(bucket).then(
    () => 'no failure',
    (error: unknown) => (error instanceof PlatformError ? `${error.code}: ${error.message}` : String(error)),
  );

describe('the probe of a bucket', () => {
  it('finds a good server good and leaves nothing behind', async () => {
    const { checks, warnings } = await probe(bucketWith());
    expect(checks).toHaveLength(9);
    expect(warnings).toEqual([]);
    expect(server.keys()).toEqual([]);
  });

  it('refuses a server that ignores conditions, and says what to use', async () => {
    server.behaviour = { ignoresConditions: true };
    const failure = await failureOf(bucketWith());
    expect(failure).toMatch(/^STORE_UNSAFE: .*If-None-Match.*ignores the condition.*Use a server that honours If-Match/);
  });

  it('refuses a server that honours the condition on creation only', async () => {
    server.behaviour = { ignoresConditions: false };
    server.decide = ({ key, method, isConditional }) => {
      // From the second write of this object on the server takes anything.
      if (method === 'PUT' && isConditional && key.endsWith('/a'))
        server.behaviour = { ignoresConditions: server.keys('/race-create').length > 0 };
      return undefined;
    };
    expect(await failureOf(bucketWith())).toMatch(/^STORE_UNSAFE: .*when it has become another version.*ignores the condition/);
  });

  it('learns that a server wants ETags without quotes, and warns of one that answers losers with 500', async () => {
    server.behaviour = { wantsBareEtags: true, lostStatus: 500 };
    const bucket = bucketWith();
    const { warnings } = await probe(bucket);
    expect(bucket.etagForm).toBe('bare');
    expect(warnings.join()).toContain('an error of the server and not 412');
  });

  it.each([
    ['a bucket that does not exist', { bucket: 'nowhere' }, /STORE_UNSAFE: .*NoSuchBucket.*Create the bucket/],
    [
      'a wrong secret',
      { credentials: { accessKeyId: 'test-key', secretAccessKey: new Secret('wrong') } },
      /STORE_UNSAFE: .*SignatureDoesNotMatch.*storage\.secretAccessKey/,
    ],
    [
      'an unknown key',
      { credentials: { accessKeyId: 'nobody', secretAccessKey: new Secret('x') } },
      /STORE_UNSAFE: .*InvalidAccessKeyId.*storage\.accessKeyId/,
    ],
    ['a port where nothing listens', { endpoint: 'http://127.0.0.1:1' }, /STORE_UNAVAILABLE: .*cannot be reached/],
  ])('says what to change: %s', async (_, options, expected) => {
    expect(await failureOf(bucketWith(options))).toMatch(expected);
  });

  it('passes on a full bucket as such', async () => {
    server.decide = ({ method }) => (method === 'PUT' ? { kind: 'answers', status: 507, code: 'InsufficientStorage' } : undefined);
    expect(await failureOf(bucketWith())).toMatch(/^STORE_FULL/);
  });
});

describe('a bucket', () => {
  it('is read again while the server asks to slow down or loses its answers', async () => {
    const bucket = bucketWith();
    await bucket.put('x', [Buffer.from('content')]);
    let refusals = 3;
    server.decide = () => {
      refusals -= 1;
      if (refusals === 0) return { kind: 'no-reply' };
      return refusals > 0 ? { kind: 'answers', status: 503, code: 'SlowDown' } : undefined;
    };
    expect((await bucket.get('x'))?.body.toString()).toBe('content');
  });

  it('gives up on a server that goes on refusing, and says what it answered', async () => {
    server.decide = () => ({ kind: 'answers', status: 503, code: 'SlowDown' });
    await expect(bucketWith().get('x')).rejects.toThrow(/the server answered 503 SlowDown/);
    expect(server.requests).toBe(6);
  });

  it('tries a conditional write once, and says that its outcome is not known', async () => {
    server.decide = () => ({ kind: 'happens-but-no-reply' });
    expect((await bucketWith().putIfAbsent('x', [Buffer.from('1')])).kind).toBe('unknown');
    expect(server.requests).toBe(1);
    expect(server.keys()).toEqual(['west/x']);
  });

  it('signs with the server’s time once its own was refused', async () => {
    server.skewMs = 3_600_000;
    const bucket = bucketWith();
    await bucket.put('x', []);
    await bucket.put('y', []);
    expect(server.requests).toBe(3);
  });

  it('lists all pages, with keys that need encoding', async () => {
    const bucket = bucketWith();
    const names = Array.from({ length: 12 }, (_, i) => `list/${String(i).padStart(2, '0')} +&<é>`);
    for (const name of names) await bucket.put(name, [Buffer.from('12345')]);
    const found = [];
    for await (const listed of bucket.list('list/')) found.push(listed);
    expect(found).toEqual(names.map((key) => ({ key, bytes: 5 })));
  });
});
