/**
 * Slows guessing down: a failed bind is answered later the more of them came from one address lately, and above a limit accounts cannot
 * bind from there at all for a while (busy, which is temporary). Only failures count, and the installation's own services never wait.
 */
import { type Clock, sleep } from '#common/clock.ts';

const windowMs = 60_000;
const failuresMax = 50;
const delayStepMs = 50;
const delayMaxMs = 2000;
/** Addresses remembered; above it the oldest is forgotten. */
const addressesMax = 10_000;

/** See the header of this file. */
export class BindGuard {
  readonly #clock: Clock;
  readonly #addresses = new Map<string, { failures: number; sinceMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether accounts may try from this address now. */
  admits(address: string): boolean {
    return (this.#recent(address)?.failures ?? 0) < failuresMax;
  }

  /** Notes a failure; resolves when it may be answered. */
  failed(address: string, signal: AbortSignal): Promise<void> {
    const known = this.#recent(address) ?? { failures: 0, sinceMs: this.#clock.monotonicMs() };
    known.failures += 1;
    this.#addresses.delete(address);
    this.#addresses.set(address, known);
    if (this.#addresses.size > addressesMax) this.#addresses.delete(this.#addresses.keys().next().value as string);
    return sleep(this.#clock, Math.min(delayMaxMs, delayStepMs * known.failures), signal);
  }

  #recent(address: string): { failures: number; sinceMs: number } | undefined {
    const known = this.#addresses.get(address);
    if (known !== undefined && this.#clock.monotonicMs() - known.sinceMs > windowMs) {
      this.#addresses.delete(address);
      return undefined;
    }
    return known;
  }
}
