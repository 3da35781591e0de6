/**
 * Tries, at start, what the safety of accounts rests on in a bucket: that a condition on a write is honoured, also when many ask at once,
 * and that what was written is read. Servers exist that ignore the headers and answer as if all were well: on such a server mail would
 * be lost later and silently, so it is refused. Whether `If-Match` takes an ETag with quotes or without is found out here.
 */
import type { ProbeResult } from '#backend-cluster/storage/account-store.ts';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Random } from '#common/random.ts';
import type { Bucket, PutOutcome } from './bucket.ts';
import { eachAtOnce } from './s3-log.ts';

const racers = 8;
const roomBytes = 1024 * 1024;

const conditions =
  'Use a server that honours If-Match and If-None-Match on PUT: AWS S3, Ceph radosgw 16 or later, MinIO, or another that documents conditional writes; ' +
  'if a proxy stands before it, let it pass these headers.';
const consistency = 'Use a server with strong read-after-write consistency, and no cache before it.';

interface Check {
  readonly claim: string;
  readonly remedy: string;
  /** `true`, or what was seen instead. */
  run(): Promise<true | string>;
}

/** See `AccountStore.probe`. */
export async function probeBucket(bucket: Bucket, clock: Clock, random: Random): Promise<ProbeResult> {
  const startedMs = clock.monotonicMs();
  const refusal = await bucket.refusal();
  if (refusal !== undefined) {
    const seen = [refusal.status, refusal.code, refusal.message].filter((part) => part !== '').join(' ');
    const isPassing = refusal.status >= 500 || refusal.status === 429;
    throw new PlatformError(
      isPassing ? 'STORE_UNAVAILABLE' : 'STORE_UNSAFE',
      `${bucket.name} cannot be used: the server answered ${seen}. ${adviceFor(refusal.code)}`,
    );
  }
  const directory = `cluster/probe/${random.uuid()}/`;
  const checks: string[] = [];
  const warnings: string[] = [];
  try {
    for (const { claim, remedy, run } of probeChecks(bucket, directory, random, warnings)) {
      const seen = await run();
      if (seen !== true) {
        throw new PlatformError('STORE_UNSAFE', `${bucket.name} is not safe: expected that ${claim}; ${seen}. ${remedy}`);
      }
      checks.push(claim);
    }
  } finally {
    // What stays of a failed probe is found by its name and harms nobody.
    await removeAll(bucket, directory).catch(() => {});
  }
  return { checks, warnings, durationMs: clock.monotonicMs() - startedMs };
}

function probeChecks(bucket: Bucket, directory: string, random: Random, warnings: string[]): Check[] {
  const at = (name: string): string => `${directory}${name}`;
  const bytes = (text: string): Buffer[] => [Buffer.from(text)];
  const textAt = async (name: string): Promise<string | undefined> => (await bucket.get(at(name)))?.body.toString();
  let first = '';
  return [
    {
      claim: 'an object that was missing is created if it is absent, and read back',
      remedy: conditions,
      async run() {
        if ((await textAt('a')) !== undefined) return 'it was there before it was made';
        const outcome = await bucket.putIfAbsent(at('a'), bytes('first'));
        if (outcome.kind !== 'stored') return `creating it ${told(outcome)}`;
        first = outcome.etag;
        return expected('first', await textAt('a'), 'the object holds');
      },
    },
    {
      claim: 'an object that is there is not created again (If-None-Match: *)',
      remedy: conditions,
      async run() {
        const outcome = await bucket.putIfAbsent(at('a'), bytes('again'));
        if (outcome.kind === 'stored') return 'the server replaced it and answered that all is well: it ignores the condition';
        return expected('first', await textAt('a'), 'the object holds');
      },
    },
    {
      claim: 'of many that create one object at the same time exactly one succeeds',
      remedy: conditions,
      run: () => race(bucket, at('race-create'), (body) => bucket.putIfAbsent(at('race-create'), body)),
    },
    {
      claim: 'an object is replaced if it is the version that is named (If-Match)',
      remedy: conditions,
      async run() {
        bucket.etagForm = 'quoted';
        let outcome = await bucket.putIfMatch(at('a'), first, bytes('second'));
        if (outcome.kind !== 'stored' && (await textAt('a')) === 'first') {
          bucket.etagForm = 'bare';
          outcome = await bucket.putIfMatch(at('a'), first, bytes('second'));
        }
        if (outcome.kind !== 'stored') return `replacing it ${told(outcome)}, with the ETag in quotes and without`;
        if (outcome.etag === first) return 'other content got the same ETag';
        return expected('second', await textAt('a'), 'the object holds');
      },
    },
    {
      claim: 'an object is not replaced when it has become another version',
      remedy: conditions,
      async run() {
        const outcome = await bucket.putIfMatch(at('a'), first, bytes('late'));
        if (outcome.kind === 'stored') return 'the server replaced it and answered that all is well: it ignores the condition';
        return expected('second', await textAt('a'), 'the object holds');
      },
    },
    {
      claim: 'of many that replace one version at the same time exactly one succeeds',
      remedy: conditions,
      async run() {
        const start = await bucket.putIfAbsent(at('race-replace'), bytes('start'));
        if (start.kind !== 'stored') return `creating an object ${told(start)}`;
        return race(bucket, at('race-replace'), (body) => bucket.putIfMatch(at('race-replace'), start.etag, body), warnings);
      },
    },
    {
      claim: 'an object that was removed is not replaced',
      remedy: conditions,
      async run() {
        const made = await bucket.putIfAbsent(at('removed'), bytes('made'));
        if (made.kind !== 'stored') return `creating an object ${told(made)}`;
        await bucket.remove(at('removed'));
        const outcome = await bucket.putIfMatch(at('removed'), made.etag, bytes('late'));
        if (outcome.kind === 'stored') return 'the server made it again';
        return expected(undefined, await textAt('removed'), 'the object holds');
      },
    },
    {
      claim: 'a listing shows what is there',
      remedy: consistency,
      async run() {
        const seen: string[] = [];
        for await (const { key } of bucket.list(directory)) seen.push(key.slice(directory.length));
        return expected('a race-create race-replace', seen.sort().join(' '), 'it shows');
      },
    },
    {
      claim: 'what was written is read back, also a part of it',
      remedy: 'Use a server that answers Range requests, and check its disks.',
      async run() {
        const body = random.bytes(4096);
        await bucket.put(
          at('room'),
          Array.from({ length: roomBytes / body.length }, () => body),
        );
        const part = await bucket.getRange(at('room'), roomBytes - body.length - 10, body.length + 100);
        const whole = Buffer.concat([body.subarray(body.length - 10), body]);
        return part?.equals(whole) === true ? true : `${part?.length ?? 0} other bytes came back`;
      },
    },
  ];
}

/** Exactly one of many wins, and what is stored is the winner's. Losers may be told what they like, but not that they won. */
async function race(
  bucket: Bucket,
  key: string,
  put: (body: Buffer[]) => Promise<PutOutcome>,
  warnings: string[] = [],
): Promise<true | string> {
  const names = Array.from({ length: racers }, (_, i) => `racer ${i}`);
  const outcomes = await Promise.all(names.map((name) => put([Buffer.from(name)])));
  const winners = names.filter((_, i) => outcomes[i]?.kind === 'stored');
  const stored = (await bucket.get(key))?.body.toString();
  if (winners.length !== 1 || stored !== winners[0]) {
    return `${winners.length} of ${racers} were told that they won, and the object holds "${stored ?? 'nothing'}"`;
  }
  if (outcomes.some(({ kind }) => kind === 'unknown')) {
    warnings.push('who loses a race for an object is answered with an error of the server and not 412: each such loss costs a read');
  }
  return true;
}

/** Removes everything below a key. */
export async function removeAll(bucket: Bucket, prefix: string): Promise<void> {
  const keys: string[] = [];
  for await (const { key } of bucket.list(prefix)) keys.push(key);
  await eachAtOnce(keys, (key) => bucket.remove(key));
}

/** What came of a write, in words. A full bucket is not an unsafe one. */
function told(outcome: PutOutcome): string {
  if (outcome.kind === 'full') throw outcome.cause;
  if (outcome.kind === 'stored') return 'succeeded';
  return `failed (${outcome.cause instanceof Error ? outcome.cause.message : String(outcome.cause)})`;
}

function expected(wanted: string | undefined, seen: string | undefined, what: string): true | string {
  return seen === wanted ? true : `${what} "${seen ?? 'nothing'}"`;
}

function adviceFor(code: string): string {
  switch (code) {
    case 'NoSuchBucket':
      return 'Create the bucket, or correct storage.bucket.';
    case 'InvalidAccessKeyId':
      return 'Correct storage.accessKeyId.';
    case 'SignatureDoesNotMatch':
      return 'Correct storage.secretAccessKey and storage.region.';
    case 'AccessDenied':
      return 'Give this identity the rights to list the bucket and to get, put and delete its objects.';
    case 'PermanentRedirect':
    case 'AuthorizationHeaderMalformed':
      return 'Correct storage.endpoint and storage.region: the bucket is elsewhere.';
    default:
      return 'Correct storage.endpoint, bucket, region and keys.';
  }
}
