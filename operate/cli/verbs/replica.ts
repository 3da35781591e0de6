/** `archipelago replica status` and `replica verify`. */
import type { ReplicasReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { duration, table, type VerbResult } from '../output.ts';
import { exitCodes } from '../terminal.ts';
import { exitCodeFor, repliesLine, stateText } from './status.ts';

/** How far behind each replica is, in changes and in time. */
export async function replicaStatus(ask: AskApi): Promise<VerbResult> {
  const report = await ask<ReplicasReport>('/api/v1/replicas');
  const { replicas } = report;
  return {
    document: report,
    rows: replicas,
    names: replicas.map((replica) => replica.name),
    render: (paint, isWide) => {
      const master =
        report.master === undefined ? 'no replication service answered\n' : `master ${report.master.url} ${report.master.state}\n`;
      const head = ['REPLICA', 'STATE', 'BACKLOG', 'LAG', 'ADDED', 'MODIFIED', 'RENAMED', 'DELETED', 'CONFLICTS', 'VERIFIED'];
      const rows = replicas.map((replica) => [
        replica.name,
        stateText(paint, replica.state),
        String(replica.backlogChanges),
        duration(replica.lagMs),
        ...(['add', 'modify', 'rename', 'delete'] as const).map((kind) => String(replica.applied[kind])),
        String(replica.conflicts),
        replica.lastVerifyResult ?? 'never',
        ...(isWide ? [replica.url, replica.contextCsn ?? '-', replica.lastError ?? '-'] : []),
      ]);
      return `${repliesLine(report.replies, paint)}${master}${table(paint, [...head, ...(isWide ? ['URL', 'CSN', 'LAST ERROR'] : [])], rows)}`;
    },
    exitCode: exitCodeFor(
      report.replies,
      replicas.some((replica) => replica.state === 'stopped' || replica.state === 'retrying'),
    ),
  };
}

/** Something done about one replica: compared with the master now, or told that it may delete what its refresh asks for. */
export async function replicaAction(ask: AskApi, name: string, action: 'verify' | 'allow-deletes'): Promise<VerbResult> {
  const answer = await ask<{ replica: string; result: string }>(`/api/v1/replicas/${encodeURIComponent(name)}/${action}`, {
    method: 'POST',
    timeoutMs: 600_000,
  });
  return { document: answer, names: [name], render: () => `${answer.replica}: ${answer.result}\n`, exitCode: exitCodes.ok };
}
