/**
 * The replication service: carries what happens at the master directory to every replica (Guide: Directory Integration).
 *
 *   master ─┬─► replicator of ldap-eu ──► ldap-eu
 *           ├─► replicator of ldap-us ──► ldap-us          each with its own stream, pipeline and checkpoint
 *           └─► …
 *
 * After a promotion another server is the master (master-watch.ts) and the old one is fed like a replica; where several services have the
 * same replicas, one of them writes each (lease.ts, seat.ts).
 *
 * What always holds: a replica's checkpoint never passes what the replica has acknowledged; one entry's changes are applied in order; a
 * refresh never deletes more than the configured share by itself. What may happen: a change is applied twice, which changes nothing.
 */

import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports, ReadinessCheck, RunningService } from '#common/lifecycle.ts';
import { cronSchedule, type Schedule, type Scheduled } from '#common/schedule.ts';
import { openBound } from '#directory/client/access.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { whenCaughtUp } from '#replication/caught-up.ts';
import type {
  ComparisonOptions,
  FoundDifferences,
  PromotionReport,
  RepairOptions,
  RepairReport,
  ReplicaStatus,
  ReplicationStatus,
  VerifyReport,
} from '#replication/client/status.ts';
import { Comparisons } from '#replication/comparisons.ts';
import type { ReplicationConfig } from '#replication/config.ts';
import { ContinuousComparison, type ContinuousTarget } from '#replication/continuous.ts';
import { contextCsnOf } from '#replication/history.ts';
import { MasterWatch } from '#replication/master-watch.ts';
import { promote } from '#replication/promote.ts';
import { MasterPosition } from '#replication/receive-lag.ts';
import { checkRepair } from '#replication/repair.ts';
import type { Replicator } from '#replication/replicator.ts';
import { Scope } from '#replication/scope.ts';
import { Seat } from '#replication/seat.ts';
import type { ServerAccess } from '#replication/server-access.ts';
import { type Comparison, describeReport } from '#replication/verify.ts';
import { scheduleVerify } from '#replication/verify-schedule.ts';

/** The running service. */
export interface RunningReplication extends RunningService<ReplicationStatus> {
  /** Compares every replica (or one) with the master now. */
  verify(replica?: string, options?: ComparisonOptions): Promise<readonly VerifyReport[]>;
  /** Read your writes: resolves once the replica (or every one) has everything up to that `entryCSN`. Give a signal that aborts. */
  waitFor(change: string, replica: string | undefined, signal: AbortSignal): Promise<void>;
  /** Compares a replica with the master now; whoever asked disposes of what was found. */
  compare(replica: string, options?: ComparisonOptions): Promise<FoundDifferences>;
  /** Compares a replica and makes it equal to the master; a dry run only says what it would do. Deletes no more than a refresh may. */
  repair(replica: string, options: RepairOptions): Promise<RepairReport>;
  /** The `entryCSN` of the latest change at the master. */
  masterCsn(): Promise<string>;
  /** Lets a stopped replica delete what its refresh asks for. */
  allowDeletes(replica: string): void;
  /** Lets a stopped replica follow the master as it is now; the limit on deletions stays. */
  resume(replica: string): void;
  /** Makes a replica the master, and all others follow it. See promote.ts. */
  promote(replica: string, options: { readonly isForced: boolean; readonly withinMs: number }): Promise<PromotionReport>;
  /** Median time from receiving a change to the replica's acknowledgement, milliseconds. */
  medianReplayMs(replica: string): number | undefined;
}

const answerTimeoutMs = 10_000;

/** Starts the service. Rejects when its configuration cannot be used; servers that are away are waited for. */
export async function startReplication(
  config: ReplicationConfig,
  ports: Ports,
  options: { readonly env?: Environment; readonly schedule?: Schedule } = {},
): Promise<RunningReplication> {
  const resolve = async (server: ReplicationConfig['master']): Promise<ServerAccess> => ({
    url: server.url,
    bindDn: server.bindDn,
    password: await readSecret(server.bindPassword, ports.files, options.env),
    ca: server.caFile === undefined ? undefined : await readPem(server.caFile, ports.files),
    timeoutMs: answerTimeoutMs,
  });
  const master = await resolve(config.master);
  const replicas = await Promise.all(
    config.replicas.map(async (one) => ({ name: one.name, access: await resolve(one), scope: new Scope(one) })),
  );
  await ports.files.mkdirAll(config.stateDirectory);
  const service = new Replication(config, ports, master, replicas);
  await service.findMaster();
  service.scheduleVerify(options.schedule ?? cronSchedule);
  return service;
}

class Replication implements RunningReplication {
  readonly role = 'replication';
  readonly name: string;
  readonly #config: ReplicationConfig;
  readonly #ports: Ports;
  /** Every server, the configured master's among them. */
  readonly #seats = new Map<string, Seat>();
  readonly #configuredMaster: ServerAccess;
  readonly #watch: MasterWatch;
  readonly #position: MasterPosition;
  readonly #continuous: ContinuousComparison;
  readonly #comparisons: Comparisons;
  readonly #stop = new AbortController();
  #master: ServerAccess;
  #verifying: Scheduled | undefined;

  constructor(
    config: ReplicationConfig,
    ports: Ports,
    master: ServerAccess,
    replicas: readonly { readonly name: string; readonly access: ServerAccess; readonly scope: Scope }[],
  ) {
    this.name = config.name;
    this.#config = config;
    this.#ports = ports;
    this.#master = master;
    this.#configuredMaster = master;
    const lease =
      config.leaseMs === undefined
        ? undefined
        : { leaseMs: config.leaseMs, holder: `${config.name}/${ports.random.bytes(4).toString('hex')}` };
    const { suffix, stateDirectory, refreshDeletesMaxPercent } = config;
    const all = [...replicas, { name: config.master.name ?? master.url, access: master, scope: new Scope({}) }];
    for (const { name, access, scope } of all) {
      this.#seats.set(name, new Seat({ name, access, scope, suffix, stateDirectory, refreshDeletesMaxPercent, lease, ports }));
    }
    this.#watch = new MasterWatch([master, ...replicas.map((one) => one.access)], ports, (access, term) => {
      this.#master = access;
      for (const seat of this.#seats.values()) void seat.follow({ access, term });
    });
    this.#position = new MasterPosition(
      () => this.#master,
      suffix,
      ports,
      () =>
        new Map(
          [...this.#seats.values()].flatMap(({ name, replicator }) => (replicator === undefined ? [] : [[name, appliedBy(replicator)]])),
        ),
    );
    this.#comparisons = new Comparisons(ports.files, stateDirectory, refreshDeletesMaxPercent);
    this.#continuous = new ContinuousComparison(config.verifyContinuously ?? 0, ports, () => this.#continuousTargets());
    this.#exposeGauges();
  }

  /** Resolves once every server was asked who the master is, and the replicas are fed from it. */
  async findMaster(): Promise<void> {
    await this.#watch.firstLook;
    await Promise.all([...this.#seats.values()].map((seat) => seat.settled()));
  }

  scheduleVerify(schedule: Schedule): void {
    const { verifySchedule } = this.#config;
    this.#verifying = scheduleVerify(schedule, verifySchedule, this.name, this.#ports, this.#stop.signal, async () => {
      const reports = await this.verify();
      if (this.#config.differences !== 'repair') return;
      for (const report of reports) await this.#repairUnasked(report);
    });
  }

  status(): ReplicationStatus {
    const replicators = [...this.#seats.values()].flatMap((seat) => seat.replicator ?? []);
    const sources = replicators.map((one) => one.sourceState);
    const csns = replicators.flatMap((one) => one.receivedCsn ?? []).sort();
    return {
      role: 'replication',
      name: this.name,
      master: {
        name: this.#masterName(),
        url: this.#master.url,
        term: this.#watch.term,
        state: sources.some((one) => one.state === 'connected') ? 'connected' : 'connecting',
        contextCsn: csns.at(-1),
        lastError: this.#brokenOff() ?? sources.find((one) => one.lastError !== undefined)?.lastError,
      },
      replicas: this.#shown().map((seat) => this.#statusOf(seat)),
    };
  }

  readiness(): readonly ReadinessCheck[] {
    return this.status().replicas.map((one) => ({
      name: `replica ${one.name}`,
      ok: one.state === 'following' || one.state === 'standby' || one.state === 'master',
      detail: `${one.state}, ${one.backlogChanges} changes behind, ${one.refused.entries} entries refused${one.lastError === undefined ? '' : `; last error: ${one.lastError}`}`,
    }));
  }

  async verify(replica?: string, options: ComparisonOptions = {}): Promise<readonly VerifyReport[]> {
    const names = replica === undefined ? this.#activeNames() : [replica];
    const reports: VerifyReport[] = [];
    for (const name of names) {
      try {
        using found = await this.compare(name, options);
        reports.push(found.report);
      } catch (error) {
        this.#ports.log.warn({ component: 'verify', replica: name }, `cannot be compared now: ${messageOf(error)}`);
        if (replica !== undefined) throw error;
      }
    }
    return reports;
  }

  async waitFor(change: string, replica: string | undefined, signal: AbortSignal): Promise<void> {
    const waited = (replica === undefined ? this.#activeNames() : [replica]).map((name) => this.#seat(name));
    await Promise.all(waited.map((one) => one.waitFor(change, signal)));
  }

  async compare(name: string, options: ComparisonOptions = {}): Promise<FoundDifferences> {
    const replicator = this.#replicator(name);
    try {
      return await this.#compare(name, replicator, options);
    } catch (error) {
      if (options.signal?.aborted === true) throw error;
      const ended = replicator.ended.aborted && !this.#stop.signal.aborted;
      const reason = ended ? this.#isNotWritten(name) : error;
      replicator.noteNotVerified(messageOf(reason));
      throw reason;
    }
  }

  #isNotWritten(name: string): PlatformError {
    return new PlatformError(
      'REPL_LEASE_LOST',
      `${this.name} does not write ${name} any more, or not from that master: its comparison was broken off. ` +
        '`archipelago replica status` says who writes it; ask again',
    );
  }

  async #compare(name: string, replicator: Replicator, { onProgress, signal }: ComparisonOptions): Promise<FoundDifferences> {
    // Entries are taken apart one at a time: hundreds of them at once would outlive the space for new objects.
    await using master = await reach(this.#master, 'the master', this.#ports);
    await using replica = await reach(this.#seat(name).access, `the replica ${name}`, this.#ports);
    const ends = AbortSignal.any([replicator.ended, this.#stop.signal, ...(signal === undefined ? [] : [signal])]);
    const found = await this.#comparisons.run(this.#comparison(replicator, master, replica, ends), { onProgress, signal: ends });
    const { report } = found;
    this.#noteVerified(replicator, report, { differences: found.all(), isCut: false });
    this.#continuous.noteEntries(name, report.entries);
    return found;
  }

  async repair(replica: string, options: RepairOptions): Promise<RepairReport> {
    const { isDryRun, allowsDeletes = false, onFound, onProgress = () => {} } = options;
    const replicator = this.#replicator(replica);
    let before: VerifyReport;
    {
      using found = await this.compare(replica, options);
      before = found.report;
      if (!isDryRun && !allowsDeletes) checkRepair(before, this.#config.refreshDeletesMaxPercent);
      await onFound?.(found);
      if (isDryRun) return { before, after: undefined };
      const ofEntries = before.differing;
      await replicator.repair(found.all(), (entries) => onProgress({ step: 'making entries the master’s', entries, ofEntries }));
    }
    using left = await this.compare(replica, { onProgress });
    const after = left.report;
    this.#ports.log.warn({ component: 'repair', replica, before: before.differing, after: after.differing }, 'the replica was repaired');
    return { before, after };
  }

  async masterCsn(): Promise<string> {
    await using master = await reach(this.#master, 'the master', this.#ports);
    const csn = await contextCsnOf(master, this.#config.suffix);
    if (csn !== undefined) return csn;
    throw new PlatformError('DIR_DENIED', `${this.#master.url} does not show ${this.#master.bindDn} its contextCSN`);
  }

  allowDeletes(replica: string): void {
    this.#replicator(replica).allowDeletes();
  }

  resume(replica: string): void {
    this.#replicator(replica).resume();
  }

  async promote(replica: string, { isForced, withinMs }: { isForced: boolean; withinMs: number }): Promise<PromotionReport> {
    const seat = this.#seat(replica);
    const ports = this.#ports;
    await this.#watch.look();
    await seat.whenActive(withinMs);
    const master = [...this.#seats.values()].find((one) => one.isMaster);
    if (master === undefined) throw new PlatformError('REPL_NOT_PROMOTED', 'it is not known yet which server is the master; ask again');
    if (seat.scope.key !== '') {
      throw new PlatformError(
        'REPL_NOT_PROMOTED',
        `${replica} is given a part of the directory only (filter or attributes) and cannot be the master`,
      );
    }
    const others = [...this.#seats.values()].filter((one) => one !== seat && one !== master);
    const report = await promote({
      target: seat,
      master,
      others: isForced && master !== seat ? [...others, master] : others,
      term: this.#watch.term + 1,
      isForced,
      withinMs,
      fed: () => seat.replicator?.status(),
      ports,
    });
    ports.log.warn(
      { component: 'promote', replica, term: report.term, isForced },
      `${replica} is the master now. ${report.missing}`.trimEnd(),
    );
    await this.#watch.look();
    return report;
  }

  medianReplayMs(replica: string): number | undefined {
    return this.#replicator(replica).medianReplayMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#verifying?.cancel();
    this.#stop.abort();
    await this.#continuous[Symbol.asyncDispose]();
    await this.#position[Symbol.asyncDispose]();
    await this.#watch[Symbol.asyncDispose]();
    await Promise.all([...this.#seats.values()].map((one) => one[Symbol.asyncDispose]()));
  }

  #comparison(replicator: Replicator, master: LdapConnection, replica: LdapConnection, signal: AbortSignal): Comparison {
    const { name, scope } = replicator;
    const { suffix } = this.#config;
    const settled = (): Promise<string | undefined> => whenCaughtUp(() => replicator.status(), master, suffix, this.#ports.clock, signal);
    return {
      ...{ name, master, replica, suffix, scope, settled },
      get keepsCsn() {
        return replicator.keepsCsn;
      },
    };
  }

  #noteVerified(replicator: Replicator, report: VerifyReport, found: Parameters<Replicator['noteVerified']>[1] = report): void {
    const text = describeReport(report);
    replicator.noteVerified(text, found);
    const level = report.differing === 0 ? 'info' : 'error';
    this.#ports.log[level]({ component: 'verify', replica: report.replica, differing: report.differing, underWay: report.underWay }, text);
  }

  // While a replica is stopped or refreshed the master's state is not what it shall be given: an operator, or the refresh, decides on that.
  async #repairUnasked({ replica, differing }: VerifyReport): Promise<void> {
    if (differing === 0) return;
    const state = this.#seats.get(replica)?.replicator?.status().state;
    if (state === 'following') await this.repair(replica, { isDryRun: false });
    else this.#ports.log.warn({ component: 'repair', replica, differing }, `not repaired: the replica is ${state ?? 'another service’s'}`);
  }

  #continuousTargets(): ContinuousTarget[] {
    return [...this.#seats.values()].flatMap((seat) => {
      const { replicator } = seat;
      if (replicator === undefined) return [];
      return {
        name: seat.name,
        waitsFor: () => {
          if (seat.replicator !== replicator) return 'another service, or another master';
          const { state } = replicator.status();
          return state === 'following' ? undefined : state;
        },
        open: async () => {
          await using opening = new AsyncDisposableStack();
          const open = async (access: ServerAccess): Promise<LdapConnection> =>
            opening.use(await openBound(access.url, access, this.#ports));
          const ends = AbortSignal.any([replicator.ended, this.#stop.signal]);
          const comparison = this.#comparison(replicator, await open(this.#master), await open(seat.access), ends);
          const walks = [await open(this.#master), await open(seat.access)] as const;
          const opened = opening.move();
          return { comparison, walks, [Symbol.asyncDispose]: () => opened.disposeAsync() };
        },
        onRound: async (report: VerifyReport) => {
          this.#noteVerified(replicator, report);
          if (this.#config.differences === 'repair') await this.#repairUnasked(report);
        },
      };
    });
  }

  #statusOf(seat: Seat): ReplicaStatus {
    const { replicator } = seat;
    const status = seat.status();
    if (replicator === undefined) return status;
    const { ms, changes } = this.#position.lagOf(replicator.receivedCookie, replicator.receivedCsn);
    return {
      ...status,
      receive: { lagMs: ms === undefined ? undefined : Math.round(ms), lagChanges: changes },
      continuous: this.#continuous.status(seat.name),
      changesPerSecond: this.#position.rateOf(seat.name),
    };
  }

  // Everybody was told of a new master that is none: whoever promoted it was killed in the middle.
  #brokenOff(): string | undefined {
    const { url } = this.#master;
    const role = this.#watch.roleOf(url);
    if (role?.mode !== 'replica' || this.#watch.term <= 1) return undefined;
    const name = this.#masterName();
    return `no server takes writes: a promotion of ${name} (${url}) broke off; \`archipelago directory promote ${name}\` ends it`;
  }

  #masterName(): string {
    return [...this.#seats.values()].find(({ access }) => access === this.#master)?.name ?? this.#master.url;
  }

  // The configured master is a replica only once another server is the master.
  #shown(): Seat[] {
    return [...this.#seats.values()]
      .filter((seat) => !seat.isMaster || seat.access !== this.#configuredMaster)
      .filter((seat) => seat.access !== this.#configuredMaster || this.#master !== this.#configuredMaster);
  }

  #activeNames(): string[] {
    return [...this.#seats.values()].filter((seat) => seat.replicator !== undefined).map((seat) => seat.name);
  }

  #seat(name: string): Seat {
    const found = this.#seats.get(name);
    if (found !== undefined) return found;
    throw new PlatformError('ADMIN_NOT_FOUND', `no replica "${name}" here; known are ${[...this.#seats.keys()].join(', ')}`);
  }

  #replicator(name: string): Replicator {
    return this.#seat(name).active();
  }

  #exposeGauges(): void {
    const { metrics } = this.#ports;
    const backlog = metrics.gauge('archipelago_replication_backlog_changes', 'Changes that a replica has not acknowledged.', ['replica']);
    const lag = metrics.gauge('archipelago_replication_lag_seconds', 'Age of the oldest of them.', ['replica']);
    const refused = metrics.gauge('archipelago_replication_refused_entries', 'Entries set aside because a replica refuses them.', [
      'replica',
    ]);
    const receiveSeconds = metrics.gauge(
      'archipelago_replication_receive_lag_seconds',
      'Time between the last change of the master and the last one received, by the master’s clock.',
      ['replica'],
    );
    const receiveChanges = metrics.gauge(
      'archipelago_replication_receive_lag_changes',
      'Changes of the master that were not received yet; masters that are not ours do not count theirs.',
      ['replica'],
    );
    const active = metrics.gauge('archipelago_replication_active', '1 where this service writes the replica, 0 where it stands by.', [
      'replica',
    ]);
    const verified = metrics.gauge(
      'archipelago_replication_verified_timestamp_seconds',
      'When the replica was compared last; 0 is never.',
      ['replica'],
    );
    metrics.onCollect(() => {
      for (const one of this.status().replicas) {
        receiveSeconds.set({ replica: one.name }, (one.receive?.lagMs ?? 0) / 1000);
        receiveChanges.set({ replica: one.name }, one.receive?.lagChanges ?? 0);
        active.set({ replica: one.name }, one.state === 'standby' || one.state === 'master' ? 0 : 1);
        verified.set({ replica: one.name }, (one.lastVerifiedAtMs ?? 0) / 1000);
        refused.set({ replica: one.name }, one.refused.entries);
        backlog.set({ replica: one.name }, one.backlogChanges);
        lag.set({ replica: one.name }, one.lagMs / 1000);
      }
    });
  }
}

/** Opens a server that somebody asked about; says which one it is that does not answer. */
async function reach(access: ServerAccess, who: string, ports: Ports): Promise<LdapConnection> {
  try {
    return await openBound(access.url, access, ports, true);
  } catch (error) {
    if (!(error instanceof PlatformError)) throw error;
    throw new PlatformError(error.code, `${who} (${access.url}) cannot be asked: ${error.message}`, {
      cause: error,
      fields: { hint: 'see that it runs and takes the bind of this service; `archipelago replica status` says when it is back' },
    });
  }
}

function appliedBy(replicator: Replicator): number {
  return Object.values(replicator.status().applied).reduce((sum, count) => sum + count, 0);
}
