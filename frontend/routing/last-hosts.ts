/**
 * Members that had accounts open when they were last logged in to by way of a redirect: asked first, so that a client that comes back, or opens
 * several connections, is not redirected each time. A guess and no more: the member serves, redirects or refuses as it would have if load had chosen it.
 *
 * Good for as long as a member keeps an account open that nobody uses; afterwards load chooses anew. At `accountsMax` the one that was logged in to
 * longest ago goes. Of a cluster with one member nothing is kept.
 */
import type { AccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { MemberName } from '#common/host-server.ts';

/** Time from a login for which its member is asked first, milliseconds: what members keep unused accounts open for by default. */
export const lastHostMs = 60_000;
export const accountsMax = 20_000;

/** See the header of this file. */
export class LastHosts {
  readonly #clock: Clock;
  /** In order of time. */
  readonly #known = new Map<AccountName, { readonly member: MemberName; readonly untilMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  find(address: AccountName): MemberName | undefined {
    const known = this.#known.get(address);
    return known !== undefined && this.#clock.monotonicMs() < known.untilMs ? known.member : undefined;
  }

  /** A session of the account was opened there, after a redirect or not. */
  opened(address: AccountName, member: MemberName, wasRedirected: boolean): void {
    if (!wasRedirected && !this.#known.has(address)) return;
    const nowMs = this.#clock.monotonicMs();
    this.#known.delete(address);
    this.#known.set(address, { member, untilMs: nowMs + lastHostMs });
    for (const [oldest, { untilMs }] of this.#known) {
      if (untilMs > nowMs && this.#known.size <= accountsMax) break;
      this.#known.delete(oldest);
    }
  }
}
