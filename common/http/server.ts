/**
 * HTTP servers of the platform: fastify with this house's limits, error form and headers. The only importer of fastify.
 *
 * Errors leave as problem+json (RFC 9457) with `code` from the catalogue and, where there is one, a `hint`. A body, a header block and a
 * request's time have limits; past one the request ends with a clear status and no other is disturbed.
 */
import { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import type { Clock } from '#common/clock.ts';
import { errorCatalogue } from '#common/errors/catalogue.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { httpStatuses } from '#common/errors/wire.ts';
import type { Logger } from '#common/log/logger.ts';
import { boundAnew, type SocketAddress, type SocketSource, type SocketTarget } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';

/** A server with its routes. */
export type HttpServer = FastifyInstance;
export type HttpRequest = FastifyRequest;
export type HttpReply = FastifyReply;

/** An error as the client sees it (RFC 9457 §3). */
export interface ProblemDocument {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly retry: string;
  readonly hint?: string;
}

/** Limits of every server, unless told otherwise. */
export const httpLimits = {
  bodyBytesMax: 65_536,
  /** Time for a whole request to come in. */
  requestTimeoutMs: 15_000,
  keepAliveTimeoutMs: 30_000,
  connectionsMax: 1_000,
} as const;

/** What a server is made of. */
export interface HttpServerOptions {
  readonly log: Logger;
  /** Accepts for the server where it can; Node hangs up on who comes when the process has no descriptors, and tells nobody. */
  readonly network: Pick<Network, 'serverFor'>;
  /** PEM texts; plain HTTP without. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  readonly bodyBytesMax?: number;
  /** Takes requests that last longer than usual; one that stands still is cut off all the same. */
  readonly patience?: { readonly requestTimeoutMs: number; readonly clock: Clock };
}

/** What listens for a server, which carries it by this name. */
type Door = Parameters<SocketSource['listen']>[0];
const doorName = 'door';

/** Makes a server without routes; the caller adds them and calls `listenAt`. */
export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { tls, log } = options;
  const shared = {
    bodyLimit: options.bodyBytesMax ?? httpLimits.bodyBytesMax,
    requestTimeout: options.patience?.requestTimeoutMs ?? httpLimits.requestTimeoutMs,
    keepAliveTimeout: httpLimits.keepAliveTimeoutMs,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 400 },
    logger: false,
  } as const;
  // The two overloads of fastify differ only in the type of the raw server, which nobody here looks at.
  const server: HttpServer =
    tls === undefined
      ? fastify(shared)
      : (fastify({ ...shared, https: { cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' } }) as unknown as HttpServer);
  server.server.maxConnections = httpLimits.connectionsMax;
  server.server.headersTimeout = httpLimits.requestTimeoutMs;

  const door: Door = options.network.serverFor?.(server.server) ?? server.server;
  server.decorate(doorName, door);

  const { patience } = options;
  if (patience !== undefined) {
    server.addHook('onRequest', async ({ raw }) => {
      const { socket } = raw;
      let seen = socket.bytesRead;
      const timer = patience.clock.every(httpLimits.requestTimeoutMs, () => {
        if (socket.bytesRead === seen) socket.destroy();
        seen = socket.bytesRead;
      });
      raw.once('end', () => timer.cancel());
      raw.once('close', () => timer.cancel());
    });
  }
  server.addHook('onSend', async (_request, reply, payload) => {
    // The port is another process's by now: the client's next request is to go there.
    if (!door.listening) reply.header('connection', 'close');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
    reply.header('x-content-type-options', 'nosniff');
    reply.header('referrer-policy', 'no-referrer');
    return payload;
  });
  // Of a server that was not told to listen by fastify itself, fastify closes only what is idle.
  server.addHook('preClose', async () => {
    if (door !== server.server && door.listening) await new Promise<void>((closed) => door.close(() => closed()));
    server.server.closeAllConnections();
  });
  server.setErrorHandler((error: FastifyError | PlatformError, request, reply) => {
    const problem = problemOf(error);
    const fields = { method: request.method, path: request.routeOptions.url, status: problem.status, errCode: problem.code };
    if (problem.status >= 500 && problem.code === 'BUG_UNEXPECTED') log.error({ ...fields, err: error }, 'request failed');
    else log.debug({ ...fields, detail: problem.detail }, 'request refused');
    if (problem.status === 401) reply.header('www-authenticate', 'Bearer realm="archipelago"');
    return reply.code(problem.status).type('application/problem+json').send(problem);
  });
  server.setNotFoundHandler((request) => {
    throw new PlatformError('ADMIN_NOT_FOUND', `there is no ${request.method} ${request.url.split('?')[0]} here`);
  });
  return server;
}

/** Listens. Rejects with the system's error when the address cannot be bound. */
export async function listenAt(server: HttpServer, target: SocketTarget, sockets: SocketSource = boundAnew): Promise<SocketAddress> {
  await server.ready();
  return sockets.listen(server.getDecorator<Door>(doorName), target);
}

/** Any failure as a problem document. */
export function problemOf(thrown: unknown): ProblemDocument {
  const status = (thrown as Partial<FastifyError> | undefined)?.statusCode;
  if (!(thrown instanceof PlatformError) && typeof status === 'number' && status >= 400 && status < 500) {
    // fastify's own refusals: a body too large, JSON that is none, a media type nobody reads.
    return {
      type: 'about:blank',
      title: errorCatalogue.ADMIN_BAD_REQUEST.meaning,
      status,
      detail: (thrown as Error).message,
      code: 'ADMIN_BAD_REQUEST',
      retry: 'never',
    };
  }
  const error = asPlatformError(thrown);
  const hint = error.fields.hint;
  return {
    type: 'about:blank',
    title: errorCatalogue[error.code].meaning,
    // A browser or a client would follow a bare 307; here it is a fact about the account and nothing to follow.
    status: error.kind === 'moved' ? 409 : httpStatuses[error.kind],
    detail: error.message,
    code: error.code,
    retry: error.retry,
    ...(typeof hint === 'string' ? { hint } : {}),
  };
}
