/**
 * The coordinator of members that run in one process: nothing to install and nothing to reach.
 */
import type { Clock } from '#common/clock.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { LeaseStore } from './lease-store.ts';
import { LeaseTable } from './lease-table.ts';

/** The embedded coordinators of one process, by cluster. Made once by the composition root and given to each member. */
export interface EmbeddedCoordinators {
  /** A member's door to its cluster's coordinator. */
  open(cluster: ClusterName, clock: Clock): LeaseStore;
}

/** See `EmbeddedCoordinators`. */
export function createEmbeddedCoordinators(): EmbeddedCoordinators {
  const tables = new Map<ClusterName, LeaseTable>();
  return {
    open(cluster, clock) {
      const table = tables.get(cluster) ?? new LeaseTable();
      tables.set(cluster, table);
      return {
        engine: 'embedded',
        take: async (key, holder, value, leaseMs) => table.take(clock.monotonicMs(), key, holder, value, leaseMs),
        release: async (key, holder) => table.release(clock.monotonicMs(), key, holder),
        list: async (prefix) => table.list(clock.monotonicMs(), prefix),
        status: () => ({ ok: true, detail: 'in this process' }),
        [Symbol.asyncDispose]: async () => {},
      };
    },
  };
}
