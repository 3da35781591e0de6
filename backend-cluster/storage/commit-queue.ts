/**
 * The one writer of an open account: orders its changes, commits them in groups and applies them.
 *
 *     submit ─► queue ─► group (all that queued while the last commit ran) ─► slot ─► durable ─► applied ─► listeners ─► answers
 *
 * What always holds: nothing is applied or answered before its slot is durable; a slot number is tried by one commit only; after an
 * outcome that is not certain nothing more is written, because only a new opening can find out what happened. `full` is certain: its
 * group is refused and the account goes on.
 */
import { type Clock, withTimeout } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Random } from '#common/random.ts';
import type { CommitOutcome, OpeningLog } from './account-log.ts';
import type { AccountState } from './account-state.ts';
import { type ChangeScope, GroupPlan } from './group-plan.ts';
import { encodeSlot } from './slot.ts';
import type { StoreMetrics } from './store-metrics.ts';

/** Limits of the queue: beyond them a change is refused with `MBOX_LIMIT`, and of a group: beyond them it waits for the next one. */
const changesQueuedMax = 10_000;
const bytesQueuedMax = 128 * 1024 * 1024;
const changesPerGroupMax = 1_000;
const bytesPerGroupMax = 8 * 1024 * 1024;

/** A change of the account. */
export interface Change<T> {
  readonly scope: ChangeScope;
  /** Bytes it holds while it waits. */
  readonly bytes: number;
  /** Adds records to the plan, after all checks: it throws before it adds anything. Returns what makes the answer once all is applied. */
  plan(plan: GroupPlan): () => T;
}

interface Queued {
  readonly change: Change<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** What the queue needs and whom it tells. */
export interface CommitQueueOptions {
  readonly state: AccountState;
  readonly log: OpeningLog;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  /** Time after which a commit that has no answer counts as unknown. */
  readonly timeoutMs: number;
  /**
   * Before a commit, as long as the opening itself is not committed: storage was full then. Commits it and applies it to the state, or
   * rejects.
   */
  confirm(): Promise<void>;
  /** After each commit, with all of it applied, before the answers. */
  committed(mailboxIds: readonly number[], records: number): void;
  /** Once: nothing more is written. */
  failed(error: PlatformError): void;
}

/** See the header of this file. */
export class CommitQueue {
  readonly #options: CommitQueueOptions;
  readonly #queue: Queued[] = [];
  #queuedBytes = 0;
  #running: Promise<void> | undefined;
  #failure: PlatformError | undefined;

  constructor(options: CommitQueueOptions) {
    this.#options = options;
  }

  /** Answers once the change is durable. */
  submit<T>(change: Change<T>): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#queue.length >= changesQueuedMax || this.#queuedBytes + change.bytes > bytesQueuedMax) {
      return Promise.reject(new PlatformError('MBOX_LIMIT', `${this.#queue.length} changes of the account are waiting for storage`));
    }
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ change, resolve: resolve as (value: unknown) => void, reject });
      this.#queuedBytes += change.bytes;
      // On a later turn, so that what is submitted in this one shares the commit.
      this.#running ??= Promise.resolve().then(() => this.#run());
    });
  }

  /** Resolves when nothing is queued or being committed. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  /** Refuses what is queued and all that comes, with this reason. */
  fail(error: PlatformError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#queuedBytes = 0;
    for (const queued of this.#queue.splice(0)) queued.reject(error);
    this.#options.failed(error);
  }

  async #run(): Promise<void> {
    try {
      while (this.#queue.length > 0) await this.#commitGroup();
    } finally {
      this.#running = undefined;
    }
  }

  async #commitGroup(): Promise<void> {
    const { state, clock } = this.#options;
    const plan = new GroupPlan(state, clock.nowMs());
    const group = this.#takeGroup(plan);
    try {
      if (group.length > 0) await this.#options.confirm();
      const error = plan.records.length === 0 ? undefined : await this.#commit(plan, group.length);
      if (error !== undefined) throw error;
      for (const { queued, answer } of group) queued.resolve(answer());
    } catch (thrown) {
      // Anything but a full disk means that what is in memory may differ from what is stored: nothing more is written.
      const error = asPlatformError(thrown);
      for (const { queued } of group) queued.reject(error);
      if (error.code !== 'STORE_FULL') this.fail(error);
    }
  }

  /** Plans changes from the queue as long as they go together. Those that cannot be done are refused here and now. */
  #takeGroup(plan: GroupPlan): { readonly queued: Queued; readonly answer: () => unknown }[] {
    const group: { queued: Queued; answer: () => unknown }[] = [];
    while (group.length < changesPerGroupMax && plan.bodyBytes < bytesPerGroupMax) {
      const queued = this.#queue[0];
      if (queued === undefined || !plan.admit(queued.change.scope)) break;
      this.#queue.shift();
      this.#queuedBytes -= queued.change.bytes;
      try {
        group.push({ queued, answer: queued.change.plan(plan) });
      } catch (error) {
        queued.reject(error);
      }
    }
    return group;
  }

  /** Commits and applies the plan; what went wrong, if anything did. */
  async #commit(plan: GroupPlan, changes: number): Promise<PlatformError | undefined> {
    const { state, log, clock, random, metrics, timeoutMs, logger } = this.#options;
    const slot = state.slot + 1;
    const nonce = random.bytes(16).toString('hex');
    const encoded = encodeSlot({ slot, epoch: state.epoch, nonce, records: plan.records, bodies: plan.bodies });
    const startedMs = clock.monotonicMs();
    const outcome = await withTimeout(
      clock,
      timeoutMs,
      log.commit(slot, nonce, encoded.parts),
      () => new Error(`no answer for ${timeoutMs} ms`),
    ).catch((cause: unknown): CommitOutcome => ({ kind: 'unknown', cause }));
    metrics.committed(outcome.kind, (clock.monotonicMs() - startedMs) / 1000, changes, encoded.bytes);
    if (outcome.kind !== 'committed') {
      const error = failureOf(outcome, log.nameOf({ slot }));
      logger.warn({ errCode: error.code, epoch: state.epoch, slot, cause: outcome.cause }, error.message);
      return error;
    }
    const place = { slot, epoch: state.epoch, bodiesOffset: encoded.bodiesOffset };
    const touched = new Set<number>();
    for (const record of plan.records) {
      const mailboxId = state.apply(record, place);
      if (mailboxId !== undefined) touched.add(mailboxId);
    }
    state.slot = slot;
    this.#options.committed([...touched], plan.records.length);
    return undefined;
  }
}

function failureOf(outcome: Exclude<CommitOutcome, { kind: 'committed' }>, file: string): PlatformError {
  const fields = { file };
  switch (outcome.kind) {
    case 'full':
      return new PlatformError('STORE_FULL', `shared storage is full: ${file} was not written; free space or raise the limit`, {
        fields,
        cause: outcome.cause,
      });
    case 'deposed':
      return new PlatformError('CLUSTER_DEPOSED', `another opening has the account: ${file} could not be created here`, {
        fields,
        cause: outcome.cause,
      });
    case 'unknown':
      return new PlatformError(
        'STORE_UNAVAILABLE',
        `whether ${file} was written is not known; the account is closed and must be opened again`,
        { fields, cause: outcome.cause },
      );
  }
}
