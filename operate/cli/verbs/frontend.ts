/**
 * `archipelago frontend | subset`: taking frontends out of service and back in; `archipelago guard`: what they hold against addresses;
 * `archipelago kick`: ending live sessions.
 */
import { sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { FrontendSettings, FrontendStatus, GuardReport, KickReport, RestartReport } from '#frontend/client/status.ts';
import type { FrontendAction } from '../../api/frontend-actions.ts';
import type { FrontendView, StatusReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { duration, table, type VerbResult } from '../output.ts';
import { exitCodes, type Terminal } from '../terminal.ts';
import { stateText } from './status.ts';

/** One frontend, or all of a subset. */
export type Target = { readonly frontend: string } | { readonly subset: string };

/** Terms of a drain. */
export interface DrainTerms {
  /** Seconds. */
  readonly deadline: number;
  /** Sessions a second and frontend. */
  readonly pace?: number;
  readonly force?: boolean;
  readonly wait?: boolean;
}

/** Terms of a restart, seconds. */
export interface RestartTerms {
  readonly deadline: number;
  readonly within: number;
}

interface Withdrawn {
  readonly frontend: string;
  readonly subset: string;
  readonly withdrawal: FrontendStatus['withdrawal'];
}

/** Beyond the time that the new process has. */
const graceMs = 20_000;
/** Between two looks at a drain. */
const lookEveryMs = 1000;

/** Asks each of them. */
export async function withdraw(
  ask: AskApi,
  target: Target,
  action: FrontendAction,
  body: Readonly<Record<string, unknown>> = {},
): Promise<VerbResult> {
  const { targets } = await find(ask, target);
  return result(await askEach(ask, targets, action, body));
}

/** Drains them, unless that would leave a subset with no frontend that serves; with `wait` it stays until all are drained. */
export async function drain(terminal: Terminal, ask: AskApi, target: Target, terms: DrainTerms): Promise<VerbResult> {
  const { targets, all } = await find(ask, target);
  const leaving = new Set(targets.map(({ name }) => name));
  for (const subset of new Set(targets.map((frontend) => frontend.subset))) {
    const stays = all.filter((other) => other.subset === subset && other.ready && !leaving.has(other.name));
    if (stays.length === 0 && terms.force !== true) {
      throw new PlatformError('ADMIN_BAD_REQUEST', `no other frontend of subset ${subset} serves; its users would find nobody`, {
        fields: { hint: `--force, once the clients of ${subset} are sent to another subset` },
      });
    }
  }
  const body = { deadlineMs: terms.deadline * 1000, ...(terms.pace === undefined ? {} : { perSecond: terms.pace }) };
  let drained = await askEach(ask, targets, 'drain', body);
  while (terms.wait === true && drained.some(({ withdrawal }) => withdrawal.state === 'draining')) {
    for (const { frontend, withdrawal } of drained) {
      terminal.err(
        `${frontend}: ${withdrawal.drain?.connectionsLeft ?? 0} of ${withdrawal.drain?.connectionsAtStart ?? 0} connections left\n`,
      );
    }
    await sleep(terminal.clock, lookEveryMs);
    drained = (await find(ask, target)).targets.map(({ name, subset, withdrawal }) => ({ frontend: name, subset, withdrawal }));
  }
  return result(drained);
}

/** Has a frontend go on in a new process. */
export async function restart(ask: AskApi, name: string, { deadline, within }: RestartTerms): Promise<VerbResult> {
  const body = { deadlineMs: deadline * 1000, withinMs: within * 1000 };
  const timeoutMs = within * 1000 + graceMs;
  const report = await ask<RestartReport>(path(name, 'restart'), { method: 'POST', body, timeoutMs });
  return {
    document: report,
    rows: [report],
    names: [String(report.to.pid)],
    render: (paint) =>
      table(
        paint,
        ['FRONTEND', 'FROM', 'TO', 'TOOK', 'LEFT THERE', 'TIME LEFT'],
        report.frontends.map((frontend) => [
          frontend,
          `${report.from.pid} (${report.from.version})`,
          `${report.to.pid} (${report.to.version})`,
          duration(report.tookMs),
          String(report.from.connections),
          duration(report.deadlineMs),
        ]),
      ),
    exitCode: exitCodes.ok,
  };
}

/** What frontends hold against addresses and accounts; of one, with `what`. */
export async function guardShow(terminal: Terminal, ask: AskApi, what?: string): Promise<VerbResult> {
  return guardResult(
    terminal,
    await everyFrontend<GuardReport>(ask, what === undefined ? 'guard-ls' : 'guard-why', what === undefined ? {} : { what }),
    what,
  );
}

/** Sets or removes a rule on every frontend. */
export async function guardSet(
  terminal: Terminal,
  ask: AskApi,
  action: 'guard-block' | 'guard-allow' | 'guard-forget',
  what: string,
  given: { readonly for?: number; readonly reason?: string },
): Promise<VerbResult> {
  const body = {
    what,
    ...(given.for === undefined ? {} : { forMs: given.for * 60_000 }),
    ...(given.reason === undefined ? {} : { reason: given.reason }),
  };
  return guardResult(terminal, await everyFrontend<GuardReport>(ask, action, body), what);
}

/** What running frontends run with, and where each value comes from; of one, or of all. */
export async function settingsShow(ask: AskApi, name?: string): Promise<VerbResult> {
  const reports =
    name === undefined
      ? await everyFrontend<FrontendSettings>(ask, 'settings', {})
      : [await ask<FrontendSettings>(path(name, 'settings'), { method: 'POST', body: {} })];
  const rows = reports.flatMap(({ frontend, entry, settings }) =>
    settings.map((one) => ({ frontend, ...one, origin: one.origin === 'subset' ? (entry ?? one.origin) : one.origin })),
  );
  const refused = reports.flatMap((report) => report.refused.map((one) => ({ frontend: report.frontend, ...one })));
  return {
    document: reports,
    rows,
    names: reports.map(({ frontend }) => frontend),
    render: (paint) =>
      [
        table(
          paint,
          ['FRONTEND', 'SETTING', 'VALUE', 'FROM'],
          rows.map((row) => [row.frontend, row.setting, String(row.value), row.origin]),
        ),
        ...(refused.length === 0
          ? []
          : [
              table(
                paint,
                ['FRONTEND', 'REFUSED', 'EXPECTED', 'STAYS', 'IN'],
                refused.map((row) => [row.frontend, paint.bad(row.seen), row.expected, String(row.stays ?? '-'), row.entry]),
              ),
            ]),
      ].join('\n'),
    exitCode: refused.length === 0 ? exitCodes.ok : exitCodes.degraded,
  };
}

/** Ends sessions on all frontends: of an account, of an address or range, or one by its id. */
export async function kick(ask: AskApi, what: string): Promise<VerbResult> {
  const reports = await everyFrontend<KickReport>(ask, 'kick', { what });
  const ended = reports.reduce((sum, report) => sum + report.ended, 0);
  if (ended === 0) {
    throw new PlatformError('ADMIN_NOT_FOUND', `no live session of ${what}`, { fields: { hint: 'archipelago sessions lists them' } });
  }
  const rows = reports.filter((report) => report.ended > 0);
  return {
    document: reports,
    rows,
    names: rows.flatMap(({ sessions }) => sessions),
    render: (paint) =>
      table(
        paint,
        ['FRONTEND', 'SUBSET', 'ENDED'],
        rows.map((row) => [row.frontend, row.subset, String(row.ended)]),
      ),
    exitCode: exitCodes.ok,
  };
}

async function find(ask: AskApi, target: Target): Promise<{ targets: readonly FrontendView[]; all: readonly FrontendView[] }> {
  const report = await ask<StatusReport>('/api/v1/status');
  const all = report.subsets.flatMap((subset) => subset.frontends);
  const targets = all.filter((one) => ('frontend' in target ? one.name === target.frontend : one.subset === target.subset));
  if (targets.length === 0) {
    const known = 'frontend' in target ? all.map(({ name }) => name) : report.subsets.map(({ name }) => name);
    throw new PlatformError(
      'ADMIN_NOT_FOUND',
      `there is no ${'frontend' in target ? `frontend ${target.frontend}` : `subset ${target.subset}`}`,
      {
        fields: { hint: `known: ${known.join(', ')}` },
      },
    );
  }
  return { targets, all };
}

function askEach(
  ask: AskApi,
  targets: readonly FrontendView[],
  action: FrontendAction,
  body: Readonly<Record<string, unknown>>,
): Promise<Withdrawn[]> {
  return Promise.all(
    targets.map(async ({ name, subset }) => ({
      frontend: name,
      subset,
      withdrawal: await ask<FrontendStatus['withdrawal']>(path(name, action), { method: 'POST', body }),
    })),
  );
}

/** Asks every frontend of the installation. Rejects when none does it. */
async function everyFrontend<Report>(ask: AskApi, action: FrontendAction, body: Readonly<Record<string, unknown>>): Promise<Report[]> {
  const report = await ask<StatusReport>('/api/v1/status');
  const names = report.subsets.flatMap((subset) => subset.frontends.map(({ name }) => name));
  const asked = await Promise.allSettled(names.map((name) => ask<Report>(path(name, action), { method: 'POST', body })));
  const answers = asked.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const refusal = asked.find((one) => one.status === 'rejected');
  // Forgetting succeeds where there was something to forget; what all refuse is refused.
  if (refusal !== undefined && answers.length === 0) throw refusal.reason;
  return answers;
}

function path(name: string, action: FrontendAction): string {
  return `/api/v1/frontends/${encodeURIComponent(name)}/${action}`;
}

function result(rows: readonly Withdrawn[]): VerbResult {
  return {
    document: rows,
    rows,
    names: rows.map(({ frontend }) => frontend),
    render: (paint) =>
      table(
        paint,
        ['FRONTEND', 'SUBSET', 'STATE', 'WEIGHT', 'LEFT', 'PACE', 'TIME LEFT'],
        rows.map(({ frontend, subset, withdrawal: { state, weight, drain: terms } }) => [
          frontend,
          subset,
          state === 'serving' ? paint.ok(state) : stateText(paint, state),
          `${weight} %`,
          terms === undefined ? '-' : `${terms.connectionsLeft} of ${terms.connectionsAtStart}`,
          terms === undefined ? '-' : `${terms.perSecond}/s`,
          terms === undefined ? '-' : duration(terms.leftMs),
        ]),
      ),
    exitCode: exitCodes.ok,
  };
}

function guardResult(terminal: Terminal, reports: readonly GuardReport[], what: string | undefined): VerbResult {
  const rules = reports.flatMap((report) => report.rules.map((rule) => ({ frontend: report.frontend, ...rule })));
  const entries = reports.flatMap((report) => report.entries.map((entry) => ({ frontend: report.frontend, ...entry })));
  const peers = reports.flatMap((report) => (report.peers ?? []).map((peer) => ({ frontend: report.frontend, ...peer })));
  return {
    document: reports,
    rows: [...rules, ...entries],
    names: [...rules.map(({ range }) => range), ...entries.map(({ key }) => key)],
    render: (paint) => {
      const verdicts = reports.flatMap(({ frontend, verdict, connections }) =>
        verdict === undefined ? [] : [[frontend, String(connections ?? 0), verdict]],
      );
      const parts = [
        what === undefined || verdicts.length === 0 ? '' : table(paint, ['FRONTEND', 'CONNECTIONS', `OF ${what}`], verdicts),
        rules.length === 0
          ? ''
          : table(
              paint,
              ['FRONTEND', 'RANGE', 'RULE', 'FOR', 'SET AT', 'REASON'],
              rules.map((rule) => [
                rule.frontend,
                rule.range,
                rule.verdict,
                duration(Math.max(0, rule.untilMs - terminal.clock.nowMs())),
                rule.setAt ?? '-',
                rule.reason,
              ]),
            ),
        entries.length === 0
          ? ''
          : table(
              paint,
              ['FRONTEND', 'KIND', 'WHO', 'FAILURES', 'LAST', 'OF THEM ELSEWHERE'],
              entries.map((entry) => [
                entry.frontend,
                entry.kind,
                entry.key,
                entry.failures.toFixed(1),
                `${duration(entry.lastFailureMsAgo)} ago`,
                (entry.elsewhere ?? []).map(({ frontend, failures }) => `${failures.toFixed(1)} at ${frontend}`).join(', ') || '-',
              ]),
            ),
        what !== undefined || peers.length === 0
          ? ''
          : table(
              paint,
              ['FRONTEND', 'TELLS', 'STATE'],
              peers.map((peer) => [
                peer.frontend,
                peer.name,
                peer.isConnected ? paint.ok('connected') : paint.bad(peer.lastError ?? 'not yet'),
              ]),
            ),
      ].filter((part) => part !== '');
      return parts.length === 0 ? 'no rule, and no failed login that still counts\n' : parts.join('\n');
    },
    exitCode: exitCodes.ok,
  };
}
