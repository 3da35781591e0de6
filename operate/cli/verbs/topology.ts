/** `archipelago topology`: who serves whom, as a tree. */
import type { TopologyReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import type { Paint, VerbResult } from '../output.ts';
import { exitCodeFor, repliesLine, stateText } from './status.ts';

/** Asks and lays out. */
export async function topology(ask: AskApi): Promise<VerbResult> {
  const report = await ask<TopologyReport>('/api/v1/topology');
  return {
    document: report,
    names: [
      ...report.subsets.flatMap((subset) => subset.frontends.map((frontend) => frontend.name)),
      ...report.directories.map((directory) => directory.name),
      ...report.clusters.flatMap((cluster) => cluster.members.map((member) => member.name)),
    ],
    render: (paint, isWide) => render(report, paint, isWide),
    exitCode: exitCodeFor(report.replies, false),
  };
}

function render(report: TopologyReport, paint: Paint, isWide: boolean): string {
  const lines: string[] = [];
  for (const subset of report.subsets) {
    lines.push(`${paint.strong(`subset ${subset.name}`)}${subset.region === undefined ? '' : ` (region ${subset.region})`}`);
    for (const frontend of subset.frontends) {
      lines.push(`  ${frontend.name}  follows ${frontend.follows}`);
      if (isWide) for (const listener of frontend.listeners) lines.push(`      ${listener}`);
      const reaches = frontend.reaches.map((each) => `${each.cluster} ${each.up}/${each.members}`).join(', ');
      lines.push(`      reaches ${reaches === '' ? 'no cluster yet' : reaches}`);
    }
  }
  if (report.directories.length > 0) lines.push(paint.strong('directory'));
  for (const directory of report.directories) lines.push(`  ${directory.name}  ${directory.mode}  ${directory.urls.join(' ')}`);
  for (const cluster of report.clusters) {
    lines.push(paint.strong(`cluster ${cluster.name}`));
    for (const member of cluster.members) {
      const role = member.name === cluster.controller ? '  controller' : '';
      lines.push(`  ${member.name}  ${stateText(paint, member.state)}${role}  ${member.address}`);
    }
  }
  return `${repliesLine(report.replies, paint)}${lines.map((line) => `${line}\n`).join('')}`;
}
