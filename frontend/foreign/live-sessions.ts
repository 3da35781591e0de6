/**
 * Sessions that this frontend relays to foreign hosts, by account: so that an account is never on two hosts at once. A session whose account belongs
 * elsewhere now (a host came back, the directory pins it, its weight changed) is ended, and its client comes back to the right host.
 *
 * Ending many at once would bring them all back at once, so they are ended `endedPerSecondMax` a second.
 */
import type { AccountName } from '#common/account-name.ts';
import type { Clock, Timer } from '#common/clock.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Connection } from '#common/network/network.ts';

const endedPerSecondMax = 100;

/** A session under way. */
export interface LiveSession {
  readonly account: AccountName;
  readonly host: MemberName;
  readonly connection: Pick<Connection, 'destroy'>;
}

/** See the header of this file. */
export class LiveSessions {
  readonly #clock: Clock;
  readonly #byAccount = new Map<AccountName, Set<LiveSession>>();
  #toCheck: AccountName[] = [];
  #pacer: Timer | undefined;
  #count = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get count(): number {
    return this.#count;
  }

  /** Sessions on a host. */
  countOn(host: MemberName): number {
    let count = 0;
    for (const sessions of this.#byAccount.values()) for (const session of sessions) if (session.host === host) count += 1;
    return count;
  }

  has(account: AccountName): boolean {
    return this.#byAccount.has(account);
  }

  of(account: AccountName): readonly LiveSession[] {
    return [...(this.#byAccount.get(account) ?? [])];
  }

  add(session: LiveSession): void {
    const sessions = this.#byAccount.get(session.account) ?? new Set();
    this.#byAccount.set(session.account, sessions.add(session));
    this.#count += 1;
  }

  /** To be called when it is over; the second time it does nothing. */
  remove(session: LiveSession): void {
    const sessions = this.#byAccount.get(session.account);
    if (sessions?.delete(session) !== true) return;
    this.#count -= 1;
    if (sessions.size === 0) this.#byAccount.delete(session.account);
  }

  /**
   * Ends the account's sessions that are not on `host`. Returns how many there were.
   *
   * @param host `undefined` ends all
   */
  endElsewhere(account: AccountName, host: MemberName | undefined): number {
    let count = 0;
    // One that ends may leave the set at once, which the loop bears.
    for (const session of this.#byAccount.get(account) ?? []) {
      if (session.host === host) continue;
      session.connection.destroy();
      count += 1;
    }
    return count;
  }

  /** Looks at all accounts, as many a second as may be ended. `belongsOn` says where one belongs now; `undefined` leaves it alone. */
  check(belongsOn: (account: AccountName) => MemberName | undefined): void {
    this.#toCheck = [...this.#byAccount.keys()];
    this.#pacer?.cancel();
    const step = (): void => {
      let ended = 0;
      while (ended < endedPerSecondMax / 10) {
        const account = this.#toCheck.pop();
        if (account === undefined) {
          this.#pacer = undefined;
          return;
        }
        const host = belongsOn(account);
        if (host !== undefined) ended += this.endElsewhere(account, host);
      }
      this.#pacer = this.#clock.after(100, step);
    };
    step();
  }

  close(): void {
    this.#pacer?.cancel();
    this.#toCheck = [];
  }
}
