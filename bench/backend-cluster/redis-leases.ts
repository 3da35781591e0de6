/** Leases in a Redis, as a member opens them. */
import type { LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import { parseRedisUrl } from '#backend-cluster/coordination/redis/endpoint.ts';
import { openRedisCoordinator } from '#backend-cluster/coordination/redis/redis.ts';
import { systemClock } from '#common/clock.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { west } from '#test/unit/backend-cluster/cluster/test-cluster.ts';

/** The coordinator of the measured cluster. */
export function openRedisLeases(url: string): LeaseStore {
  return openRedisCoordinator({
    cluster: west,
    endpoint: parseRedisUrl(url),
    access: { password: undefined, sentinelPassword: undefined, tls: undefined },
    leaseMs: 8_000,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  });
}
