/**
 * One frontend, whatever processes serve it: this one, and others that have sessions of it (an earlier one that serves them to their end). Those who ask
 * see one frontend: counts are sums, lists are joined, and what ends sessions ends them everywhere.
 */
import type { Clock } from '#common/clock.ts';
import { withTimeout } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { FrontendProcess, FrontendStatus, KickReport } from '#frontend/client/status.ts';
import type { RunningFrontend } from '#frontend/service.ts';

/** Time that another process has to answer. */
const askMs = 2_000;

/** The same frontend in another process. */
export interface FrontendPart {
  readonly pid: number;
  /** Its own picture, with that of its parts. */
  status(): Promise<FrontendStatus>;
  control(action: string, body: Readonly<Record<string, unknown>>): Promise<unknown>;
}

/** What the whole is made of. */
export interface WholeFrontendOptions {
  readonly own: RunningFrontend;
  readonly clock: Clock;
  readonly pid: number;
  readonly version: string;
  /** Asked anew each time; processes come and go. */
  parts(): readonly FrontendPart[];
  /** Starts a successor of this process. */
  restart(terms: { readonly deadlineMs: number | undefined; readonly withinMs: number | undefined }): Promise<unknown>;
}

/** What goes to every process that has sessions. */
const everywhere = new Set(['kick', 'drain']);

/** The whole frontend; disposing of it disposes of this process's part. */
export function wholeFrontend(options: WholeFrontendOptions): RunningFrontend {
  const { own, clock } = options;
  const startedAtMs = clock.nowMs();
  let seen: readonly FrontendStatus[] = [];
  const status = (): FrontendStatus => {
    const mine = own.status();
    const self: FrontendProcess = {
      pid: options.pid,
      version: options.version,
      startedAtMs,
      state: own.succession.isLeaving ? 'leaving' : 'serving',
      sessions: mine.sessions.length,
      connections: own.connections(),
      leftMs: own.succession.leftMs,
    };
    // A part that has ended since it was asked counts no more.
    const pids = new Set(options.parts().map(({ pid }) => pid));
    return mergedStatus(
      { ...mine, processes: [self] },
      seen.filter(({ processes }) => pids.has(processes?.[0]?.pid ?? -1)),
    );
  };
  const refresh = async (): Promise<void> => {
    const asked = options.parts().map((part) => withTimeout(clock, askMs, part.status(), () => new Error(`process ${part.pid} is silent`)));
    const answers = await Promise.allSettled(asked);
    seen = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
  };
  return {
    role: own.role,
    name: own.name,
    succession: own.succession,
    connections: () => own.connections(),
    status,
    refresh,
    reload: async () => own.reload?.(),
    readiness: () => own.readiness(),
    explain: (address) => own.explain(address),
    async control(action, body) {
      if (action === 'restart') return options.restart(termsOf(body));
      const others = everywhere.has(action) ? options.parts() : [];
      const [first, ...rest] = await Promise.allSettled([own.control(action, body), ...others.map((part) => part.control(action, body))]);
      if (first?.status !== 'fulfilled') throw asPlatformError(first?.reason);
      const answers = rest.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
      return action === 'kick' ? mergedKick(first.value as KickReport, answers as KickReport[]) : first.value;
    },
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}

function termsOf({ deadlineMs, withinMs }: Readonly<Record<string, unknown>>): {
  deadlineMs: number | undefined;
  withinMs: number | undefined;
} {
  const positive = (value: unknown, name: string): number | undefined => {
    if (value === undefined) return undefined;
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) return value;
    throw new PlatformError('ADMIN_BAD_REQUEST', `${name} is not a number above 0`);
  };
  return { deadlineMs: positive(deadlineMs, 'deadlineMs'), withinMs: positive(withinMs, 'withinMs') };
}

function mergedStatus(own: FrontendStatus, others: readonly FrontendStatus[]): FrontendStatus {
  if (others.length === 0) return own;
  const all = [own, ...others];
  const sum = (of: (status: FrontendStatus) => number): number => all.reduce((total, status) => total + of(status), 0);
  return {
    ...own,
    sessions: all.flatMap(({ sessions }) => sessions),
    logins: {
      ok: sum(({ logins }) => logins.ok),
      failed: sum(({ logins }) => logins.failed),
      refused: sum(({ logins }) => logins.refused),
    },
    processes: all.flatMap(({ processes }) => processes ?? []),
  };
}

function mergedKick(own: KickReport, others: readonly KickReport[]): KickReport {
  return {
    ...own,
    ended: others.reduce((total, { ended }) => total + ended, own.ended),
    sessions: [own, ...others].flatMap(({ sessions }) => sessions),
  };
}
