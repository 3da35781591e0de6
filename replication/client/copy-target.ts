/**
 * One directory server that a writer keeps equal to the master for the entries it changed: a queue of its own, a connection that comes back,
 * and a comparison of the whole when changes for it were dropped.
 *
 * Each change is "bring this entry to the master's state as it is now", so order between writers does not matter, twice does no harm, and a
 * change met late finds what came after it. What the server refuses is set aside, shown, and tried again; it holds up nothing else.
 *
 *   read the master ──► write the server ──► read the master again ──► the same: done; else once more
 *
 * The second look is for other writers: one may have carried a later state to the server between our look and our write, which was over it.
 */
import { sleep, type Timer } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs } from '#common/random.ts';
import { openBound } from '#directory/client/access.ts';
import { requireMaster } from '#directory/client/authority.ts';
import { keepAlive } from '#directory/client/keep-alive.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { type ApplyContext, applyDelete, applyPut } from '../apply-change.ts';
import { removeFile } from '../checkpoint.ts';
import { decide, type EntryImage } from '../decide.ts';
import { contextCsnOf } from '../history.ts';
import { LagMeter } from '../lag.ts';
import { type Change, Pipeline, type Queued } from '../pipeline.ts';
import { checkRepair, queueRepair } from '../repair.ts';
import { findAtMaster, Replica } from '../replica.ts';
import { wholeScope } from '../scope.ts';
import type { ServerAccess } from '../server-access.ts';
import { Differences } from '../store/differences.ts';
import { compareServers } from '../verify.ts';
import type { CopyStatus } from './status.ts';

const pauseFirstMs = 100;
const pauseMaxMs = 10_000;
const refusedAgainMs = 1000;
/** Where many are refused that nobody waits for, they are tried again this much later for each. */
const refusedEachMs = 20;
const refusedShown = 10;
/** Entries that are set aside at most; beyond, the server as a whole is wrong, and waits. */
const refusedMax = 1000;
/** Differences that are put right in one turn; they are in memory meanwhile. */
const repairedMax = 20_000;

/** What a target needs. */
export interface CopyTargetOptions {
  readonly name: string;
  readonly access: ServerAccess;
  readonly suffix: string;
  /** A connection to the master. */
  readonly master: () => Promise<LdapConnection>;
  /** Changes for this server were dropped: compare it. */
  readonly isCut: () => boolean;
  /** It was compared and is equal, unless `isStill` says no by the time that is noted. */
  readonly onHealed: (isStill: () => boolean) => Promise<void>;
  /** The server has what the master had for that intent. */
  readonly onDone: (number: number) => void;
  readonly refreshDeletesMaxPercent: number;
  /** File for what a comparison does not keep in memory. */
  readonly suspectsFile: string;
  readonly ports: Ports;
}

/** See the header of this file. */
export class CopyTarget implements AsyncDisposable {
  readonly name: string;
  readonly #options: CopyTargetOptions;
  readonly #log: Logger;
  readonly #lag: LagMeter;
  readonly #pipeline: Pipeline;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  /** Intents that this server has not done, in order, with the entry of each. */
  readonly #pending = new Map<number, string>();
  /** Those of them that are not in the pipeline of this connection yet. Answers of the master come in any order, and so do these. */
  #toFeed: (readonly [number, string])[] = [];
  readonly #refused = new Map<string, { readonly dn: string; readonly reason: string; readonly sinceMs: number }>();
  /** Intents of refused entries. */
  readonly #setAside = new Map<string, readonly number[]>();
  #replica: Replica | undefined;
  #keepsCsn = true;
  #isComparing = false;
  /** How often changes for it were dropped. */
  #drops = 0;
  #lastError: string | undefined;
  #again: Timer | undefined;

  constructor(options: CopyTargetOptions) {
    this.name = options.name;
    this.#options = options;
    this.#log = options.ports.log.child({ component: 'all-at-once', replica: options.name });
    this.#lag = new LagMeter(options.ports.clock, options.ports.metrics, options.name);
    this.#pipeline = new Pipeline(options.ports.clock, (changes) => this.#acknowledged(changes));
    this.#running = this.#keep();
  }

  get backlog(): number {
    return this.#pending.size;
  }

  /** Has the server brought to the master's state of that entry. */
  push(number: number, uuid: string): void {
    this.#pending.set(number, uuid);
    this.#toFeed.push([number, uuid]);
    this.#feed();
  }

  /** Forgets what is still to come: the server is compared as a whole, as soon as it can be. Returns the intents. */
  drop(): number[] {
    const dropped = [...this.#pending.keys()];
    this.#pending.clear();
    this.#toFeed = [];
    this.#setAside.clear();
    this.#drops += 1;
    // A comparison that is under way sees to it itself.
    if (!this.#isComparing) this.#replica?.connection.destroy('changes for this server were dropped: it is compared as a whole');
    return dropped;
  }

  /** In words, what has become of that entry's change here. */
  whatOf(uuid: string): string {
    const refused = this.#refused.get(uuid);
    if (refused !== undefined) return `${this.name} does not take it: ${refused.reason}`;
    if (this.#replica === undefined) return `${this.name} does not answer${this.#lastError === undefined ? '' : ` (${this.#lastError})`}`;
    return `it is still under way to ${this.name}`;
  }

  status(): CopyStatus {
    return {
      name: this.name,
      url: this.#options.access.url,
      state: this.#replica === undefined ? 'away' : this.#isComparing ? 'comparing' : 'current',
      backlogChanges: this.#pending.size,
      isCut: this.#options.isCut(),
      refused: [...this.#refused].slice(0, refusedShown).map(([uuid, one]) => ({ uuid, ...one })),
      lastError: this.#lastError,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PlatformError('DIR_UNAVAILABLE', 'the writer was closed'));
    this.#again?.cancel();
    this.#pipeline.wake();
    this.#replica?.connection.destroy();
    await this.#running;
  }

  async #keep(): Promise<void> {
    const { ports, access, suffix } = this.#options;
    const signal = this.#stop.signal;
    let pauseMs = pauseFirstMs;
    while (!signal.aborted) {
      let connection: LdapConnection | undefined;
      let stopWatching: (() => void) | undefined;
      try {
        connection = await openBound(access.url, access, ports);
        stopWatching = keepAlive(connection, ports.clock);
        const lost = new AbortController();
        const session = AbortSignal.any([signal, lost.signal]);
        void connection.closed.then((error) => lost.abort(error));
        const replica = await Replica.on(connection, suffix, this.#keepsCsn, wholeScope);
        this.#replica = replica;
        this.#lastError = undefined;
        pauseMs = pauseFirstMs;
        this.#start();
        const applying = this.#pipeline.run((change) => this.#applyOrSetAside(replica, change), session);
        // Both or none: a comparison that fails ends the connection, and is tried again on the next.
        await Promise.all([applying, this.#heal(replica, session).catch((error: unknown) => lost.abort(error))]);
        if (!signal.aborted) throw lost.signal.reason;
      } catch (error) {
        if (signal.aborted) return;
        this.#lastError = messageOf(error);
        this.#log.warn({ backlogChanges: this.#pending.size, retryMs: Math.round(pauseMs) }, this.#lastError);
      } finally {
        stopWatching?.();
        this.#keepsCsn = this.#replica?.keepsCsn ?? this.#keepsCsn;
        this.#replica = undefined;
        connection?.destroy();
      }
      await sleep(ports.clock, jitteredMs(ports.random, pauseMs), signal);
      pauseMs = Math.min(pauseMaxMs, pauseMs * 2);
    }
  }

  // On a new connection everything that is not done is done again, in order.
  #start(): void {
    const { ports } = this.#options;
    const startedMs = ports.clock.monotonicMs();
    this.#pipeline.clear();
    this.#toFeed = [...this.#pending];
    this.#setAside.clear();
    const pending = new Set(this.#pending.values());
    // Refused in a comparison: no change of theirs is waiting.
    for (const [uuid] of this.#refused) if (!pending.has(uuid)) this.#pipeline.push(this.#changeOf(uuid));
    this.#feed();
    this.#again?.cancel();
    this.#again = ports.clock.every(refusedAgainMs, () => {
      const isDue = this.#pending.size > 0 || ports.clock.monotonicMs() - startedMs > this.#refused.size * refusedEachMs;
      if (this.#pending.size + this.#refused.size > 0 && isDue && this.#replica !== undefined && this.#pipeline.backlog === 0)
        this.#start();
    });
  }

  #feed(): void {
    if (this.#replica === undefined) return;
    let fed = 0;
    for (const [number, uuid] of this.#toFeed) {
      if (!this.#pipeline.hasRoom) break;
      fed += 1;
      const change: Change & { intent: number } = { ...this.#changeOf(uuid), intent: number };
      this.#pipeline.push(change);
    }
    if (fed > 0) this.#toFeed.splice(0, fed);
  }

  #changeOf(uuid: string): Change {
    const receivedMs = this.#options.ports.clock.monotonicMs();
    return { uuid, entry: undefined, isNew: false, cookie: undefined, receivedMs, isCheck: true };
  }

  async #heal(replica: Replica, signal: AbortSignal): Promise<void> {
    const { isCut, onHealed, suffix } = this.#options;
    // One that is empty was never filled.
    if (!isCut() && (await replica.connection.readEntry(suffix, ['1.1'])) !== undefined) return;
    let drops: number;
    do {
      drops = this.#drops;
      this.#isComparing = true;
      try {
        await this.#compare(replica, signal);
      } finally {
        this.#isComparing = false;
      }
      // What it does not take is known to nobody after a restart, unless it is compared again.
      while (this.#refused.size > 0 && drops === this.#drops) {
        await this.#pipeline.moved();
        signal.throwIfAborted();
      }
      await onHealed(() => drops === this.#drops);
    } while (drops !== this.#drops);
  }

  async #compare(replica: Replica, signal: AbortSignal): Promise<void> {
    const { suffix, suspectsFile, ports, refreshDeletesMaxPercent } = this.#options;
    const master = await this.#options.master();
    const csn = await contextCsnOf(master, suffix);
    // More than is kept in memory is put right in turns, as long as it gets less: what the server refuses stays.
    for (let before = Number.POSITIVE_INFINITY, isCut = true; isCut; ) {
      const { name } = this;
      const { keepsCsn } = replica;
      const comparison = { name, master, replica: replica.connection, suffix, keepsCsn, scope: wholeScope };
      using differences = new Differences(undefined, repairedMax);
      await removeFile(ports.files, suspectsFile);
      const report = await compareServers(comparison, { suspectsFile, differences, listedMax: 1 });
      this.#log.info({ differing: report.differing, entries: report.entries }, 'compared as a whole: changes for it had been dropped');
      checkRepair(report, refreshDeletesMaxPercent);
      await queueRepair(differences.all(), this.#pipeline, () => ports.clock.monotonicMs(), signal);
      await this.#pipeline.passed(signal);
      isCut = report.differing > differences.size && report.differing < before;
      before = report.differing;
    }
    if (csn !== undefined) await replica.setContextCsn(csn);
  }

  async #applyOrSetAside(replica: Replica, change: Queued): Promise<void> {
    try {
      await this.#apply(replica, change);
      this.#refused.delete(change.uuid);
    } catch (error) {
      if (!(error instanceof PlatformError) || error.code !== 'REPL_TARGET_REFUSED') throw error;
      if (!this.#refused.has(change.uuid)) {
        if (this.#refused.size >= refusedMax) throw error;
        this.#log.error({ errCode: error.code }, `set aside: ${error.message}`);
      }
      this.#refused.set(change.uuid, {
        dn: change.entry?.dn ?? change.uuid,
        reason: error.message,
        sinceMs: this.#options.ports.clock.nowMs(),
      });
    }
  }

  async #apply(replica: Replica, change: Queued): Promise<void> {
    const { suffix, master } = this.#options;
    const context: ApplyContext = {
      replica,
      master,
      lag: this.#lag,
      log: this.#log,
      earlierDone: () => this.#pipeline.earlierDone(change),
      pendingBefore: (uuid) => this.#pipeline.pendingBefore(change, uuid),
      isPendingLater: (uuid) => this.#pipeline.isPendingLater(change, uuid),
      isDoomed: () => false,
      earlierBelowDone: (dn) => this.#pipeline.earlierBelowDone(change, dn),
      shadow: undefined,
      mayRely: false,
      onContainerMoved: undefined,
    };
    const look = async (): Promise<EntryImage | undefined> => {
      const asked = await master();
      const found = await findAtMaster(asked, suffix, change.uuid, wholeScope);
      await requireMaster(asked);
      return found;
    };
    let current: EntryImage | undefined;
    let now = await look();
    do {
      current = now;
      if (current === undefined) await applyDelete(context, change.uuid);
      else await applyPut(context, change.uuid, current, false);
      now = await look();
    } while (!isSame(now, current));
  }

  #finish(intent: number): void {
    if (this.#pending.delete(intent)) this.#options.onDone(intent);
  }

  #acknowledged(changes: readonly Queued[]): void {
    for (const change of changes) {
      const { intent } = change as Queued & { intent?: number };
      if (intent === undefined) continue;
      if (this.#refused.has(change.uuid)) {
        // It stays in the outbox and is tried again.
        this.#setAside.set(change.uuid, [...(this.#setAside.get(change.uuid) ?? []), intent]);
        continue;
      }
      this.#finish(intent);
      // What was refused of this entry before is part of what was taken now.
      for (const earlier of this.#setAside.get(change.uuid) ?? []) this.#finish(earlier);
      this.#setAside.delete(change.uuid);
    }
    this.#feed();
  }
}

function isSame(one: EntryImage | undefined, other: EntryImage | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return decide(one, other, true).length === 0;
}
