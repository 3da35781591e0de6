/**
 * One history of replication: a master that is written to, replicas, and the product's Replicator for each, on virtual time, while the seed
 * kills the service, restarts servers, cuts the network and lets the master forget its journal. Then all is healed.
 *
 * I8, as it holds for a replica to which up to 64 entries are written side by side, checked after every single write:
 *   (a) each entry has the content of exactly one state that it had at the master, named by its entryCSN, and never goes back to an older
 *       one; its name is of that state or a later one (a rename comes before the content that goes with it), or out of somebody's way;
 *   (b) an entry that the master removed and the replica removed does not come back;
 *   (c) when the replica is said to be current as of a CSN, every entry is in the state of that CSN or a later one, and none is missing;
 *   (d) so it is for every checkpoint that is on the disk;
 *   (e) once healed, the replica equals the master within the bound.
 */
import { messageOf } from '#common/errors/platform-error.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { Secret } from '#common/secret.ts';
import { CheckpointFile, csnOfCookie } from '#replication/checkpoint.ts';
import { Quarantine } from '#replication/quarantine.ts';
import { Replicator } from '#replication/replicator.ts';
import { Scope } from '#replication/scope.ts';
import { fenceConnection } from '#replication/state-place.ts';
import { Shadow } from '#replication/store/shadow.ts';
import { MemoryDisk } from '#test/fakes/memory-files.ts';
import { Machine, SimProcess } from '../machine.ts';
import { SimNetwork } from '../network.ts';
import { World } from '../world.ts';
import { SimDirectoryServer } from './directory-server.ts';

const safetyMs = 20_000;
/** (e): everything is equal within this after the healing. */
export const convergedWithinMs = 60_000;
const replicaCount = 2;

/** What became of one seed. */
export interface ReplicationSeedResult {
  readonly seed: number;
  readonly trace: string;
  readonly violations: readonly string[];
  readonly changes: number;
  readonly writes: number;
  readonly recoveryMs: number;
  readonly faults: ReadonlyMap<string, number>;
}

/** How a history may differ from the usual one. */
export interface ReplicationSeedOptions {
  /** Writes carry no number: what a killed service had on its way counts whenever it arrives. */
  readonly isUnfenced?: boolean;
  /** Stands between the replicator and its checkpoint: a broken variant is made with it. */
  readonly checkpoint?: (own: CheckpointFile, master: SimDirectoryServer) => CheckpointFile;
}

const noGuard = { controls: [], refusal: () => undefined };

/** Runs one seed from the beginning to the end. */
export async function runReplicationSeed(seed: number, options: ReplicationSeedOptions = {}): Promise<ReplicationSeedResult> {
  const world = new World(seed);
  const { chance } = world;
  const network = new SimNetwork(world);
  const violations = new Set<string>();
  const faults = new Map<string, number>();
  const machineOf = (name: string, host: string): Machine => {
    const machine = new Machine(world, name, host);
    network.add(machine);
    return machine;
  };
  const master = new SimDirectoryServer(world, network, machineOf('master', '127.0.0.1'));
  const replicas = Array.from({ length: replicaCount }, (_, i) => {
    return new SimDirectoryServer(world, network, machineOf(`replica${i + 1}`, `127.0.0.${i + 2}`));
  });
  const service = machineOf('replication', '127.0.0.9');
  const disk = new MemoryDisk();
  await disk.client().mkdirAll('/state');
  const watches = replicas.map((replica) => new ReplicaWatch(master, replica, violations));
  for (const server of [master, ...replicas]) server.start();

  // --- the service
  let running: { process: SimProcess; replicators: Replicator[] } | undefined;
  const access = (server: SimDirectoryServer) => ({
    url: server.url,
    bindDn: 'cn=replicator',
    password: new Secret('secret'),
    ca: undefined,
    timeoutMs: 10_000,
  });
  const startService = (): void => {
    if (running !== undefined) return;
    const process = new SimProcess(service);
    const files = disk.client();
    process.onDeath.push(() => {
      files.isDead = true;
    });
    const ports = {
      clock: process.clock,
      random: chance.fork().port(),
      network: network.portOf(process),
      files,
      log: silentLogger,
      metrics: createMetrics(),
    };
    const replicators = replicas.map((replica, i) => {
      const own = new CheckpointFile(files, '/state', replica.machine.name);
      const checkpoint = options.checkpoint === undefined ? own : options.checkpoint(own, master);
      const save = checkpoint.save.bind(checkpoint);
      checkpoint.save = async (value) => {
        await save(value);
        watches[i]?.checkCurrent(csnOfCookie(value.cookie) ?? '', 'checkpoint');
      };
      return new Replicator({
        name: replica.machine.name,
        master: access(master),
        replica: access(replica),
        suffix: 'o=mail',
        scope: new Scope({}),
        refreshDeletesMaxPercent: 100,
        checkpoint,
        quarantine: new Quarantine(files, '/state', replica.machine.name),
        openShadow: () => Shadow.open(':memory:', ports.random.bytes(8), silentLogger, () => Promise.resolve()),
        guard: (connection) => (options.isUnfenced === true ? Promise.resolve(noGuard) : fenceConnection(connection, 1, ports.random)),
        ports,
      });
    });
    running = { process, replicators };
  };
  const killService = (): void => {
    running?.process.die();
    running = undefined;
  };

  // --- the master's writers
  const uuids: string[] = [];
  const domains: string[] = [];
  const newUuid = (): string => chance.port().uuid();
  const root = newUuid();
  master.change({ uuid: root, rdn: 'o=mail' });
  for (const name of ['isp', 'other']) {
    const uuid = newUuid();
    domains.push(uuid);
    master.change({ uuid, rdn: `cn=${name}`, parent: root });
  }
  const nameOf = (): string => `uid=u${chance.below(12)}`;
  const writeOnce = (): void => {
    const uuid = uuids.length === 0 ? '' : chance.pick(uuids);
    const draw = chance.below(10);
    if (draw < 3 || uuid === '') {
      const made = newUuid();
      if (master.change({ uuid: made, rdn: nameOf(), parent: chance.pick(domains), description: `made ${master.log.length}` }))
        uuids.push(made);
    } else if (!master.entries.has(uuid)) return;
    else if (draw < 5) master.change({ uuid, description: `changed ${master.log.length}` });
    else if (draw < 7) master.change({ uuid, rdn: nameOf() });
    else if (draw < 8) master.change({ uuid, parent: chance.pick(domains), rdn: nameOf() });
    else if (draw < 9) master.change({ uuid, isRemoved: true });
    else if (draw < 10 && chance.is(0.2)) master.change({ uuid: chance.pick(domains), rdn: `cn=d${chance.below(5)}` });
  };
  const burst = (): void => {
    if (!master.isRunning) return;
    for (let count = 1 + chance.below(8); count > 0; count -= 1) writeOnce();
  };
  for (let atMs = 0; atMs < safetyMs; atMs += chance.between(10, 400)) world.after(atMs, 'writes', burst);

  // --- faults
  const planned = (kind: string, happen: () => void, heal: () => void): void => {
    const atMs = chance.between(0, safetyMs * 0.9);
    world.after(atMs, kind, () => {
      faults.set(kind, (faults.get(kind) ?? 0) + 1);
      happen();
    });
    world.after(atMs + chance.between(20, 3000), `heal ${kind}`, heal);
  };
  const everything = [master, ...replicas];
  for (let count = 3 + chance.below(6); count > 0; count -= 1) {
    const kind = chance.pick(['kill', 'kill', 'replica', 'master', 'cut', 'forget', 'loss']);
    const server = chance.pick(kind === 'master' ? [master] : kind === 'replica' ? replicas : everything);
    const restart = (): void => {
      if (!server.isRunning) server.start();
    };
    if (kind === 'kill') planned(kind, killService, startService);
    else if (kind === 'replica' || kind === 'master') planned(kind, () => server.stop(), restart);
    else if (kind === 'forget')
      planned(
        kind,
        () => (master.forgottenUntil = master.log.length),
        () => {},
      );
    else if (kind === 'loss')
      planned(
        kind,
        () => (network.lossShare = 0.05),
        () => (network.lossShare = 0),
      );
    else {
      const pairs = [`${service.name} ${server.machine.name}`, `${server.machine.name} ${service.name}`];
      const cut = chance.is(0.5) ? pairs : [chance.pick(pairs)];
      planned(
        kind,
        () => cut.map((pair) => network.cuts.add(pair)),
        () => cut.map((pair) => network.cuts.delete(pair)),
      );
    }
  }

  startService();
  await world.runUntil(safetyMs);

  // --- all is healed
  network.cuts.clear();
  network.lossShare = 0;
  for (const server of everything) if (!server.isRunning) server.start();
  startService();
  const healedAtMs = world.nowMs;
  const isEqual = (): boolean => watches.every((watch) => watch.isEqual());
  try {
    await world.runUntil(healedAtMs + convergedWithinMs, isEqual);
  } catch (error) {
    violations.add(`the simulation failed: ${messageOf(error)}`);
  }
  for (const watch of watches)
    if (!watch.isEqual()) violations.add(`(e) ${watch.name} is not equal ${convergedWithinMs} ms after the healing`);
  const recoveryMs = world.nowMs - healedAtMs;
  killService();
  return {
    seed,
    trace: world.trace(),
    violations: [...violations],
    changes: master.log.length,
    writes: watches.reduce((sum, watch) => sum + watch.writes, 0),
    recoveryMs,
    faults,
  };
}

/** Looks at one replica after each of its writes. */
class ReplicaWatch {
  readonly name: string;
  writes = 0;
  readonly #master: SimDirectoryServer;
  readonly #replica: SimDirectoryServer;
  readonly #violations: Set<string>;
  /** The latest state of each entry that the replica has had, as a place in the master's log. */
  readonly #reached = new Map<string, number>();
  readonly #removed = new Set<string>();

  constructor(master: SimDirectoryServer, replica: SimDirectoryServer, violations: Set<string>) {
    this.name = replica.machine.name;
    this.#master = master;
    this.#replica = replica;
    this.#violations = violations;
    replica.onWrite = (uuid) => this.#look(uuid);
    replica.onContextCsn = (csn) => this.checkCurrent(csn, 'contextCSN');
  }

  /** (c) and (d). */
  checkCurrent(csn: string, what: string): void {
    const wanted = new Map<string, number>();
    this.#master.log.forEach((change, at) => {
      if (change.csn <= csn) wanted.set(change.uuid, at);
    });
    for (const [uuid, at] of wanted) {
      const state = this.#stateOf(uuid);
      if (this.#master.log[at]?.dn === undefined) {
        if (this.#replica.entries.has(uuid)) this.#report(`(c) ${what} ${csn} covers the removal of ${uuid}, which is there`);
      } else if (state === undefined) {
        // Gone by a later removal, or missing.
        const isGoneLater = this.#master.log.some((change, i) => i > at && change.uuid === uuid && change.dn === undefined);
        if (!isGoneLater) this.#report(`(c) ${what} ${csn} covers ${uuid}, which is missing`);
      } else if (state < at) this.#report(`(c) ${what} ${csn} covers state ${at} of ${uuid}, which is in state ${state}`);
    }
  }

  isEqual(): boolean {
    const { entries } = this.#replica;
    if (entries.size !== this.#master.entries.size) return false;
    for (const wanted of this.#master.entries.values()) {
      const present = entries.get(wanted.uuid);
      if (present === undefined || present.csn !== wanted.csn) return false;
      if (this.#replica.dnOf(present) !== this.#master.dnOf(wanted) || text(present.attributes) !== text(wanted.attributes)) return false;
    }
    return true;
  }

  /** (a) and (b), of the entry that was written. */
  #look(uuid: string): void {
    this.writes += 1;
    const entry = this.#replica.entries.get(uuid);
    if (entry === undefined) {
      this.#removed.add(uuid);
      const isGone = this.#master.log.some((change) => change.uuid === uuid && change.dn === undefined);
      if (!isGone) this.#report(`(a) ${uuid} was removed, and the master never removed it`);
      return;
    }
    if (this.#removed.has(uuid)) this.#report(`(b) ${uuid} came back after its removal`);
    const state = this.#stateOf(uuid);
    if (state === undefined) {
      this.#report(`(a) ${uuid} has the entryCSN ${entry.csn}, which it never had at the master`);
      return;
    }
    const before = this.#reached.get(uuid) ?? -1;
    if (state < before) this.#report(`(a) ${uuid} went back from state ${before} to ${state}`);
    this.#reached.set(uuid, Math.max(before, state));
    const wanted = this.#master.log[state];
    if (withoutNames(wanted?.attributes) !== withoutNames(entry.attributes)) {
      this.#report(`(a) ${uuid} mixes states: ${withoutNames(entry.attributes)} under the CSN of ${withoutNames(wanted?.attributes)}`);
    }
    const isItsName = this.#master.log.some(
      (change, i) => i >= state && change.uuid === uuid && change.dn?.split(',')[0] === entry.rdn.split(',')[0],
    );
    if (!isItsName && !entry.rdn.includes('displaced-'))
      this.#report(`(a) ${uuid} is called ${entry.rdn}, which it was not at state ${state} or later`);
  }

  #stateOf(uuid: string): number | undefined {
    const csn = this.#replica.entries.get(uuid)?.csn;
    const at = this.#master.log.findIndex((change) => change.uuid === uuid && change.csn === csn);
    return at < 0 ? undefined : at;
  }

  #report(what: string): void {
    this.#violations.add(`${this.name}: ${what}`);
  }
}

function text(attributes: ReadonlyMap<string, readonly string[]>): string {
  return [...attributes]
    .map(([type, values]) => `${type}=${[...values].sort().join('|')}`)
    .sort()
    .join(';');
}

function withoutNames(attributes: ReadonlyMap<string, readonly string[]> | undefined): string {
  return text(new Map([...(attributes ?? [])].filter(([type]) => !['uid', 'cn', 'o'].includes(type))));
}
