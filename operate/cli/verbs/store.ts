/** `archipelago store stat | check | repair` of running clusters. On a directory that no cluster uses the same verbs are in deploy/run/store.ts. */

import type { AccountCheckReport, AccountRepairReport, StoreReport } from '#backend-cluster/client/status.ts';
import { sleep } from '#common/clock.ts';
import type { StatusReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { type Paint, table, type VerbResult } from '../output.ts';
import { exitCodes, type Terminal } from '../terminal.ts';

/** A whole account is read. */
const accountTimeoutMs = 620_000;
/** Between two looks at how far a check of all accounts is. */
const lookEveryMs = 1_000;

/** The stores of all clusters, or of one. */
export async function storeStat(ask: AskApi, cluster: string | undefined): Promise<VerbResult> {
  const names = cluster === undefined ? (await ask<StatusReport>('/api/v1/status')).clusters.map(({ name }) => name) : [cluster];
  const reports = await Promise.all(names.map(async (name) => ({ cluster: name, ...(await ask<StoreReport>(storePath(name))) })));
  return {
    document: reports,
    rows: reports,
    names,
    render: (paint) => reports.map((report) => renderStore(paint, report)).join('\n'),
    exitCode: reports.some((report) => report.damaged > 0) ? exitCodes.degraded : exitCodes.ok,
  };
}

/** Checks one account, while it is in use. */
export async function storeCheckAccount(ask: AskApi, name: string): Promise<VerbResult> {
  const check = await ask<AccountCheckReport>(`/api/v1/accounts/${encodeURIComponent(name)}/check`, {
    method: 'POST',
    body: {},
    timeoutMs: accountTimeoutMs,
  });
  return {
    document: check,
    rows: check.findings,
    names: check.findings.map(({ file }) => file),
    render: (paint) => renderCheck(paint, check),
    exitCode: check.findings.length === 0 ? exitCodes.ok : exitCodes.degraded,
  };
}

/** Has all accounts of a cluster checked, and tells how far it is until it is done. */
export async function storeCheckAll(terminal: Terminal, ask: AskApi, cluster: string, waits: boolean): Promise<VerbResult> {
  const before = await ask<StoreReport>(storePath(cluster));
  const running = before.scrub.last !== undefined && before.scrub.last.finishedAtMs === undefined;
  const round = (before.scrub.last?.round ?? 0) + (running ? 0 : 1);
  let report = await ask<StoreReport>(`${storePath(cluster)}/scrub`, { method: 'POST', body: {} });
  const isOver = (): boolean => {
    const { last } = report.scrub;
    return last !== undefined && (last.round > round || (last.round === round && last.finishedAtMs !== undefined));
  };
  while (waits && !isOver()) {
    await sleep(terminal.clock, lookEveryMs);
    report = await ask<StoreReport>(storePath(cluster));
    const { last } = report.scrub;
    if (last?.round === round) terminal.err(`\r${last.accounts} accounts, ${megabytes(last.bytes)} read, ${last.damaged} damaged `);
  }
  if (waits) terminal.err('\n');
  return {
    document: { cluster, ...report },
    names: report.damagedAccounts.map(({ uuid }) => uuid),
    render: (paint) =>
      waits ? renderStore(paint, { cluster, ...report }) : `the check of ${cluster} has begun: archipelago store stat ${cluster}\n`,
    exitCode: waits && report.damaged > 0 ? exitCodes.degraded : exitCodes.ok,
  };
}

/** Repairs one account, or says what that would do. */
export async function storeRepair(ask: AskApi, name: string, given: { discardLost?: boolean; dryRun?: boolean }): Promise<VerbResult> {
  const repair = await ask<AccountRepairReport>(`/api/v1/accounts/${encodeURIComponent(name)}/repair`, {
    method: 'POST',
    body: { discardLost: given.discardLost === true, dryRun: given.dryRun === true },
    timeoutMs: accountTimeoutMs,
  });
  return {
    document: repair,
    rows: repair.lost,
    names: [repair.uuid],
    render: (paint) => renderRepair(paint, repair),
    exitCode: repair.outcome === 'would-lose' ? exitCodes.degraded : exitCodes.ok,
  };
}

function renderStore(paint: Paint, report: StoreReport & { readonly cluster: string }): string {
  const { last, bytesPerSecond } = report.scrub;
  const check =
    last === undefined
      ? 'never'
      : `round ${last.round}, ${last.finishedAtMs === undefined ? 'running' : `finished ${new Date(last.finishedAtMs).toISOString()}`}, ` +
        `${last.accounts} accounts, ${megabytes(last.bytes)}, ${last.damaged} damaged, ${last.unread} could not be read`;
  const lines = [
    `${paint.strong(report.cluster)}  ${report.engine} ${report.path}`,
    `  damaged  ${report.damaged === 0 ? paint.ok('none') : paint.bad(`${report.damaged} accounts are read-only`)}`,
    `  removed  ${report.removed} accounts whose storage is kept`,
    `  checked  ${check}; ${bytesPerSecond === 0 ? 'only when asked for' : `at most ${megabytes(bytesPerSecond)} a second`}`,
  ];
  const rows = report.damagedAccounts.flatMap(({ uuid, findings, foundBy }) =>
    findings.map(({ file, problem }) => [uuid, foundBy, file, problem]),
  );
  if (rows.length > 0) lines.push('', table(paint, ['ACCOUNT', 'FOUND BY', 'FILE', 'PROBLEM'], rows).trimEnd());
  return `${lines.join('\n')}\n`;
}

function renderCheck(paint: Paint, check: AccountCheckReport): string {
  const counts = `${check.uuid}: ${check.messages} messages, ${check.bodies} bodies, ${check.slots} slots, ${check.snapshots} snapshots`;
  if (check.findings.length === 0) return `${paint.ok(`${counts}: all whole`)}\n`;
  const rows = check.findings.map(({ file, problem }) => [file, problem]);
  const next = check.isComplete
    ? 'nothing is lost: others cover for it'
    : `read-only now; next: archipelago store repair ${check.uuid} --dry-run`;
  return `${paint.bad(counts)}\n${table(paint, ['FILE', 'PROBLEM'], rows)}${next}\n`;
}

function renderRepair(paint: Paint, repair: AccountRepairReport): string {
  const losses = `${repair.lostSlots} log slots and ${repair.lostMessages} messages`;
  const texts = {
    whole: paint.ok('nothing is damaged; the account may be changed again'),
    'can-be-repaired': paint.warn('damaged, and can be repaired without loss'),
    'would-lose': paint.bad(`not repaired: ${losses} cannot be brought back`),
    repaired: paint.ok(`repaired; given up: ${losses}; made anew: ${repair.mended} message structures`),
  } as const;
  const rows = repair.lost.map((one) => [
    one.mailbox,
    String(one.uid),
    new Date(one.internalDateMs).toISOString(),
    String(one.sizeBytes),
    one.why,
  ]);
  const lost = rows.length === 0 ? '' : table(paint, ['MAILBOX', 'UID', 'DATE', 'BYTES', 'WHY'], rows);
  const files =
    repair.findings.length === 0
      ? ''
      : table(
          paint,
          ['FILE', 'PROBLEM'],
          repair.findings.map(({ file, problem }) => [file, problem]),
        );
  const next =
    repair.outcome === 'would-lose'
      ? `put the files back from a backup and repeat, or give them up: archipelago store repair ${repair.uuid} --discard-lost\n`
      : '';
  return `${repair.uuid}: ${texts[repair.outcome]}\n${files}${lost}${next}`;
}

const storePath = (cluster: string): string => `/api/v1/clusters/${encodeURIComponent(cluster)}/store`;
const megabytes = (bytes: number): string => `${(bytes / 1_000_000).toFixed(1)} MB`;
