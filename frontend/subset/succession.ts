/**
 * One frontend going on in another process: a restart or an upgrade that no client notices. Which process is started, and how sockets get from one to
 * the other, is in deploy/run/restart.ts; here is what a frontend does for it.
 *
 *   old   prepare: routes to disk ──── release: queue ──── leave: sessions to their end, then a bye for the rest
 *                  │                      │    ▲              │
 *                  ▼                      ▼    │ takeBack      └─ messages of its last clients: adopt
 *   new   reads them, loads certificates ── opens it ── accepts
 *
 * What always holds: one process accepts at every moment, one delivers from the queue, one writes the snapshot of routes. Until the new one accepts,
 * the old one can take everything back and go on as if nothing had been.
 */
import type { Clock } from '#common/clock.ts';
import { sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { AddressRule, AddressRules } from '#frontend/guard/address-rules.ts';
import type { GuardEntry, LoginGuard } from '#frontend/guard/login-guard.ts';
import type { RunningSmtp } from '#frontend/listeners/smtp-contract.ts';
import type { SnapshotKeeper } from '#frontend/routing/snapshot-keeper.ts';
import { deadlineMsMax, type Withdrawal } from './withdrawal.ts';

/** Time that sessions of the old process have to end by themselves. */
export const leaveDefaultMs = 3_600_000;
/** Time over which those that are left then hear their bye. */
const byeMs = 30_000;
const lookEveryMs = 100;

/** What operators decided while the old process ran; plain JSON. */
export interface FrontendLegacy {
  /** Missing where the configured one stands. */
  readonly weight?: number | undefined;
  readonly isCordoned: boolean;
  readonly rules: readonly AddressRule[];
  /** Failed logins that count, the gravest. */
  readonly failures: readonly GuardEntry[];
}

/** Failed logins that are handed over. */
const failuresMax = 5_000;

/** What it works on. */
export interface SuccessionOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly withdrawal: Withdrawal;
  readonly rules: AddressRules;
  readonly guard: LoginGuard;
  readonly keeper: SnapshotKeeper;
  smtp(): RunningSmtp | undefined;
  /** The new process has taken over. */
  left(): Promise<void>;
  /** Clients connected. */
  connections(): number;
}

/** See the header of this file. */
export class Succession {
  readonly #options: SuccessionOptions;
  #deadlineAtMs: number | undefined;

  constructor(options: SuccessionOptions) {
    this.#options = options;
  }

  /** Another process has taken over, or is about to. */
  get isLeaving(): boolean {
    return this.#deadlineAtMs !== undefined;
  }

  /** Until the rest hears its bye. */
  get leftMs(): number | undefined {
    return this.#deadlineAtMs === undefined ? undefined : Math.max(0, Math.round(this.#deadlineAtMs - this.#options.clock.monotonicMs()));
  }

  /** Writes the routes for the new process. Rejects with `ADMIN_CONFLICT` while the frontend is drained. */
  async prepare(): Promise<FrontendLegacy> {
    const { name, withdrawal, keeper } = this.#options;
    const { state } = withdrawal;
    if (state === 'draining' || state === 'drained') {
      throw new PlatformError('ADMIN_CONFLICT', `${name} is ${state}, its ports are closed: there is nothing to hand over`, {
        fields: { hint: `archipelago frontend resume ${name}, or stop the process and start it` },
      });
    }
    await keeper.freeze();
    return this.legacy();
  }

  /** What another process of this frontend begins with. */
  legacy(): FrontendLegacy {
    const { withdrawal, rules, guard } = this.#options;
    return {
      weight: withdrawal.orderedWeight,
      isCordoned: withdrawal.state === 'cordoned',
      rules: rules.list(),
      failures: guard.ownEntries(failuresMax),
    };
  }

  /** Takes over what operators decided. */
  inherit({ weight, isCordoned, rules, failures }: FrontendLegacy): void {
    const { withdrawal, clock } = this.#options;
    if (weight !== undefined) withdrawal.setWeight(weight);
    if (isCordoned) withdrawal.cordon();
    this.#options.guard.learn(failures);
    // An earlier release says nothing of when and where.
    for (const rule of rules) this.#options.rules.take({ ...rule, setAtMs: rule.setAtMs ?? clock.nowMs(), setAt: rule.setAt ?? '' });
  }

  /** Delivers no more mail; `heir` is told of each message that still comes in. */
  async releaseQueue(heir: (id: string) => void): Promise<void> {
    await this.#options.smtp()?.release(heir);
  }

  /** The new process did not come up: everything is as before. */
  async takeBack(): Promise<void> {
    this.#options.keeper.thaw();
    await this.#options.smtp()?.takeBack();
  }

  /** A message that the old process has queued. */
  async adopt(id: string): Promise<void> {
    await this.#options.smtp()?.adopt(id);
  }

  /** Serves sessions to their end; at the deadline the rest hears its bye. Resolves when there are none, or on `signal`; the caller then disposes. */
  async leave(deadlineMs: number, signal: AbortSignal): Promise<void> {
    const { clock, withdrawal, connections } = this.#options;
    const until = async (atMs: number, isOver: () => boolean): Promise<void> => {
      while (!isOver() && clock.monotonicMs() < atMs && !signal.aborted) await sleep(clock, lookEveryMs, signal);
    };
    const deadlineAtMs = clock.monotonicMs() + Math.min(deadlineMs, deadlineMsMax);
    this.#deadlineAtMs = deadlineAtMs;
    await this.#options.left();
    await until(deadlineAtMs, () => connections() === 0);
    if (connections() === 0 || signal.aborted) return;
    await withdrawal.drain(byeMs, undefined);
    await until(clock.monotonicMs() + byeMs, () => connections() === 0);
  }
}
