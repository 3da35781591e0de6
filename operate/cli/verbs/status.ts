/** `archipelago status`: the installation at a glance, and what is wrong with it. */
import type { LinkUse } from '#backend-cluster/client/status.ts';
import type { FrontendProcess } from '#frontend/client/status.ts';
import type { Replies, StatusReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { duration, type Paint, table, type VerbResult } from '../output.ts';
import { type ExitCode, exitCodes } from '../terminal.ts';

/** Asks and lays out. */
export async function status(ask: AskApi): Promise<VerbResult> {
  const report = await ask<StatusReport>('/api/v1/status');
  const servers = [
    ...report.directories,
    ...report.subsets.flatMap((subset) => subset.frontends),
    ...report.clusters.flatMap((c) => c.members),
  ];
  return {
    document: report,
    names: servers.map((server) => server.name),
    render: (paint, isWide) => render(report, paint, isWide),
    exitCode: exitCodeFor(report.replies, report.verdict === 'degraded'),
  };
}

/** Degraded is the graver news of the two only when every node answered: a missing answer may hide more. */
export function exitCodeFor(replies: Replies, isDegraded: boolean): ExitCode {
  if (replies.replied < replies.asked) return exitCodes.partial;
  return isDegraded ? exitCodes.degraded : exitCodes.ok;
}

/** `2 of 3 nodes replied; silent: east (…)` — nothing when all did. */
export function repliesLine(replies: Replies, paint: Paint): string {
  if (replies.replied === replies.asked) return '';
  const silent = replies.nodes.filter((node) => !node.ok).map((node) => `${node.node} (${node.error ?? node.url})`);
  return `${paint.bad(`${replies.replied} of ${replies.asked} nodes replied; silent: ${silent.join(', ')}`)}\n`;
}

/** A state word with its sign. */
export function stateText(paint: Paint, state: string): string {
  if (['active', 'ready', 'following', 'connected', 'up', 'routed', 'served', 'master', 'current'].includes(state)) return paint.ok(state);
  if (['dead', 'stopped', 'down', 'not ready', 'unavailable', 'refused'].includes(state)) return paint.bad(state);
  return paint.warn(state);
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

function processTable(processes: readonly (FrontendProcess & { readonly frontend: string })[], nowMs: number, paint: Paint): string {
  return table(
    paint,
    ['FRONTEND', 'PROCESS', 'VERSION', 'STATE', 'UP', 'SESSIONS', 'CONNECTIONS', 'TIME LEFT'],
    processes.map(({ frontend, pid, version, state, startedAtMs, sessions, connections, leftMs }) => [
      frontend,
      String(pid),
      version,
      state === 'serving' ? paint.ok(state) : stateText(paint, state),
      duration(Math.max(0, nowMs - startedAtMs)),
      String(sessions),
      String(connections),
      leftMs === undefined ? '-' : duration(leftMs),
    ]),
  );
}

function linkTable(links: readonly (LinkUse & { readonly from: string })[], paint: Paint): string {
  return table(
    paint,
    ['LINK FROM', 'TO', 'SERVICE', 'CONNECTIONS', 'SESSIONS ON THEM', 'HITS', 'MISSES', 'REFUSED'],
    links.map(({ from, member, service, isShared, connections, sessions, hits, misses, refused }) => [
      from,
      member,
      service,
      `${connections} ${isShared ? 'shared' : 'own'}`,
      String(sessions),
      String(hits),
      String(misses),
      String(refused),
    ]),
  );
}

function render(report: StatusReport, paint: Paint, isWide: boolean): string {
  const parts: string[] = [];
  const { totals } = report;
  const head = `${counted(totals.sessions, 'session')}, ${counted(totals.accounts, 'account')}, replica lag ${duration(totals.replicaLagMs)}, ${totals.queued} queued`;
  parts.push(`${report.verdict === 'ok' ? paint.ok('ok') : paint.bad('degraded')}  ${head}\n`, repliesLine(report.replies, paint));
  for (const finding of report.findings) {
    const line = `${finding.about} ${finding.what}`;
    parts.push(`${finding.severity === 'failure' ? paint.bad(line) : paint.warn(line)}\n    ${paint.faint(`→ ${finding.fix}`)}\n`);
  }
  if (report.subsets.length > 0) {
    parts.push(
      '\n',
      table(
        paint,
        ['FRONTEND', 'SUBSET', 'STATE', 'SESSIONS', 'LOGINS', 'FAILED', 'QUEUE', 'ROUTES', 'FOLLOWS', ...(isWide ? ['NODE'] : [])],
        report.subsets.flatMap((subset) =>
          subset.frontends.map((frontend) => [
            frontend.name,
            subset.name,
            stateText(paint, frontend.ready ? frontend.state : 'not ready'),
            String(frontend.sessionCount),
            String(frontend.logins.ok),
            String(frontend.logins.failed),
            String(frontend.queue.messages),
            `${frontend.routes.accounts} ${frontend.routes.state}`,
            frontend.routes.server,
            ...(isWide ? [frontend.node] : []),
          ]),
        ),
      ),
    );
  }
  const processes = report.subsets.flatMap((subset) =>
    subset.frontends.flatMap((frontend) => (frontend.processes ?? []).map((process) => ({ frontend: frontend.name, ...process }))),
  );
  // One process each goes without saying.
  if (isWide || processes.length > report.subsets.reduce((sum, { frontends }) => sum + frontends.length, 0)) {
    if (processes.length > 0) parts.push('\n', processTable(processes, report.atMs, paint));
  }
  if (report.directories.length > 0) {
    parts.push(
      '\n',
      table(
        paint,
        ['DIRECTORY', 'MODE', 'STATE', 'ENTRIES', 'CHANGE', 'LAG', 'BACKLOG', 'FOLLOWERS', ...(isWide ? ['CSN', 'NODE'] : [])],
        report.directories.map((directory) => [
          directory.name,
          directory.mode,
          stateText(paint, directory.ready ? (directory.replicationState ?? 'ready') : 'not ready'),
          String(directory.entries),
          String(directory.lastChangeNumber),
          directory.lagMs === undefined ? '-' : duration(directory.lagMs),
          directory.backlogChanges === undefined ? '-' : String(directory.backlogChanges),
          String(directory.followers),
          ...(isWide ? [directory.contextCsn, directory.node] : []),
        ]),
      ),
    );
  }
  if (report.clusters.length > 0) {
    parts.push(
      '\n',
      table(
        paint,
        [
          'MEMBER',
          'CLUSTER',
          'STATE',
          'CONTROLLER',
          'TERM',
          'OPEN',
          'SESSIONS',
          'ACCOUNTS',
          ...(isWide ? ['ADDRESS', 'STORAGE', 'NODE'] : []),
        ],
        report.clusters.flatMap((cluster) =>
          cluster.members.map((member) => [
            member.name,
            cluster.name,
            stateText(paint, member.state),
            member.isController ? 'controller' : '-',
            String(cluster.term),
            // A dead member's last words are no news.
            member.state === 'dead' ? '-' : String(member.openAccounts),
            member.state === 'dead' ? '-' : String(member.sessions),
            String(cluster.accounts),
            ...(isWide ? [member.address, member.storage ?? '-', member.node ?? '-'] : []),
          ]),
        ),
      ),
    );
  }
  const dialling = [...report.subsets.flatMap((subset) => subset.frontends), ...report.clusters.flatMap((cluster) => cluster.members)];
  const links = dialling.flatMap((server) => (server.links ?? []).map((link) => ({ from: server.name, ...link })));
  if (isWide && links.length > 0) parts.push('\n', linkTable(links, paint));
  return parts.join('');
}
