/**
 * Leases in memory: the heart of the engines that need nothing installed. Pure but for the time it is told.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { type Lease, leasesMax, requireFits, type TakeAnswer } from './lease-store.ts';

interface Held extends Lease {
  readonly untilMs: number;
}

/** See the header of this file. Times are one clock's, monotonic. */
export class LeaseTable {
  readonly #leases = new Map<string, Held>();

  take(nowMs: number, key: string, holder: string, value: unknown, leaseMs: number): TakeAnswer {
    requireFits(key, holder, value);
    const held = this.#held(nowMs, key);
    if (held !== undefined && held.holder !== holder) {
      return { isTaken: false, by: { key, holder: held.holder, value: held.value } };
    }
    if (held === undefined && this.#leases.size >= leasesMax) {
      this.#sweep(nowMs);
      if (this.#leases.size >= leasesMax) throw new PlatformError('STORE_UNAVAILABLE', `the coordinator holds ${leasesMax} leases already`);
    }
    this.#leases.set(key, { key, holder, value, untilMs: nowMs + leaseMs });
    return { isTaken: true };
  }

  release(nowMs: number, key: string, holder: string): void {
    if (this.#held(nowMs, key)?.holder === holder) this.#leases.delete(key);
  }

  list(nowMs: number, prefix: string): readonly Lease[] {
    this.#sweep(nowMs);
    return [...this.#leases.values()]
      .filter((lease) => lease.key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map(({ key, holder, value }) => ({ key, holder, value }));
  }

  #held(nowMs: number, key: string): Held | undefined {
    const held = this.#leases.get(key);
    return held !== undefined && held.untilMs > nowMs ? held : undefined;
  }

  #sweep(nowMs: number): void {
    for (const [key, held] of this.#leases) if (held.untilMs <= nowMs) this.#leases.delete(key);
  }
}
