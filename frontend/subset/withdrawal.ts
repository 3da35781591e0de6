/**
 * Taking a frontend out of its subset and back in, without its users noticing more than they must.
 *
 *   serving ──cordon──► cordoned ──drain──► draining ──all gone──► drained
 *      ▲                   │                    │                     │
 *      └──── resume ───────┴────────────────────┴─────────────────────┘
 *
 * cordoned: the load balancer is told to send nobody new; whoever comes all the same is served. draining: no new connection is taken up, and sessions
 * are ended one by one, evenly spread over the time there is, each in its protocol's words and between two answers (the member says the bye).
 * Spreading keeps the clients, which connect again at once, from arriving elsewhere in one moment. What is left at the deadline is dropped.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';

/** A session that can be ended. */
export interface EndableSession {
  /** In good order; resolves once it was asked for. */
  bye(text: string): Promise<void>;
  drop(): void;
}

/** What withdrawing works on. */
export interface WithdrawalOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** As configured. */
  weight(): number;
  sessions(): Iterable<EndableSession>;
  /** Clients connected, logged in or not. */
  connections(): number;
  /** Whether new connections are taken up. */
  setAccepting(isAccepting: boolean): Promise<void>;
}

/** Longest drain. */
export const deadlineMsMax = 24 * 3_600_000;
const byeText = 'This server is going out of service, connect again';
const stepMs = 100;

/** See the header of this file. */
export class Withdrawal {
  readonly #options: WithdrawalOptions;
  #state: 'serving' | 'cordoned' | 'draining' | 'drained' = 'serving';
  /** What an operator set, where it is not what is configured. */
  #weight: number | undefined;
  #drain: { readonly startedAtMs: number; readonly deadlineAtMs: number; readonly atStart: number; readonly perSecond: number } | undefined;
  #timer: Timer | undefined;
  readonly #asked = new WeakSet<EndableSession>();

  constructor(options: WithdrawalOptions) {
    this.#options = options;
  }

  get state(): 'serving' | 'cordoned' | 'draining' | 'drained' {
    return this.#state;
  }

  /** Share of new connections that is wanted, percent; 0 unless serving. */
  get weight(): number {
    return this.#state === 'serving' ? (this.#weight ?? this.#options.weight()) : 0;
  }

  status(): FrontendStatus['withdrawal'] {
    const drain = this.#drain;
    return {
      state: this.#state,
      weight: this.#weight ?? this.#options.weight(),
      drain:
        drain === undefined
          ? undefined
          : {
              connectionsAtStart: drain.atStart,
              connectionsLeft: this.#options.connections(),
              perSecond: drain.perSecond,
              leftMs: Math.max(0, Math.round(drain.deadlineAtMs - this.#options.clock.monotonicMs())),
            },
    };
  }

  /** What an operator set, where it is not what is configured. */
  get orderedWeight(): number | undefined {
    return this.#weight;
  }

  /** Throws `ADMIN_BAD_REQUEST`. */
  setWeight(weight: number): void {
    if (!Number.isInteger(weight) || weight < 0 || weight > 100) {
      throw new PlatformError('ADMIN_BAD_REQUEST', 'a weight is a whole number from 0 to 100');
    }
    this.#weight = weight === this.#options.weight() ? undefined : weight;
  }

  cordon(): void {
    if (this.#state === 'serving') this.#state = 'cordoned';
  }

  /**
   * Begins to drain; one under way goes on with the new terms. Resolves when it has begun.
   *
   * @param deadlineMs time after which the rest is dropped
   * @param perSecond sessions ended a second; default: evenly over four fifths of the time
   */
  async drain(deadlineMs: number, perSecond: number | undefined): Promise<void> {
    if (!(deadlineMs > 0 && deadlineMs <= deadlineMsMax)) {
      throw new PlatformError('ADMIN_BAD_REQUEST', `a drain takes from 1 ms to ${deadlineMsMax / 3_600_000} hours`);
    }
    if (perSecond !== undefined && !(perSecond > 0))
      throw new PlatformError('ADMIN_BAD_REQUEST', 'a pace is more than 0 sessions a second');
    const nowMs = this.#options.clock.monotonicMs();
    const atStart = this.#options.connections();
    this.#state = 'draining';
    this.#drain = {
      startedAtMs: nowMs,
      deadlineAtMs: nowMs + deadlineMs,
      atStart,
      perSecond: Math.round((perSecond ?? Math.max(1, atStart / (0.0008 * deadlineMs))) * 10) / 10,
    };
    await this.#options.setAccepting(false);
    this.#timer?.cancel();
    this.#plan();
  }

  /** Back to serving. */
  async resume(): Promise<void> {
    this.#timer?.cancel();
    this.#drain = undefined;
    const wasClosed = this.#state === 'draining' || this.#state === 'drained';
    if (wasClosed) await this.#options.setAccepting(true);
    this.#state = 'serving';
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #plan(): void {
    this.#timer = this.#options.clock.after(jitteredMs(this.#options.random, stepMs, 0.5), () => this.#step());
  }

  #step(): void {
    const drain = this.#drain;
    if (drain === undefined) return;
    const { clock, connections, sessions } = this.#options;
    const nowMs = clock.monotonicMs();
    if (connections() === 0) {
      this.#state = 'drained';
      return;
    }
    if (nowMs >= drain.deadlineAtMs) {
      for (const session of [...sessions()]) session.drop();
      this.#plan();
      return;
    }
    // How many should have been asked to go by now, counted from the beginning: a late timer catches up.
    const due = Math.floor(((nowMs - drain.startedAtMs) * drain.perSecond) / 1000);
    let open = 0;
    const candidates: EndableSession[] = [];
    for (const session of sessions()) {
      if (this.#asked.has(session)) open += 1;
      else candidates.push(session);
    }
    const gone = drain.atStart - candidates.length - open;
    for (const session of candidates.slice(0, Math.max(0, due - gone - open))) {
      this.#asked.add(session);
      void session.bye(byeText);
    }
    this.#plan();
  }
}
