/**
 * Time, as the rest of the code is given it.
 *
 * Core code never reads the clock and never sets a timer by itself: it is handed a `Clock`. The simulator hands it
 * virtual time, so everything below must be enough to run the whole product.
 */

/** A timer that was set; `cancel` may be called any number of times, also after it fired. */
export interface Timer {
  cancel(): void;
}

/** Reads time and sets timers. */
export interface Clock {
  /** This machine's wall clock, milliseconds since 1970-01-01 UTC. May jump; never compared with another machine's for age. */
  nowMs(): number;
  /** Milliseconds since an arbitrary start; never goes back. Sub-millisecond fractions are kept. */
  monotonicMs(): number;
  /** Calls `fire` once, no earlier than `delayMs` from now. A timer does not keep the process alive. */
  after(delayMs: number, fire: () => void): Timer;
  /** Calls `fire` every `periodMs`, first after one period. Overdue calls are not made up for. Does not keep the process alive. */
  every(periodMs: number, fire: () => void): Timer;
}

/** The real clock of this machine. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, fire) {
    const handle = setTimeout(fire, delayMs).unref();
    return { cancel: () => clearTimeout(handle) };
  },
  every(periodMs, fire) {
    const handle = setInterval(fire, periodMs).unref();
    return { cancel: () => clearInterval(handle) };
  },
};

/** Keeps this process alive until it is cancelled, for programs that wait for nothing but a timer. */
export function holdProcess(): Timer {
  const handle = setInterval(() => {}, 60_000);
  return { cancel: () => clearInterval(handle) };
}

/**
 * Resolves after `delayMs`, or at once when `signal` aborts (it never rejects: the caller looks at the signal).
 */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = clock.after(delayMs, done);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/**
 * Resolves with the value of `work`, or rejects with what `onTimeout` makes once `limitMs` has passed. The work itself goes on:
 * whoever started it must be able to bear a late result.
 */
export function withTimeout<T>(clock: Clock, limitMs: number, work: Promise<T>, onTimeout: () => Error): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer = clock.after(limitMs, () => reject(onTimeout()));
    work.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error);
      },
    );
  });
}
