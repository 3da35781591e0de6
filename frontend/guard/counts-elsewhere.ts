/**
 * Failed log-ins that the other frontends of the subset have counted, by whom. Each tells its own counts as they stand, so that hearing one twice, or late,
 * makes no difference; they grow old here as they do there. At `keysMax` the key that was heard of longest ago goes.
 */
import type { Clock } from '#common/clock.ts';

/** Time in which a count halves, milliseconds. */
export const halfLifeMs = 300_000;
/** Keys of all other frontends together. */
export const keysMax = 50_000;

/** What is counted. */
export const guardKinds = ['address', 'account', 'pair'] as const;
export type GuardKind = (typeof guardKinds)[number];

/** A count as its frontend had it `ageMs` ago. */
export type ToldCount = readonly [kind: GuardKind, key: string, failures: number, ageMs: number];

interface Count {
  readonly failures: number;
  readonly atMs: number;
}

/** A count after so many milliseconds. */
export function decayed(failures: number, ageMs: number): number {
  return failures * 0.5 ** (ageMs / halfLifeMs);
}

/** See the header of this file. */
export class CountsElsewhere {
  readonly #clock: Clock;
  readonly #byKey = new Map<string, Map<string, Count>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  put(frontend: string, counts: readonly ToldCount[]): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [kind, key, failures, ageMs] of counts) {
      const name = `${kind} ${key}`;
      const known = this.#byKey.get(name) ?? new Map<string, Count>();
      this.#byKey.delete(name);
      this.#byKey.set(name, known.set(frontend, { failures, atMs: nowMs - ageMs }));
      if (this.#byKey.size > keysMax) this.#byKey.delete(this.#byKey.keys().next().value as string);
    }
  }

  failures(kind: GuardKind, key: string): number {
    const known = this.#byKey.size === 0 ? undefined : this.#byKey.get(`${kind} ${key}`);
    if (known === undefined) return 0;
    const nowMs = this.#clock.monotonicMs();
    let sum = 0;
    for (const { failures, atMs } of known.values()) sum += decayed(failures, nowMs - atMs);
    return sum;
  }

  /** `false` when nothing was known of it. */
  delete(kind: GuardKind, key: string): boolean {
    return this.#byKey.delete(`${kind} ${key}`);
  }

  /** All that is known, as it counts now. */
  *list(): IterableIterator<{ kind: GuardKind; key: string; frontend: string; failures: number; ageMs: number }> {
    const nowMs = this.#clock.monotonicMs();
    for (const [name, known] of this.#byKey) {
      const space = name.indexOf(' ');
      const kind = name.slice(0, space) as GuardKind;
      for (const [frontend, { failures, atMs }] of known) {
        yield { kind, key: name.slice(space + 1), frontend, failures: decayed(failures, nowMs - atMs), ageMs: Math.round(nowMs - atMs) };
      }
    }
  }
}
