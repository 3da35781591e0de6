/**
 * A clock that stands still until a test moves it.
 */
import type { Clock, Timer } from '#common/clock.ts';

/** Virtual time. `advance` fires due timers in order and lets promises settle between them. */
export class FakeClock implements Clock {
  #nowMs: number;
  #startMs: number;
  #timers = new Set<{ atMs: number; periodMs: number | undefined; fire: () => void }>();

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = startMs;
    this.#startMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs - this.#startMs;
  }

  after(delayMs: number, fire: () => void): Timer {
    return this.#add(delayMs, undefined, fire);
  }

  every(periodMs: number, fire: () => void): Timer {
    return this.#add(periodMs, periodMs, fire);
  }

  /** Moves time on by `ms`, firing what becomes due. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const next = [...this.#timers].filter((timer) => timer.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      if (next.periodMs === undefined) this.#timers.delete(next);
      else next.atMs += next.periodMs;
      next.fire();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  #add(delayMs: number, periodMs: number | undefined, fire: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), periodMs, fire };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }
}

/** Lets every promise that can settle without outside help settle. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}
