/** `archipelago sessions`: live sessions of all frontends. */
import type { SessionsReport } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import { bytes, duration, table, type VerbResult } from '../output.ts';
import type { Terminal } from '../terminal.ts';
import { exitCodeFor, repliesLine } from './status.ts';

/** Which sessions are wanted. */
export interface SessionOptions {
  readonly account?: string;
  readonly protocol?: string;
  readonly cluster?: string;
  readonly member?: string;
  readonly frontend?: string;
  readonly limit?: number;
}

/** Asks and lays out. */
export async function sessions(terminal: Terminal, ask: AskApi, options: SessionOptions): Promise<VerbResult> {
  const query = new URLSearchParams({ limit: String(options.limit ?? 200) });
  for (const key of ['account', 'protocol', 'cluster', 'member', 'frontend'] as const) {
    const value = options[key];
    if (value !== undefined) query.set(key, value);
  }
  const report = await ask<SessionsReport>(`/api/v1/sessions?${query.toString()}`);
  return {
    document: report,
    rows: report.sessions,
    names: report.sessions.map((session) => session.sessionId),
    render: (paint, isWide) => {
      const head = ['SESSION', 'PROTOCOL', 'ACCOUNT', 'CLIENT', 'FRONTEND', 'MEMBER', 'SINCE', 'IN', 'OUT'];
      const rows = report.sessions.map((session) => [
        session.sessionId,
        session.protocol,
        session.account,
        session.clientAddress,
        session.frontend,
        session.member,
        isWide ? new Date(session.startedAtMs).toISOString() : duration(Math.max(0, terminal.clock.nowMs() - session.startedAtMs)),
        bytes(session.bytesIn),
        bytes(session.bytesOut),
      ]);
      const more = report.total > report.sessions.length ? `${report.sessions.length} of ${report.total} shown; see --limit\n` : '';
      const body = rows.length === 0 ? 'no live session\n' : table(paint, head, rows);
      return `${repliesLine(report.replies, paint)}${body}${more}`;
    },
    exitCode: exitCodeFor(report.replies, false),
  };
}
