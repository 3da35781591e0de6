/**
 * The pauses between attempts at something that fails: growing, jittered, and short again once it has worked for as long as the last one
 * took. What works for a moment each time would otherwise be tried without end and without a pause.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { jitteredMs, type Random } from '#common/random.ts';

const firstMs = 100;
const maxMs = 30_000;
/** From here on an operator is warned. */
const longMs = 2000;

/** See the header of this file. */
export class RetryPause {
  readonly #ports: { readonly clock: Clock; readonly random: Random };
  #ms = firstMs;

  constructor(ports: { readonly clock: Clock; readonly random: Random }) {
    this.#ports = ports;
  }

  /** The next one, before chance is added. */
  get ms(): number {
    return this.#ms;
  }

  get isLong(): boolean {
    return this.#ms > longMs;
  }

  /** It got somewhere. */
  reset(): void {
    this.#ms = firstMs;
  }

  /** It worked for so long. */
  workedFor(ms: number): void {
    if (ms >= this.#ms) this.reset();
  }

  async wait(signal: AbortSignal): Promise<void> {
    await sleep(this.#ports.clock, jitteredMs(this.#ports.random, this.#ms), signal);
    this.#ms = Math.min(maxMs, this.#ms * 2);
  }
}
