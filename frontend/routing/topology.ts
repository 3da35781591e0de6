/**
 * The clusters of the installation and the seed addresses of their members, as the directory's topology entries say. An immutable
 * picture: a change makes a new one, so whoever chooses a member looks at one state from beginning to end.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { type ClusterName, clusterOf, type MemberName } from '#common/host-server.ts';
import type { ClusterMember, ClusterRecord } from '#directory/client/records.ts';

/** See the header of this file. */
export interface Topology {
  readonly clusters: ReadonlyMap<ClusterName, ClusterRecord>;
}

/** What a hostServer means: a cluster, or a foreign cluster and the one host of it that the account is pinned to. */
export interface Host {
  readonly cluster: ClusterRecord;
  readonly pinned: ClusterMember | undefined;
}

/** Looks a hostServer up; `undefined` when it names neither a cluster nor a host of a foreign one. */
export function findHost(topology: Topology, hostServer: ClusterName): Host | undefined {
  const cluster = topology.clusters.get(hostServer);
  if (cluster !== undefined) return { cluster, pinned: undefined };
  const name = hostServer as unknown as MemberName;
  const around = topology.clusters.get(clusterOf(name));
  const pinned = around?.foreign === undefined ? undefined : around.members.find((member) => member.name === name);
  return around === undefined || pinned === undefined ? undefined : { cluster: around, pinned };
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
