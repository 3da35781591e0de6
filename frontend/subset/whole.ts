/**
 * One frontend, whatever processes serve it: this one, its helpers, and an earlier one that serves its sessions to their end. Those who ask see one
 * frontend: counts are sums, lists are joined, and what is ordered is ordered everywhere.
 */
import type { LinkUse } from '#backend-cluster/client/status.ts';
import type { Clock } from '#common/clock.ts';
import { withTimeout } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { FrontendProcess, FrontendStatus, GuardReport, KickReport } from '#frontend/client/status.ts';
import type { RunningFrontend } from '#frontend/service.ts';

/** Time that another process has to answer. */
const askMs = 2_000;

/** The same frontend in another process. */
export interface FrontendPart {
  readonly pid: number;
  /** Serves beside this one, and not in its place. */
  readonly isHelper: boolean;
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

/** What goes to an earlier process; it takes no new connections, and decides nothing more. */
const forEarlier = new Set(['kick', 'drain']);
/** What this process knows for all. */
const forOneself = new Set(['guard-ls', 'settings']);

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
    const helpers = new Map(options.parts().map(({ pid, isHelper }) => [pid, isHelper]));
    const others = seen.flatMap((part) => {
      const isHelper = helpers.get(part.processes?.[0]?.pid ?? -1);
      return isHelper === undefined ? [] : [{ isHelper, status: part }];
    });
    return mergedStatus({ ...mine, processes: [self] }, others);
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
    sharing: own.sharing,
    connections: () => own.connections(),
    drainMs: () => own.drainMs(),
    status,
    refresh,
    reload: async () => own.reload?.(),
    readiness: () => own.readiness(),
    explain: (address) => own.explain(address),
    async control(action, body) {
      if (action === 'restart') return options.restart(termsOf(body));
      // Here first: what is refused here is asked of nobody, and a port is opened here before it is passed on.
      const answer = await own.control(action, body);
      const asked = options.parts().filter(({ isHelper }) => (isHelper ? !forOneself.has(action) : forEarlier.has(action)));
      const settled = await Promise.allSettled(asked.map((part) => part.control(action, body)));
      const answers = settled.flatMap((one, index) =>
        one.status === 'fulfilled' ? [{ isHelper: asked[index]?.isHelper === true, given: one.value }] : [],
      );
      return mergedAnswer(action, answer, answers);
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

type Withdrawn = FrontendStatus['withdrawal'];

function mergedStatus(
  own: FrontendStatus,
  others: readonly { readonly isHelper: boolean; readonly status: FrontendStatus }[],
): FrontendStatus {
  if (others.length === 0) return own;
  const all = [own, ...others.map(({ status }) => status)];
  const sum = (of: (status: FrontendStatus) => number): number => all.reduce((total, status) => total + of(status), 0);
  return {
    ...own,
    withdrawal: mergedWithdrawal(
      own.withdrawal,
      others.filter(({ isHelper }) => isHelper).map(({ status }) => status.withdrawal),
    ),
    listeners: own.listeners.map((listener) => ({
      ...listener,
      sessions: sum(
        ({ listeners }) => listeners.find(({ port, address }) => port === listener.port && address === listener.address)?.sessions ?? 0,
      ),
    })),
    sessions: all.flatMap(({ sessions }) => sessions),
    logins: {
      ok: sum(({ logins }) => logins.ok),
      failed: sum(({ logins }) => logins.failed),
      refused: sum(({ logins }) => logins.refused),
    },
    links: mergedLinks(all.flatMap(({ links }) => links ?? [])),
    processes: all.flatMap(({ processes }) => processes ?? []),
  };
}

function mergedLinks(links: readonly LinkUse[]): LinkUse[] {
  const merged = new Map<string, LinkUse>();
  for (const link of links) {
    const key = `${link.member} ${link.service}`;
    const sum = merged.get(key);
    merged.set(
      key,
      sum === undefined
        ? link
        : {
            ...sum,
            connections: sum.connections + link.connections,
            sessions: sum.sessions + link.sessions,
            hits: sum.hits + link.hits,
            misses: sum.misses + link.misses,
            refused: sum.refused + link.refused,
          },
    );
  }
  return [...merged.values()];
}

function mergedAnswer(action: string, own: unknown, others: readonly { readonly isHelper: boolean; readonly given: unknown }[]): unknown {
  const given = others.map((other) => other.given);
  if (action === 'kick') return mergedKick(own as KickReport, given as KickReport[]);
  if (action === 'guard-why') {
    const of = (report: unknown): number => (report as GuardReport).connections ?? 0;
    return { ...(own as GuardReport), connections: given.reduce((total: number, report) => total + of(report), of(own)) };
  }
  if (action.startsWith('guard-') || forOneself.has(action)) return own;
  const ofHelpers = others.filter(({ isHelper }) => isHelper).map((other) => other.given as Withdrawn);
  return mergedWithdrawal(own as Withdrawn, ofHelpers);
}

/** Drained when all are. */
function mergedWithdrawal(own: Withdrawn, others: readonly Withdrawn[]): Withdrawn {
  const drains = [own, ...others].flatMap(({ drain }) => drain ?? []);
  if (own.drain === undefined || drains.length === 1) return own;
  const sum = (of: (drain: (typeof drains)[number]) => number): number => drains.reduce((total, drain) => total + of(drain), 0);
  return {
    ...own,
    state: others.some(({ state }) => state === 'draining') ? 'draining' : own.state,
    drain: {
      connectionsAtStart: sum((drain) => drain.connectionsAtStart),
      connectionsLeft: sum((drain) => drain.connectionsLeft),
      perSecond: sum((drain) => drain.perSecond),
      leftMs: Math.max(...drains.map(({ leftMs }) => leftMs)),
    },
  };
}

function mergedKick(own: KickReport, others: readonly KickReport[]): KickReport {
  return {
    ...own,
    ended: others.reduce((total, { ended }) => total + ended, own.ended),
    sessions: [own, ...others].flatMap(({ sessions }) => sessions),
  };
}
