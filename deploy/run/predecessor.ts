/**
 * The new process's side of a restart without a break; the story is in restart.ts. Until `takeSockets` it accepts nothing that the old process
 * could accept, and whatever fails is told to the old one, whose operator reads it.
 */
import type { Server } from 'node:net';
import type { Clock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { ListeningSockets, PassedSocket } from '#common/network/listening-sockets.ts';
import { productVersion } from '#common/version.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { Inheritance, RunningFrontend } from '#frontend/main.ts';
import type { FrontendLegacy } from '#frontend/subset/succession.ts';
import type { FrontendPart } from '#frontend/subset/whole.ts';
import { type ChannelEnd, ProcessChannel } from './process-channel.ts';
import { successorVariable } from './restart.ts';

const greetMs = 10_000;
/** Attempts at deliveries have to end first. */
const queueMs = 30_000;
const socketsMs = 30_000;
const askMs = 5_000;

/** Time for a successor's last words to get out. */
const lastWordsMs = 2_000;

/** See the header of this file. */
export class Predecessor {
  readonly #channel: ProcessChannel;
  readonly #left: PromiseWithResolvers<void>;
  readonly #receive: { take?: (key: string, server: Server) => void };
  /** Messages it has queued, for frontends that do not run yet. */
  readonly #queued: { name: string; id: string }[];
  #frontends: readonly RunningFrontend[] = [];
  #log: Logger | undefined;
  #hasLeft = false;
  #legacies: Readonly<Record<string, FrontendLegacy>> = {};
  #pid = 0;
  #sockets: readonly PassedSocket[] = [];

  private constructor(clock: Clock) {
    this.#left = Promise.withResolvers<void>();
    this.#receive = {};
    this.#queued = [];
    this.#channel = new ProcessChannel(process as ChannelEnd, clock, {
      socket: ({ key }, server) => {
        this.#receive.take?.(String(key), server as Server);
        return {};
      },
      queued: ({ name, id }) => {
        this.#queued.push({ name: String(name), id: String(id) });
        void this.#adopt();
        return {};
      },
      left: () => {
        this.#hasLeft = true;
        this.#left.resolve();
        return {};
      },
    });
    void this.#channel.closed.then(() => this.#left.resolve());
  }

  /** Of a process that was started as a successor; `undefined` of any other. */
  static async meet(clock: Clock): Promise<Predecessor | undefined> {
    const isSuccessor = process.env[successorVariable] !== undefined && process.channel !== undefined;
    // Programs that this process starts are nobody's successors.
    delete process.env[successorVariable];
    if (!isSuccessor) return undefined;
    const predecessor = new Predecessor(clock);
    const { pid, sockets, legacies } = await predecessor.#channel.ask('greet', {}, greetMs);
    predecessor.#pid = Number(pid);
    predecessor.#sockets = sockets as PassedSocket[];
    predecessor.#legacies = legacies as Record<string, FrontendLegacy>;
    process.on('uncaughtExceptionMonitor', (error) => void predecessor.fail(`it crashed: ${messageOf(error)}`));
    return predecessor;
  }

  /** The sockets that it has. */
  get sockets(): readonly PassedSocket[] {
    return this.#sockets;
  }

  /** Resolves when it has no sessions left. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  /** What a frontend of that name takes over; `undefined` when it is a new one. */
  inheritance(name: string): Inheritance | undefined {
    const legacy = this.#legacies[name];
    if (legacy === undefined) return undefined;
    return { legacy, takeQueue: async () => void (await this.#channel.ask('queue', { name }, queueMs)) };
  }

  /** Accepts in its place from now on. `frontends` are told of what it still queues. */
  async takeSockets(
    sockets: ListeningSockets,
    frontends: readonly RunningFrontend[],
    log: Logger,
    becomesMain: () => Promise<boolean>,
  ): Promise<void> {
    this.#log = log;
    this.#frontends = frontends;
    await this.#adopt();
    this.#receive.take = (key, server) => void sockets.take(key, server);
    await this.#channel.ask('sockets', { keys: sockets.awaited() }, socketsMs);
    const missing = sockets.awaited();
    if (missing.length > 0) throw new Error(`the old process did not hand over ${missing.join(', ')}`);
    await this.#channel.ask('serving', { isMain: await becomesMain(), version: productVersion }, askMs);
  }

  /** Tells it why this process will not serve. Never rejects. */
  async fail(message: string): Promise<void> {
    await this.#channel.ask('failed', { message }, lastWordsMs).catch(() => {});
  }

  /** Its sessions of a frontend, while it has some. */
  parts(name: string): readonly FrontendPart[] {
    if (this.#hasLeft || !this.#channel.isOpen || this.#legacies[name] === undefined) return [];
    return [
      {
        pid: this.#pid,
        isHelper: false,
        status: async () => (await this.#channel.ask('status', { name }, askMs)).status as FrontendStatus,
        control: async (action, body) => (await this.#channel.ask('control', { name, action, body }, askMs)).result,
      },
    ];
  }

  async #adopt(): Promise<void> {
    if (this.#frontends.length === 0) return;
    for (const { name, id } of this.#queued.splice(0)) {
      const frontend = this.#frontends.find((one) => one.name === name);
      await frontend?.succession.adopt(id).catch((error: unknown) => {
        this.#log?.error({ queueId: id }, `a message of the old process waits for the next start: ${messageOf(error)}`);
      });
    }
  }
}
