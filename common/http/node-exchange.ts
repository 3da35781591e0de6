/**
 * `HttpExchange` on Node: kept connections, a bound on their number, a time for each exchange and a largest answer.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Clock } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { HttpAnswer, HttpExchange, HttpRequest } from './exchange.ts';

/** Connections to one server; requests beyond wait for one. */
const connectionsMax = 64;
/** An idle connection is closed after this, before most servers do. */
const idleMs = 4_000;

/** Options of the exchange. */
export interface NodeExchangeOptions {
  readonly clock: Clock;
  /** PEM of the CA of the servers' certificates, in place of the system's. */
  readonly ca?: string | undefined;
}

/** An exchange with connections of its own. */
export function openNodeExchange(options: NodeExchangeOptions): HttpExchange {
  const { clock, ca } = options;
  const kept = { keepAlive: true, maxSockets: connectionsMax, timeout: idleMs, scheduling: 'lifo' } as const;
  const plain = new HttpAgent(kept);
  const secure = new HttpsAgent(ca === undefined ? kept : { ...kept, ca });
  return {
    request: (request) => exchange(clock, request, plain, secure),
    async [Symbol.asyncDispose]() {
      plain.destroy();
      secure.destroy();
    },
  };
}

function exchange(clock: Clock, asked: HttpRequest, plain: HttpAgent, secure: HttpsAgent): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const url = new URL(asked.origin);
    const isSecure = url.protocol === 'https:';
    const length = (asked.body ?? []).reduce((sum, part) => sum + part.byteLength, 0);
    const request = (isSecure ? httpsRequest : httpRequest)({
      protocol: url.protocol,
      hostname: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? (isSecure ? 443 : 80) : Number(url.port),
      path: asked.target,
      method: asked.method,
      headers: asked.body === undefined ? asked.headers : { ...asked.headers, 'content-length': String(length) },
      agent: isSecure ? secure : plain,
    });
    let isConnected = false;
    const timer = clock.after(asked.timeoutMs, () => {
      request.destroy(new PlatformError('NET_TIMEOUT', `${asked.origin} did not answer within ${asked.timeoutMs} ms`));
    });
    const fail = (error: unknown): void => {
      timer.cancel();
      reject(exchangeFailure(error, asked.origin, isConnected));
    };
    request.on('socket', (socket) => {
      if (request.reusedSocket) isConnected = true;
      else socket.once(isSecure ? 'secureConnect' : 'connect', () => (isConnected = true));
    });
    request.on('error', fail);
    request.on('response', (response: IncomingMessage) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes > asked.answerBytesMax) {
          response.destroy(new PlatformError('PROTO_TOO_LONG', `${asked.origin} answered with more than ${asked.answerBytesMax} bytes`));
        }
      });
      response.on('error', fail);
      response.on('end', () => {
        timer.cancel();
        const headers = Object.entries(response.headers).map(([name, value]) => [
          name,
          Array.isArray(value) ? value.join(', ') : (value ?? ''),
        ]);
        resolve({ status: response.statusCode ?? 0, headers: Object.fromEntries(headers), body: Buffer.concat(chunks) });
      });
    });
    for (const part of asked.body ?? []) request.write(part);
    request.end();
  });
}

function exchangeFailure(error: unknown, origin: string, isConnected: boolean): PlatformError {
  if (error instanceof PlatformError) return error;
  const system = String((error as NodeJS.ErrnoException).code ?? '');
  if (isConnected)
    return new PlatformError('NET_CLOSED', `${origin} closed the connection before answering: ${messageOf(error)}`, { cause: error });
  if (/CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(system)) {
    return new PlatformError(
      'NET_TLS_FAILED',
      `TLS with ${origin} failed: ${messageOf(error)}; check the CA file and the name in the certificate`,
      {
        cause: error,
      },
    );
  }
  return new PlatformError('NET_CONNECT_FAILED', `${origin} cannot be reached: ${messageOf(error) || system}`, { cause: error });
}
