/**
 * Signs requests to an S3 server: AWS Signature Version 4 with the hash of the body in a header.
 *
 * All headers given are signed, conditions too: a proxy that drops `If-Match` on the way makes the signature wrong instead of the write
 * unconditional. Source: Amazon S3 API reference, "Signature Calculations for the Authorization Header".
 */
import { createHash, createHmac } from 'node:crypto';
import type { Secret } from '#common/secret.ts';

/** Who signs. */
export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret<string>;
}

/** What is signed. */
export interface ToSign {
  readonly method: string;
  /** Encoded as it is sent, see `encodePath`. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** Names in lower case; `host` among them. */
  readonly headers: Readonly<Record<string, string>>;
  /** SHA-256 of the body, in hex. */
  readonly bodyHash: string;
  readonly atMs: number;
  readonly region: string;
}

/** The headers to send: those given, and what the signature adds. */
export function signed(request: ToSign, credentials: Credentials): Record<string, string> {
  const time = `${new Date(request.atMs).toISOString().replace(/[-:]/g, '').slice(0, 15)}Z`;
  const day = time.slice(0, 8);
  const headers: Record<string, string> = { ...request.headers, 'x-amz-content-sha256': request.bodyHash, 'x-amz-date': time };
  const names = Object.keys(headers).sort();
  const canonical = [
    request.method,
    request.path,
    encodeQuery(request.query),
    ...names.map((name) => `${name}:${(headers[name] as string).trim()}`),
    '',
    names.join(';'),
    request.bodyHash,
  ].join('\n');
  const scope = `${day}/${request.region}/s3/aws4_request`;
  const text = ['AWS4-HMAC-SHA256', time, scope, sha256([Buffer.from(canonical)])].join('\n');
  let key: Buffer = Buffer.from(`AWS4${credentials.secretAccessKey.reveal()}`);
  for (const part of [day, request.region, 's3', 'aws4_request']) key = createHmac('sha256', key).update(part).digest();
  const signature = createHmac('sha256', key).update(text).digest('hex');
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${scope},SignedHeaders=${names.join(';')},Signature=${signature}`;
  return headers;
}

/** Path of a key below a bucket, encoded as the signature wants it: everything but letters, digits, `-._~` and `/`. */
export function encodePath(path: string): string {
  return path.split('/').map(encode).join('/');
}

/** The query in the order the signature wants, without `?`. */
export function encodeQuery(query: Readonly<Record<string, string>>): string {
  return Object.keys(query)
    .map((name) => `${encode(name)}=${encode(query[name] as string)}`)
    .sort()
    .join('&');
}

/** SHA-256 of parts, in hex. */
export function sha256(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}
