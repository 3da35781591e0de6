/** How far a refresh is, for status and log: entries so far, their rate, and the time that is left where the master says how many there are. */
import type { Clock, Timer } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import type { RefreshProgress } from '#replication/client/status.ts';

const logEveryMs = 10_000;

/** One refresh under way. */
export class Progress implements Disposable {
  readonly #clock: Clock;
  readonly #startedMs: number;
  readonly #ofEntries: number | undefined;
  readonly #timer: Timer;
  #entries = 0;

  /** `ofEntries`: how many will come, where that is known. */
  constructor(clock: Clock, log: Logger, ofEntries: number | undefined) {
    this.#clock = clock;
    this.#startedMs = clock.monotonicMs();
    this.#ofEntries = ofEntries;
    this.#timer = clock.every(logEveryMs, () => log.info({ ...this.now() }, 'the refresh goes on'));
  }

  entry(): void {
    this.#entries += 1;
  }

  now(): RefreshProgress {
    const seconds = (this.#clock.monotonicMs() - this.#startedMs) / 1000;
    const perSecond = seconds > 0 ? Math.round(this.#entries / seconds) : 0;
    const left = this.#ofEntries === undefined ? undefined : Math.max(0, this.#ofEntries - this.#entries);
    const etaMs = left === undefined || perSecond === 0 ? undefined : Math.round((1000 * left) / perSecond);
    return { entries: this.#entries, perSecond, ofEntries: this.#ofEntries, etaMs };
  }

  /** Ends the lines in the log. */
  over(): void {
    this.#timer.cancel();
  }

  [Symbol.dispose](): void {
    this.over();
  }
}

/** How many entries a master of our own has; `undefined` of others, which do not say. */
export async function entriesOf(master: LdapConnection): Promise<number | undefined> {
  const counter = await master.readEntry('cn=Entries,cn=Database,cn=Monitor', ['monitorCounter']).catch(() => undefined);
  const count = Number(textOf(counter?.attributes ?? [], 'monitorCounter') ?? Number.NaN);
  return Number.isSafeInteger(count) ? count : undefined;
}
