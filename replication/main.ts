/**
 * The replication service: carries what happens at the master directory to every replica (Guide: Directory Integration).
 *
 *   master ─┬─► replicator of ldap-eu ──► ldap-eu
 *           ├─► replicator of ldap-us ──► ldap-us          each with its own stream, pipeline and checkpoint
 *           └─► …
 *
 * What always holds: a replica's checkpoint never passes what the replica has acknowledged; one entry's changes are applied in order; a
 * refresh never deletes more than the configured share by itself. What may happen: a change is applied twice, which changes nothing.
 */
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports, ReadinessCheck, RunningService } from '#common/lifecycle.ts';
import { cronSchedule, type Schedule, type Scheduled } from '#common/schedule.ts';
import { openBound } from '#directory/client/access.ts';
import { CheckpointFile } from '#replication/checkpoint.ts';
import type { RepairReport, ReplicationStatus, VerifyReport } from '#replication/client/status.ts';
import type { ReplicationConfig } from '#replication/config.ts';
import { contextCsnOf } from '#replication/history.ts';
import { Quarantine } from '#replication/quarantine.ts';
import { Replicator } from '#replication/replicator.ts';
import { Scope } from '#replication/scope.ts';
import type { ServerAccess } from '#replication/server-access.ts';
import { compareServers, describeReport, differencesMax, suspectsMax } from '#replication/verify.ts';

/** The running service. */
export interface RunningReplication extends RunningService<ReplicationStatus> {
  /** Compares every replica (or one) with the master now. */
  verify(replica?: string): Promise<readonly VerifyReport[]>;
  /** Read your writes: resolves once the replica (or every one) has everything up to that `entryCSN`. Give a signal that aborts. */
  waitFor(change: string, replica: string | undefined, signal: AbortSignal): Promise<void>;
  /** Compares a replica and makes it equal to the master; a dry run only says what it would do. Deletes no more than a refresh may. */
  repair(replica: string, options: { readonly isDryRun: boolean }): Promise<RepairReport>;
  /** The `entryCSN` of the latest change at the master. */
  masterCsn(): Promise<string>;
  /** Lets a stopped replica delete what its refresh asks for. */
  allowDeletes(replica: string): void;
  /** Lets a stopped replica follow the master as it is now; the limit on deletions stays. */
  resume(replica: string): void;
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
  service.scheduleVerify(options.schedule ?? cronSchedule);
  return service;
}

class Replication implements RunningReplication {
  readonly role = 'replication';
  readonly name: string;
  readonly #config: ReplicationConfig;
  readonly #ports: Ports;
  readonly #master: ServerAccess;
  readonly #access = new Map<string, ServerAccess>();
  readonly #replicators = new Map<string, Replicator>();
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
    for (const { name, access, scope } of replicas) {
      this.#access.set(name, access);
      const checkpoint = new CheckpointFile(ports.files, config.stateDirectory, name);
      const quarantine = new Quarantine(ports.files, config.stateDirectory, name);
      const { suffix, refreshDeletesMaxPercent } = config;
      this.#replicators.set(
        name,
        new Replicator({ name, master, replica: access, suffix, scope, refreshDeletesMaxPercent, checkpoint, quarantine, ports }),
      );
    }
    this.#exposeGauges();
  }

  scheduleVerify(schedule: Schedule): void {
    this.#verifying = schedule(this.#config.verifySchedule, `verification of the replicas of ${this.name}`, async () => {
      const reports = await this.verify();
      if (this.#config.differences !== 'repair') return;
      for (const { replica, differing } of reports) {
        if (differing > 0) await this.repair(replica, { isDryRun: false });
      }
    });
  }

  status(): ReplicationStatus {
    const replicators = [...this.#replicators.values()];
    const sources = replicators.map((one) => one.sourceState);
    const csns = replicators.flatMap((one) => one.receivedCsn ?? []).sort();
    return {
      role: 'replication',
      name: this.name,
      master: {
        url: this.#master.url,
        state: sources.some((one) => one.state === 'connected') ? 'connected' : 'connecting',
        contextCsn: csns.at(-1),
        lastError: sources.find((one) => one.lastError !== undefined)?.lastError,
      },
      replicas: replicators.map((one) => one.status()),
    };
  }

  readiness(): readonly ReadinessCheck[] {
    return this.status().replicas.map((one) => ({
      name: `replica ${one.name}`,
      ok: one.state === 'following',
      detail: `${one.state}, ${one.backlogChanges} changes behind, ${one.refused.entries} entries refused${one.lastError === undefined ? '' : `; last error: ${one.lastError}`}`,
    }));
  }

  async verify(replica?: string): Promise<readonly VerifyReport[]> {
    const names = replica === undefined ? [...this.#replicators.keys()] : [replica];
    const reports: VerifyReport[] = [];
    for (const name of names) {
      const replicator = this.#replicator(name);
      try {
        const report = await this.#compare(name);
        reports.push(report);
        replicator.noteVerified(describeReport(report));
        const level = report.differing === 0 ? 'info' : 'error';
        this.#ports.log[level]({ component: 'verify', replica: name, differing: report.differing }, describeReport(report));
      } catch (error) {
        replicator.noteVerified(`failed: ${messageOf(error)}`);
        this.#ports.log.warn({ component: 'verify', replica: name }, `cannot be compared now: ${messageOf(error)}`);
        if (replica !== undefined) throw error;
      }
    }
    return reports;
  }

  async waitFor(change: string, replica: string | undefined, signal: AbortSignal): Promise<void> {
    const waited = replica === undefined ? [...this.#replicators.values()] : [this.#replicator(replica)];
    await Promise.all(waited.map((one) => one.waitFor(change, signal)));
  }

  async repair(replica: string, { isDryRun }: { readonly isDryRun: boolean }): Promise<RepairReport> {
    const replicator = this.#replicator(replica);
    const before = await this.#compare(replica, suspectsMax);
    const listed = { ...before, differences: before.differences.slice(0, differencesMax) };
    if (isDryRun) return { before: listed, after: undefined };
    await replicator.repair(before);
    const [after] = await this.verify(replica);
    this.#ports.log.warn({ component: 'repair', replica, before: before.differing, after: after?.differing }, 'the replica was repaired');
    return { before: listed, after };
  }

  async masterCsn(): Promise<string> {
    await using master = await openBound(this.#master.url, this.#master, this.#ports);
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

  medianReplayMs(replica: string): number | undefined {
    return this.#replicator(replica).medianReplayMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#verifying?.cancel();
    await Promise.all([...this.#replicators.values()].map((one) => one[Symbol.asyncDispose]()));
  }

  async #compare(name: string, listedMax = differencesMax): Promise<VerifyReport> {
    await using master = await openBound(this.#master.url, this.#master, this.#ports);
    await using replica = await openBound(
      (this.#access.get(name) as ServerAccess).url,
      this.#access.get(name) as ServerAccess,
      this.#ports,
    );
    return await compareServers(
      name,
      master,
      replica,
      this.#config.suffix,
      this.#replicator(name).keepsCsn,
      this.#replicator(name).scope,
      listedMax,
    );
  }

  #replicator(name: string): Replicator {
    const found = this.#replicators.get(name);
    if (found !== undefined) return found;
    throw new PlatformError('ADMIN_NOT_FOUND', `no replica "${name}" here; known are ${[...this.#replicators.keys()].join(', ')}`);
  }

  #exposeGauges(): void {
    const { metrics } = this.#ports;
    const backlog = metrics.gauge('archipelago_replication_backlog_changes', 'Changes that a replica has not acknowledged.', ['replica']);
    const lag = metrics.gauge('archipelago_replication_lag_seconds', 'Age of the oldest of them.', ['replica']);
    const refused = metrics.gauge('archipelago_replication_refused_entries', 'Entries set aside because a replica refuses them.', [
      'replica',
    ]);
    metrics.onCollect(() => {
      for (const one of this.status().replicas) {
        refused.set({ replica: one.name }, one.refused.entries);
        backlog.set({ replica: one.name }, one.backlogChanges);
        lag.set({ replica: one.name }, one.lagMs / 1000);
      }
    });
  }
}
