/**
 * Symmetric nodes: a frontend and a member of a cluster in one process (Guide: symmetric clusters). A session that comes to a node at random is
 * served there for one account in N, N being the cluster's members; of M sessions M·(N−1)/N go on to another node. Both are shown side by side, what
 * is expected and what is, because the difference says that clients or accounts are not spread evenly.
 */
import type { ClusterName } from '#common/host-server.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Topology } from '#frontend/routing/topology.ts';

/** Counts a session that was opened. */
export type CountPlace = (cluster: ClusterName, member: string) => void;

/** Of M sessions of a cluster of N members, those that a symmetric node passes on. */
export function passedOn(sessions: number, members: number): number {
  return members === 0 ? 0 : (sessions * (members - 1)) / members;
}

/** Registers the metrics of a node that holds members itself; of a frontend alone nothing is counted. */
export function countPlaces(metrics: Metrics, node: string, localMembers: readonly string[], topology: () => Topology): CountPlace {
  if (localMembers.length === 0) return () => {};
  const local = new Set(localMembers);
  const opened = metrics.counter(
    'archipelago_symmetric_sessions_total',
    'Sessions opened by a node that is frontend and member, by where they are served.',
    ['node', 'cluster', 'place'],
  );
  const expected = metrics.gauge(
    'archipelago_symmetric_passed_on_expected',
    'Of the sessions opened so far, those that go to another node when clients and accounts are spread evenly: M·(N−1)/N.',
    ['node', 'cluster'],
  );
  const counts = new Map<ClusterName, number>();
  metrics.onCollect(() => {
    for (const [cluster, sessions] of counts) {
      const members = topology().clusters.get(cluster)?.members ?? [];
      if (members.some(({ name }) => local.has(name))) expected.set({ node, cluster }, passedOn(sessions, members.length));
    }
  });
  return (cluster, member) => {
    const members = topology().clusters.get(cluster)?.members ?? [];
    // Clusters of which no member is here have nothing to do with this node's symmetry.
    if (!members.some(({ name }) => local.has(name))) return;
    counts.set(cluster, (counts.get(cluster) ?? 0) + 1);
    opened.add({ node, cluster, place: local.has(member) ? 'here' : 'passed-on' });
  };
}
