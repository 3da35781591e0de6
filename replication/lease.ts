/**
 * Which of several replication services writes a replica: the one that holds the replica's lease.
 *
 *   standby ──► nobody, or the same beat for `leaseMs` by our own clock ──► compare-and-swap to a higher number ──► active
 *   active  ──► a new beat every quarter of it; writes only until 4/5 of it after the last beat that was sent and taken
 *           ──► swap refused, or time is up ──► standby
 *
 * No two clocks are compared: others look for change, the holder counts from before it sent. The number goes with every write, and our
 * servers refuse any but the one that they have stored; on other servers a holder that was stopped finds, before it sends anything, that its time
 * is up (`refusal`).
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import { type LeaseRecord, nextNumber, type StatePlace } from '#replication/state-place.ts';

/** What a candidate needs. */
export interface LeaseOptions {
  /** Unique to this run of this service. */
  readonly holder: string;
  readonly leaseMs: number;
  /** The place where it is kept, connected. */
  readonly place: () => Promise<StatePlace>;
  /** Starts the work of the holder; what it resolves with is disposed of when the lease is lost. */
  readonly onTaken: (lease: LeaseRecord) => AsyncDisposable;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** See the header of this file. Dispose of it to give the lease up. */
export class Lease implements AsyncDisposable {
  readonly #options: LeaseOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #seen: { readonly lease: LeaseRecord | undefined; readonly sinceMs: number } | undefined;
  #held: LeaseRecord | undefined;
  #validUntilMs = 0;
  #lastError: string | undefined;
  #takenOverAfterMs: number | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  get isActive(): boolean {
    return this.#held !== undefined;
  }

  get record(): LeaseRecord | undefined {
    return this.#held ?? this.#seen?.lease;
  }

  get lastError(): string | undefined {
    return this.#lastError;
  }

  /** How long the holder before had been silent when this one took over; `undefined` when it never did. */
  get takenOverAfterMs(): number | undefined {
    return this.#takenOverAfterMs;
  }

  /** Why nothing may be written now. */
  refusal(): PlatformError | undefined {
    if (this.#held !== undefined && this.#options.clock.monotonicMs() < this.#validUntilMs) return undefined;
    return new PlatformError('REPL_LEASE_LOST', 'the lease of this replica has run out here; another service may write it');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, random, leaseMs, log } = this.#options;
    const signal = this.#stop.signal;
    while (!signal.aborted) {
      try {
        if (await this.#contend()) await this.#hold();
        this.#lastError = undefined;
      } catch (error) {
        this.#lastError = messageOf(error);
        log.info({ component: 'lease' }, `the lease cannot be seen now: ${this.#lastError}`);
      }
      await sleep(clock, jitteredMs(random, leaseMs / 8), signal);
    }
  }

  // Looks once; true when the lease is ours now.
  async #contend(): Promise<boolean> {
    const { clock, random, leaseMs, holder, place, log } = this.#options;
    const at = await place();
    const present = await at.readLease();
    const nowMs = clock.monotonicMs();
    if (this.#seen === undefined || !isSame(this.#seen.lease, present)) this.#seen = { lease: present, sinceMs: nowMs };
    const silentMs = nowMs - this.#seen.sinceMs;
    if (present !== undefined && present.holder !== '' && silentMs < leaseMs) return false;
    const next = { number: nextNumber(present, random), holder, beat: 1 };
    if (!(await at.swapLease(present, next))) return false;
    this.#held = next;
    this.#validUntilMs = nowMs + leaseMs * 0.8;
    this.#takenOverAfterMs = present === undefined || present.holder === '' ? undefined : silentMs;
    const from =
      present === undefined || present.holder === '' ? 'nobody held it' : `${present.holder} was silent for ${Math.round(silentMs)} ms`;
    log.info({ component: 'lease', fence: next.number }, `this service writes the replica now: ${from}`);
    return true;
  }

  async #hold(): Promise<void> {
    const { clock, leaseMs, place, onTaken, log } = this.#options;
    const signal = this.#stop.signal;
    const tenure = onTaken(this.#held as LeaseRecord);
    let isOurs = true;
    try {
      while (!signal.aborted && isOurs) {
        await sleep(clock, leaseMs / 4, signal);
        if (signal.aborted) break;
        const held = this.#held as LeaseRecord;
        const next = { ...held, beat: held.beat + 1 };
        const sentMs = clock.monotonicMs();
        try {
          const at = await place();
          if (await at.swapLease(held, next)) {
            this.#held = next;
            this.#validUntilMs = sentMs + leaseMs * 0.8;
          } else {
            // The answer to an earlier beat may have been lost.
            const present = await at.readLease();
            isOurs = present?.number === held.number && present.holder === held.holder;
            if (isOurs) this.#held = present;
          }
        } catch (error) {
          this.#lastError = messageOf(error);
        }
        if (clock.monotonicMs() >= this.#validUntilMs + leaseMs * 0.2) isOurs = false;
      }
    } finally {
      if (!isOurs) log.warn({ component: 'lease', fence: this.#held?.number }, 'the lease is lost: this service stands by for the replica');
      const last = this.#held;
      // Its writes are refused from here on; what is under way is waited for.
      if (!signal.aborted) this.#held = undefined;
      await tenure[Symbol.asyncDispose]();
      this.#held = undefined;
      this.#seen = undefined;
      if (isOurs && last !== undefined) await this.#giveUp(last);
    }
  }

  async #giveUp(last: LeaseRecord): Promise<void> {
    try {
      await (await this.#options.place()).swapLease(last, { ...last, holder: '', beat: last.beat + 1 });
    } catch (error) {
      this.#options.log.debug({ component: 'lease' }, `the lease runs out by itself: ${messageOf(error)}`);
    }
  }
}

function isSame(one: LeaseRecord | undefined, other: LeaseRecord | undefined): boolean {
  return one?.number === other?.number && one?.holder === other?.holder && one?.beat === other?.beat;
}
