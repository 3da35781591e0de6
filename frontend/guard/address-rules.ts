/**
 * What operators have decided about addresses, until it expires: blocked ones are hung up on before they can say anything, allowed ones are
 * exempt from the limits for each address and from delays after failed logins (a company behind one address, a monitoring system).
 *
 * The narrowest rule that holds an address decides. Rules live as long as the process; at `rulesMax` one must go before another comes.
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
}

interface Kept extends AddressRule {
  readonly bits: number;
  holds(address: string): boolean;
}

/** See the header of this file. */
export class AddressRules {
  readonly #clock: Clock;
  /** Narrowest first. */
  #rules: Kept[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Sets a rule, replacing one of the same range. Throws `ADMIN_BAD_REQUEST`. */
  set(rule: { readonly range: string; readonly verdict: 'block' | 'allow'; readonly reason: string; readonly forMs: number }): AddressRule {
    const { verdict, reason, forMs } = rule;
    const range = rule.range.toLowerCase();
    if (!isAddressOrRange(range))
      throw new PlatformError('ADMIN_BAD_REQUEST', `"${range.slice(0, 100)}" is no address and no range such as 192.0.2.0/24`);
    if (!(forMs > 0 && forMs <= ruleMsMax))
      throw new PlatformError('ADMIN_BAD_REQUEST', `a rule holds for at most ${ruleMsMax / 86_400_000} days`);
    this.#expire();
    const others = this.#rules.filter((other) => other.range !== range);
    if (others.length >= rulesMax) throw new PlatformError('ADMIN_BAD_REQUEST', `there are ${rulesMax} rules already; remove some`);
    const kept: Kept = {
      range,
      verdict,
      reason,
      untilMs: this.#clock.nowMs() + forMs,
      bits: rangeBits(range),
      holds: addressList([range]),
    };
    this.#rules = [...others, kept].sort((a, b) => b.bits - a.bits);
    return shown(kept);
  }

  /** Removes the rule of a range; `false` when there was none. */
  remove(range: string): boolean {
    const before = this.#rules.length;
    this.#rules = this.#rules.filter((rule) => rule.range !== range.toLowerCase());
    return this.#rules.length < before;
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
  }
}

function shown({ range, verdict, reason, untilMs }: Kept): AddressRule {
  return { range, verdict, reason, untilMs };
}
