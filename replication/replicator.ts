/**
 * Keeps one replica equal to the master.
 *
 *   master ──RFC 4533──► source ──► pipeline (bounded, ordered) ──► replica
 *                          ▲                     │ acknowledged
 *                          └──── cookie ◄── checkpoint file (durable)
 *
 * Both ends have a connection of their own and come back on their own, with growing, jittered pauses. While the replica is away the
 * pipeline fills and then holds the master's stream; while the master is away the pipeline empties. The checkpoint follows what the
 * replica has acknowledged, so after any crash some changes come twice and none is missing. Replicas share nothing: a slow one delays
 * nobody.
 *
 * stopped: a refresh would delete too much (`allowDeletes`), or the master went back to an older state (`resume`); an operator looks and
 * lets it go on.
 */
import { sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { openBound } from '#directory/client/access.ts';
import { keepAlive } from '#directory/client/keep-alive.ts';
import type { LdapConnection, WriteGuard } from '#directory/client/ldap-connection.ts';
import { isRefreshRequired } from '#directory/client/sync-session.ts';
import { AddSender } from '#replication/add-sender.ts';
import { type ApplyContext, applyDelete, applyPut } from '#replication/apply-change.ts';
import { checkpointIsDue, csnOfCookie, csnOfTime, removeFile } from '#replication/checkpoint.ts';
import type { Difference, ReplicaStatus } from '#replication/client/status.ts';
import { checkHistory, hasLess } from '#replication/history.ts';
import { ImageSender } from '#replication/image-sender.ts';
import { LagMeter } from '#replication/lag.ts';
import { isForOperator, OperatorStop } from '#replication/operator-stop.ts';
import { type Batches, Pipeline, type Queued } from '#replication/pipeline.ts';
import { entriesOf, Progress } from '#replication/progress.ts';
import { RefusedAgain, refusedAgainMs } from '#replication/refused-again.ts';
import { queueRepair } from '#replication/repair.ts';
import { findAtMaster, Replica } from '#replication/replica.ts';
import type { ReplicatorOptions } from '#replication/replicator-options.ts';
import { Doomed } from '#replication/resync.ts';
import { RetryPause } from '#replication/retry-pause.ts';
import type { Scope } from '#replication/scope.ts';
import { ReplicaDiverged, runSource } from '#replication/source.ts';
import type { Shadow } from '#replication/store/shadow.ts';

/** A checkpoint that could not be stored is stored again after this time. */
const checkpointAgainMs = 5000;
/** How long the end of the service waits for it. */
const lastCheckpointMs = 2000;
const refusedShown = 10;

/** See the header of this file. */
export class Replicator implements AsyncDisposable {
  readonly name: string;
  readonly #options: ReplicatorOptions;
  readonly #log: Logger;
  readonly #lag: LagMeter;
  readonly #pipeline: Pipeline;
  readonly #stop = new AbortController();
  readonly #closed = new AbortController();
  readonly #doomed: Doomed;
  readonly #operator: OperatorStop;
  readonly #running: Promise<unknown>;
  readonly #csnWaiters = new Set<{ readonly csn: string; readonly resolve: () => void }>();
  #target: Replica | undefined;
  #keepsCsn = true;
  #wasConnected = false;
  #phase: 'connecting' | 'refreshing' | 'following' = 'connecting';
  #sourceState: 'connecting' | 'connected' = 'connecting';
  #containerMoved = false;
  readonly #refusedAgain: RefusedAgain;
  #comparesContent = false;
  #received: Buffer | undefined;
  #acknowledged: { readonly cookie: Buffer; readonly csn: string | undefined } | undefined;
  #unsaved: Buffer | undefined;
  /** The cookie of the checkpoint that is stored. */
  #saved: Buffer | undefined;
  /** Of `#changes`, those known to be on the replica's disk. */
  #flushedChanges = 0;
  readonly #images: ImageSender;
  #takesImages = false;
  /** Not used for a replica of our own, which compares by itself. */
  #shadow: Shadow | undefined;
  #progress: Progress | undefined;
  #rewinds = 0;
  #forgottenTo = 0;
  /** Ends the present run of the master's stream. */
  #restartSource: (() => void) | undefined;
  #saving: Promise<void> | undefined;
  #changes = 0;
  #sourceError: string | undefined;
  #targetError: string | undefined;
  #checkpointError: string | undefined;
  #verified: { readonly atMs: number; readonly result: string } | undefined;
  #notVerified: string | undefined;
  #queries: LdapConnection | undefined;
  #openingQueries: Promise<LdapConnection> | undefined;

  constructor(options: ReplicatorOptions) {
    this.name = options.name;
    this.#options = options;
    this.#log = options.ports.log.child({ component: 'replicator', replica: options.name });
    this.#operator = new OperatorStop(this.#log, options.refreshDeletesMaxPercent, options.name);
    this.#doomed = new Doomed(options.goneFile);
    this.#lag = new LagMeter(options.ports.clock, options.ports.metrics, options.name);
    this.#images = new ImageSender(this.#lag, options.quarantine, () => {
      if (this.#phase !== 'following') this.#containerMoved = true;
    });
    this.#pipeline = new Pipeline(options.ports.clock, (changes) => this.#onAcknowledged(changes));
    this.#refusedAgain = new RefusedAgain(options.ports, options.quarantine, this.#pipeline, () => this.#phase === 'following');
    this.#running = this.#run();
  }

  /** The cookie that came last. */
  get receivedCookie(): Buffer | undefined {
    return this.#received;
  }

  /** The latest change of the master that was received. */
  get receivedCsn(): string | undefined {
    return csnOfCookie(this.#received);
  }

  get sourceState(): { readonly state: string; readonly lastError: string | undefined } {
    return { state: this.#sourceState, lastError: this.#sourceError };
  }

  /** Whether the replica takes CSNs from us, as far as is known. */
  get keepsCsn(): boolean {
    return this.#target?.keepsCsn ?? this.#keepsCsn;
  }

  /** What of the master the replica is given. */
  get scope(): Scope {
    return this.#options.scope;
  }

  /** Aborts when it is stopped, e.g. because another service writes the replica. */
  get ended(): AbortSignal {
    return this.#stop.signal;
  }

  /** Median replay lag of the last changes, milliseconds. */
  get medianReplayMs(): number | undefined {
    return this.#lag.medianReplayMs();
  }

  status(): ReplicaStatus {
    const { quarantine } = this.#options;
    return {
      name: this.name,
      url: this.#options.replica.url,
      state: this.#state(),
      ...(this.#phase === 'refreshing' && this.#progress !== undefined ? { refresh: this.#progress.now() } : {}),
      backlogChanges: this.#pipeline.backlog,
      lagMs: Math.round(this.#pipeline.lagMs),
      applied: { ...this.#lag.applied },
      conflicts: this.#lag.conflicts,
      refused: { entries: quarantine.size, first: quarantine.list(refusedShown) },
      contextCsn: this.#acknowledged?.csn,
      lastError: this.#operator.stoppedBy?.message ?? this.#targetError ?? this.#checkpointError ?? this.#sourceError,
      ...(this.#operator.stoppedBy === undefined ? {} : { stoppedBy: this.#operator.stoppedBy.code }),
      lastAppliedAtMs: this.#lag.lastAppliedAtMs,
      lastVerifiedAtMs: this.#verified?.atMs,
      lastVerifyResult: this.#verified?.result,
      ...(this.#notVerified === undefined ? {} : { lastVerifyFailure: this.#notVerified }),
    };
  }

  /** Lets a refresh that was stopped delete as much as it wanted to, once. One that wants more by then stops again. */
  allowDeletes(): void {
    if (!this.#operator.allowDeletes()) throw this.#isNotStopped('asks for deletions');
  }

  /** Lets a replica that was stopped follow the master as it is now; the limit on deletions stays. */
  resume(): void {
    if (!this.#operator.goOn()) throw this.#isNotStopped('is stopped');
  }

  #isNotStopped(expected: string): PlatformError {
    const { stoppedBy } = this.#operator;
    const reason = stoppedBy === undefined ? '' : `: ${stoppedBy.message}`;
    return new PlatformError(
      'ADMIN_CONFLICT',
      `${this.name} is ${this.#state()}${reason}. This is for a replica that ${expected}; nothing was done`,
    );
  }

  /** Puts right what a comparison found; resolves once the replica has acknowledged it. */
  async repair(differences: Iterable<Difference>, onQueued: (differences: number) => void): Promise<void> {
    const { signal } = this.#stop;
    await queueRepair(differences, this.#pipeline, () => this.#options.ports.clock.monotonicMs(), signal, onQueued);
    await this.#pipeline.passed(signal);
  }

  /** What a comparison came to; entries that differ are not what the replica is known to hold. */
  noteVerified(result: string, found?: { readonly differences: Iterable<Difference>; readonly isCut: boolean }): void {
    if (found !== undefined) this.#shadow?.doubt(found);
    this.#verified = { atMs: this.#options.ports.clock.nowMs(), result };
    this.#notVerified = undefined;
  }

  /** A comparison came to no end, and why. */
  noteNotVerified(reason: string): void {
    this.#notVerified = reason;
  }

  /** Resolves once the replica has everything up to that `entryCSN`; rejects with the signal's reason. */
  async waitFor(csn: string, signal: AbortSignal): Promise<void> {
    if ((this.#acknowledged?.csn ?? '') >= csn) return;
    signal.throwIfAborted();
    const waiting = Promise.withResolvers<void>();
    const waiter = { csn, resolve: () => waiting.resolve() };
    const onAbort = (): void => waiting.reject(signal.reason);
    this.#csnWaiters.add(waiter);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await waiting.promise;
    } finally {
      this.#csnWaiters.delete(waiter);
      signal.removeEventListener('abort', onAbort);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PlatformError('DIR_UNAVAILABLE', 'replication was stopped'));
    this.#pipeline.wake();
    this.#operator.end();
    this.#queries?.destroy();
    // What is under way and the last checkpoint need the replica's word; one that does not give it is not waited for.
    await Promise.race([this.#running, sleep(this.#options.ports.clock, lastCheckpointMs, this.#closed.signal)]);
    this.#closed.abort();
    this.#target?.connection.destroy();
    await this.#running;
    await this.#saving;
    this.#shadow?.[Symbol.dispose]();
    this.#doomed.clear();
  }

  async #run(): Promise<void> {
    try {
      await this.#options.quarantine.load();
      this.#shadow = await this.#options.openShadow?.();
      const checkpoint = await this.#options.checkpoint.load(this.#options.master.url);
      this.#changes = checkpoint?.changes ?? 0;
      this.#shadow?.resume(checkpoint);
      this.#flushedChanges = this.#changes;
      if (checkpoint !== undefined && checkpoint.scope !== this.#options.scope.key) {
        this.#log.warn({}, 'what the replica is given was changed in the configuration: its whole content is compared');
        this.#comparesContent = true;
        return await this.#keepBoth();
      }
      this.#received = checkpoint?.cookie;
      this.#saved = checkpoint?.cookie;
      if (checkpoint !== undefined) this.#acknowledged = { cookie: checkpoint.cookie, csn: csnOfCookie(checkpoint.cookie) };
    } catch (error) {
      this.#shadow?.clear();
      // Without its checkpoint the replica is compared as a whole, which is slow and right.
      this.#log.error({}, messageOf(error));
    }
    await this.#keepBoth();
  }

  async #keepBoth(): Promise<void> {
    await Promise.all([this.#keepSource(), this.#keepTarget()]);
  }

  #state(): ReplicaStatus['state'] {
    if (this.#operator.stoppedBy !== undefined) return 'stopped';
    if (this.#target === undefined) return this.#wasConnected ? 'retrying' : 'connecting';
    return this.#targetError === undefined ? this.#phase : 'retrying';
  }

  async #keepSource(): Promise<void> {
    const { ports, master } = this.#options;
    const signal = this.#stop.signal;
    const pause = new RetryPause(ports);
    while (!signal.aborted) {
      let connection: LdapConnection | undefined;
      let stopWatching: (() => void) | undefined;
      let followedAtMs = Number.POSITIVE_INFINITY;
      try {
        connection = await openBound(master.url, master, ports, true);
        const opened = connection;
        const restart = new AbortController();
        this.#restartSource = () => restart.abort(new PlatformError('DIR_UNAVAILABLE', 'changes are asked for again'));
        const session = AbortSignal.any([signal, restart.signal]);
        const onAbort = (): void => opened.destroy('replication was stopped, or changes are asked for again');
        session.addEventListener('abort', onAbort, { once: true });
        stopWatching = keepAlive(connection, ports.clock);
        this.#sourceState = 'connected';
        try {
          await this.#consume(connection, session, () => {
            followedAtMs = ports.clock.monotonicMs();
            this.#sourceError = undefined;
          });
        } finally {
          session.removeEventListener('abort', onAbort);
          this.#restartSource = undefined;
        }
      } catch (error) {
        if (signal.aborted) return;
        if (isRefreshRequired(error) || error instanceof ReplicaDiverged) {
          this.#log.warn({ reason: messageOf(error) }, 'the whole replica is compared with the master');
          await this.#forget();
        } else if (isForOperator(error)) {
          await this.#operator.wait(error);
          if (signal.aborted) return;
          await this.#forget();
          // Its changes are not the master's any more; nobody's wait is over because of them.
          if (error.code === 'REPL_MASTER_WENT_BACK') this.#acknowledged = undefined;
          continue;
        }
        this.#sourceError = messageOf(error);
        pause.workedFor(ports.clock.monotonicMs() - followedAtMs);
        const level = pause.isLong ? 'warn' : 'info';
        this.#log[level]({ state: this.#phase, retryMs: Math.round(pause.ms) }, `the master's stream ended: ${this.#sourceError}`);
      } finally {
        stopWatching?.();
        connection?.destroy();
        this.#sourceState = 'connecting';
        this.#phase = 'connecting';
      }
      await pause.wait(signal);
    }
  }

  async #consume(connection: LdapConnection, signal: AbortSignal, onFollowing: () => void): Promise<void> {
    const { suffix, scope, namedFile, goneFile, ports } = this.#options;
    this.#doomed.clear();
    for (const path of [namedFile, goneFile]) if (path !== undefined) await removeFile(ports.files, path);
    await this.#checkHistory(connection);
    const ofEntries = this.#received === undefined && scope.key === '' ? await entriesOf(connection) : undefined;
    using progress = new Progress(ports.clock, this.#log, ofEntries, { master: connection, pipeline: this.#pipeline });
    this.#progress = progress;
    await runSource(connection, this.#received, {
      replicaName: this.name,
      suffix,
      scope,
      refusedEntries: () => this.#options.quarantine.size,
      comparesContent: () => this.#comparesContent,
      clock: ports.clock,
      log: this.#log,
      pipeline: this.#pipeline,
      signal,
      takeDisplaced: () => this.#images.takeDisplaced(),
      checkDeletes: (count, total) => this.#operator.checkDeletes(count, total),
      replica: () => this.#connectedTarget(),
      doomed: this.#doomed,
      takeContainerMoved: () => {
        const moved = this.#containerMoved;
        this.#containerMoved = false;
        return moved;
      },
      namedFile,
      progress,
      onPhase: (phase) => {
        this.#phase = phase;
        if (phase !== 'following') return;
        progress.over();
        this.#operator.forgetAllowed();
        this.#comparesContent = false;
        onFollowing();
      },
      onReceived: (cookie) => {
        this.#received = cookie;
      },
    });
  }

  async #checkHistory(master: LdapConnection): Promise<void> {
    const csn = this.receivedCsn;
    if (csn === undefined) return;
    const { suffix, scope, namedFile } = this.#options;
    const target = async (): Promise<Replica> => {
      await this.#pipeline.passed(this.#stop.signal);
      return this.#connectedTarget();
    };
    if ((await checkHistory(this.name, master, csn, suffix, scope, target, namedFile)) === 'same') return;
    this.#log.warn({ contextCsn: csn }, 'the master says less than before, but its content is the replica’s: everything is compared');
    await this.#forget();
  }

  async #keepTarget(): Promise<void> {
    const { ports, replica: access, suffix } = this.#options;
    const signal = this.#stop.signal;
    const pause = new RetryPause(ports);
    while (!signal.aborted) {
      const before = this.#changes;
      let connection: LdapConnection | undefined;
      let batches: Batches | undefined;
      let stopWatching: (() => void) | undefined;
      try {
        connection = await openBound(access.url, access, ports, true);
        const guard = await this.#options.guard?.(connection);
        connection.guardWrites(guard);
        const lost = new AbortController();
        const session = AbortSignal.any([signal, lost.signal]);
        void connection.closed.then((error) => lost.abort(error));
        stopWatching = keepAlive(connection, ports.clock);
        const target = await Replica.on(connection, suffix, this.#keepsCsn, this.#options.scope);
        const hasLost = target.takesImages && (await hasLess(connection, suffix, csnOfCookie(this.#saved), this.#log));
        if (hasLost) await this.#forget();
        const lacksFlushed = hasLost || (target.takesImages && this.#changes !== this.#flushedChanges);
        // Before it counts as connected: its answer tells whether its CSNs may be compared.
        if (!lacksFlushed && this.#acknowledged?.csn !== undefined) await target.setContextCsn(this.#acknowledged.csn);
        this.#target = target;
        this.#takesImages = target.takesImages;
        this.#wasConnected = true;
        this.#targetError = undefined;
        this.#pipeline.wake();
        if (lacksFlushed) this.#rewind();
        this.#refusedAgain.tryFrom(0);
        const apply = (change: Queued): Promise<void> => this.#applyOrHold(target, change);
        batches = this.#batchesTo(target, guard);
        await this.#pipeline.run(apply, session, batches);
        if (!signal.aborted) throw lost.signal.reason;
        await this.#saving;
      } catch (error) {
        if (signal.aborted) return;
        this.#targetError = messageOf(error);
        if (this.#changes > before) pause.reset();
        const level = pause.isLong || (error instanceof PlatformError && error.code === 'REPL_TARGET_REFUSED') ? 'error' : 'warn';
        this.#log[level]({ backlogChanges: this.#pipeline.backlog, retryMs: Math.round(pause.ms) }, this.#targetError);
      } finally {
        stopWatching?.();
        this.#refusedAgain.cancel();
        this.#keepsCsn = this.#target?.keepsCsn ?? this.#keepsCsn;
        this.#target = undefined;
        batches?.[Symbol.dispose]?.();
        connection?.destroy();
      }
      await pause.wait(signal);
    }
  }

  // A batch is on the replica's disk with the checkpoint that covers it. Of what was answered since the last one a loss of power there may
  // have taken any part: it is asked for again from that checkpoint.
  #rewind(): void {
    this.#log.info({}, 'the replica was away before it had stored its last changes: they are repeated');
    this.#rewinds += 1;
    this.#flushedChanges = this.#changes;
    this.#unsaved = undefined;
    this.#received = this.#saved;
    this.#acknowledged = this.#saved === undefined ? undefined : { cookie: this.#saved, csn: csnOfCookie(this.#saved) };
    this.#pipeline.clear();
    this.#restartSource?.();
  }

  #batchesTo(replica: Replica, guard: WriteGuard | undefined): Batches {
    const { ports, replica: access, quarantine } = this.#options;
    const openFurther = async (): Promise<LdapConnection | undefined> => {
      const further = await openBound(access.url, access, ports).catch((error: unknown) => {
        this.#log.info({}, `the load goes on over one connection: ${messageOf(error)}`);
      });
      further?.guardWrites(guard);
      return further ?? undefined;
    };
    if (!replica.takesImages) return new AddSender(ports.clock, replica, openFurther, this.#lag, quarantine, this.#shadow);
    const refresh = (): 'comparison' | 'catch-up' => (this.#received === undefined ? 'comparison' : 'catch-up');
    const send: Batches['send'] = (changes) => this.#images.send(replica, changes, this.#phase === 'following' ? this.#phase : refresh());
    return { of: 'changes', send };
  }

  // One entry that the replica does not take must not hold up the others.
  async #applyOrHold(replica: Replica, change: Queued): Promise<void> {
    const { quarantine, ports } = this.#options;
    try {
      await this.#apply(replica, change);
    } catch (error) {
      if (!(error instanceof PlatformError) || error.code !== 'REPL_TARGET_REFUSED') throw error;
      const isKnown = quarantine.has(change.uuid);
      const dn = change.entry?.dn ?? change.lastDn ?? change.uuid;
      if (!(await quarantine.hold({ uuid: change.uuid, dn, reason: error.message, sinceMs: ports.clock.nowMs() }))) throw error;
      if (isKnown) return;
      this.#refusedAgain.tryFrom(refusedAgainMs);
      this.#log.error({ errCode: error.code, dn, refused: quarantine.size }, `set aside: ${error.message}`);
      return;
    }
    await quarantine.release(change.uuid);
  }

  async #apply(replica: Replica, change: Queued): Promise<void> {
    const isToBeRead = change.isCheck === true || change.isRefused;
    const context: ApplyContext = {
      replica,
      master: () => this.#questions(),
      lag: this.#lag,
      log: this.#log,
      earlierDone: () => this.#pipeline.earlierDone(change),
      pendingBefore: (uuid) => this.#pipeline.pendingBefore(change, uuid),
      isPendingLater: (uuid) => this.#pipeline.isPendingLater(change, uuid),
      isDoomed: (uuid) => this.#doomed.has(uuid),
      earlierBelowDone: (dn) => this.#pipeline.earlierBelowDone(change, dn),
      onContainerMoved: this.#phase === 'following' ? undefined : () => (this.#containerMoved = true),
      shadow: replica.takesImages ? undefined : this.#shadow,
      // During a catch-up the replica may be ahead of what was stored. And only where it makes sure itself that a name is still the entry's.
      mayRely: this.#phase === 'following' && replica.asserts && !isToBeRead,
    };
    if (isToBeRead) {
      const current = await findAtMaster(await this.#questions(), this.#options.suffix, change.uuid, replica.scope);
      if (current === undefined && change.wasDisplaced === true) this.#lag.conflicted();
      if (current === undefined) await applyDelete(context, change.uuid);
      else await applyPut(context, change.uuid, current, false);
    } else if (change.entry === undefined) await applyDelete(context, change.uuid, change.lastDn);
    else await applyPut(context, change.uuid, change.entry, change.isNew);
    // A refresh measures the master's size, not how far behind we are.
    if (this.#phase === 'following') this.#lag.acknowledged(change.receivedMs);
  }

  #onAcknowledged(changes: readonly Queued[]): void {
    for (const change of changes) {
      this.#changes += change.block?.count ?? (change.uuid === '' ? 0 : 1);
      if (change.cookie === undefined || change.number <= this.#forgottenTo) continue;
      this.#unsaved = change.cookie;
      this.#acknowledged = { cookie: change.cookie, csn: csnOfCookie(change.cookie) };
    }
    if (this.#unsaved !== undefined) this.#saving ??= this.#save().finally(() => (this.#saving = undefined));
    const csn = this.#acknowledged?.csn ?? '';
    for (const waiter of this.#csnWaiters) if (waiter.csn <= csn) waiter.resolve();
  }

  // One at a time; what is acknowledged meanwhile goes with the next.
  async #save(): Promise<void> {
    const { checkpoint, master, ports, scope } = this.#options;
    while (this.#unsaved !== undefined) {
      await checkpointIsDue(ports.clock, () => this.#changes, this.#stop.signal);
      // Forgotten meanwhile: everything is compared anyway.
      if (this.#unsaved === undefined) return;
      const cookie = this.#unsaved;
      const changes = this.#changes;
      const startedMs = ports.clock.monotonicMs();
      this.#unsaved = undefined;
      const rewinds = this.#rewinds;
      let isFlushed = !this.#takesImages;
      const csn = csnOfCookie(cookie);
      try {
        if (this.#target?.takesImages === true) {
          await this.#target.flushImages(csn ?? csnOfTime(ports.clock.nowMs()));
          this.#flushedChanges = Math.max(this.#flushedChanges, changes);
          isFlushed = true;
        } else if (csn !== undefined) await this.#target?.setContextCsn(csn);
      } catch (error) {
        this.#log.debug({}, `contextCSN waits for the next connection: ${messageOf(error)}`);
      }
      if (!isFlushed) {
        // Perhaps not all of it is on the replica's disk: with the next connection it comes again, or the flush does.
        if (this.#target === undefined || this.#stop.signal.aborted) return;
        if (rewinds !== this.#rewinds) continue;
        this.#unsaved ??= cookie;
        continue;
      }
      const state = { master: master.url, cookie, scope: scope.key };
      if (!this.#takesImages) this.#shadow?.store(state);
      try {
        await checkpoint.save({ ...state, changes });
        this.#saved = cookie;
        this.#checkpointError = undefined;
        const durationMs = Math.round(ports.clock.monotonicMs() - startedMs);
        this.#log.info({ changes, backlogChanges: this.#pipeline.backlog, contextCsn: csn, durationMs }, 'replicated');
      } catch (error) {
        // Applied all the same: a restart would repeat what came since the last checkpoint.
        this.#checkpointError = `the checkpoint could not be saved: ${messageOf(error)}`;
        this.#log.error({}, this.#checkpointError);
        await sleep(ports.clock, checkpointAgainMs, this.#stop.signal);
        if (this.#stop.signal.aborted) return;
        if (rewinds === this.#rewinds) this.#unsaved ??= cookie;
      }
    }
  }

  async #connectedTarget(): Promise<Replica> {
    while (this.#target === undefined) {
      await this.#pipeline.moved();
      this.#stop.signal.throwIfAborted();
    }
    return this.#target;
  }

  // The stream's own connection stops reading when the pipeline is full, so questions have another.
  async #questions(): Promise<LdapConnection> {
    if (this.#queries?.isOpen === true) return this.#queries;
    const { master, ports } = this.#options;
    this.#openingQueries ??= openBound(master.url, master, ports).finally(() => {
      this.#openingQueries = undefined;
    });
    this.#queries = await this.#openingQueries;
    if (this.#stop.signal.aborted) this.#queries.destroy();
    return this.#queries;
  }

  async #forget(): Promise<void> {
    this.#received = undefined;
    this.#unsaved = undefined;
    this.#forgottenTo = this.#pipeline.lastNumber;
    this.#rewinds += 1;
    // A checkpoint on its way would outlive this, and so would the cookies of changes that are.
    await this.#saving;
    this.#saved = undefined;
    this.#shadow?.clear();
    await this.#options.checkpoint.remove().catch((error: unknown) => this.#log.error({}, messageOf(error)));
  }
}
