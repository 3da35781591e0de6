/**
 * One HTTP or HTTPS request whose body, or whose answer, is a stream. What is small and JSON goes by client.ts.
 */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Secret } from '#common/secret.ts';
import { networkFailure, parsed, problemAsError } from './client.ts';

/** A request. */
export interface StreamRequest {
  readonly url: string;
  readonly method: 'GET' | 'POST';
  readonly token: Secret<string>;
  /** PEM of the CA of the server's certificate. */
  readonly ca?: string | undefined;
  readonly contentType?: string;
  /** Media type that is asked for. */
  readonly accept?: string;
  readonly body?: AsyncIterable<Buffer>;
  /** Longest time in which nothing comes and nothing goes. */
  readonly silenceMs: number;
}

/** An answer that has begun. */
export type StreamAnswer = IncomingMessage;

/** Resolves with the answer, to be read to its end. Rejects as `requestJson` does. */
export async function requestStream(clock: Clock, options: StreamRequest): Promise<StreamAnswer> {
  const url = new URL(options.url);
  const start = url.protocol === 'https:' ? httpsRequest : httpRequest;
  const headers: Record<string, string> = { authorization: `Bearer ${options.token.reveal()}` };
  if (options.contentType !== undefined) headers['content-type'] = options.contentType;
  if (options.accept !== undefined) headers.accept = options.accept;
  const request = start(url, { method: options.method, headers, agent: false, ...(options.ca === undefined ? {} : { ca: options.ca }) });
  let moved = -1;
  const timer = clock.every(options.silenceMs, () => {
    const now = (request.socket?.bytesRead ?? 0) + (request.socket?.bytesWritten ?? 0);
    if (now === moved)
      request.destroy(new PlatformError('NET_TIMEOUT', `nothing came from or went to ${url.origin} for ${options.silenceMs} ms`));
    moved = now;
  });
  request.once('close', () => timer.cancel());
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', reject);
  });
  answered.catch(() => {});
  try {
    if (options.body === undefined) request.end();
    // An answer may come before all was sent: it says why, so what became of the sending does not matter.
    else await Promise.race([answered, pipeline(Readable.from(options.body), request)]);
    const response = await answered;
    const status = response.statusCode ?? 0;
    if (status >= 400) throw problemAsError(status, parsed(await text(response)), url);
    return response;
  } catch (error) {
    request.destroy();
    throw networkFailure(error, url);
  }
}
