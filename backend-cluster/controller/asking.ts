/**
 * How a member asks whoever is Controller, itself perhaps: it goes on asking over an election, and leaves a Controller that has fallen
 * silent as soon as another one is known.
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import type { MemberSelf } from './membership.ts';

const askTimeoutMs = 5_000;

/** How to ask. `isOnce`: what was sent and not answered is not sent again, because twice is not the same as once. */
export interface AskOptions {
  readonly timeoutMs?: number;
  readonly isOnce?: boolean;
}

/** What asking needs. */
export interface AskingOptions {
  readonly self: MemberSelf;
  readonly link: LinkClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly heartbeatMs: number;
  readonly leaseMs: number;
  isStopped(): boolean;
  /** Who is Controller, as known here. */
  known(): MemberAddress | undefined;
  /** Answers as Controller; `undefined` when this member is none. */
  lead(method: string, params: Record<string, unknown>): Promise<unknown> | undefined;
  /** What every call to the Controller carries. */
  introduction(): object;
}

/** See the header of this file. */
export class Asking {
  readonly #options: AskingOptions;
  /** Told when the Controller they wait for is another one now. */
  readonly #askers = new Set<() => void>();

  constructor(options: AskingOptions) {
    this.#options = options;
  }

  /**
   * Asks the Controller, wherever it is, and goes on asking while there is none: up to a lease and two seconds, which is how long an
   * election takes at most. Then `CLUSTER_NO_CONTROLLER`.
   */
  async ask(method: string, params: object, options: AskOptions = {}): Promise<unknown> {
    const { clock, random, self, link, leaseMs, heartbeatMs } = this.#options;
    const deadlineMs = clock.monotonicMs() + leaseMs + 2_000;
    let last: PlatformError | undefined;
    while (!this.#options.isStopped()) {
      try {
        const own = this.#options.lead(method, { ...params, member: self.address.name, incarnation: self.incarnation });
        if (own !== undefined) return await own;
        const known = this.#options.known();
        if (known !== undefined && known.name !== self.address.name) {
          const message = { ...params, ...this.#options.introduction() };
          const call = link.call(known, method, message, options.timeoutMs ?? askTimeoutMs);
          return await (options.isOnce === true ? call : this.#unlessReplaced(call));
        }
      } catch (error) {
        last = asPlatformError(error);
        // Only what a new Controller would answer differently is asked again.
        if (last.code !== 'CLUSTER_NO_CONTROLLER' && last.code !== 'CLUSTER_STALE_TERM' && !last.code.startsWith('NET_')) throw last;
        if (options.isOnce === true && (last.code === 'NET_TIMEOUT' || last.code === 'NET_CLOSED')) throw last;
      }
      if (clock.monotonicMs() >= deadlineMs) break;
      await sleep(clock, jitteredMs(random, Math.min(100, heartbeatMs)));
    }
    throw new PlatformError('CLUSTER_NO_CONTROLLER', `no Controller of the cluster answered: ${last?.message ?? 'none is known'}`, {
      cause: last,
    });
  }

  /** Another member is Controller now, or none is known. */
  replaced(): void {
    for (const asker of [...this.#askers]) asker();
    this.#askers.clear();
  }

  #unlessReplaced(call: Promise<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const replaced = (): void =>
        reject(new PlatformError('CLUSTER_NO_CONTROLLER', 'the member that was asked is not the Controller any more'));
      this.#askers.add(replaced);
      call.then(resolve, reject).finally(() => this.#askers.delete(replaced));
    });
  }
}
