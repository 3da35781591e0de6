/** Who serves whom, out of the installation's status. Pure. */
import type { StatusReport, TopologyReport } from './reports.ts';

/** The installation without its figures. */
export function topologyOf(status: StatusReport): TopologyReport {
  return {
    replies: status.replies,
    subsets: status.subsets.map(({ name, region, frontends }) => ({
      name,
      region,
      frontends: frontends.map((frontend) => ({
        name: frontend.name,
        listeners: frontend.listeners.map((listener) => `${listener.protocol}/${listener.tls} ${listener.address}:${listener.port}`),
        follows: frontend.routes.server,
        reaches: frontend.clusters.map((cluster) => ({
          cluster: cluster.name,
          up: cluster.members.filter((member) => member.state !== 'down').length,
          members: cluster.members.length,
        })),
      })),
    })),
    directories: status.directories.map(({ name, mode, urls }) => ({ name, mode, urls })),
    clusters: status.clusters.map(({ name, controller, members }) => ({
      name,
      controller,
      members: members.map((member) => ({ name: member.name, address: member.address, state: member.state })),
    })),
  };
}
