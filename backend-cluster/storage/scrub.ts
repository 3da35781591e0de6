/**
 * Looks for bit rot: reads every account of the cluster again and again, no faster than it may, while the Controller of the moment leads.
 *
 *     note (round, last account) ─► next account ─► check, paced ─► damage? marked, its host told ─► note now and then ─► ... ─► rest
 *
 * How far it is lies in storage, so a new Controller goes on where the last one was. A read of a few bytes costs a disk about as much as
 * one of some kilobytes and counts as such, so the pace holds for accounts of many small messages too.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { asPlatformError, messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { AccountStore } from './account-store.ts';

const noteName = 'scrub';
/** Between two looks whether there is anything to do. */
const idleMs = 5_000;
/** After a failure of storage. */
const failureRestMs = 30_000;
/** Accounts and time after which the position is noted: what is done again after a change of Controller. */
const accountsPerNote = 200;
const noteEveryMs = 60_000;
/** What the smallest read counts as, bytes. */
const readBytesMin = 16 * 1024;
/** The pace is kept over stretches of this length. */
const stretchMs = 50;

/** How far the check of all accounts is; plain JSON, also as it lies in storage. Times are the Controller's wall clock. */
export interface ScrubStatus {
  readonly round: number;
  readonly startedAtMs: number;
  readonly finishedAtMs: number | undefined;
  /** The last account that was checked; empty at the beginning of a round. */
  readonly after: string;
  readonly accounts: number;
  readonly bytes: number;
  /** Accounts of this round in which something was wrong, and those that could not be read. */
  readonly damaged: number;
  readonly unread: number;
}

/** What a scrub is given. */
export interface ScrubOptions {
  readonly store: Pick<AccountStore, 'accounts' | 'checkAccount'> & { readonly notes: Pick<AccountStore['notes'], 'read' | 'write'> };
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** 0: only when asked for, at `askedBytesPerSecond`. */
  readonly bytesPerSecond: number;
  /** From the start of one round to that of the next. */
  readonly everyMs: number;
  /** Only one member at a time should scrub. */
  mayRun(): boolean;
  /** An account is read-only from now on: whoever has it open lets go of it. */
  onDamage(uuid: AccountUuid): void;
}

/** Rate of a round that somebody asked for where there is no other. */
const askedBytesPerSecond = 50_000_000;

/** See the header of this file. */
export class Scrub {
  readonly #options: ScrubOptions;
  readonly #stopped = new AbortController();
  readonly #accounts: { add(labels?: Record<string, string>, value?: number): void };
  readonly #bytes: { add(labels?: Record<string, string>, value?: number): void };
  #running: Promise<void> | undefined;
  #status: ScrubStatus | undefined;
  #isAsked = false;
  #woken = new AbortController();
  #owedUntilMs = 0;

  constructor(options: ScrubOptions) {
    this.#options = options;
    this.#accounts = options.metrics.counter('archipelago_store_scrubbed_accounts_total', 'Accounts read by the background check.', [
      'outcome',
    ]);
    this.#bytes = options.metrics.counter('archipelago_store_scrubbed_bytes_total', 'Bytes read by the background check.');
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#woken.abort();
    await this.#running;
  }

  /** Begins a round now, unless one is running. */
  ask(): void {
    this.#isAsked = true;
    this.#woken.abort();
  }

  /** As last known here; `undefined` when nothing was ever checked. */
  async status(): Promise<ScrubStatus | undefined> {
    if (this.#options.mayRun() && this.#status !== undefined) return this.#status;
    return this.#read();
  }

  async #run(): Promise<void> {
    const { clock, log, mayRun } = this.#options;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      let restMs = idleMs;
      try {
        if (mayRun()) await this.#round(signal);
        // Another one leads: what it notes is read when this one leads again.
        else this.#status = undefined;
      } catch (error) {
        log.warn({ errCode: asPlatformError(error).code, err: error }, 'the check of all accounts was interrupted; it goes on shortly');
        restMs = failureRestMs;
      }
      // Asked for while it looked: no rest. Asked of one that does not lead: forgotten.
      if (this.#isAsked && mayRun()) continue;
      this.#isAsked = false;
      // Not by `AbortSignal.any`: Node keeps such a signal, and all that waits for it, until it is aborted.
      this.#woken = new AbortController();
      if (!signal.aborted) await sleep(clock, restMs, this.#woken.signal);
    }
  }

  /** Begins or goes on with a round, if it is time for one. */
  async #round(signal: AbortSignal): Promise<void> {
    const { clock, store, bytesPerSecond, everyMs, log, mayRun } = this.#options;
    // Nothing to be done, and nothing to be read for that.
    if (bytesPerSecond === 0 && !this.#isAsked && this.#status === undefined) return;
    const last = this.#status ?? (await this.#read());
    const isDue = bytesPerSecond > 0 && (last === undefined || clock.nowMs() - last.startedAtMs >= everyMs);
    const goesOn =
      last !== undefined && last.finishedAtMs === undefined && (bytesPerSecond > 0 || this.#isAsked || this.#status !== undefined);
    if (!goesOn && !isDue && !this.#isAsked) {
      this.#status = last;
      return;
    }
    this.#isAsked = false;
    const round = goesOn ? last : emptyRound((last?.round ?? 0) + 1, clock.nowMs());
    this.#status = round;
    if (!goesOn) await this.#note();
    let sinceNote = 0;
    let notedMs = clock.monotonicMs();
    for await (const uuid of store.accounts(round.after)) {
      if (signal.aborted || !mayRun()) return this.#note();
      await this.#check(uuid, signal);
      sinceNote += 1;
      if (sinceNote >= accountsPerNote || clock.monotonicMs() - notedMs >= noteEveryMs) {
        await this.#note();
        sinceNote = 0;
        notedMs = clock.monotonicMs();
      }
    }
    this.#status = { ...this.#status, finishedAtMs: clock.nowMs() };
    await this.#note();
    const { accounts, bytes, damaged, unread, startedAtMs } = this.#status;
    log.info({ accounts, bytes, damaged, unread, durationMs: clock.nowMs() - startedAtMs }, 'all accounts were checked');
  }

  async #check(uuid: AccountUuid, signal: AbortSignal): Promise<void> {
    const { store, onDamage, log } = this.#options;
    const before = this.#status as ScrubStatus;
    let outcome: 'whole' | 'damaged' | 'unread' = 'whole';
    let bytes = 0;
    try {
      const check = await store.checkAccount(uuid, {
        isMarking: true,
        pace: async (read) => {
          bytes += read;
          this.#bytes.add({}, read);
          await this.#pace(read, signal);
        },
      });
      if (check.findings.length > 0) outcome = 'damaged';
      if (!check.isComplete) onDamage(uuid);
    } catch (error) {
      // Removed meanwhile.
      if (asPlatformError(error).code !== 'ACCT_NOT_FOUND') {
        outcome = asPlatformError(error).code === 'STORE_CORRUPT' ? 'damaged' : 'unread';
        log.error({ account: uuid, errCode: asPlatformError(error).code, err: error }, 'an account could not be checked');
      }
    }
    this.#accounts.add({ outcome });
    this.#status = {
      ...before,
      after: uuid,
      accounts: before.accounts + 1,
      bytes: before.bytes + bytes,
      damaged: before.damaged + (outcome === 'damaged' ? 1 : 0),
      unread: before.unread + (outcome === 'unread' ? 1 : 0),
    };
  }

  /** Waits until what was read may have been read. */
  async #pace(bytes: number, signal: AbortSignal): Promise<void> {
    const { clock, bytesPerSecond } = this.#options;
    const rate = bytesPerSecond === 0 ? askedBytesPerSecond : bytesPerSecond;
    const nowMs = clock.monotonicMs();
    this.#owedUntilMs = Math.max(this.#owedUntilMs, nowMs) + (Math.max(bytes, readBytesMin) / rate) * 1000;
    if (this.#owedUntilMs - nowMs > stretchMs) await sleep(clock, this.#owedUntilMs - nowMs, signal);
  }

  async #read(): Promise<ScrubStatus | undefined> {
    const { store, log } = this.#options;
    const noted = (await store.notes.read(noteName).catch((error: unknown) => {
      if (asPlatformError(error).code !== 'STORE_CORRUPT') throw error;
      log.warn({ errCode: 'STORE_CORRUPT' }, `${messageOf(error)}; all accounts are checked from the first one on`);
    })) as Partial<ScrubStatus> | undefined;
    return typeof noted?.round === 'number' ? { ...emptyRound(noted.round, 0), ...noted } : undefined;
  }

  async #note(): Promise<void> {
    if (this.#status !== undefined) await this.#options.store.notes.write(noteName, this.#status);
  }
}

function emptyRound(round: number, startedAtMs: number): ScrubStatus {
  return { round, startedAtMs, finishedAtMs: undefined, after: '', accounts: 0, bytes: 0, damaged: 0, unread: 0 };
}
