/**
 * The admin API of one process: what this process runs, the whole installation merged over its peers, and the account operations.
 *
 *     CLI, console ──► /api/v1/... ──► this process's services
 *                           │
 *                           └──► /api/v1/node... of each peer (same token), answers merged, silence marked
 *
 * `/livez`, `/readyz` and `/metrics` are open, for load balancers and collectors; everything else needs the token (auth.ts).
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { createHttpServer } from '#common/http/server.ts';
import { addHealthRoutes } from './health.ts';
import type { AdminOptions, RunningAdmin } from './options.ts';

export type { AdminOptions, AdminPeerAddress, AdminService, RunningAdmin } from './options.ts';

/** Starts the admin API. Rejects with `NET_CONNECT_FAILED` when the address cannot be bound. */
export async function startAdmin(options: AdminOptions): Promise<RunningAdmin> {
  const server = createHttpServer({ log: options.ports.log.child({ component: 'admin' }), tls: options.tls });
  addHealthRoutes(server, options);
  try {
    await server.listen({ host: options.listen.address, port: options.listen.port });
  } catch (error) {
    const { address, port } = options.listen;
    throw new PlatformError('NET_CONNECT_FAILED', `the admin API cannot listen on ${address}:${port}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const bound = server.server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : options.listen.port;
  const host = options.listen.address.includes(':') ? `[${options.listen.address}]` : options.listen.address;
  return {
    url: `${options.tls === undefined ? 'http' : 'https'}://${host}:${port}`,
    port,
    [Symbol.asyncDispose]: () => server.close(),
  };
}
