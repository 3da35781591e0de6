/**
 * Makes guessing passwords slow without letting anybody lock an account out: failures are counted by client address (client-group.ts), by
 * account and by the pair, and what grows with them is the time until an attempt is answered. Only an address with very many failures is refused unheard.
 *
 * An attempt for an account that does not exist is counted and delayed as one with a wrong password is, and no failed attempt is answered
 * before `failureFloorMs`, which is longer than verifying a password takes: the two look and time alike.
 *
 * Counts halve every `halfLifeMs`. Each of the three tables holds `entriesMax` keys; beyond that the one that failed longest ago is forgotten.
 */
import type { Clock } from '#common/clock.ts';
import type { Random } from '#common/random.ts';

/** Least time from an attempt to the answer that it failed, milliseconds. */
export const failureFloorMs = 400;
/** Longest delay of an attempt, milliseconds. */
export const delayMaxMs = 8000;
/** Failures of one address, after halving, from which it is refused unheard. */
export const addressFailuresMax = 100;
const halfLifeMs = 300_000;
const entriesMax = 20_000;

/** Failures of an address, an account or a pair, as they count now. */
export interface GuardEntry {
  readonly kind: 'address' | 'account' | 'pair';
  readonly key: string;
  /** After halving. */
  readonly failures: number;
  readonly lastFailureMsAgo: number;
}

interface Count {
  failures: number;
  atMs: number;
}

/** See the header of this file. */
export class LoginGuard {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #byAddress = new Map<string, Count>();
  readonly #byAccount = new Map<string, Count>();
  readonly #byPair = new Map<string, Count>();
  /** Other processes of this frontend are told. */
  onChange: ((what: 'failed' | 'succeeded', address: string, account: string) => void) | undefined;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /**
   * Before the password is looked at: how long to wait first, milliseconds, or `refused`. Waiting before and not after the attempt is
   * what keeps many connections at once from guessing faster than one.
   */
  before(address: string, account: string): number | 'refused' {
    const ofAddress = this.#failuresOf(this.#byAddress, address);
    if (ofAddress >= addressFailuresMax) return 'refused';
    const ofPair = this.#failuresOf(this.#byPair, pairKey(address, account));
    const ofAccount = this.#failuresOf(this.#byAccount, account);
    // A mistyped password or two cost nothing; an owner whose account others guess at waits a little, and less than they do.
    return Math.round(
      Math.min(delayMaxMs, growing(ofPair, 2, 250) + growing(ofAddress, 8, 100) + Math.min(2000, growing(ofAccount, 10, 50))),
    );
  }

  /** Counts a failure; the answer must not go out before so many more milliseconds, given the time that the attempt took. */
  failed(address: string, account: string, tookMs: number): number {
    this.note('failed', address, account);
    this.onChange?.('failed', address, account);
    // A few milliseconds of chance cover what is left of the difference.
    return Math.max(0, failureFloorMs - tookMs) + this.#random.integer(20);
  }

  /** Counts what another process of this frontend has seen. */
  note(what: 'failed' | 'succeeded', address: string, account: string): void {
    if (what === 'succeeded') {
      this.#byPair.delete(pairKey(address, account));
      return;
    }
    for (const [table, key] of this.#tables(address, account)) {
      const failures = this.#failuresOf(table, key) + 1;
      table.delete(key);
      table.set(key, { failures, atMs: this.#clock.monotonicMs() });
      if (table.size > entriesMax) table.delete(table.keys().next().value as string);
    }
  }

  /** Takes over counts of an earlier process, as `entries` gave them. */
  learn(entries: readonly GuardEntry[]): void {
    const tables = { address: this.#byAddress, account: this.#byAccount, pair: this.#byPair };
    const nowMs = this.#clock.monotonicMs();
    for (const { kind, key, failures } of entries) tables[kind].set(key, { failures, atMs: nowMs });
  }

  /** A right password clears its pair; the address may still be guessing at others. */
  succeeded(address: string, account: string): void {
    // Most log-ins have nothing to clear.
    if (this.#byPair.delete(pairKey(address, account))) this.onChange?.('succeeded', address, account);
  }

  /** Those that count most, at most `limit`; of one address or account when `key` is given. */
  entries(limit: number, key?: string): readonly GuardEntry[] {
    const nowMs = this.#clock.monotonicMs();
    const found: GuardEntry[] = [];
    for (const [kind, table] of [
      ['address', this.#byAddress],
      ['account', this.#byAccount],
      ['pair', this.#byPair],
    ] as const) {
      for (const [itsKey, { atMs }] of table) {
        if (key !== undefined && itsKey !== key && !(kind === 'pair' && itsKey.split(' ').includes(key))) continue;
        found.push({ kind, key: itsKey, failures: this.#failuresOf(table, itsKey), lastFailureMsAgo: Math.round(nowMs - atMs) });
      }
    }
    return found
      .filter(({ failures }) => failures >= 0.5)
      .sort((a, b) => b.failures - a.failures)
      .slice(0, limit);
  }

  /** Forgets the failures of an address or account, and its pairs; how many counts went. */
  forgive(key: string): number {
    let count = Number(this.#byAddress.delete(key)) + Number(this.#byAccount.delete(key));
    for (const pair of [...this.#byPair.keys()]) if (pair.split(' ').includes(key)) count += Number(this.#byPair.delete(pair));
    return count;
  }

  #tables(address: string, account: string): [Map<string, Count>, string][] {
    return [
      [this.#byAddress, address],
      [this.#byAccount, account],
      [this.#byPair, pairKey(address, account)],
    ];
  }

  #failuresOf(table: Map<string, Count>, key: string): number {
    const count = table.get(key);
    if (count === undefined) return 0;
    return count.failures * 0.5 ** ((this.#clock.monotonicMs() - count.atMs) / halfLifeMs);
  }
}

function pairKey(address: string, account: string): string {
  return `${address} ${account}`;
}

/** Nothing up to `free` failures, then doubling from `firstMs`. */
function growing(failures: number, free: number, firstMs: number): number {
  return failures <= free ? 0 : Math.min(delayMaxMs, firstMs * 2 ** (failures - free - 1));
}
