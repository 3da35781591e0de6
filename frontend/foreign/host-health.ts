/**
 * Which hosts of foreign clusters may be used now. A host that could not be reached is left at once and probed in the background, with growing,
 * jittered pauses, so that no user's login is the probe. Protocol errors count against it too, but only several in a row.
 *
 *   up ── not reached, or `troublesMax` protocol errors in a row ──► down ── probe succeeds ──► up
 */
import type { Clock, Timer } from '#common/clock.ts';
import { messageOf, type PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs, type Random } from '#common/random.ts';

const probeFirstMs = 500;
const probeLongestMs = 15_000;
/** Protocol errors in a row after which a host is down. */
const troublesMax = 3;

interface State {
  isDown: boolean;
  troubles: number;
  probes: number;
  timer: Timer | undefined;
  lastError: string | undefined;
}

/** See the header of this file. */
export class HostHealth {
  readonly #ports: { readonly clock: Clock; readonly random: Random; readonly log: Logger };
  readonly #states = new Map<MemberName, State>();
  readonly #recovered: (host: MemberName) => void;
  #isClosed = false;

  /** @param recovered told when a host is up again */
  constructor(ports: { clock: Clock; random: Random; log: Logger }, recovered: (host: MemberName) => void) {
    this.#ports = ports;
    this.#recovered = recovered;
  }

  isUp(host: MemberName): boolean {
    return this.#states.get(host)?.isDown !== true;
  }

  lastError(host: MemberName): string | undefined {
    return this.#states.get(host)?.lastError;
  }

  succeeded(host: MemberName): void {
    const state = this.#states.get(host);
    if (state !== undefined && !state.isDown) this.#states.delete(host);
  }

  /**
   * A login or delivery could not be brought to the host.
   *
   * @param probe resolves when the host can be reached again
   */
  failed(host: MemberName, error: PlatformError, probe: () => Promise<void>): void {
    if (this.#isClosed) return;
    const state = this.#states.get(host) ?? { isDown: false, troubles: 0, probes: 0, timer: undefined, lastError: undefined };
    this.#states.set(host, state);
    state.lastError = error.message;
    state.troubles += error.code === 'NET_CONNECT_FAILED' || error.code === 'NET_TIMEOUT' ? troublesMax : 1;
    if (state.isDown || state.troubles < troublesMax) return;
    state.isDown = true;
    this.#ports.log.warn(
      { host, errCode: error.code },
      `foreign host ${host} is left alone: ${error.message}; it is probed until it answers`,
    );
    this.#schedule(host, state, probe);
  }

  /** Hosts that the directory no longer names are forgotten. */
  keepOnly(hosts: ReadonlySet<MemberName>): void {
    for (const [host, state] of this.#states) {
      if (hosts.has(host)) continue;
      state.timer?.cancel();
      this.#states.delete(host);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const state of this.#states.values()) state.timer?.cancel();
  }

  #schedule(host: MemberName, state: State, probe: () => Promise<void>): void {
    const { clock, random, log } = this.#ports;
    const delayMs = jitteredMs(random, Math.min(probeLongestMs, probeFirstMs * 2 ** Math.min(state.probes, 10)));
    state.probes += 1;
    state.timer = clock.after(delayMs, () => {
      state.timer = undefined;
      probe().then(
        () => {
          if (this.#states.get(host) !== state || this.#isClosed) return;
          this.#states.delete(host);
          log.info({ host }, `foreign host ${host} answers again`);
          this.#recovered(host);
        },
        (thrown: unknown) => {
          if (this.#states.get(host) !== state || this.#isClosed) return;
          state.lastError = messageOf(thrown);
          this.#schedule(host, state, probe);
        },
      );
    });
  }
}
