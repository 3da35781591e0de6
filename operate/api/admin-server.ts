/**
 * The admin API of one process: what this process runs, the whole installation merged over its peers, and the account operations.
 *
 *     CLI, console ──► /api/v1/... ──► this process's services
 *                           │
 *                           └──► /api/v1/node... of each peer (same token), answers merged, silence marked
 *
 * `/livez`, `/readyz` and `/metrics` are open, for load balancers and collectors; the console's page and assets hold no data and are open
 * as well; everything else needs the token (auth.ts).
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { addHealthRoutes } from '#common/http/health.ts';
import { createHttpServer, listenAt } from '#common/http/server.ts';
import { addConsole } from '../console/serve.ts';
import { addAuth } from './auth.ts';
import type { AdminOptions, RunningAdmin } from './options.ts';
import { addRoutes } from './routes.ts';

export type { AdminOptions, AdminPeerAddress, AdminService, RunningAdmin } from './options.ts';

/** A whole account may take so long to come in. */
const archiveTimeoutMs = 3_600_000;

/** Starts the admin API. Rejects with `NET_CONNECT_FAILED` when the address cannot be bound. */
export async function startAdmin(options: AdminOptions): Promise<RunningAdmin> {
  const { log, network, clock, random } = options.ports;
  const server = createHttpServer({
    log: log.child({ component: 'admin' }),
    network,
    tls: options.tls,
    patience: { requestTimeoutMs: archiveTimeoutMs, clock },
  });
  let url = '';
  addHealthRoutes(server, { services: options.services, metrics: options.ports.metrics });
  addAuth(server, { token: options.token, isTls: options.tls !== undefined, clock, random });
  addRoutes(server, options, () => url);
  await addConsole(server);
  const { address, port: wantedPort } = options.listen;
  let port: number;
  try {
    ({ port } = await listenAt(server, { host: address, port: wantedPort }, options.ports.sockets));
  } catch (error) {
    throw new PlatformError('NET_CONNECT_FAILED', `the admin API cannot listen on ${address}:${wantedPort}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  url = `${options.tls === undefined ? 'http' : 'https'}://${address.includes(':') ? `[${address}]` : address}:${port}`;
  return { url, port, [Symbol.asyncDispose]: () => server.close() };
}
