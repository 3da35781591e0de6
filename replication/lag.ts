/**
 * How far behind a replica is. Receive lag is the time from the master's stamp to our receiving a change (two clocks: read it as such);
 * replay lag is from receiving to the replica's acknowledgement, by one clock.
 */
import type { Clock } from '#common/clock.ts';
import type { Metrics } from '#common/metrics/metrics.ts';

/** Kinds of writes that are counted. */
export type AppliedKind = 'add' | 'modify' | 'rename' | 'delete';

const samplesMax = 1024;

/** Measures one replica. */
export class LagMeter {
  readonly applied: Record<AppliedKind, number> = { add: 0, modify: 0, rename: 0, delete: 0 };
  conflicts = 0;
  lastAppliedAtMs: number | undefined;
  readonly #clock: Clock;
  readonly #replica: string;
  readonly #samples: number[] = [];
  #next = 0;
  readonly #appliedTotal: ReturnType<Metrics['counter']>;
  readonly #conflictsTotal: ReturnType<Metrics['counter']>;
  readonly #replaySeconds: ReturnType<Metrics['histogram']>;

  constructor(clock: Clock, metrics: Metrics, replica: string) {
    this.#clock = clock;
    this.#replica = replica;
    this.#appliedTotal = metrics.counter('archipelago_replication_applied_total', 'Writes applied to a replica.', ['replica', 'kind']);
    this.#conflictsTotal = metrics.counter('archipelago_replication_conflicts_total', 'Entries that a replica had of its own.', [
      'replica',
    ]);
    this.#replaySeconds = metrics.histogram(
      'archipelago_replication_replay_seconds',
      'Time from receiving a change to the replica’s acknowledgement.',
      ['replica'],
    );
  }

  wrote(kind: AppliedKind): void {
    this.wroteMany(kind, 1);
  }

  wroteMany(kind: AppliedKind, count: number): void {
    if (count === 0) return;
    this.applied[kind] += count;
    this.lastAppliedAtMs = this.#clock.nowMs();
    this.#appliedTotal.add({ replica: this.#replica, kind }, count);
  }

  conflicted(): void {
    this.conflicts += 1;
    this.#conflictsTotal.add({ replica: this.#replica });
  }

  /** A change received at `receivedMs` (monotonic) was acknowledged now. */
  acknowledged(receivedMs: number): void {
    const replayMs = this.#clock.monotonicMs() - receivedMs;
    this.#replaySeconds.observe({ replica: this.#replica }, replayMs / 1000);
    this.#samples[this.#next] = replayMs;
    this.#next = (this.#next + 1) % samplesMax;
  }

  /** Median replay lag of the last changes, milliseconds; `undefined` before the first. */
  medianReplayMs(): number | undefined {
    return [...this.#samples].sort((a, b) => a - b)[Math.floor(this.#samples.length / 2)];
  }
}
