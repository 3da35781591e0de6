/** What is not as it should be, in words, with what to do. An empty list means that all who answered are well. */
import type { Finding, Replies, ServiceReport, StatusReport } from './reports.ts';

type Picture = Pick<StatusReport, 'subsets' | 'directories' | 'replication' | 'replicas' | 'clusters'>;

/** From where on a replica counts as behind, a queue as stuck, and a certificate as about to expire. */
export const findingLimits = { replicaLagMs: 30_000, queueAgeMs: 3_600_000, certificateLeftMs: 14 * 86_400_000 } as const;

/** Builds the list, failures first. */
export function findingsOf(replies: Replies, services: readonly (ServiceReport & { node: string })[], picture: Picture): Finding[] {
  const findings: Finding[] = [];
  const add = (severity: Finding['severity'], about: string, what: string, fix: string): void => {
    findings.push({ severity, about, what, fix });
  };
  for (const node of replies.nodes.filter((each) => !each.ok)) {
    add(
      'failure',
      node.node,
      `does not answer: ${node.error ?? 'no reason known'}`,
      `see that the process runs and that ${node.url} can be reached`,
    );
  }
  for (const service of services.filter((each) => !each.ready)) {
    const failed = service.readiness.filter((check) => !check.ok);
    if (failed.length > 0 && failed.every((check) => check.isOrdered)) {
      // A member says so below, by its state.
      if (service.role === 'frontend') {
        add('warning', service.name, failed.map((check) => check.detail).join('; '), `archipelago frontend resume ${service.name}`);
      }
      continue;
    }
    const reasons = failed.map((check) => `${check.name}: ${check.detail}`);
    add(
      'failure',
      service.name,
      `is not ready: ${reasons.join('; ') || 'it has not finished starting'}`,
      `see the log of node ${service.node} for service ${service.role}`,
    );
  }
  for (const subset of picture.subsets) {
    if (!subset.frontends.some((frontend) => frontend.ready)) {
      add('failure', `subset ${subset.name}`, 'has no frontend that is ready', 'start one, or send its clients to another subset');
    }
    for (const frontend of subset.frontends) {
      if (frontend.routes.state === 'frozen') {
        add(
          'warning',
          frontend.name,
          `routes are frozen: ${frontend.routes.server} has been silent for ${Math.round(frontend.routes.silentMs / 1000)} s`,
          'mail goes on with the routes known; bring the directory server back',
        );
      }
      if ((frontend.settingsRefused ?? 0) > 0) {
        add(
          'warning',
          frontend.name,
          `${frontend.settingsRefused} values in the directory entry of subset ${subset.name} are refused; the last good ones stay`,
          `archipelago config show --frontend ${frontend.name} says which and why`,
        );
      }
      for (const { names, leftMs } of frontend.certificates?.shown ?? []) {
        if (leftMs > findingLimits.certificateLeftMs) continue;
        const when = leftMs > 0 ? `expires in ${Math.ceil(leftMs / 86_400_000)} days` : 'has expired';
        add(
          leftMs > 0 ? 'warning' : 'failure',
          frontend.name,
          `the certificate for ${names} ${when}`,
          'replace its files; no restart is needed',
        );
      }
      if (frontend.certificates?.refused !== undefined) {
        add(
          'warning',
          frontend.name,
          `certificate files that have changed are not used: ${frontend.certificates.refused}`,
          'correct the files; those from before stay in use, and no restart is needed',
        );
      }
      if (frontend.queue.oldestAgeMs > findingLimits.queueAgeMs) {
        add(
          'warning',
          frontend.name,
          `mail waits in the queue: ${frontend.queue.messages} messages, the oldest for ${Math.round(frontend.queue.oldestAgeMs / 60_000)} min`,
          'see the frontend’s log for the reason of the last deferral',
        );
      }
    }
  }
  for (const directory of picture.directories.filter((each) => each.note !== '')) {
    const isChanged = /configuration still says/.test(directory.note);
    add(
      'warning',
      directory.name,
      directory.note,
      isChanged ? `set "mode: ${directory.mode}" in its configuration` : 'see docs/operate/replication.md, "The master is lost"',
    );
  }
  for (const replica of picture.replicas) {
    if (replica.state === 'stopped' || replica.state === 'retrying') {
      add(
        replica.state === 'stopped' ? 'failure' : 'warning',
        replica.name,
        `replication is ${replica.state}: ${replica.lastError ?? 'no reason known'}`,
        replica.state === 'stopped'
          ? `check the master, then: archipelago replica ${replica.stoppedBy === 'REPL_MASTER_WENT_BACK' ? 'resume' : 'allow-deletes'} ${replica.name}`
          : `see that ${replica.url} answers`,
      );
    } else if (replica.lagMs > findingLimits.replicaLagMs) {
      add(
        'warning',
        replica.name,
        `is ${Math.round(replica.lagMs / 1000)} s and ${replica.backlogChanges} changes behind`,
        'see the load of that server and the network between',
      );
    }
  }
  for (const cluster of picture.clusters) {
    if (cluster.controller === undefined) {
      add('failure', cluster.name, 'has no Controller', 'open accounts go on; see that its members reach the coordinator and the storage');
    }
    if (cluster.damaged > 0) {
      add(
        'failure',
        cluster.name,
        `${cluster.damaged} ${cluster.damaged === 1 ? 'account is' : 'accounts are'} read-only, because something stored is damaged`,
        `archipelago store stat ${cluster.name}`,
      );
    }
    for (const other of cluster.disagreement) {
      add(
        'warning',
        cluster.name,
        `observers disagree on the Controller: ${other}`,
        'wait for one lease; if it stays, see the network between the members',
      );
    }
    for (const member of cluster.members) {
      if (member.state === 'dead' || member.state === 'leaving') {
        add('failure', member.name, `is ${member.state}`, 'its accounts are served by the other members; start it again');
      } else if (member.state !== 'active') {
        const fix = {
          joining: 'wait until it is done',
          draining: `wait, or: archipelago backend drain ${member.name} --abort`,
          cordoned: `when that is over: archipelago backend uncordon ${member.name}`,
        }[member.state];
        add('warning', member.name, `is ${member.state}`, fix);
      }
      for (const other of member.disagreement) {
        add('warning', member.name, `observers disagree on its state (${member.state}): ${other}`, 'see the network between the members');
      }
    }
  }
  return findings.sort((a, b) => Number(a.severity === 'warning') - Number(b.severity === 'warning'));
}
