/** `archipelago user why NAME`: where a user is and why, step by step, with a verdict and what to do. */
import type { WhyReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { duration, type Paint, type VerbResult } from '../output.ts';
import { type ExitCode, exitCodes } from '../terminal.ts';
import { repliesLine } from './status.ts';

/** Asks and lays out. */
export async function userWhy(ask: AskApi, address: string): Promise<VerbResult> {
  const report = await ask<WhyReport>(`/api/v1/users/${encodeURIComponent(address)}/why`);
  return {
    document: report,
    names: [report.whereabouts?.currentHost ?? report.account?.hostServer ?? '-'],
    render: (paint, isWide) => render(report, paint, isWide),
    exitCode: exitCodeOf(report),
  };
}

function exitCodeOf({ verdict, replies }: WhyReport): ExitCode {
  if (verdict.state === 'unknown') return exitCodes.notFound;
  if (verdict.state !== 'served') return exitCodes.degraded;
  return replies.replied < replies.asked ? exitCodes.partial : exitCodes.ok;
}

function render(report: WhyReport, paint: Paint, isWide: boolean): string {
  const lines: [string, string][] = [['address', report.address]];
  const { directory, account, whereabouts } = report;
  if (directory.error !== undefined) lines.push(['directory', paint.bad(directory.error)]);
  else
    lines.push([
      'directory',
      `asked ${directory.server ?? '-'}${directory.lagMs === undefined ? '' : `, lag ${duration(directory.lagMs)}`}`,
    ]);
  for (const server of directory.servers) {
    const lag = server.lagMs === undefined ? 'lag unknown' : `lag ${duration(server.lagMs)}`;
    const seen = server.reachable
      ? `${server.isMaster ? 'master' : 'replica'}, ${lag}`
      : paint.bad(`unreachable: ${server.lastError ?? 'no reason known'}`);
    lines.push(['', `${server.url}  ${seen}`]);
  }
  if (account !== undefined) {
    lines.push(['entry', `${account.dn}  ${account.uuid}  ${account.status}`]);
    lines.push(['hostServer', account.hostServer ?? paint.bad(account.hostServerProblem ?? 'none')]);
  } else if (directory.error === undefined) {
    lines.push(['entry', 'none']);
  }
  if (whereabouts !== undefined) {
    const host = whereabouts.currentHost === undefined ? '' : ` on ${whereabouts.currentHost}`;
    const epoch = whereabouts.epoch === undefined ? '' : `, epoch ${whereabouts.epoch}`;
    lines.push(['cluster', `${whereabouts.state}${host}${epoch}`]);
  } else if (report.whereaboutsError !== undefined) {
    lines.push(['cluster', paint.bad(report.whereaboutsError)]);
  }
  for (const [index, each] of report.explanations.entries()) {
    const outcome =
      each.verdict === 'routed'
        ? paint.ok(`${each.hostServer ?? '-'} → ${each.member ?? '-'}${each.memberReason === undefined ? '' : ` (${each.memberReason})`}`)
        : paint.bad(`${each.verdict}: ${each.steps.at(-1)?.found ?? ''}`);
    lines.push([index === 0 ? 'frontends' : '', `${each.frontend} (${each.subset})  ${outcome}`]);
    if (isWide) for (const step of each.steps) lines.push(['', `    ${step.what}: ${step.found}`]);
  }
  if (report.disagreement !== undefined) lines.push(['', paint.warn(`frontends disagree: ${report.disagreement}`)]);
  for (const [index, session] of report.sessions.entries()) {
    const since = duration(Math.max(0, report.atMs - session.startedAtMs));
    lines.push([
      index === 0 ? 'sessions' : '',
      `${session.sessionId}  ${session.protocol}  from ${session.clientAddress}  ${session.frontend} → ${session.member}  for ${since}`,
    ]);
  }
  if (report.sessions.length === 0) lines.push(['sessions', 'none']);
  const { verdict } = report;
  lines.push(['verdict', verdict.state === 'served' ? paint.ok(verdict.text) : paint.bad(verdict.text)]);
  if (verdict.fix !== undefined) lines.push(['fix', verdict.fix]);
  return `${repliesLine(report.replies, paint)}${lines.map(([key, text]) => `${paint.strong(key.padEnd(11))}${text}\n`).join('')}`;
}
