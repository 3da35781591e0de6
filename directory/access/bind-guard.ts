/**
 * Slows guessing down: a failed bind is answered later the more of them came from one address lately, and above a limit accounts cannot
 * bind from there at all for a while (busy, which is temporary). Only failures count, and the installation's own services never wait.
 */
import { type Clock, sleep } from '#common/clock.ts';

const windowMs = 60_000;
const failuresMax = 50;
const delayStepMs = 50;
const delayMaxMs = 2000;
/** What the guard has seen and done. */
export interface BindGuardCounts {
  /** Failed binds, and binds that were not looked at because of those before. */
  readonly failed: number;
  readonly refused: number;
  /** Addresses from which accounts cannot bind now. */
  readonly addressesRefused: number;
}

/** Addresses remembered; above it the oldest is forgotten. */
const addressesMax = 10_000;

/** See the header of this file. */
export class BindGuard {
  readonly #clock: Clock;
  readonly #addresses = new Map<string, { failures: number; sinceMs: number }>();
  #failed = 0;
  #refused = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether accounts may try from this address now. */
  admits(address: string): boolean {
    const admitted = (this.#recent(networkOf(address))?.failures ?? 0) < failuresMax;
    if (!admitted) this.#refused += 1;
    return admitted;
  }

  counts(): BindGuardCounts {
    let addressesRefused = 0;
    for (const address of [...this.#addresses.keys()]) if ((this.#recent(address)?.failures ?? 0) >= failuresMax) addressesRefused += 1;
    return { failed: this.#failed, refused: this.#refused, addressesRefused };
  }

  /** Notes a failure; resolves when it may be answered. */
  failed(from: string, signal: AbortSignal): Promise<void> {
    const address = networkOf(from);
    this.#failed += 1;
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

// Whoever has one IPv6 address has the 2^64 of its network.
function networkOf(address: string): string {
  if (!address.includes(':') || /^::ffff:\d+\./i.test(address)) return address;
  const [head = '', tail] = address.replace(/%.*$/, '').toLowerCase().split('::');
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  if (tail !== undefined) groups.push(...Array.from({ length: Math.max(0, 8 - groups.length - after.length) }, () => '0'), ...after);
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}::/64`;
}
