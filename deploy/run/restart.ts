/**
 * The old process's side of a restart without a break: it starts its successor, hands everything over, and goes on by itself if anything fails.
 *
 *   old                                             new (predecessor.ts)
 *    │ routes to disk, queue of operators' decisions
 *    ├──── starts the same command line ──────────────►│
 *    │◄─── greet ── which sockets there are ───────────┤ configuration, certificates, routes
 *    │◄─── queue ── delivers no more ──────────────────┤ opens it
 *    │◄─── sockets ── one by one, as handles ──────────┤ listens on each: both accept
 *    │◄─── serving ────────────────────────────────────┤
 *    ├ accepts no more; sessions to their end ──── left ──►│
 *
 * A socket's accept queue belongs to the socket: closing it in one process loses nothing while the other has it open.
 *
 * Who started the old process waits for that one (a shell, a container, runit): it stays until its successor ends, passes signals on and ends
 * with its exit code. Under systemd the successor becomes the unit's main process (systemd.ts), and the old one ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { type Clock, withTimeout } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { ListeningSockets } from '#common/network/listening-sockets.ts';
import { productVersion } from '#common/version.ts';
import type { RestartReport } from '#frontend/client/status.ts';
import type { RunningFrontend } from '#frontend/main.ts';
import { leaveDefaultMs } from '#frontend/subset/succession.ts';
import { type Body, type ChannelEnd, ProcessChannel } from './process-channel.ts';

/** Set for a successor, so that it asks its parent before it listens. */
export const successorVariable = 'ARCHIPELAGO_SUCCESSOR';
/** The program that was called, before it found its Node; a link in its path may lead to another release by now. */
export const commandVariable = 'ARCHIPELAGO_COMMAND';
/** Time that a successor has to start. */
export const withinDefaultMs = 180_000;
const withinMsMax = 540_000;
const askMs = 10_000;

/** Terms of a restart, with what stands when nothing is said. */
export interface RestartTerms {
  readonly deadlineMs: number | undefined;
  readonly withinMs: number | undefined;
}

/** A successor that serves. */
export interface Successor {
  readonly process: ChildProcess;
  readonly channel: ProcessChannel;
  /** The service manager follows it now. */
  readonly isMain: boolean;
  readonly deadlineMs: number;
}

/** What it works on. */
export interface RestarterOptions {
  readonly sockets: ListeningSockets;
  readonly clock: Clock;
  readonly log: Logger;
  /** Of this process. */
  frontends(): readonly RunningFrontend[];
  /** Services that cannot be handed over, as `role name`. */
  readonly others: readonly string[];
}

/** See the header of this file. */
export class Restarter {
  readonly #options: RestarterOptions;
  readonly #succeeded = Promise.withResolvers<Successor>();
  #starting: ChildProcess | undefined;
  #isOver = false;

  constructor(options: RestarterOptions) {
    this.#options = options;
  }

  /** Resolves when a successor serves and this process accepts no more. */
  get succeeded(): Promise<Successor> {
    return this.#succeeded.promise;
  }

  /** Starts a successor. Rejects, with this process serving as before, when it does not come up. */
  async restart(terms: RestartTerms): Promise<RestartReport> {
    const { clock, log, others } = this.#options;
    if (this.#isOver || this.#starting !== undefined) {
      throw new PlatformError('ADMIN_CONFLICT', this.#isOver ? 'this process has a successor already' : 'a restart is under way already');
    }
    if (others.length > 0) {
      throw new PlatformError('ADMIN_NOT_ABLE', `this process also runs ${others.join(', ')}, which cannot be handed over`, {
        fields: { hint: 'give the frontend a node file of its own, or stop the process and start it' },
      });
    }
    const deadlineMs = terms.deadlineMs ?? leaveDefaultMs;
    const withinMs = Math.min(terms.withinMs ?? withinDefaultMs, withinMsMax);
    const frontends = this.#options.frontends();
    const startedAtMs = clock.monotonicMs();
    try {
      const successor = await this.#start(frontends, withinMs, deadlineMs);
      const { pid = 0 } = successor.process;
      await Promise.all(frontends.map((frontend) => frontend.refresh?.()));
      const processes = frontends.flatMap((frontend) => frontend.status().processes ?? []);
      const connections = processes.reduce((sum, process) => sum + process.connections, 0);
      log.info({ successor: pid, connections, deadlineMs }, 'a successor serves; sessions here go on to their end');
      this.#succeeded.resolve(successor);
      return {
        frontends: frontends.map(({ name }) => name),
        from: { pid: process.pid, version: productVersion, connections },
        to: { pid, version: successor.version },
        deadlineMs,
        tookMs: Math.round(clock.monotonicMs() - startedAtMs),
      };
    } catch (error) {
      log.error({}, `restart failed, this process goes on: ${messageOf(error)}`);
      throw error;
    }
  }

  /** Ends a successor that has not come up yet. */
  abort(): void {
    this.#isOver = true;
    this.#starting?.kill('SIGKILL');
  }

  async #start(
    frontends: readonly RunningFrontend[],
    withinMs: number,
    deadlineMs: number,
  ): Promise<Successor & { readonly version: string }> {
    const { clock } = this.#options;
    const legacies: Record<string, unknown> = {};
    const serves = Promise.withResolvers<{ readonly isMain: boolean; readonly version: string }>();
    serves.promise.catch(() => {});
    const child = this.#spawn();
    this.#starting = child;
    try {
      // A process that cannot be started says so by an event.
      child.once('error', (error) => serves.reject(failure(`it could not be started: ${messageOf(error)}`)));
      child.once('exit', (code, signal) => {
        serves.reject(failure(`it ended with ${signal ?? `code ${code}`} before it served; its last words are in the log`));
      });
      for (const frontend of frontends) legacies[frontend.name] = await frontend.succession.prepare();
      const channel: ProcessChannel = new ProcessChannel(child as ChannelEnd, clock, {
        greet: () => ({
          pid: process.pid,
          version: productVersion,
          sockets: this.#options.sockets.open().map(({ key, address, port }) => ({ key, address, port })),
          legacies,
        }),
        queue: async ({ name }) => {
          const heir = (id: string): void => void channel.ask('queued', { name, id }, askMs).catch(() => {});
          await frontends.find((frontend) => frontend.name === name)?.succession.releaseQueue(heir);
          return {};
        },
        sockets: async ({ keys }) => {
          for (const { key, server } of this.#options.sockets.open()) {
            if (Array.isArray(keys) && keys.includes(key))
              await this.#options.sockets.passOn(server, (passed) => channel.ask('socket', { key }, askMs, passed));
          }
          return {};
        },
        serving: ({ isMain, version }) => {
          this.#options.sockets.release();
          serves.resolve({ isMain: isMain === true, version: String(version) });
          return {};
        },
        failed: ({ message }) => {
          serves.reject(failure(String(message)));
          return {};
        },
        ...answersAbout(frontends),
      });
      const tooLate = (): Error => failure(`it did not serve within ${withinMs / 1000} s`);
      const { isMain, version } = await withTimeout(clock, withinMs, serves.promise, tooLate);
      this.#isOver = true;
      return { process: child, channel, isMain, deadlineMs, version };
    } catch (error) {
      child.kill('SIGKILL');
      for (const { succession } of frontends) await succession.takeBack();
      throw error;
    } finally {
      this.#starting = undefined;
    }
  }

  #spawn(): ChildProcess {
    const command = process.env[commandVariable];
    const args = command === undefined ? process.argv.slice(1) : [command, 'up', ...process.argv.slice(2)];
    return spawn(process.execPath, [...process.execArgv, ...args], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, [successorVariable]: '1' },
    });
  }
}

/** What the process that serves may ask about the sessions that are left here. */
function answersAbout(frontends: readonly RunningFrontend[]) {
  const named = ({ name }: Body): RunningFrontend => {
    const found = frontends.find((frontend) => frontend.name === name);
    if (found === undefined) throw new PlatformError('ADMIN_NOT_FOUND', `process ${process.pid} has no frontend ${name}`);
    return found;
  };
  return {
    status: async (body: Body) => {
      const frontend = named(body);
      await frontend.refresh?.();
      return { status: frontend.status() };
    },
    control: async (body: Body) => ({ result: await named(body).control(String(body.action), body.body as Body) }),
  };
}

function failure(why: string): PlatformError {
  return new PlatformError('RESTART_FAILED', `the successor does not serve: ${why}`, {
    fields: { hint: 'the old process goes on; put right what is wrong and try again' },
  });
}
