/**
 * A coordinator on a machine of its own, as Redis under Sentinel is one: it can be out of reach, forget its last seconds when another
 * takes over from it, forget everything, and have a clock that jumps.
 */
import type { LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import { LeaseTable } from '#backend-cluster/coordination/lease-table.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Machine, SimProcess } from './machine.ts';
import type { SimNetwork } from './network.ts';
import type { World } from './world.ts';

const answerWithinMs = 1_500;
const historyMs = 40_000;

interface Change {
  readonly atMs: number;
  readonly apply: (table: LeaseTable) => void;
}

/** See the header of this file. */
export class SimCoordinator {
  readonly world: World;
  readonly network: SimNetwork;
  readonly machine: Machine;
  isDown = false;
  clockOffsetMs = 0;
  /** Share of commands that are carried out twice, the second time any time later: a client sends again what was not answered. */
  twiceShare = 0;
  #table = new LeaseTable();
  #changes: Change[] = [];
  /** When each fencing token was given out; only a broken variant takes any. */
  #tokens: number[] = [];

  constructor(world: World, network: SimNetwork, machine: Machine) {
    this.world = world;
    this.network = network;
    this.machine = machine;
  }

  /** As INCR: the next of a counter, which a fail-over may set back. */
  nextToken(): number {
    return this.#tokens.push(this.world.nowMs);
  }

  /** Another takes over, without the changes of the last `ms`. */
  failOver(ms: number): void {
    const keptUntilMs = this.world.nowMs - ms;
    this.#tokens = this.#tokens.filter((atMs) => atMs <= keptUntilMs);
    const kept = this.#changes.filter((change) => change.atMs <= keptUntilMs);
    this.#table = new LeaseTable();
    for (const change of kept) change.apply(this.#table);
    this.#changes = kept;
  }

  forgetAll(): void {
    this.#table = new LeaseTable();
    this.#changes = [];
    this.#tokens = [];
  }

  /** The lease store port of a process. */
  portOf(process: SimProcess): LeaseStore {
    const ask = <T>(what: string, act: () => T): Promise<T> => this.#ask(process, what, act);
    let isOk = true;
    const noted = async <T>(work: Promise<T>): Promise<T> => {
      try {
        const result = await work;
        isOk = true;
        return result;
      } catch (error) {
        isOk = false;
        throw error;
      }
    };
    return {
      engine: 'simulated',
      take: (key, holder, value, leaseMs) =>
        noted(
          ask('take', () => {
            const nowMs = this.#nowMs();
            const answer = this.#table.take(nowMs, key, holder, value, leaseMs);
            if (answer.isTaken) this.#changed((table) => void table.take(nowMs, key, holder, value, leaseMs));
            return answer;
          }),
        ),
      release: (key, holder) =>
        noted(
          ask('release', () => {
            const nowMs = this.#nowMs();
            this.#table.release(nowMs, key, holder);
            this.#changed((table) => table.release(nowMs, key, holder));
          }),
        ),
      list: (prefix) => noted(ask('list', () => this.#table.list(this.#nowMs(), prefix))),
      status: () => ({ ok: isOk, detail: 'simulated' }),
      [Symbol.asyncDispose]: async () => {},
    };
  }

  #nowMs(): number {
    return this.world.nowMs + this.clockOffsetMs;
  }

  #changed(apply: Change['apply']): void {
    this.#changes.push({ atMs: this.world.nowMs, apply });
    // What is older than any lease can be read from what it came to; a lease is refreshed much more often than this.
    if (this.#changes.length > 2_000) this.#changes = this.#changes.filter(({ atMs }) => atMs > this.world.nowMs - historyMs);
  }

  #ask<T>(process: SimProcess, what: string, act: () => T): Promise<T> {
    const { world } = this;
    return new Promise<T>((resolve, reject) => {
      let isOver = false;
      const once = (settle: () => void): void => {
        if (isOver) return;
        isOver = true;
        timer.cancel();
        settle();
      };
      const timer = process.clock.after(answerWithinMs, () =>
        once(() => reject(new PlatformError('STORE_UNAVAILABLE', `the coordinator did not answer within ${answerWithinMs} ms`))),
      );
      world.after(this.network.latency(), what, () => {
        if (this.isDown || this.network.isCut(process.machine, this.machine)) return;
        if (this.twiceShare > 0 && world.chance.is(this.twiceShare)) {
          world.after(world.chance.between(1, 4_000), `${what} again`, () => {
            if (!this.isDown) act();
          });
        }
        let settle: () => void;
        try {
          const result = act();
          settle = () => resolve(result);
        } catch (error) {
          settle = () => reject(error);
        }
        if (this.network.isCut(this.machine, process.machine)) return;
        world.after(this.network.latency(), `${what} answered`, () => process.deliver(`${what} answered`, () => once(settle)));
      });
    });
  }
}
