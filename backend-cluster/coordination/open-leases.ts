/**
 * The coordinator that a member's configuration names.
 */
import type { BackendConfig } from '#backend-cluster/config.ts';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { clusterOf, parseMemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { EmbeddedCoordinators } from './embedded.ts';
import type { LeaseStore } from './lease-store.ts';
import { parseRedisUrl } from './redis/endpoint.ts';
import { openRedisCoordinator } from './redis/redis.ts';
import { openSocketCoordinator } from './socket.ts';

/** Opens it. Rejects with `CONFIG_*` when it is not said where it is or a secret cannot be read; it need not answer yet. */
export async function openLeases(
  config: Pick<BackendConfig, 'name' | 'leaseMs' | 'coordinator'>,
  ports: Ports,
  shared: { readonly coordinators: EmbeddedCoordinators; readonly env?: Environment },
): Promise<LeaseStore> {
  const { engine, path, url, password, sentinelPassword, tls } = config.coordinator;
  const cluster = clusterOf(parseMemberName(config.name));
  const { files } = ports;
  switch (engine) {
    case 'embedded':
      return shared.coordinators.open(cluster, ports.clock);
    case 'socket':
      if (path === undefined)
        throw new PlatformError('CONFIG_INVALID', 'coordinator.engine socket needs coordinator.path, the same for all members');
      return openSocketCoordinator({ ...ports, path, leaseMs: config.leaseMs });
    case 'redis': {
      if (url === undefined) throw new PlatformError('CONFIG_INVALID', 'coordinator.engine redis needs coordinator.url');
      const pem = async (file: string | undefined) => (file === undefined ? undefined : await readPem(file, files));
      return openRedisCoordinator({
        ...ports,
        cluster,
        endpoint: parseRedisUrl(url),
        access: {
          password: password === undefined ? undefined : await readSecret(password, files, shared.env),
          sentinelPassword: sentinelPassword === undefined ? undefined : await readSecret(sentinelPassword, files, shared.env),
          tls: tls === undefined ? undefined : { ca: await pem(tls.caFile), cert: await pem(tls.certFile), key: await pem(tls.keyFile) },
        },
        leaseMs: config.leaseMs,
      });
    }
  }
}
