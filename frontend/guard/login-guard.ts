/**
 * Makes guessing passwords slow without letting anybody lock an account out: failures are counted by client address (client-group.ts), by
 * account and by the pair, and what grows with them is the time until an attempt is answered. Only an address with very many failures is refused unheard.
 *
 * An attempt for an account that does not exist is counted and delayed as one with a wrong password is, and no failed attempt is answered
 * before `failureFloorMs`, which is longer than verifying a password takes: the two look and time alike.
 *
 * Where the subset shares penalties (subset/sharing.ts), what its other frontends count is added to what is counted here.
 *
 * Counts halve every `halfLifeMs`. Each of the three tables holds `entriesMax` keys; beyond that the one that failed longest ago is forgotten.
 */
import type { Clock } from '#common/clock.ts';
import type { Random } from '#common/random.ts';
import { CountsElsewhere, decayed, type GuardKind, type ToldCount } from './counts-elsewhere.ts';

/** Least time from an attempt to the answer that it failed, milliseconds. */
export const failureFloorMs = 400;
/** Longest delay of an attempt, milliseconds. */
export const delayMaxMs = 8000;
/** Failures of one address, after halving, from which it is refused unheard. */
export const addressFailuresMax = 100;
const entriesMax = 20_000;

/** Failures of an address, an account or a pair, as they count now. */
export interface GuardEntry {
  readonly kind: GuardKind;
  readonly key: string;
  /** After halving. */
  readonly failures: number;
  readonly lastFailureMsAgo: number;
  /** Other frontends that have counted some of them. */
  readonly elsewhere?: readonly { readonly frontend: string; readonly failures: number }[];
}

/** Told of what other frontends are to know. */
export interface GuardWatcher {
  counted(kind: GuardKind, key: string): void;
  /** Of an address and an account; `undefined` for the account: everything of the key. */
  forgiven(key: string, account: string | undefined): void;
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

  /** Set where the subset shares penalties. */
  watcher: GuardWatcher | undefined;
  /** What other frontends of the subset have counted; `undefined` until one has told something. */
  #elsewhere: CountsElsewhere | undefined;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /**
   * Before the password is looked at: how long to wait first, milliseconds, or `refused`. Waiting before and not after the attempt is
   * what keeps many connections at once from guessing faster than one.
   */
  before(address: string, account: string): number | 'refused' {
    const ofAddress = this.#all('address', this.#byAddress, address);
    if (ofAddress >= addressFailuresMax) return 'refused';
    const ofPair = this.#all('pair', this.#byPair, pairKey(address, account));
    const ofAccount = this.#all('account', this.#byAccount, account);
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
      this.#forgetPair(address, account);
      return;
    }
    for (const [kind, table, key] of this.#tables(address, account)) {
      const failures = this.#failuresOf(table, key) + 1;
      table.delete(key);
      table.set(key, { failures, atMs: this.#clock.monotonicMs() });
      if (table.size > entriesMax) table.delete(table.keys().next().value as string);
      this.watcher?.counted(kind, key);
    }
  }

  /** What another frontend of the subset counts. */
  noteElsewhere(frontend: string, counts: readonly ToldCount[]): void {
    this.#elsewhere ??= new CountsElsewhere(this.#clock);
    this.#elsewhere.put(frontend, counts);
  }

  /** What was heard of other frontends, for another process of this one. */
  heard(): readonly { frontend: string; counts: readonly ToldCount[] }[] {
    const byFrontend = new Map<string, ToldCount[]>();
    for (const { frontend, kind, key, failures, ageMs } of this.#elsewhere?.list() ?? []) {
      const counts = byFrontend.get(frontend) ?? [];
      // What is listed counts less by now; it is told as if it had been counted so.
      counts.push([kind, key, failures / decayed(1, ageMs), ageMs]);
      byFrontend.set(frontend, counts);
    }
    return [...byFrontend].map(([frontend, counts]) => ({ frontend, counts }));
  }

  /** What is counted here of these keys, for other frontends. */
  counted(keys: Iterable<readonly [GuardKind, string]>): ToldCount[] {
    const tables = { address: this.#byAddress, account: this.#byAccount, pair: this.#byPair };
    const nowMs = this.#clock.monotonicMs();
    const told: ToldCount[] = [];
    for (const [kind, key] of keys) {
      const count = tables[kind].get(key);
      if (count !== undefined) told.push([kind, key, count.failures, Math.round(nowMs - count.atMs)]);
    }
    return told;
  }

  /** A right password was given at another frontend. */
  succeededElsewhere(address: string, account: string): void {
    this.#byPair.delete(pairKey(address, account));
    this.#elsewhere?.delete('pair', pairKey(address, account));
  }

  /** Takes over counts of an earlier process, as `ownEntries` gave them. */
  learn(entries: readonly GuardEntry[]): void {
    const tables = { address: this.#byAddress, account: this.#byAccount, pair: this.#byPair };
    const nowMs = this.#clock.monotonicMs();
    for (const { kind, key, failures } of entries) tables[kind].set(key, { failures, atMs: nowMs });
  }

  /** A right password clears its pair; the address may still be guessing at others. */
  succeeded(address: string, account: string): void {
    // Most log-ins have nothing to clear.
    if (this.#forgetPair(address, account)) this.onChange?.('succeeded', address, account);
  }

  /** Those that count most, at most `limit`, wherever they were counted; of one address or account when `key` is given. */
  entries(limit: number, key?: string): readonly GuardEntry[] {
    const found = new Map(this.ownEntries(Number.POSITIVE_INFINITY, key).map((entry) => [`${entry.kind} ${entry.key}`, entry]));
    for (const { kind, key: itsKey, frontend, failures, ageMs } of this.#elsewhere?.list() ?? []) {
      if (!isOf(key, kind, itsKey) || failures < 0.05) continue;
      const known = found.get(`${kind} ${itsKey}`) ?? { kind, key: itsKey, failures: 0, lastFailureMsAgo: ageMs };
      found.set(`${kind} ${itsKey}`, {
        ...known,
        failures: known.failures + failures,
        lastFailureMsAgo: Math.min(known.lastFailureMsAgo, ageMs),
        elsewhere: [...(known.elsewhere ?? []), { frontend, failures }],
      });
    }
    return gravest([...found.values()], limit);
  }

  /** The same of what was counted here. */
  ownEntries(limit: number, key?: string): readonly GuardEntry[] {
    const nowMs = this.#clock.monotonicMs();
    const found: GuardEntry[] = [];
    for (const [kind, table] of [
      ['address', this.#byAddress],
      ['account', this.#byAccount],
      ['pair', this.#byPair],
    ] as const) {
      for (const [itsKey, { atMs }] of table) {
        if (!isOf(key, kind, itsKey)) continue;
        found.push({ kind, key: itsKey, failures: this.#failuresOf(table, itsKey), lastFailureMsAgo: Math.round(nowMs - atMs) });
      }
    }
    return limit === Number.POSITIVE_INFINITY ? found : gravest(found, limit);
  }

  /** Forgets the failures of an address or account, and its pairs, here and as heard from elsewhere; how many counts went. */
  forgive(key: string): number {
    const count = this.forgiveHere(key);
    this.watcher?.forgiven(key, undefined);
    return count;
  }

  /** The same, of which no other frontend is told. */
  forgiveHere(key: string): number {
    let count = Number(this.#byAddress.delete(key)) + Number(this.#byAccount.delete(key));
    for (const pair of [...this.#byPair.keys()]) if (isOf(key, 'pair', pair)) count += Number(this.#byPair.delete(pair));
    for (const { kind, key: itsKey } of [...(this.#elsewhere?.list() ?? [])]) {
      if (isOf(key, kind, itsKey)) count += Number(this.#elsewhere?.delete(kind, itsKey));
    }
    return count;
  }

  #forgetPair(address: string, account: string): boolean {
    const key = pairKey(address, account);
    const wasHere = this.#byPair.delete(key);
    const wasElsewhere = this.#elsewhere?.delete('pair', key) === true;
    if (wasHere || wasElsewhere) this.watcher?.forgiven(address, account);
    return wasHere || wasElsewhere;
  }

  #tables(address: string, account: string): [GuardKind, Map<string, Count>, string][] {
    return [
      ['address', this.#byAddress, address],
      ['account', this.#byAccount, account],
      ['pair', this.#byPair, pairKey(address, account)],
    ];
  }

  #all(kind: GuardKind, table: Map<string, Count>, key: string): number {
    const here = this.#failuresOf(table, key);
    return this.#elsewhere === undefined ? here : here + this.#elsewhere.failures(kind, key);
  }

  #failuresOf(table: Map<string, Count>, key: string): number {
    const count = table.get(key);
    if (count === undefined) return 0;
    return decayed(count.failures, this.#clock.monotonicMs() - count.atMs);
  }
}

function isOf(key: string | undefined, kind: GuardKind, itsKey: string): boolean {
  return key === undefined || itsKey === key || (kind === 'pair' && itsKey.split(' ').includes(key));
}

function gravest(entries: readonly GuardEntry[], limit: number): readonly GuardEntry[] {
  return entries
    .filter(({ failures }) => failures >= 0.5)
    .sort((a, b) => b.failures - a.failures)
    .slice(0, limit);
}

function pairKey(address: string, account: string): string {
  return `${address} ${account}`;
}

/** Nothing up to `free` failures, then doubling from `firstMs`. */
function growing(failures: number, free: number, firstMs: number): number {
  return failures <= free ? 0 : Math.min(delayMaxMs, firstMs * 2 ** (failures - free - 1));
}
