/**
 * Tells the operator that connections cannot be accepted, once, and once that they can be again. A process without descriptors fails at all its listeners,
 * ten times a second at each where somebody waits: what is told is of the process, and `again` only when no attempt has failed for a while.
 */
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';
import type { Clock, Timer } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';

/** Time without a failed attempt after which the trouble is over; whoever waits is tried for many times in it. */
const calmMs = 5_000;

const advice: Readonly<Record<string, string>> = {
  EMFILE: 'raise this process’s limit of open files (LimitNOFILE= of a systemd unit, --ulimit nofile= of a container, or ulimit -n)',
  ENFILE: 'raise the system’s limit of open files (sysctl fs.file-max)',
};

/** See the header of this file. */
export class AcceptTrouble {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #failures: ReturnType<Metrics['counter']>;
  #calm: Timer | undefined;
  #lastAtMs = 0;

  constructor(ports: { readonly clock: Clock; readonly log: Logger; readonly metrics: Metrics }) {
    this.#clock = ports.clock;
    this.#log = ports.log.child({ component: 'network' });
    this.#failures = ports.metrics.counter(
      'archipelago_accept_failures_total',
      'Attempts to accept a connection that failed, by error; the clients wait meanwhile.',
      ['error'],
    );
  }

  /** An attempt failed with this error of the system. */
  failed(errno: number, where: string): void {
    const name = getSystemErrorName(-errno);
    this.#failures.add({ error: name });
    this.#lastAtMs = this.#clock.monotonicMs();
    if (this.#calm !== undefined) return;
    this.#log.error(
      { errCode: name },
      `cannot accept connections at ${where}: ${getSystemErrorMessage(-errno)}; every client needs a descriptor and a little memory of the system. Those who come wait; ${advice[name] ?? 'see what takes the memory of this machine'}, or lower connectionsMax of the listeners`,
    );
    this.#watch();
  }

  #watch(): void {
    this.#calm = this.#clock.after(this.#lastAtMs + calmMs - this.#clock.monotonicMs(), () => {
      this.#calm = undefined;
      if (this.#clock.monotonicMs() - this.#lastAtMs < calmMs) this.#watch();
      else this.#log.info({}, 'connections are accepted again');
    });
  }
}
