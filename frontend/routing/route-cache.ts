/**
 * What look-ups found, for a while: the routes of a frontend that does not follow its directory, and everywhere the master's word where the
 * subset's directory is behind it.
 *
 * An entry is fresh for `freshMs`, and then asked for anew; when nobody answers it is still good for `staleMaxMs` (a silent directory
 * freezes routes, it does not stop mail). The longest unused goes when there are more than `entriesMax`.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { ClusterName } from '#common/host-server.ts';

/** What is kept of an account. */
export interface CachedRoute {
  readonly uuid: AccountUuid;
  /** The account's own name. */
  readonly name: AccountName;
  readonly cluster: ClusterName;
}

interface Kept extends CachedRoute {
  readonly atMs: number;
}

/** See the header of this file. */
export class RouteCache {
  readonly #clock: Clock;
  readonly #freshMs: number;
  readonly #staleMaxMs: number;
  readonly #entriesMax: number;
  readonly #entries = new Map<AccountName, Kept>();

  constructor(clock: Clock, limits: { readonly freshMs: number; readonly staleMaxMs: number; readonly entriesMax: number }) {
    this.#clock = clock;
    this.#freshMs = limits.freshMs;
    this.#staleMaxMs = limits.staleMaxMs;
    this.#entriesMax = limits.entriesMax;
  }

  get size(): number {
    return this.#entries.size;
  }

  put(address: AccountName, route: CachedRoute): void {
    this.#entries.delete(address);
    this.#entries.set(address, { ...route, atMs: this.#clock.monotonicMs() });
    if (this.#entries.size > this.#entriesMax) this.#entries.delete(this.#entries.keys().next().value as AccountName);
  }

  /** With `evenStale` also one that is no longer fresh, for when nobody can be asked. */
  find(address: AccountName, evenStale = false): CachedRoute | undefined {
    const kept = this.#entries.get(address);
    if (kept === undefined) return undefined;
    const ageMs = this.#clock.monotonicMs() - kept.atMs;
    if (ageMs > this.#staleMaxMs) {
      this.#entries.delete(address);
      return undefined;
    }
    if (ageMs > this.#freshMs && !evenStale) return undefined;
    // The most recently used last.
    this.#entries.delete(address);
    this.#entries.set(address, kept);
    return kept;
  }

  /** The account is not there, or not where it was thought to be. */
  remove(address: AccountName): void {
    this.#entries.delete(address);
  }
}
