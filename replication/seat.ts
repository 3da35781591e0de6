/**
 * One directory server as this service serves it: fed by a replicator while this service may write it and another server is the master.
 *
 *   no lease configured ──────────────► replicator          follow(master) ──► the replicator is made anew, from that master
 *   lease ──► standby ⇄ active ───────► replicator          the server is the master itself ──► nothing to do
 */
import { sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { openBound } from '#directory/client/access.ts';
import { makeFence } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { relax } from '#protocol/ldap/controls.ts';
import { CheckpointFile, removeFile } from '#replication/checkpoint.ts';
import type { ReplicaStatus } from '#replication/client/status.ts';
import { replicatedAttributes, replicatedSelection } from '#replication/decide.ts';
import { Lease } from '#replication/lease.ts';
import { Quarantine } from '#replication/quarantine.ts';
import { Replicator } from '#replication/replicator.ts';
import type { Scope } from '#replication/scope.ts';
import type { ServerAccess } from '#replication/server-access.ts';
import { ensureSuffix, fenceConnection, type LeaseRecord, openStatePlace, SharedState, type StatePlace } from '#replication/state-place.ts';
import { Shadow, stateFile } from '#replication/store/shadow.ts';

/** How often it is looked at whether the lease has come. */
const lookEveryMs = 50;

/** What a seat is made with. */
export interface SeatOptions {
  readonly name: string;
  readonly access: ServerAccess;
  readonly scope: Scope;
  readonly suffix: string;
  readonly stateDirectory: string;
  readonly refreshDeletesMaxPercent: number;
  /** `undefined`: this service is the only one. */
  readonly lease: { readonly leaseMs: number; readonly holder: string } | undefined;
  readonly ports: Ports;
}

/** The master that is followed, and its term. */
export interface FollowedMaster {
  readonly access: ServerAccess;
  readonly term: number;
}

/** See the header of this file. */
export class Seat implements AsyncDisposable {
  readonly name: string;
  readonly access: ServerAccess;
  readonly scope: Scope;
  readonly #options: SeatOptions;
  #master: FollowedMaster | undefined;
  #replicator: Replicator | undefined;
  #lease: Lease | undefined;
  #place: Promise<StatePlace> | undefined;
  #placeConnection: LdapConnection | undefined;
  #changing: Promise<void> = Promise.resolve();
  /** Ends with the present replicator. */
  #tenure = new AbortController();

  constructor(options: SeatOptions) {
    this.#options = options;
    this.name = options.name;
    this.access = options.access;
    this.scope = options.scope;
  }

  /** The running replicator; `undefined` while another service is active, or while this server is the master. */
  get replicator(): Replicator | undefined {
    return this.#replicator;
  }

  get isMaster(): boolean {
    return this.#master !== undefined && this.#master.access.url === this.access.url;
  }

  /** The replicator, or an error that says why there is none. */
  active(): Replicator {
    if (this.#replicator !== undefined) return this.#replicator;
    if (this.isMaster) throw new PlatformError('ADMIN_NOT_ABLE', `${this.name} is the master itself`);
    const holder = this.#lease?.record?.holder;
    throw new PlatformError('ADMIN_NOT_ABLE', `another replication service writes ${this.name}: ${holder ?? 'not known yet'}`, {
      fields: { hint: 'ask the admin API of that service; archipelago replica status shows which one is active' },
    });
  }

  /**
   * Resolves once this service writes the server, or at once where that is the master: another one that did and is gone may have received
   * changes that it did not write, and keeps the lease until its time is up. Rejects with `REPL_NOT_PROMOTED`.
   */
  async whenActive(withinMs: number): Promise<void> {
    const { clock } = this.#options.ports;
    const startedMs = clock.monotonicMs();
    while (this.#replicator === undefined && !this.isMaster) {
      if (clock.monotonicMs() - startedMs > withinMs) {
        const { record, lastError } = this.#lease ?? {};
        throw new PlatformError(
          'REPL_NOT_PROMOTED',
          `another replication service writes ${this.name}: ${record?.holder ?? 'not known yet'}${lastError === undefined ? '' : ` (${lastError})`}. ` +
            `It kept the lease for ${withinMs} ms; ask the admin API of that service, or stop it`,
        );
      }
      await sleep(clock, lookEveryMs);
    }
  }

  /** Resolves once the server has everything up to that CSN, whoever is the master by then; rejects with the signal's reason. */
  async waitFor(change: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      const replicator = this.active();
      const tenure = this.#tenure.signal;
      try {
        return await replicator.waitFor(change, AbortSignal.any([signal, tenure]));
      } catch (error) {
        if (signal.aborted || !tenure.aborted) throw error;
      }
      await this.#changing;
      while (this.#replicator === undefined && !this.isMaster) {
        await sleep(this.#options.ports.clock, lookEveryMs, signal);
        signal.throwIfAborted();
      }
    }
  }

  /** Feeds the server from that master from now on; resolves when what fed it before has ended. */
  follow(master: FollowedMaster): Promise<void> {
    this.#changing = this.#changing.then(async () => {
      if (this.#master?.access.url === master.access.url && this.#master.term === master.term) return;
      await this.#end();
      this.#master = master;
      if (this.isMaster) return;
      if (this.#options.lease === undefined) this.#replicator = this.#make(this.#options.ports.files, undefined);
      else this.#contend(this.#options.lease);
    });
    return this.#changing;
  }

  /** Resolves once the last `follow` has taken effect. */
  settled(): Promise<void> {
    return this.#changing;
  }

  status(): ReplicaStatus {
    const lease = this.#lease;
    const record = lease?.record;
    const leaseStatus =
      lease === undefined
        ? undefined
        : {
            isActive: lease.isActive,
            number: record?.number ?? 0,
            holder: record?.holder ?? '',
            takenOverAfterMs: lease.takenOverAfterMs,
          };
    const own = this.#replicator?.status();
    const shown = own ?? {
      name: this.name,
      url: this.access.url,
      state: this.isMaster ? ('master' as const) : ('standby' as const),
      backlogChanges: 0,
      lagMs: 0,
      applied: { add: 0, modify: 0, rename: 0, delete: 0 },
      conflicts: 0,
      refused: { entries: 0, first: [] },
      contextCsn: undefined,
      lastError: lease?.lastError,
      lastAppliedAtMs: undefined,
      lastVerifiedAtMs: undefined,
      lastVerifyResult: undefined,
    };
    return leaseStatus === undefined ? shown : { ...shown, lease: leaseStatus };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#changing;
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#endTenure();
    await this.#lease?.[Symbol.asyncDispose]();
    this.#lease = undefined;
    await this.#replicator?.[Symbol.asyncDispose]();
    this.#replicator = undefined;
    this.#placeConnection?.destroy();
    this.#place = undefined;
  }

  #endTenure(): void {
    this.#tenure.abort();
    this.#tenure = new AbortController();
  }

  #contend({ leaseMs, holder }: { leaseMs: number; holder: string }): void {
    const { ports, name } = this.#options;
    this.#lease = new Lease({
      holder,
      leaseMs,
      place: () => this.#statePlace(),
      clock: ports.clock,
      random: ports.random,
      log: ports.log.child({ replica: name }),
      onTaken: (record) => {
        const made = this.#make(new SharedState(() => this.#statePlace(), record), record);
        this.#replicator = made;
        return {
          [Symbol.asyncDispose]: async () => {
            if (this.#replicator === made) this.#replicator = undefined;
            this.#endTenure();
            await made[Symbol.asyncDispose]();
          },
        };
      },
    });
  }

  #make(state: ConstructorParameters<typeof CheckpointFile>[0], lease: LeaseRecord | undefined): Replicator {
    const { name, access, scope, suffix, stateDirectory, refreshDeletesMaxPercent, ports } = this.#options;
    const master = this.#master as FollowedMaster;
    return new Replicator({
      name,
      master: master.access,
      replica: access,
      suffix,
      scope,
      refreshDeletesMaxPercent,
      checkpoint: new CheckpointFile(state, stateDirectory, name, master.term),
      quarantine: new Quarantine(state, stateDirectory, name),
      namedFile: stateFile(stateDirectory, name, 'refresh'),
      goneFile: stateFile(stateDirectory, name, 'gone'),
      openShadow: () =>
        Shadow.open(stateFile(stateDirectory, name, 'shadow'), ports.random.bytes(8), ports.log.child({ replica: name }), (path) =>
          removeFile(ports.files, path),
        ),
      guard:
        lease === undefined
          ? (connection) => fenceConnection(connection, master.term, ports.random)
          : () => Promise.resolve({ controls: [makeFence(master.term, lease.number)], refusal: () => this.#lease?.refusal() }),
      ports,
    });
  }

  // A connection of its own: renewing must not wait behind the changes.
  async #statePlace(): Promise<StatePlace> {
    if (this.#place !== undefined && this.#placeConnection?.isOpen === true) return this.#place;
    const { access, suffix, ports, lease } = this.#options;
    const timeoutMs = Math.max(200, Math.round((lease?.leaseMs ?? access.timeoutMs) / 4));
    const opening = openBound(access.url, { ...access, timeoutMs }, ports).then(async (connection) => {
      this.#placeConnection = connection;
      return openStatePlace(connection, suffix, () => this.#prepare(connection));
    });
    this.#place = opening;
    try {
      return await opening;
    } catch (error) {
      if (this.#place === opening) this.#place = undefined;
      this.#placeConnection?.destroy();
      throw error;
    }
  }

  async #prepare(replica: LdapConnection): Promise<void> {
    const { suffix, ports } = this.#options;
    const master = (this.#master as FollowedMaster).access;
    await ensureSuffix(
      replica,
      suffix,
      async () => {
        await using connection = await openBound(master.url, master, ports);
        const entry = await connection.readEntry(suffix, replicatedSelection);
        return entry === undefined ? undefined : replicatedAttributes(entry.attributes, false);
      },
      (attributes) => replica.add(suffix, attributes, [relax]),
    );
  }
}
