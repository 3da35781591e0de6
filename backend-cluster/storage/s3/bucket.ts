/**
 * The few S3 operations that the engine uses, on one bucket below one prefix: GET, HEAD, PUT, DELETE, ListObjectsV2.
 *
 * What may be repeated without harm (reads, removals, writes under a name that is used once) is repeated here, with growing pauses. A
 * conditional write is tried once: what became of it is told as it is, `unknown` when nobody can know, and the caller reads and compares.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { HttpAnswer, HttpExchange, HttpRequest } from '#common/http/exchange.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import { type Credentials, encodePath, encodeQuery, sha256, signed } from './sign.ts';

/** Tries of a request that may be repeated, and the pause after the first one; each further pause is twice as long. */
const triesMax = 6;
const usualPauseMs = 50;
const pauseMsMax = 2_000;
/** Time of one exchange. */
const usualTimeoutMs = 8_000;
const errorBytesMax = 1024 * 1024;
/** A whole object is read into memory: a snapshot of a very large account, or a slot. */
const objectBytesMax = 512 * 1024 * 1024;
const keysPerPage = 1_000;

/** Where the bucket is and who asks. */
export interface BucketOptions {
  /** `http(s)://host[:port]`. */
  readonly endpoint: string;
  readonly bucket: string;
  readonly region: string;
  /** Before every key; empty, or ending with `/`. */
  readonly prefix: string;
  readonly credentials: Credentials;
  readonly http: HttpExchange;
  readonly clock: Clock;
  readonly random: Random;
  /** Of one exchange, and the first pause between two; other than the usual 8 s and 50 ms for tests. */
  readonly timeoutMs?: number;
  readonly pauseMs?: number;
}

/** An object that was read, and the version it had. */
export interface StoredObject {
  readonly etag: string;
  readonly body: Buffer;
}

/** A listed key, without the prefix. */
export interface ListedKey {
  readonly key: string;
  readonly bytes: number;
}

/**
 * What became of a conditional write. `lost`: the server says that the condition does not hold. `full`: certainly nothing was written.
 * `unknown`: it may have happened, or may happen yet.
 */
export type PutOutcome =
  | { readonly kind: 'stored'; readonly etag: string }
  | { readonly kind: 'lost'; readonly cause: PlatformError }
  | { readonly kind: 'full'; readonly cause: PlatformError }
  | { readonly kind: 'unknown'; readonly cause: unknown };

interface Asked {
  readonly method: HttpRequest['method'];
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: readonly Uint8Array[];
  readonly answerBytesMax?: number;
}

/** See the header of this file. Rejections are `STORE_UNAVAILABLE` or `STORE_FULL`. */
export class Bucket {
  /** How `If-Match` is written: the standard has quotes, Ceph's radosgw wants none. The probe finds it out. */
  etagForm: 'quoted' | 'bare' = 'quoted';
  readonly #options: BucketOptions;
  readonly #origin: string;
  readonly #host: string;
  /** The server's clock minus ours, once it has refused a signature for its time. */
  #skewMs = 0;

  constructor(options: BucketOptions) {
    this.#options = options;
    const url = new URL(options.endpoint);
    this.#origin = url.origin;
    this.#host = url.host;
  }

  /** For messages and status pages. */
  get name(): string {
    return this.at('');
  }

  /** A key, for messages. */
  at(key: string): string {
    return `s3://${this.#options.bucket}/${this.#options.prefix}${key} at ${this.#origin}`;
  }

  /** The whole object; `undefined` when there is none. */
  async get(key: string): Promise<StoredObject | undefined> {
    const answer = await this.#repeat({ method: 'GET', key, answerBytesMax: objectBytesMax });
    if (answer.status === 404) return this.#noObject(answer);
    this.#expect(answer, key, [200]);
    return { etag: answer.headers.etag ?? '', body: answer.body };
  }

  /** `length` bytes from `offset`, fewer at the end; `undefined` when there is no such object. RFC 9110 §14.2. */
  async getRange(key: string, offset: number, length: number): Promise<Buffer | undefined> {
    if (length === 0) return Buffer.alloc(0);
    const headers = { range: `bytes=${offset}-${offset + length - 1}` };
    const answer = await this.#repeat({ method: 'GET', key, headers, answerBytesMax: objectBytesMax });
    if (answer.status === 404) return this.#noObject(answer);
    if (answer.status === 416) return Buffer.alloc(0);
    this.#expect(answer, key, [200, 206]);
    // A server may send all of it.
    return answer.status === 206 ? answer.body : answer.body.subarray(offset, offset + length);
  }

  /** Size and version; `undefined` when there is no such object. */
  async head(key: string): Promise<{ readonly etag: string; readonly bytes: number } | undefined> {
    const answer = await this.#repeat({ method: 'HEAD', key });
    if (answer.status === 404) return undefined;
    this.#expect(answer, key, [200]);
    return { etag: answer.headers.etag ?? '', bytes: Number(answer.headers['content-length'] ?? 0) };
  }

  /** Writes an object whose name is used once, so that writing it twice writes the same. */
  async put(key: string, body: readonly Uint8Array[]): Promise<void> {
    this.#expect(await this.#repeat({ method: 'PUT', key, body }), key, [200, 201, 204]);
  }

  /** Creates an object, once. RFC 9110 §13.1.2. */
  putIfAbsent(key: string, body: readonly Uint8Array[]): Promise<PutOutcome> {
    return this.#putOnce(key, body, { 'if-none-match': '*' });
  }

  /** Replaces that version of an object, once. RFC 9110 §13.1.1. */
  putIfMatch(key: string, etag: string, body: readonly Uint8Array[]): Promise<PutOutcome> {
    const bare = etag.replace(/^W\//, '').replaceAll('"', '');
    return this.#putOnce(key, body, { 'if-match': this.etagForm === 'quoted' ? `"${bare}"` : bare });
  }

  /** No failure when there is none. */
  async remove(key: string): Promise<void> {
    const answer = await this.#repeat({ method: 'DELETE', key });
    if (answer.status !== 404) this.#expect(answer, key, [200, 202, 204]);
  }

  /** Keys that begin with `prefix`, in order, page by page. */
  async *list(prefix: string): AsyncGenerator<ListedKey> {
    for await (const xml of this.#pages(prefix, {})) {
      for (const [, content] of xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const key = keyIn(content as string, 'Key');
        yield { key: key.slice(this.#options.prefix.length), bytes: Number(textOf(content as string, 'Size') ?? 0) };
      }
    }
  }

  /** What stands between `prefix` and the next `/` in keys, each once and in order, from the one after `after` on. */
  async *listFolders(prefix: string, after: string): AsyncGenerator<string> {
    const start = this.#options.prefix + prefix;
    // `0` follows `/` in ASCII: after everything that is below the folder `after`.
    for await (const xml of this.#pages(prefix, { delimiter: '/', ...(after === '' ? {} : { 'start-after': `${start}${after}0` }) })) {
      for (const [, content] of xml.matchAll(/<CommonPrefixes>(.*?)<\/CommonPrefixes>/gs)) {
        yield keyIn(content as string, 'Prefix').slice(start.length, -1);
      }
    }
  }

  async *#pages(prefix: string, options: Readonly<Record<string, string>>): AsyncGenerator<string> {
    let token: string | undefined;
    do {
      const query: Record<string, string> = {
        'list-type': '2',
        'max-keys': String(keysPerPage),
        'encoding-type': 'url',
        prefix: this.#options.prefix + prefix,
        ...options,
      };
      if (token !== undefined) query['continuation-token'] = token;
      const answer = await this.#repeat({ method: 'GET', key: '', query, answerBytesMax: 8 * errorBytesMax });
      this.#expect(answer, prefix, [200]);
      const xml = answer.body.toString('utf8');
      yield xml;
      token = textOf(xml, 'IsTruncated') === 'true' ? textOf(xml, 'NextContinuationToken') : undefined;
      if (token !== undefined) token = plain(token);
    } while (token !== undefined);
  }

  /** What the server says of the bucket itself: an error's code, or `undefined` when it answers. For the probe. */
  async refusal(): Promise<{ readonly status: number; readonly code: string; readonly message: string } | undefined> {
    const answer = await this.#repeat({ method: 'GET', key: '', query: { 'list-type': '2', 'max-keys': '1' } });
    return answer.status === 200 ? undefined : errorOf(answer);
  }

  /** Waits before the `attempt`th repetition, from 0. */
  pause(attempt: number): Promise<void> {
    const { clock, random, pauseMs } = this.#options;
    return sleep(clock, jitteredMs(random, Math.min((pauseMs ?? usualPauseMs) * 2 ** attempt, pauseMsMax), 0.5));
  }

  async #putOnce(key: string, body: readonly Uint8Array[], headers: Record<string, string>): Promise<PutOutcome> {
    let answer: HttpAnswer;
    try {
      answer = await this.#send({ method: 'PUT', key, headers, body });
    } catch (cause) {
      return { kind: 'unknown', cause };
    }
    const { status } = answer;
    const etag = answer.headers.etag ?? '';
    if (status >= 200 && status < 300) {
      return etag === '' ? { kind: 'unknown', cause: new Error('the answer has no ETag') } : { kind: 'stored', etag };
    }
    const cause = this.#failure(answer, key);
    if (cause.code === 'STORE_FULL') return { kind: 'full', cause };
    const isLost = status === 412 || status === 409 || (status === 404 && errorOf(answer).code !== 'NoSuchBucket');
    return { kind: isLost ? 'lost' : 'unknown', cause };
  }

  /** Repeats what the server could not do now. The last answer counts. */
  async #repeat(asked: Asked): Promise<HttpAnswer> {
    for (let attempt = 0; ; attempt += 1) {
      const isLast = attempt === triesMax - 1;
      try {
        const answer = await this.#send(asked);
        if (isLast || ![408, 429, 500, 502, 503, 504].includes(answer.status)) return answer;
      } catch (error) {
        const isHopeless = error instanceof PlatformError && ['NET_TLS_FAILED', 'PROTO_TOO_LONG'].includes(error.code);
        if (isLast || isHopeless) {
          const name = this.at(asked.key);
          throw new PlatformError('STORE_UNAVAILABLE', `shared storage failed at ${name}: ${messageOf(error)}`, { cause: error });
        }
      }
      await this.pause(attempt);
    }
  }

  async #send(asked: Asked): Promise<HttpAnswer> {
    const answer = await this.#sendSigned(asked);
    if (answer.status !== 403 || errorOf(answer).code !== 'RequestTimeTooSkewed') return answer;
    // This machine's clock is off by more than the server bears. The refusal is certain, so it may be asked again with the server's time.
    const serverMs = Date.parse(answer.headers.date ?? '');
    if (Number.isNaN(serverMs)) return answer;
    this.#skewMs = serverMs - this.#options.clock.nowMs();
    return this.#sendSigned(asked);
  }

  #sendSigned(asked: Asked): Promise<HttpAnswer> {
    const { bucket, prefix, region, credentials, http, clock, timeoutMs } = this.#options;
    const query = asked.query ?? {};
    const path = encodePath(asked.query === undefined ? `/${bucket}/${prefix}${asked.key}` : `/${bucket}`);
    const headers = signed(
      {
        method: asked.method,
        path,
        query,
        headers: { host: this.#host, ...asked.headers },
        bodyHash: sha256(asked.body ?? []),
        atMs: clock.nowMs() + this.#skewMs,
        region,
      },
      credentials,
    );
    const target = asked.query === undefined ? path : `${path}?${encodeQuery(query)}`;
    return http.request({
      method: asked.method,
      origin: this.#origin,
      target,
      headers,
      ...(asked.body === undefined ? {} : { body: asked.body }),
      timeoutMs: timeoutMs ?? usualTimeoutMs,
      answerBytesMax: asked.answerBytesMax ?? errorBytesMax,
    });
  }

  /** No object of that name; a bucket that is gone is something else. */
  #noObject(answer: HttpAnswer): undefined {
    if (errorOf(answer).code === 'NoSuchBucket') throw this.#failure(answer, '');
    return undefined;
  }

  #expect(answer: HttpAnswer, key: string, statuses: readonly number[]): void {
    if (!statuses.includes(answer.status)) throw this.#failure(answer, key);
  }

  #failure(answer: HttpAnswer, key: string): PlatformError {
    const { code, message } = errorOf(answer);
    const fields = { status: answer.status, s3Code: code, key };
    if (answer.status === 507 || /^(?:QuotaExceeded|InsufficientStorage|XMinioStorageFull|XMinioAdminBucketQuotaExceeded)$/.test(code)) {
      return new PlatformError('STORE_FULL', `shared storage is full: ${this.at(key)} was not written (${code || answer.status})`, {
        fields,
      });
    }
    const seen = [answer.status, code, message].filter((part) => part !== '').join(' ');
    return new PlatformError('STORE_UNAVAILABLE', `shared storage failed at ${this.at(key)}: the server answered ${seen}`, { fields });
  }
}

function errorOf(answer: HttpAnswer): { readonly status: number; readonly code: string; readonly message: string } {
  const xml = answer.body.toString('utf8', 0, 4096);
  return { status: answer.status, code: plain(textOf(xml, 'Code') ?? ''), message: plain(textOf(xml, 'Message') ?? '').slice(0, 300) };
}

function textOf(xml: string, element: string): string | undefined {
  const start = xml.indexOf(`<${element}>`);
  const end = xml.indexOf(`</${element}>`, start);
  return start < 0 || end < 0 ? undefined : xml.slice(start + element.length + 2, end);
}

/** A key as the listing has it, with `encoding-type=url`. */
function keyIn(xml: string, element: string): string {
  return decodeURIComponent(plain(textOf(xml, element) ?? '').replaceAll('+', ' '));
}

const entities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function plain(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|apos);/g, (_, name: string) => entities[name] as string);
}
