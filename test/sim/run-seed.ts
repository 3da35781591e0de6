/**
 * One history: three members of the product, a few accounts with their clients, the faults of the seed. First the safety phase under
 * faults, then all is healed and everything must come through within a bound (I11), then all accounts are read back from storage.
 */
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { parseAccountName, parseAccountUuid } from '#common/account-name.ts';
import { asPlatformError, messageOf } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { Secret } from '#common/secret.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import { type AvailabilityFault, watchAvailability } from './availability.ts';
import { type ClientParts, password, readOnAndOn, readOnce, sendPatiently } from './clients.ts';
import { SimCoordinator } from './coordinator.ts';
import { SimDirectory } from './directory.ts';
import { SimDisk } from './disk.ts';
import { AccountHistory, mailboxesOf } from './history.ts';
import { Machine, SimProcess } from './machine.ts';
import { frontendLink, MemberNode } from './member-node.ts';
import { Nemesis } from './nemesis.ts';
import { SimNetwork } from './network.ts';
import { TermWatch } from './term-watch.ts';
import { World } from './world.ts';

const memberCount = 3;
const safetyMs = 30_000;
/** I11: all is healed, and every account opens and every message is delivered within this. */
export const livenessWithinMs = 60_000;

type SimHistory = AccountHistory<AccountRecord>;

/** What became of one seed. */
export interface SeedResult {
  readonly seed: number;
  /** Fingerprint of everything that happened. */
  readonly trace: string;
  readonly violations: readonly string[];
  readonly simulatedMs: number;
  /** From the healing until everything had come through. */
  readonly recoveryMs: number;
  /** With `onlyFault`: the longest time in which some account could not be opened. */
  readonly unavailableMs: number;
  readonly events: number;
  readonly commits: number;
  readonly sent: number;
  readonly faults: ReadonlyMap<string, number>;
}

/** How a history may differ from the usual one. */
export interface SeedOptions {
  /** See `SimDisk.portOf`. */
  readonly through?: (files: Files, coordinator: SimCoordinator) => Files;
  /** Instead of a mix by chance: accounts that write and compact a lot, members that sleep, and writes that land late. */
  readonly hasLateWriters?: boolean;
  /** The coordinator fails over as well, and forgets. */
  readonly hasFailOvers?: boolean;
  /** Nothing but this fault, a few times, while each account is asked for all the time (I10). */
  readonly onlyFault?: AvailabilityFault;
  /** Lines of the members' logs, as they come. */
  readonly onLog?: (line: string) => void;
}

/** Runs one seed from the beginning to the end. */
export async function runSeed(seed: number, options: SeedOptions = {}): Promise<SeedResult> {
  const world = new World(seed);
  const violations: string[] = [];
  const network = new SimNetwork(world);
  const disk = new SimDisk(world);
  const machine = (name: string, host: string): Machine => {
    const made = new Machine(world, name, host);
    network.add(made);
    return made;
  };
  const histories = accountsOf(world).map((record) => new AccountHistory(record));
  const coordinator = new SimCoordinator(world, network, machine('redis.west.isp.example', '127.0.0.2'));
  const surroundings = {
    network,
    disk,
    coordinator,
    directory: new SimDirectory(
      world,
      histories.map(({ record }) => record),
    ),
    log: (node: string) =>
      watchedLogger({
        world,
        node,
        violations,
        onLog: options.onLog,
        isServing: (member, incarnation) => members.some((one) => one.isServing(member, incarnation)),
      }),
    through: (files: Files) => options.through?.(files, coordinator) ?? files,
    snapshotRecords: options.hasLateWriters === true ? 4 : world.chance.pick([4, 12, 40]),
  };
  const members: MemberNode[] = Array.from(
    { length: memberCount },
    (_, index): MemberNode => new MemberNode(machine(`back${index + 1}.west.isp.example`, `127.0.0.${11 + index}`), surroundings),
  );
  const frontend = new SimProcess(machine('front1.eu.isp.example', '127.0.0.31'));
  const link = frontendLink(frontend, network, silentLogger);
  const machines = [...members.map((node) => node.machine), coordinator.machine, frontend.machine];
  const nemesis = new Nemesis({ world, network, disk, coordinator, members, machines });
  const terms = new TermWatch(members, violations);
  world.afterEach = () => terms.look();

  for (const node of members) node.start();
  if (options.hasLateWriters === true) nemesis.planLateWriters(safetyMs, options.hasFailOvers === true);
  else if (options.onlyFault !== undefined) nemesis.planOnly(options.onlyFault, safetyMs);
  else nemesis.plan(safetyMs);
  let isWinding = false;
  const clients = histories.map((history): ClientParts => {
    const addresses = members.map((node) => node.address);
    const chance = world.chance.fork();
    return { process: frontend, link, members: addresses, chance, history, isWinding: () => isWinding, nowMs: () => world.nowMs };
  });
  const isBusy = world.chance.is(0.25);
  const work = clients.flatMap((parts, index) => [
    readOnAndOn(parts, () => {}),
    sendAll(parts, safetyMs, options.hasLateWriters === true || (isBusy && index === 0)),
  ]);
  const availability = options.onlyFault === undefined ? undefined : watchAvailability(clients, options.onlyFault);
  await world.runUntil(safetyMs);
  const unavailableMs = availability?.end(violations) ?? 0;

  nemesis.heal();
  isWinding = true;
  const healedAtMs = world.nowMs;
  const opened = new Set<SimHistory>();
  const finals = clients.map(async (parts) => {
    while (!opened.has(parts.history)) {
      await readOnce(parts, () => opened.add(parts.history), 0);
      await world.sleep(100);
    }
  });
  let isThrough = false;
  const all = Promise.all([...work, ...finals]).then(
    () => {
      isThrough = true;
    },
    (error: unknown) => {
      violations.push(`the simulated clients failed: ${messageOf(error)}`);
    },
  );
  await world.runUntil(healedAtMs + livenessWithinMs, () => isThrough);
  const recoveryMs = world.nowMs - healedAtMs;
  if (isThrough) await all;
  else violations.push(...unfinished(histories, opened));

  for (const node of members) node.kill();
  violations.push(...disk.violations);
  await readBack(disk, histories, violations);
  for (const history of histories) violations.push(...history.violations);
  return {
    seed,
    trace: world.trace(),
    violations: [...new Set(violations)],
    simulatedMs: world.nowMs,
    recoveryMs,
    unavailableMs,
    events: world.events,
    commits: disk.commits,
    sent: histories.reduce((sum, history) => sum + history.sent.size, 0),
    faults: nemesis.counts,
  };
}

function accountsOf(world: World): AccountRecord[] {
  const hostServer = parseClusterName('west.isp.example');
  return ['ada', 'ben', 'cyd'].map((name, index) => ({
    kind: 'account',
    uuid: parseAccountUuid(world.chance.port().uuid()),
    dn: '',
    name: parseAccountName(`${name}@isp.example`),
    hostServer,
    hostServerProblem: undefined,
    addresses: [],
    status: 'active',
    quotaBytes: undefined,
    passwords: new Secret([`{CLEARTEXT}${password}`]),
    region: undefined,
    displayName: undefined,
    csn: String(index),
  }));
}

/** Messages at any time of the phase. */
async function sendAll(parts: ClientParts, phaseMs: number, isBusy: boolean): Promise<void> {
  const { chance, process, history } = parts;
  const sending: Promise<void>[] = [];
  // A busy account goes through many snapshots, and loses its old slots, while something is still under way.
  for (let count = isBusy ? 120 : 8 + chance.below(14), number = 1; number <= count; number += 1) {
    const message = history.send(`${history.record.name.split('@')[0]}-${number}`);
    // Most are too short to be packed, which is dear and of one kind; some are packed, a few in several pieces.
    const fill = chance.is(0.04) ? 1_500 : chance.is(0.1) ? 40 : chance.below(4);
    const send = async (): Promise<void> => {
      await process.world.sleep(chance.between(0, phaseMs * 0.95));
      await sendPatiently(parts, message, fill);
    };
    sending.push(send());
  }
  await Promise.all(sending);
}

function unfinished(histories: readonly SimHistory[], opened: ReadonlySet<SimHistory>): string[] {
  return histories.flatMap((history) => {
    const waiting = history.unacknowledged.map(({ id }) => id);
    const found: string[] = [];
    if (!opened.has(history)) found.push(`I11: ${history.record.name} could not be opened within ${livenessWithinMs} ms of the healing`);
    if (waiting.length > 0) found.push(`I11: not delivered within ${livenessWithinMs} ms of the healing: ${waiting.join(', ')}`);
    return found;
  });
}

/** Opens every account on a machine that nothing happened to, and compares. */
async function readBack(disk: SimDisk, histories: readonly SimHistory[], violations: string[]): Promise<void> {
  const chance = disk.world.chance.fork();
  const process = new SimProcess(new Machine(disk.world, 'checker', '127.0.0.99'));
  const store = await openAccountStore({
    root: '/store',
    files: disk.files,
    clock: process.clock,
    random: chance.port(),
    log: silentLogger,
    metrics: createMetrics(),
  });
  for (const history of histories) {
    const { uuid } = history.record;
    try {
      const member = parseMemberName('checker.west.isp.example');
      const account = await store.open(uuid, { member, incarnation: 'checker', openId: `checker.${uuid}` });
      if (account.isReadOnly) violations.push(`I3: ${history.record.name} is damaged and read-only`);
      history.check(await mailboxesOf(account));
      await account.close();
      for (const { file, problem } of (await store.checkAccount(uuid)).findings) violations.push(`I3: ${file}: ${problem}`);
    } catch (error) {
      violations.push(`I3: ${history.record.name} cannot be read back: ${messageOf(error)}`);
    }
  }
}

interface LogWatch {
  readonly world: World;
  readonly node: string;
  readonly violations: string[];
  readonly onLog: ((line: string) => void) | undefined;
  isServing(member: unknown, incarnation: unknown): boolean;
}

/** Goes into the trace; a line that tells of a bug, of damage, or of a death that none was is a violation, whatever its level. */
function watchedLogger({ world, node, violations, onLog, isServing }: LogWatch): Logger {
  const note = (level: string) => (fields: Record<string, unknown>, message: string) => {
    world.note(message);
    const code = String(fields.errCode ?? (fields.err === undefined ? '' : asPlatformError(fields.err).code));
    onLog?.(`${(world.nowMs / 1000).toFixed(3)} ${node.split('.')[0]} ${level} ${code} ${message}`);
    if (code === 'BUG_UNEXPECTED' || code === 'STORE_CORRUPT') violations.push(`${node} logged ${code}: ${message}`);
    if (/is gone: its machine refuses/.test(message) && isServing(fields.member, fields.incarnation)) {
      violations.push(`${node} says of a member that serves: ${message}`);
    }
  };
  const logger: Logger = {
    child: () => logger,
    trace: note('trace'),
    debug: note('debug'),
    info: note('info'),
    warn: note('warn'),
    error: note('error'),
  };
  return logger;
}
