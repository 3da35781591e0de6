/**
 * What operators have decided about addresses, until it expires: blocked ones are hung up on before they can say anything, allowed ones are
 * exempt from the limits for each address and from delays after failed logins (a company behind one address, a monitoring system).
 *
 * The narrowest rule that holds an address decides. Rules live as long as the process, or as long as one frontend of a subset that shares penalties; of
 * two orders for one range the later counts, by the wall clocks of the frontends that took them. At `rulesMax` one must go before another comes.
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { addressList, isAddressOrRange, rangeBits } from '#common/network/address-list.ts';

/** Rules of one frontend. */
export const rulesMax = 10_000;
/** Longest life of a rule: whoever set it should look again. */
export const ruleMsMax = 90 * 86_400_000;

/** A rule, as it is shown. */
export interface AddressRule {
  /** Address or range. */
  readonly range: string;
  readonly verdict: 'block' | 'allow';
  readonly reason: string;
  /** Wall clock. */
  readonly untilMs: number;
  /** When it was ordered, by the wall clock of the frontend that took the order, and which that was. */
  readonly setAtMs: number;
  readonly setAt: string;
}

/** A rule, or that the one of this range was removed. */
export type SharedRule = Omit<AddressRule, 'verdict'> & { readonly verdict: AddressRule['verdict'] | 'none' };

/** Orders for one range that differ by no more in their end are one order that came by several ways. */
const sameOrderMs = 10_000;

interface Kept extends AddressRule {
  readonly bits: number;
  holds(address: string): boolean;
}

/** See the header of this file. */
export class AddressRules {
  readonly #clock: Clock;
  readonly #name: string;
  /** Narrowest first. */
  #rules: Kept[] = [];
  /** Ranges whose rule was removed, and when; for rules that come later and are older. */
  readonly #removed = new Map<string, SharedRule>();
  /** Set where the subset shares penalties: told of every order that was taken here. */
  watcher: ((rule: SharedRule) => void) | undefined;

  constructor(clock: Clock, name = '') {
    this.#clock = clock;
    this.#name = name;
  }

  /** Sets a rule, replacing one of the same range. Throws `ADMIN_BAD_REQUEST`. */
  set(rule: { readonly range: string; readonly verdict: 'block' | 'allow'; readonly reason: string; readonly forMs: number }): AddressRule {
    const { verdict, reason, forMs } = rule;
    const range = rule.range.toLowerCase();
    const nowMs = this.#clock.nowMs();
    const known = this.#rules.find((other) => other.range === range);
    const isKnown =
      known !== undefined && known.verdict === verdict && known.reason === reason && Math.abs(known.untilMs - nowMs - forMs) < sameOrderMs;
    const kept = isKnown ? known : this.#keep({ range, verdict, reason, untilMs: nowMs + forMs, setAtMs: nowMs, setAt: this.#name });
    this.watcher?.(shown(kept));
    return shown(kept);
  }

  /** Removes the rule of a range; `false` when there was none. */
  remove(range: string): boolean {
    const folded = range.toLowerCase();
    const known = this.#rules.find((rule) => rule.range === folded);
    if (known === undefined) return false;
    const nowMs = this.#clock.nowMs();
    const removed: SharedRule = { ...shown(known), verdict: 'none', setAtMs: nowMs, setAt: this.#name };
    this.#forget(removed);
    this.watcher?.(removed);
    return true;
  }

  /** Takes an order that another process or frontend has; `false` when what is known here is as new. Throws `ADMIN_BAD_REQUEST`. */
  take(rule: SharedRule): boolean {
    const known = this.#rules.find((other) => other.range === rule.range) ?? this.#removed.get(rule.range);
    if (known !== undefined && (known.setAtMs > rule.setAtMs || (known.setAtMs === rule.setAtMs && known.setAt >= rule.setAt)))
      return false;
    if (rule.untilMs <= this.#clock.nowMs()) return false;
    if (rule.verdict === 'none') this.#forget(rule);
    else this.#keep({ ...rule, verdict: rule.verdict });
    return true;
  }

  /** All orders that count, those to remove among them. */
  orders(): readonly SharedRule[] {
    return [...this.list(), ...this.#removed.values()];
  }

  #keep(rule: AddressRule): Kept {
    const { range } = rule;
    if (!isAddressOrRange(range))
      throw new PlatformError('ADMIN_BAD_REQUEST', `"${range.slice(0, 100)}" is no address and no range such as 192.0.2.0/24`);
    const forMs = rule.untilMs - this.#clock.nowMs();
    if (!(forMs > 0 && forMs <= ruleMsMax))
      throw new PlatformError('ADMIN_BAD_REQUEST', `a rule holds for at most ${ruleMsMax / 86_400_000} days`);
    this.#expire();
    const others = this.#rules.filter((other) => other.range !== range);
    if (others.length >= rulesMax) throw new PlatformError('ADMIN_BAD_REQUEST', `there are ${rulesMax} rules already; remove some`);
    const kept: Kept = { ...rule, bits: rangeBits(range), holds: addressList([range]) };
    this.#removed.delete(range);
    this.#rules = [...others, kept].sort((a, b) => b.bits - a.bits);
    return kept;
  }

  #forget(rule: SharedRule): void {
    this.#rules = this.#rules.filter(({ range }) => range !== rule.range);
    this.#removed.delete(rule.range);
    this.#removed.set(rule.range, rule);
    if (this.#removed.size > rulesMax) this.#removed.delete(this.#removed.keys().next().value as string);
  }

  /** The rule that decides about an address. */
  find(address: string): AddressRule | undefined {
    if (this.#rules.length === 0) return undefined;
    const nowMs = this.#clock.nowMs();
    const found = this.#rules.find((rule) => rule.untilMs > nowMs && rule.holds(address));
    return found === undefined ? undefined : shown(found);
  }

  list(): readonly AddressRule[] {
    this.#expire();
    return this.#rules.map(shown);
  }

  #expire(): void {
    const nowMs = this.#clock.nowMs();
    this.#rules = this.#rules.filter((rule) => rule.untilMs > nowMs);
    for (const [range, { untilMs }] of this.#removed) if (untilMs <= nowMs) this.#removed.delete(range);
  }
}

function shown({ range, verdict, reason, untilMs, setAtMs, setAt }: Kept): AddressRule {
  return { range, verdict, reason, untilMs, setAtMs, setAt };
}
