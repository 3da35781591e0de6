/**
 * How far a refresh is, for status and log: entries so far, their rate, the time that is left where the master says how many there are, and
 * what it waits for when nothing moves. A master that is silent may just be slow, so that is told and nothing is ended for it; one that does
 * not answer at all is dropped by whoever watches its connection (`keepAlive`).
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import type { RefreshProgress } from '#replication/client/status.ts';
import type { Pipeline } from '#replication/pipeline.ts';

const logEveryMs = 10_000;
/** What has not moved for so long is said to wait. */
const waitsFromMs = 10_000;
/** The log says so at once, then after twice the time, up to this. */
const waitsLoggedMaxMs = 3_600_000;
/** After so many looks at which it went on, the next wait is logged at once again. */
const looksUntilCalm = 6;

/** reading: what the replica has; receiving: what the master sends; ending: all has come, the replica gets the rest of it. */
export type RefreshStep = 'reading' | 'receiving' | 'ending';

/** The two ends of a refresh. */
export interface RefreshEnds {
  readonly master: Pick<LdapConnection, 'silentMs'>;
  readonly pipeline: Pick<Pipeline, 'hasRoom' | 'backlog' | 'lagMs'>;
}

/** One refresh under way. */
export class Progress implements Disposable {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #ends: RefreshEnds;
  readonly #startedMs: number;
  readonly #ofEntries: number | undefined;
  readonly #timer: Timer;
  #step: RefreshStep = 'reading';
  #entries = 0;
  #named = 0;
  #movedMs: number;
  #nextWaitLoggedMs = 0;
  #waitLoggedEveryMs = logEveryMs;
  #looksGoingOn = 0;

  /** `ofEntries`: how many will come, where that is known. */
  constructor(clock: Clock, log: Logger, ofEntries: number | undefined, ends: RefreshEnds) {
    this.#clock = clock;
    this.#log = log;
    this.#ends = ends;
    this.#startedMs = clock.monotonicMs();
    this.#movedMs = this.#startedMs;
    this.#ofEntries = ofEntries;
    this.#timer = clock.every(logEveryMs, () => this.#look());
  }

  /** An entry of the replica was read. */
  read(): void {
    this.#movedMs = this.#clock.monotonicMs();
  }

  entry(): void {
    this.#entries += 1;
    this.#movedMs = this.#clock.monotonicMs();
  }

  /** The master named entries without sending them: as still there, or as gone. */
  named(count: number): void {
    this.#named += count;
    this.#movedMs = this.#clock.monotonicMs();
  }

  step(step: RefreshStep): void {
    this.#step = step;
    this.#movedMs = this.#clock.monotonicMs();
  }

  now(): RefreshProgress {
    const nowMs = this.#clock.monotonicMs();
    const seconds = (nowMs - this.#startedMs) / 1000;
    const perSecond = seconds > 0 ? Math.round(this.#entries / seconds) : 0;
    const left = this.#ofEntries === undefined ? undefined : Math.max(0, this.#ofEntries - this.#entries);
    const etaMs = left === undefined || perSecond === 0 ? undefined : Math.round((1000 * left) / perSecond);
    const quietMs = Math.round(nowMs - this.#movedMs);
    const waitsFor = this.#waitsFor(quietMs);
    return { entries: this.#entries, named: this.#named, perSecond, ofEntries: this.#ofEntries, etaMs, quietMs, waitsFor };
  }

  /** Ends the lines in the log. */
  over(): void {
    this.#timer.cancel();
  }

  [Symbol.dispose](): void {
    this.over();
  }

  #waitsFor(quietMs: number): string | undefined {
    const { master, pipeline } = this.#ends;
    if (this.#step !== 'reading' && (this.#step === 'ending' || !pipeline.hasRoom) && pipeline.lagMs >= waitsFromMs)
      return `the replica, which has not taken the first of ${pipeline.backlog} changes for ${seconds(pipeline.lagMs)}`;
    if (quietMs < waitsFromMs) return undefined;
    if (this.#step === 'reading') return `the replica, of whose entries nothing came for ${seconds(quietMs)}`;
    if (this.#step === 'ending')
      return `the replica: everything came ${seconds(quietMs)} ago, and what has to go there is being looked for`;
    const answers = master.silentMs < waitsFromMs ? 'the master still answers' : 'and no answer of the master either';
    return `the master: nothing came for ${seconds(quietMs)}, ${answers}`;
  }

  #look(): void {
    const now = this.now();
    if (now.waitsFor === undefined) {
      this.#looksGoingOn += 1;
      if (this.#looksGoingOn >= looksUntilCalm) {
        this.#nextWaitLoggedMs = 0;
        this.#waitLoggedEveryMs = logEveryMs;
      }
      this.#log.info({ ...now }, 'the refresh goes on');
      return;
    }
    this.#looksGoingOn = 0;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#nextWaitLoggedMs) return;
    this.#waitLoggedEveryMs = Math.min(waitsLoggedMaxMs, 2 * this.#waitLoggedEveryMs);
    this.#nextWaitLoggedMs = nowMs + this.#waitLoggedEveryMs;
    this.#log.warn({ ...now }, 'the refresh waits');
  }
}

function seconds(ms: number): string {
  return `${Math.floor(ms / 1000)} s`;
}

/** How many entries a master of our own has; `undefined` of others, which do not say. */
export async function entriesOf(master: LdapConnection): Promise<number | undefined> {
  const counter = await master.readEntry('cn=Entries,cn=Database,cn=Monitor', ['monitorCounter']).catch(() => undefined);
  const count = Number(textOf(counter?.attributes ?? [], 'monitorCounter') ?? Number.NaN);
  return Number.isSafeInteger(count) ? count : undefined;
}
