/**
 * The processes of one frontend that serve sessions: this one, and helpers that it starts and hands its listening sockets.
 *
 *   first process   listens, accepts; mail, health, metrics, admin API; the route index,  ◄─┬─► helper 2   accepts sessions (worker.ts)
 *                   which the others read; tells and is told of failed logins, connections  └─► helper 3
 *
 * All accept from the same queue of the system, so that whoever has time takes the next client. A helper that dies takes its sessions with it and is
 * started again, after a second first and later up to a minute; the others go on. When the first process dies the helpers accept no more
 * and serve their sessions to their end, so that the next first process finds the ports free.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { AccountName } from '#common/account-name.ts';
import { type Clock, type Timer, withTimeout } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LabelledExposition } from '#common/metrics/merge.ts';
import type { ListeningSockets } from '#common/network/listening-sockets.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import type { RunningFrontend } from '#frontend/main.ts';
import type { SharedIndexMemory } from '#frontend/routing/shared-index.ts';
import { type ListenerCounts, sumOf } from '#frontend/subset/shared-counts.ts';
import type { FrontendPart } from '#frontend/subset/whole.ts';
import { type ChannelEnd, ProcessChannel } from './process-channel.ts';

/** Time that helpers have to read the routes, when the frontend starts. */
const preparedMs = 120_000;
const askMs = 5_000;
const socketsMs = 30_000;
const restFirstMs = 1_000;
const restLongestMs = 60_000;
/** Beyond the time that sessions have when a process stops. */
const stopGraceMs = 5_000;
/** At which a helper finds the memory of the route index, behind its standard descriptors and the channel. */
const indexFd = 4;

/** What they work on. */
export interface WorkersOptions {
  readonly own: RunningFrontend;
  /** As the helpers are to have it. */
  readonly config: FrontendConfig;
  readonly log: { readonly level: string; readonly file?: string | undefined };
  readonly localMembers: readonly string[];
  /** Processes, this one counted. */
  readonly count: number;
  readonly sockets: ListeningSockets;
  /** Of the route index; missing where it cannot be shared, and the helpers ask. */
  readonly indexMemory: SharedIndexMemory | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Helper {
  readonly number: number;
  readonly child: ChildProcess;
  readonly channel: ProcessChannel;
  readonly startedAtMs: number;
  readonly isPrepared: PromiseWithResolvers<void>;
  isServing: boolean;
  counts: readonly ListenerCounts[];
}

/** See the header of this file. */
export class Workers implements AsyncDisposable {
  readonly #options: WorkersOptions;
  /** By number; the first process is 1. */
  readonly #helpers = new Map<number, Helper>();
  readonly #failures = new Map<number, number>();
  readonly #timers = new Set<Timer>();
  readonly #opened = Promise.withResolvers<void>();
  #isEnding = false;

  constructor(options: WorkersOptions) {
    this.#options = options;
    options.own.sharing.guard.onChange = (what, address, account) => this.#tell(undefined, 'guard', { what, address, account });
    options.own.sharing.onNews((from, news) => this.#tell(undefined, 'news', { from, news }));
  }

  /** Starts them. Resolves once all are ready to accept; rejects when one is not. */
  async prepare(): Promise<void> {
    const { count, clock } = this.#options;
    const numbers = Array.from({ length: count - 1 }, (_, index) => index + 2);
    const prepared = Promise.all(numbers.map((number) => this.#start(number).isPrepared.promise));
    await withTimeout(clock, preparedMs, prepared, () => new Error(`not every worker process was ready within ${preparedMs / 1000} s`));
  }

  /** Lets them accept: this process has the sockets. */
  open(): void {
    this.#opened.resolve();
  }

  /** How many accept, this process counted. */
  get serving(): number {
    return 1 + [...this.#helpers.values()].filter(({ isServing }) => isServing).length;
  }

  /** Their part of the frontend. */
  parts(): readonly FrontendPart[] {
    const { name } = this.#options.own;
    return [...this.#helpers.values()].map(({ child, channel }) => ({
      pid: child.pid ?? 0,
      isHelper: true,
      status: async () => (await channel.ask('status', { name }, askMs)).status as FrontendStatus,
      control: async (action, body) => (await channel.ask('control', { name, action, body }, askMs)).result,
    }));
  }

  /** Their metrics. One that is silent is left out. */
  async metrics(): Promise<readonly LabelledExposition[]> {
    const asked = [...this.#helpers.values()].map(async ({ number, channel }) => ({
      label: `worker="${number}"`,
      text: String((await channel.ask('metrics', {}, askMs)).text),
    }));
    return (await Promise.allSettled(asked)).flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
  }

  /** Has them read their certificates anew. */
  reload(): void {
    for (const { child } of this.#helpers.values()) child.kill('SIGHUP');
  }

  /** They accept no more and end with their sessions. Resolves when all have, or on `signal`. */
  async leave(deadlineMs: number, signal: AbortSignal): Promise<void> {
    this.#end();
    const left = [...this.#helpers.values()].map(async ({ channel }) => {
      await channel.ask('leave', { deadlineMs }, askMs).catch(() => {});
      await channel.closed;
    });
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    if (!signal.aborted) await Promise.race([Promise.all(left), aborted]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end();
    const limitMs = this.#options.own.drainMs() + stopGraceMs;
    await Promise.all(
      [...this.#helpers.values()].map(async ({ child }) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const ended = once(child, 'exit').then(() => undefined);
        child.kill('SIGTERM');
        await withTimeout(this.#options.clock, limitMs, ended, () => new Error('too late')).catch(() => child.kill('SIGKILL'));
      }),
    );
  }

  #end(): void {
    this.#isEnding = true;
    for (const timer of this.#timers) timer.cancel();
  }

  #start(number: number): Helper {
    const { own, clock, logger, sockets, indexMemory } = this.#options;
    const child = spawn(process.execPath, [...process.execArgv, join(import.meta.dirname, 'worker.ts')], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...(indexMemory === undefined ? [] : [indexMemory.fd])],
    });
    const isPrepared = Promise.withResolvers<void>();
    isPrepared.promise.catch(() => {});
    const channel: ProcessChannel = new ProcessChannel(child as ChannelEnd, clock, {
      greet: () => ({
        number,
        config: this.#helperConfig(),
        log: this.#options.log,
        localMembers: this.#options.localMembers,
        others: this.#options.count - 1,
        sockets: [...sockets.open(), ...sockets.expected()].map(({ key, address, port }) => ({ key: boundKey(key, port), address, port })),
        legacy: own.succession.legacy(),
        ...(indexMemory === undefined ? {} : { index: { fd: indexFd, bytes: indexMemory.bytes, ...own.sharing.indexFacts() } }),
      }),
      sockets: async ({ keys }) => {
        isPrepared.resolve();
        await this.#opened.promise;
        for (const { key, port, server } of sockets.open()) {
          const bound = boundKey(key, port);
          if (Array.isArray(keys) && keys.includes(bound))
            await sockets.passOn(server, (passed) => channel.ask('socket', { key: bound }, socketsMs, passed));
        }
        return {};
      },
      serving: () => {
        helper.isServing = true;
        for (const { from, news } of own.sharing.newsSoFar()) void channel.ask('news', { from, news }, askMs).catch(() => {});
        logger.info({ worker: number, pid: child.pid }, 'worker serves');
        return {};
      },
      routes: ({ addresses, clusters }) => {
        const routes = (addresses as AccountName[]).map((address) => own.sharing.index.find(address) ?? null);
        // Of a helper that reads the index by itself: so many clusters are known to it.
        const all = clusters === undefined ? [] : own.sharing.indexFacts().clusters;
        return all.length === (clusters ?? 0) ? { routes } : { routes, clusters: all };
      },
      forget: ({ address }) => {
        own.sharing.index.forget(address as AccountName);
        return {};
      },
      guard: ({ what, address, account }) => {
        const change = what === 'failed' ? 'failed' : 'succeeded';
        own.sharing.guard.note(change, String(address), String(account));
        this.#tell(number, 'guard', { what, address, account });
        return {};
      },
      counts: ({ counts }) => {
        helper.counts = counts as readonly ListenerCounts[];
        const others = [...this.#helpers.values()].filter((other) => other !== helper).map((other) => other.counts);
        own.sharing.setElsewhere(sumOf([helper.counts, ...others]));
        return { elsewhere: sumOf([own.sharing.counts(this.#options.count - 1), ...others]) };
      },
      failed: ({ message }) => {
        isPrepared.reject(new PlatformError('BUG_UNEXPECTED', `worker ${number} did not come up: ${String(message)}`));
        return {};
      },
    });
    const helper: Helper = { number, child, channel, startedAtMs: clock.monotonicMs(), isPrepared, isServing: false, counts: [] };
    this.#helpers.set(number, helper);
    child.once('error', (error) => this.#ended(helper, messageOf(error)));
    child.once('exit', (code, signal) => this.#ended(helper, signal ?? `code ${code}`));
    return helper;
  }

  #ended(helper: Helper, how: string): void {
    const { number } = helper;
    helper.isPrepared.reject(new Error(`worker ${number} ended with ${how} before it was ready`));
    if (this.#helpers.get(number) !== helper) return;
    this.#helpers.delete(number);
    this.#options.own.sharing.setElsewhere(sumOf([...this.#helpers.values()].map(({ counts }) => counts)));
    if (this.#isEnding) return;
    const { clock, logger } = this.#options;
    // One that has served for a while begins anew.
    const wasUpMs = clock.monotonicMs() - helper.startedAtMs;
    const failures = wasUpMs > restLongestMs ? 0 : (this.#failures.get(number) ?? 0);
    this.#failures.set(number, failures + 1);
    const restMs = Math.min(restLongestMs, restFirstMs * 2 ** Math.min(failures, 10));
    logger.error({ worker: number, pid: helper.child.pid, restMs }, `worker ended with ${how}; its sessions are lost, it is started again`);
    this.#startLater(number, restMs);
  }

  #startLater(number: number, restMs: number): void {
    const timer = this.#options.clock.after(restMs, () => {
      this.#timers.delete(timer);
      // While the frontend is drained there are no sockets to be had.
      const { state } = this.#options.own.status().withdrawal;
      if (state === 'draining' || state === 'drained') this.#startLater(number, restMs);
      else this.#start(number);
    });
    this.#timers.add(timer);
  }

  /** Sessions only, at the ports as they are bound. */
  #helperConfig(): FrontendConfig {
    const { config, own } = this.#options;
    const bound = own.status().listeners;
    const listeners = config.listeners.flatMap((listener, index) =>
      isOfSessions(listener) ? [{ ...listener, port: bound[index]?.port ?? listener.port }] : [],
    );
    return { ...config, listeners };
  }

  /** All but the one that it came from. */
  #tell(except: number | undefined, what: string, body: Readonly<Record<string, unknown>>): void {
    for (const { number, channel, isServing } of this.#helpers.values()) {
      if (number !== except && isServing) void channel.ask(what, body, askMs).catch(() => {});
    }
  }
}

/** How many processes serve a frontend's sessions. */
export function workersOf(config: FrontendConfig): number {
  const { workers = 1 } = config;
  return workers === 0 ? availableParallelism() : workers;
}

function isOfSessions({ protocol }: FrontendConfig['listeners'][number]): boolean {
  return protocol === 'imap' || protocol === 'pop3' || protocol === 'managesieve';
}

/** A socket by the port that the system chose for it. */
function boundKey(key: string, port: number): string {
  return key.replace(/:0#\d+$/, `:${port}`);
}
