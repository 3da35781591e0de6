/**
 * The clusters of the installation and the seed addresses of their members, as the directory's topology entries say. An immutable
 * picture: a change makes a new one, so whoever chooses a member looks at one state from beginning to end.
 */
import type { AccountUuid } from '#common/account-name.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { ClusterRecord } from '#directory/client/records.ts';

/** See the header of this file. */
export interface Topology {
  readonly clusters: ReadonlyMap<ClusterName, ClusterRecord>;
}

/** Before anything is known. */
export const emptyTopology: Topology = { clusters: new Map() };

/** The picture with this entry put in or replaced, also when its name changed. */
export function withCluster(topology: Topology, record: ClusterRecord): Topology {
  const clusters = new Map([...topology.clusters].filter(([, known]) => known.uuid !== record.uuid));
  clusters.set(record.name, record);
  return { clusters };
}

/** The picture without this entry; the same picture when it holds none such. */
export function withoutCluster(topology: Topology, uuid: AccountUuid): Topology {
  const left = [...topology.clusters].filter(([, known]) => known.uuid !== uuid);
  return left.length === topology.clusters.size ? topology : { clusters: new Map(left) };
}
