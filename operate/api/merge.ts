/**
 * The whole installation out of what each process says of itself and of its neighbours. Pure: same reports, same picture.
 *
 * Observers may disagree (a member that one sees and another does not, two Controllers in two terms). The picture then takes the view of
 * the highest term, and shows who sees something else; nothing is smoothed over.
 */
import type { BackendStatus, ClusterStatus, MemberStatus } from '#backend-cluster/client/status.ts';
import type { DirectoryStatus } from '#directory/client/status.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { ReplicationStatus } from '#replication/client/status.ts';
import { findingsOf } from './findings.ts';
import type {
  ClusterView,
  DirectoryView,
  FrontendView,
  MemberView,
  NodeReport,
  ReplicaView,
  Replies,
  ServiceReport,
  StatusReport,
  SubsetView,
} from './reports.ts';

/** A service's status with the process that reported it. */
interface Reported<Status> {
  readonly node: string;
  readonly ready: boolean;
  readonly status: Status & { readonly sessionCount?: number };
}

/** Builds the report. */
export function mergeStatus(
  own: Pick<StatusReport, 'node' | 'version' | 'atMs' | 'abilities'>,
  replies: Replies,
  reports: readonly NodeReport[],
): StatusReport {
  const services = uniqueServices(reports);
  const replication = ofRole<ReplicationStatus>(services, 'replication');
  const reported = replication.flatMap(({ status }) =>
    status.replicas.map((replica): ReplicaView => ({ ...replica, service: status.name, masterState: status.master.state })),
  );
  // Of several services for one replica, the one that writes it knows.
  const replicas = reported.filter(
    (one) => one.state !== 'standby' || !reported.some((other) => other.name === one.name && other.state !== 'standby'),
  );
  const picture = {
    subsets: mergeSubsets(ofRole<FrontendStatus>(services, 'frontend')),
    directories: mergeDirectories(ofRole<DirectoryStatus>(services, 'directory'), replicas),
    replication: replication.map(({ node, ready, status: { replicas: _replicas, ...status } }) => ({ ...status, node, ready })),
    replicas,
    writers: reports.flatMap((report) => report.copies ?? []),
    clusters: mergeClusters(ofRole<BackendStatus>(services, 'backend-cluster')),
  };
  const findings = findingsOf(replies, services, picture);
  const frontends = picture.subsets.flatMap((subset) => subset.frontends);
  return {
    ...own,
    verdict: findings.length === 0 ? 'ok' : 'degraded',
    replies,
    findings,
    totals: {
      sessions: sum(frontends.map((frontend) => frontend.sessionCount)),
      accounts: sum(picture.clusters.map((cluster) => cluster.accounts)),
      replicaLagMs: Math.max(0, ...replicas.map((replica) => replica.lagMs)),
      queued: sum(frontends.map((frontend) => frontend.queue.messages)),
    },
    ...picture,
  };
}

/** A process that is listed twice, or lists itself as its own peer, counts once. */
export function uniqueServices(reports: readonly NodeReport[]): (ServiceReport & { readonly node: string })[] {
  const byName = new Map<string, ServiceReport & { readonly node: string }>();
  for (const report of reports) {
    for (const service of report.services) {
      const key = `${service.role} ${service.name}`;
      if (!byName.has(key)) byName.set(key, { ...service, node: report.node });
    }
  }
  return [...byName.values()];
}

function ofRole<Status>(services: readonly (ServiceReport & { readonly node: string })[], role: string): Reported<Status>[] {
  return services
    .filter((service) => service.role === role)
    .map(({ node, ready, status }) => ({ node, ready, status: status as Status & { sessionCount?: number } }));
}

function mergeSubsets(frontends: readonly Reported<FrontendStatus>[]): SubsetView[] {
  const subsets = new Map<string, FrontendView[]>();
  for (const { node, ready, status } of frontends) {
    const view: FrontendView = { ...status, node, ready, sessionCount: status.sessionCount ?? 0 };
    subsets.set(status.subset, [...(subsets.get(status.subset) ?? []), view]);
  }
  return [...subsets]
    .map(([name, members]) => ({
      name,
      region: members.find((frontend) => frontend.region !== undefined)?.region,
      sessions: sum(members.map((frontend) => frontend.sessionCount)),
      frontends: members.sort(byName),
    }))
    .sort(byName);
}

function mergeDirectories(directories: readonly Reported<DirectoryStatus>[], replicas: readonly ReplicaView[]): DirectoryView[] {
  return directories
    .map(({ node, ready, status }): DirectoryView => {
      const replica = replicas.find((candidate) => candidate.name === status.name || status.urls.includes(candidate.url));
      return {
        ...status,
        node,
        ready,
        lagMs: replica?.lagMs,
        backlogChanges: replica?.backlogChanges,
        replicationState: replica?.state,
      };
    })
    .sort((a, b) => (a.mode === b.mode ? byName(a, b) : a.mode === 'master' ? -1 : 1));
}

function mergeClusters(members: readonly Reported<BackendStatus>[]): ClusterView[] {
  const clusters = new Map<string, Reported<BackendStatus>[]>();
  for (const member of members) {
    const name = member.status.cluster.cluster;
    clusters.set(name, [...(clusters.get(name) ?? []), member]);
  }
  return [...clusters].map(([name, reporters]) => mergeCluster(name, reporters)).sort(byName);
}

function mergeCluster(name: string, reporters: readonly Reported<BackendStatus>[]): ClusterView {
  // The highest term is the newest truth; within it the Controller itself knows best.
  const ordered = [...reporters].sort(
    (a, b) => b.status.cluster.term - a.status.cluster.term || Number(b.status.isController) - Number(a.status.isController),
  );
  const best = (ordered[0] as Reported<BackendStatus>).status.cluster;
  const memberNames = [...new Set(reporters.flatMap(({ status }) => status.cluster.members.map((member) => member.name)))].sort();
  const views = memberNames.map((member) => mergeMember(member, best, reporters));
  return {
    name,
    controller: best.controller,
    term: best.term,
    accounts: best.accounts,
    sessions: sum(views.map((view) => view.sessions)),
    damaged: Math.max(0, ...reporters.map(({ status }) => status.storage.damaged ?? 0)),
    observers: reporters.map(({ status }) => status.name).sort(),
    disagreement: reporters
      .filter(({ status }) => status.cluster.controller !== best.controller)
      .map(({ status }) => `${status.name} sees ${status.cluster.controller ?? 'no Controller'} in term ${status.cluster.term}`),
    members: views,
  };
}

function mergeMember(name: string, best: ClusterStatus, reporters: readonly Reported<BackendStatus>[]): MemberView {
  const own = reporters.find(({ status }) => status.name === name);
  const seenBy = reporters.flatMap(({ status }) => {
    const seen = status.cluster.members.find((member) => member.name === name);
    return seen === undefined ? [] : [{ observer: status.name, seen }];
  });
  const chosen = best.members.find((member) => member.name === name) ?? (seenBy[0]?.seen as MemberStatus);
  const { incarnation: _incarnation, ...seen } = chosen;
  return {
    ...seen,
    // What it says of its own load is newer than what it last told the others.
    openAccounts: own?.status.openAccounts ?? seen.openAccounts,
    sessions: own?.status.sessionCount ?? seen.sessions,
    isController: best.controller === name,
    reportsItself: own !== undefined,
    ready: own?.ready ?? false,
    node: own?.node,
    storage: own === undefined ? undefined : `${own.status.storage.engine}: ${own.status.storage.detail}`,
    coordinator: own === undefined ? undefined : `${own.status.coordinator.engine}: ${own.status.coordinator.detail}`,
    links: own?.status.links ?? [],
    disagreement: seenBy
      .filter(({ seen: other }) => other.state !== chosen.state)
      .map(({ observer, seen: other }) => `${observer} says ${other.state}`),
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
