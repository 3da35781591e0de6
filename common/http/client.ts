/**
 * One JSON request over HTTP or HTTPS, with an own CA, a whole time and a largest answer. Errors of the other side come back as the
 * `PlatformError` they were, so that a code survives any number of hops.
 */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Clock } from '#common/clock.ts';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Secret } from '#common/secret.ts';

/** A request. */
export interface JsonRequest {
  readonly url: string;
  readonly method?: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';
  readonly token?: Secret<string> | undefined;
  /** PEM of the CA of the server's certificate. */
  readonly ca?: string | undefined;
  readonly body?: unknown;
  /** Whole time; default 10,000. */
  readonly timeoutMs?: number;
  /** Largest answer; default 32 MB. */
  readonly answerBytesMax?: number;
}

/** The server's answer. */
export interface JsonAnswer {
  readonly status: number;
  /** Parsed JSON, or the text when it is none. */
  readonly body: unknown;
}

/**
 * Sends a request and reads the whole answer. Any status below 400 resolves; from 400 on it rejects with the problem's own code.
 * Rejects with `NET_CONNECT_FAILED`, `NET_TLS_FAILED`, `NET_TIMEOUT` or `NET_CLOSED` when there is no answer.
 */
export function requestJson(clock: Clock, options: JsonRequest): Promise<JsonAnswer> {
  const url = new URL(options.url);
  const timeoutMs = options.timeoutMs ?? 10_000;
  const answerBytesMax = options.answerBytesMax ?? 33_554_432;
  const payload = options.body === undefined ? undefined : Buffer.from(JSON.stringify(options.body));
  const headers: Record<string, string> = { accept: 'application/json' };
  if (options.token !== undefined) headers.authorization = `Bearer ${options.token.reveal()}`;
  if (payload !== undefined) {
    headers['content-type'] = 'application/json';
    headers['content-length'] = String(payload.byteLength);
  }
  return new Promise<JsonAnswer>((resolve, reject) => {
    const start = url.protocol === 'https:' ? httpsRequest : httpRequest;
    // A fresh connection each time: requests are rare, and a kept one would hold the process open.
    const common = { method: options.method ?? 'GET', headers, agent: false } as const;
    const request = start(url, options.ca === undefined ? common : { ...common, ca: options.ca });
    const timer = clock.after(timeoutMs, () => {
      request.destroy(new PlatformError('NET_TIMEOUT', `${url.origin} did not answer within ${timeoutMs} ms`));
    });
    const fail = (error: unknown): void => {
      timer.cancel();
      reject(networkFailure(error, url));
    };
    request.on('error', fail);
    request.on('response', (response: IncomingMessage) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.byteLength;
        chunks.push(chunk);
        if (bytes > answerBytesMax) {
          response.destroy(new PlatformError('PROTO_TOO_LONG', `${url.origin} answered with more than ${answerBytesMax} bytes`));
        }
      });
      response.on('error', fail);
      response.on('end', () => {
        timer.cancel();
        const body = parsed(Buffer.concat(chunks).toString('utf8'));
        const status = response.statusCode ?? 0;
        if (status < 400) resolve({ status, body });
        else reject(problemAsError(status, body, url));
      });
    });
    request.end(payload);
  });
}

/** JSON, or the text when it is none. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** What a status from 400 on says. */
export function problemAsError(status: number, body: unknown, url: URL): PlatformError {
  const problem = typeof body === 'object' && body !== null ? (body as { code?: unknown; detail?: unknown; hint?: unknown }) : {};
  const code =
    typeof problem.code === 'string' && Object.hasOwn(errorCatalogue, problem.code) ? (problem.code as ErrorCode) : 'ADMIN_BAD_REQUEST';
  const detail = typeof problem.detail === 'string' ? problem.detail : `${url.origin} answered ${status}`;
  return new PlatformError(code, detail, { fields: { status, ...(typeof problem.hint === 'string' ? { hint: problem.hint } : {}) } });
}

/** Why there was no answer. */
export function networkFailure(error: unknown, url: URL): PlatformError {
  if (error instanceof PlatformError) return error;
  const system = String((error as NodeJS.ErrnoException).code ?? '');
  if (/CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(system)) {
    return new PlatformError('NET_TLS_FAILED', `TLS with ${url.origin} failed: ${messageOf(error)}`, {
      cause: error,
      fields: { hint: 'check the CA file and the name in the certificate' },
    });
  }
  if (system === 'ECONNRESET' || system === 'EPIPE') {
    return new PlatformError('NET_CLOSED', `${url.origin} closed the connection before answering`, { cause: error });
  }
  return new PlatformError('NET_CONNECT_FAILED', `${url.origin} cannot be reached: ${messageOf(error) || system}`, { cause: error });
}
