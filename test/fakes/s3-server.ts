/**
 * A small S3 server in memory: PUT, GET (ranges too), HEAD, DELETE and ListObjectsV2 in one bucket, with conditional writes, and with the
 * faults that real ones have. It verifies signatures by its own reckoning, so that ours are proved by something other than themselves.
 */
import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What becomes of a request. `held` ones wait for `release`, and their client is cut off at once: the write arrives late. */
export type S3Fault =
  | { readonly kind: 'answers'; readonly status: number; readonly code: string }
  | { readonly kind: 'happens-but-no-reply' }
  | { readonly kind: 'no-reply' }
  | { readonly kind: 'held' };

/** A request about to be served. */
export interface S3Operation {
  /** Counted from 0. */
  readonly index: number;
  readonly method: string;
  readonly key: string;
  readonly isConditional: boolean;
}

/** How the server differs from a good one. */
export interface S3Behaviour {
  /** Answers conditional writes as if there were no condition. */
  readonly ignoresConditions?: boolean;
  /** As Ceph's radosgw: takes `If-Match` only without quotes. */
  readonly wantsBareEtags?: boolean;
  /** What a write is answered whose condition does not hold. */
  readonly lostStatus?: 409 | 412 | 500;
  /** Before every answer. */
  readonly latencyMs?: number;
}

interface S3Object {
  readonly body: Buffer;
  readonly etag: string;
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

export const s3Keys = { accessKeyId: 'test-key', secretAccessKey: 'test-secret' };
export const s3Region = 'eu-test-1';

/** See the header of this file. */
export class S3Server implements AsyncDisposable {
  readonly objects = new Map<string, S3Object>();
  readonly bucket = 'mail';
  behaviour: S3Behaviour;
  /** Decides about each request; `undefined` is served as it should be. */
  decide: (operation: S3Operation) => S3Fault | undefined = () => undefined;
  /** Added to this server's clock, for the age of signatures. */
  skewMs = 0;
  requests = 0;
  readonly #http: Server;
  readonly #held: (() => void)[] = [];

  private constructor(http: Server, behaviour: S3Behaviour) {
    this.#http = http;
    this.behaviour = behaviour;
  }

  static async start(behaviour: S3Behaviour = {}): Promise<S3Server> {
    const http = createServer();
    const server = new S3Server(http, behaviour);
    http.on('request', (request, response) => void server.#serve(request, response));
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  get heldCount(): number {
    return this.#held.length;
  }

  /** Lets the writes that were held back arrive. */
  release(): void {
    for (const happen of this.#held.splice(0)) happen();
  }

  /** Keys that contain a text, in order. */
  keys(part = ''): string[] {
    return [...this.objects.keys()].filter((key) => key.includes(part)).sort();
  }

  /** Changes an object where it lies: bit rot. */
  damage(key: string, change: (body: Buffer) => Buffer): void {
    const object = this.objects.get(key);
    if (object === undefined) throw new Error(`there is no ${key}`);
    this.objects.set(key, { ...object, body: change(Buffer.from(object.body)) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#http.closeAllConnections();
    this.#http.close();
    await once(this.#http, 'close');
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      // The client went away in the middle of its request.
      return;
    }
    const body = Buffer.concat(chunks);
    const url = new URL(request.url ?? '/', 'http://s3');
    const path = decodeURIComponent(url.pathname);
    const key = path.slice(this.bucket.length + 2);
    const index = this.requests;
    this.requests += 1;
    const isConditional = request.headers['if-match'] !== undefined || request.headers['if-none-match'] !== undefined;
    const fault = this.decide({ index, method: request.method ?? '', key, isConditional });
    if (fault?.kind === 'no-reply') return void request.socket.destroy();
    if (fault?.kind === 'held') {
      this.#held.push(() => void this.#answer(request, url, path, key, body));
      return void request.socket.destroy();
    }
    const answer = fault?.kind === 'answers' ? refused(fault.status, fault.code) : this.#answer(request, url, path, key, body);
    if (fault?.kind === 'happens-but-no-reply') return void request.socket.destroy();
    if (this.behaviour.latencyMs !== undefined) await new Promise((resolve) => setTimeout(resolve, this.behaviour.latencyMs));
    const content = answer.body ?? Buffer.alloc(0);
    const length = request.method === 'HEAD' ? {} : { 'content-length': String(content.length) };
    response.writeHead(answer.status, { date: new Date(this.#nowMs()).toUTCString(), ...length, ...answer.headers });
    response.end(request.method === 'HEAD' ? undefined : content);
  }

  #answer(request: IncomingMessage, url: URL, path: string, key: string, body: Buffer): Answer {
    const wrong = this.#checkSignature(request, url, body);
    if (wrong !== undefined) return refused(403, wrong);
    if (path !== `/${this.bucket}` && !path.startsWith(`/${this.bucket}/`)) return refused(404, 'NoSuchBucket');
    if (url.searchParams.get('list-type') === '2') return this.#list(url);
    const object = this.objects.get(key);
    switch (request.method) {
      case 'PUT':
        return this.#put(request, key, body);
      case 'DELETE':
        this.objects.delete(key);
        return { status: 204 };
      case 'HEAD':
        if (object === undefined) return { status: 404 };
        return { status: 200, headers: { etag: object.etag, 'content-length': String(object.body.length) } };
      case 'GET': {
        if (object === undefined) return refused(404, 'NoSuchKey');
        const range = /^bytes=(\d+)-(\d+)$/.exec(String(request.headers.range ?? ''));
        if (range === null) return { status: 200, headers: { etag: object.etag }, body: object.body };
        const [start, end] = [Number(range[1]), Number(range[2])];
        if (start >= object.body.length) return refused(416, 'InvalidRange');
        return { status: 206, headers: { etag: object.etag }, body: object.body.subarray(start, end + 1) };
      }
      default:
        return refused(405, 'MethodNotAllowed');
    }
  }

  #put(request: IncomingMessage, key: string, body: Buffer): Answer {
    const { ignoresConditions, wantsBareEtags, lostStatus = 412 } = this.behaviour;
    const current = this.objects.get(key);
    const lost = refused(
      lostStatus,
      lostStatus === 500 ? 'InternalError' : lostStatus === 409 ? 'ConditionalRequestConflict' : 'PreconditionFailed',
    );
    if (ignoresConditions !== true) {
      const match = request.headers['if-match'];
      if (match !== undefined) {
        if (current === undefined) return refused(404, 'NoSuchKey');
        const wanted = wantsBareEtags === true ? current.etag.replaceAll('"', '') : current.etag;
        if (match !== wanted) return lost;
      }
      if (request.headers['if-none-match'] === '*' && current !== undefined) return lost;
    }
    const etag = `"${createHash('md5').update(body).digest('hex')}"`;
    this.objects.set(key, { body, etag });
    return { status: 200, headers: { etag } };
  }

  /** Pages are short, so that a client which does not turn them is found out. */
  #list(url: URL): Answer {
    const prefix = url.searchParams.get('prefix') ?? '';
    const delimiter = url.searchParams.get('delimiter') ?? '';
    const after = url.searchParams.get('continuation-token') ?? url.searchParams.get('start-after') ?? '';
    // With a delimiter everything below a folder is one item, which stands where its first key would.
    const itemOf = (key: string): string => {
      const end = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
      return end < 0 ? key : key.slice(0, end + 1);
    };
    const keys = this.keys().filter((key) => key.startsWith(prefix) && key > after && !(after.endsWith('/') && key.startsWith(after)));
    const found = [...new Set(keys.map(itemOf))];
    const page = found.slice(0, 5);
    const contents = page.map((item) =>
      item.endsWith('/') && delimiter !== ''
        ? `<CommonPrefixes><Prefix>${encodeURIComponent(item)}</Prefix></CommonPrefixes>`
        : `<Contents><Key>${encodeURIComponent(item)}</Key><Size>${this.objects.get(item)?.body.length}</Size></Contents>`,
    );
    const next = found.length > page.length ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : '';
    const xml = `<?xml version="1.0"?><ListBucketResult><IsTruncated>${next !== ''}</IsTruncated>${next}${contents.join('')}</ListBucketResult>`;
    return { status: 200, body: Buffer.from(xml) };
  }

  #nowMs(): number {
    return Date.now() + this.skewMs;
  }

  /** The error's code; `undefined` when the signature is good. */
  #checkSignature(request: IncomingMessage, url: URL, body: Buffer): string | undefined {
    const given =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
        request.headers.authorization ?? '',
      );
    if (given === null) return 'AccessDenied';
    const [, id, day = '', region = '', names = '', signature] = given;
    if (id !== s3Keys.accessKeyId) return 'InvalidAccessKeyId';
    const time = String(request.headers['x-amz-date']);
    const at = Date.parse(time.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'));
    if (Math.abs(at - this.#nowMs()) > 15 * 60_000) return 'RequestTimeTooSkewed';
    const hash = createHash('sha256').update(body).digest('hex');
    if (request.headers['x-amz-content-sha256'] !== hash) return 'XAmzContentSHA256Mismatch';
    for (const needed of ['host', 'if-match', 'if-none-match', 'x-amz-date']) {
      if (request.headers[needed] !== undefined && !names.split(';').includes(needed)) return 'AccessDenied';
    }
    const query = url.search.slice(1).split('&').sort().join('&');
    const lines = names.split(';').map((name) => `${name}:${String(request.headers[name]).trim()}\n`);
    const canonical = `${request.method}\n${url.pathname}\n${query}\n${lines.join('')}\n${names}\n${hash}`;
    const scope = `${day}/${region}/s3/aws4_request`;
    const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${createHash('sha256').update(canonical).digest('hex')}`;
    const hmac = (key: string | Buffer, data: string): Buffer => createHmac('sha256', key).update(data).digest();
    const signing = hmac(hmac(hmac(hmac(`AWS4${s3Keys.secretAccessKey}`, day), s3Region), 's3'), 'aws4_request');
    return hmac(signing, text).toString('hex') === signature ? undefined : 'SignatureDoesNotMatch';
  }
}

function refused(status: number, code: string): Answer {
  return {
    status,
    body: Buffer.from(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>refused by the test server</Message></Error>`),
  };
}
