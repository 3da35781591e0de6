/** `archipelago replica`: status, and what can be asked of one replica. */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { ReplicaActionReport, ReplicasReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { duration, type Paint, table, type VerbResult } from '../output.ts';
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
        report.master === undefined
          ? 'no replication service answered\n'
          : `master ${report.master.url} ${report.master.state}${problemText(paint, report.master.problem)}\n`;
      const head = [
        'REPLICA',
        'STATE',
        'BACKLOG',
        'LAG',
        'RECEIVE',
        'RATE',
        'ADDED',
        'MODIFIED',
        'RENAMED',
        'DELETED',
        'CONFLICTS',
        'REFUSED',
        'VERIFIED',
      ];
      const rows = replicas.map((replica) => [
        replica.name,
        stateText(paint, replica.state),
        String(replica.backlogChanges),
        duration(replica.lagMs),
        receiveText(replica),
        `${replica.changesPerSecond ?? 0}/s`,
        ...(['add', 'modify', 'rename', 'delete'] as const).map((kind) => String(replica.applied[kind])),
        String(replica.conflicts),
        String(replica.refused.entries),
        verifiedText(replica),
        ...(isWide ? [lastVerifiedText(replica), replica.service, replica.url, replica.contextCsn ?? '-', replica.lastError ?? '-'] : []),
      ]);
      const shown =
        replicas.length === 0
          ? ''
          : table(paint, [...head, ...(isWide ? ['VERIFIED AT', 'WRITTEN BY', 'URL', 'CSN', 'LAST ERROR'] : [])], rows);
      return `${repliesLine(report.replies, paint)}${master}${shown}${refreshLines(report)}${writersTable(report, paint)}`;
    },
    exitCode: exitCodeFor(
      report.replies,
      replicas.some((replica) => replica.state === 'stopped' || replica.state === 'retrying') ||
        report.writers.some(({ servers }) => servers.some((one) => one.state !== 'current')),
    ),
  };
}

function problemText(paint: Paint, problem: string | undefined): string {
  return problem === undefined ? '' : ` ${paint.bad(problem)}`;
}

/** How far each refresh is that runs, and what it waits for. */
function refreshLines({ replicas }: ReplicasReport): string {
  const lines = replicas.flatMap(({ name, refresh }) => {
    if (refresh === undefined) return [];
    const { entries, ofEntries, named, waitsFor } = refresh;
    const of = ofEntries === undefined ? '' : ` of ${counted(ofEntries)}`;
    const alsoNamed = named === 0 ? '' : `, ${counted(named)} named`;
    return [
      `${name} refresh: ${counted(entries)}${of} entries taken${alsoNamed}${waitsFor === undefined ? '' : `; waits for ${waitsFor}`}\n`,
    ];
  });
  return lines.join('');
}

function counted(count: number): string {
  return count.toLocaleString('en-US');
}

/** How far what was received is behind the master: changes where they are counted, and time. */
function receiveText({ receive }: ReplicasReport['replicas'][number]): string {
  if (receive?.lagMs === undefined) return '-';
  return receive.lagChanges === undefined ? duration(receive.lagMs) : `${receive.lagChanges} (${duration(receive.lagMs)})`;
}

/** What the last comparison said, and how far the one is that goes on all the time. */
function verifiedText({ lastVerifyResult, lastVerifyFailure, continuous }: ReplicasReport['replicas'][number]): string {
  const last = `${lastVerifyResult ?? 'never'}${lastVerifyFailure === undefined ? '' : '; not since, see -o wide'}`;
  if (continuous === undefined) return last;
  const { share, checked, differing, waitsFor } = continuous;
  const far = share === undefined ? `${checked} entries` : `${Math.floor(share * 100)} %`;
  const found = differing === 0 ? '' : `, ${differing} differ`;
  return `${last}; now at ${far}${found}${waitsFor === undefined || share === 1 ? '' : `, waits: ${waitsFor}`}`;
}

function lastVerifiedText({ lastVerifiedAtMs, lastVerifyFailure }: ReplicasReport['replicas'][number]): string {
  const at = lastVerifiedAtMs === undefined ? '-' : new Date(lastVerifiedAtMs).toISOString();
  return lastVerifyFailure === undefined ? at : `${at}; after that: ${lastVerifyFailure}`;
}

/** Who writes all servers at once; nothing where nobody does. */
function writersTable({ writers }: ReplicasReport, paint: Paint): string {
  const rows = writers.flatMap(({ writer, servers }) =>
    servers.map((one) => [
      writer,
      one.name,
      stateText(paint, one.state),
      String(one.backlogChanges),
      one.isCut ? 'dropped' : '',
      String(one.refused.length),
      one.lastError ?? '-',
    ]),
  );
  return rows.length === 0 ? '' : `\n${table(paint, ['WRITER', 'SERVER', 'STATE', 'OUTBOX', 'CUT', 'REFUSED', 'LAST ERROR'], rows)}`;
}

/** Of a command whose service may have gone on, or not. */
const unanswered: ReadonlySet<string> = new Set(['NET_CLOSED', 'NET_TIMEOUT']);

/** What can be asked of one replica. */
export type ReplicaAction = 'wait' | 'allow-deletes' | 'resume' | 'promote';

/** Asks it. */
export async function replicaAction(
  ask: AskApi,
  name: string,
  action: ReplicaAction,
  body: Readonly<Record<string, unknown>> = {},
): Promise<VerbResult> {
  const answer = await ask<ReplicaActionReport>(`/api/v1/replicas/${encodeURIComponent(name)}/${action}`, {
    method: 'POST',
    body,
    timeoutMs: 600_000,
  }).catch((error: unknown) => {
    if (action !== 'promote' || !(error instanceof PlatformError) || !unanswered.has(error.code) || error.fields.hint !== undefined)
      throw error;
    throw new PlatformError(error.code, `whether ${name} is the master is not known: ${error.message}`, {
      cause: error,
      fields: { ...error.fields, hint: `ask for the same again: it goes on from there, or says that ${name} is the master already` },
    });
  });
  return { document: answer, names: [name], render: () => `${answer.replica}: ${answer.result}\n`, exitCode: exitCodes.ok };
}
