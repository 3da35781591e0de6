/**
 * `archipelago up --config FILE`: runs the services that a node file names, in one process, until SIGTERM or SIGINT; SIGHUP reads
 * certificates and access rules again; SIGUSR2 has a process of frontends go on in a new one, without a break (restart.ts).
 */
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { systemClock } from '#common/clock.ts';
import { type LogConfig, problemText } from '#common/config/node-file.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Ports, RunningService } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { AcceptTrouble } from '#common/network/direct/accept-trouble.ts';
import { ListeningSockets } from '#common/network/listening-sockets.ts';
import { createSystemNetwork, kindOf } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import type { RunningFrontend } from '#frontend/main.ts';
import { loadServicesFile, type ServiceConfig } from '#operate/config/service-schemas.ts';
import { compileEarlyFor } from './compile-early.ts';
import { Predecessor } from './predecessor.ts';
import { Restarter, type Successor } from './restart.ts';
import { notifySystemd } from './systemd.ts';
import type { Workers } from './workers.ts';

const usage =
  'usage: archipelago up --config FILE\n\nRuns the services that the node file names until SIGTERM or SIGINT; SIGHUP reads certificates and access rules again;\nSIGUSR2 starts frontends anew without a break. "archipelago config check FILE" checks it.\n';

/** Order of starting; stopping goes the other way, so that clients leave before what they need does. */
const startOrder = ['directory', 'replication', 'backend-cluster', 'frontend'];

await main();

async function main(): Promise<void> {
  const path = readPath();
  const predecessor = await Predecessor.meet(systemClock);
  const refuse = async (problem: string, more: string): Promise<never> => {
    process.stderr.write(`${problem}\narchipelago up: ${more}\n`);
    await predecessor?.fail(problem);
    process.exit(2);
  };
  const text = await readFile(path, 'utf8').catch((error: unknown) =>
    refuse(`cannot read ${path}: ${messageOf(error)}`, 'nothing was started'),
  );
  const loaded = loadServicesFile(path, text);
  if ('problems' in loaded) {
    return refuse(loaded.problems.map(problemText).join('\n'), `${path} has ${loaded.problems.length} mistake(s); nothing was started`);
  }
  const { config } = loaded;
  if (config.data !== undefined) await mkdir(config.data, { recursive: true, mode: 0o700 });
  const sockets = new ListeningSockets(predecessor?.sockets);
  const workers: Workers[] = [];
  const log = createLogger(config.log.level, {}, config.log.file);
  const metrics = createMetrics(async () => (await Promise.all(workers.map((each) => each.metrics()))).flat());
  const trouble = new AcceptTrouble({ clock: systemClock, log, metrics });
  const ports: Ports = {
    clock: systemClock,
    random: systemRandom,
    network: createSystemNetwork(sockets, process.env.ARCHIPELAGO_NETWORK, trouble),
    files: nodeFiles,
    log,
    metrics,
    sockets,
  };
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort(signal));
  const services: RunningService<unknown>[] = [];
  reloadOnHangup(services, ports.log);
  const restarter = new Restarter({
    sockets,
    clock: ports.clock,
    log: ports.log,
    frontends: () => services.filter(isFrontend),
    others: config.services.flatMap(({ role, name }) => (role === 'frontend' ? [] : [`${role} ${name}`])),
  });
  // Timers of the product do not keep the process alive; this one does, until the end is asked for.
  const keepAlive = setInterval(() => {}, 60_000);
  const started = new AsyncDisposableStack();
  let successor: Successor | undefined;
  try {
    const coordinators = createEmbeddedCoordinators();
    const localMembers = config.services.flatMap(({ role, name }) => (role === 'backend-cluster' ? [name] : []));
    const shared = { coordinators, path, localMembers, log: config.log, sockets, restarter, predecessor, workers };
    const ordered = [...config.services].sort((a, b) => startOrder.indexOf(a.role) - startOrder.indexOf(b.role));
    for (const service of ordered) {
      services.push(started.use(await startService(service, portsOf(ports, service), shared)));
      ports.log.info({ service: service.role, node: service.name, sockets: kindOf(ports.network) }, 'started');
    }
    if (config.admin !== undefined) {
      const name = config.services[0]?.name ?? 'node';
      const { startAdminFromConfig } = await import('./admin.ts');
      const admin = started.use(await startAdminFromConfig(config.admin, name, services, portsOf(ports, { role: 'operate', name })));
      ports.log.info({ service: 'operate', node: name, url: admin.url }, 'admin API serves');
    }
    if (predecessor === undefined) await notifySystemd(ports.log);
    else await predecessor.takeSockets(sockets, services.filter(isFrontend), ports.log, () => notifySystemd(ports.log));
    for (const each of workers) each.open();
    // For whoever started this process and waits for it: one line, once all listeners are bound.
    process.stdout.write(`archipelago: ${services.map((service) => `${service.role} ${service.name}`).join(', ')} started\n`);
    compileEarlyFor(services);
    const restart = (): void => void restarter.restart({ deadlineMs: undefined, withinMs: undefined }).catch(() => {});
    process.on('SIGUSR2', () => successor === undefined && restart());
    successor = await Promise.race([restarter.succeeded, whenAborted(stopped.signal).then(() => undefined)]);
    if (successor === undefined) ports.log.info({ signal: stopped.signal.reason }, 'stopping');
    else await leave(successor, services.filter(isFrontend), workers, predecessor, stopped);
  } catch (error) {
    ports.log.error({ err: error }, 'start failed');
    process.stderr.write(`archipelago up: ${messageOf(error)}\n`);
    await predecessor?.fail(messageOf(error));
    process.exitCode = 1;
  } finally {
    restarter.abort();
    await started.disposeAsync();
  }
  if (successor !== undefined) await stayFor(successor);
  clearInterval(keepAlive);
  process.exit();
}

/** Serves sessions to their end, beside the successor; its end, or a signal, ends them sooner. */
async function leave(
  successor: Successor,
  frontends: readonly RunningFrontend[],
  workers: readonly Workers[],
  predecessor: Predecessor | undefined,
  stopped: AbortController,
): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const) {
    // Whoever started this process knows no other.
    if (!successor.isMain) process.on(signal, () => successor.process.kill(signal));
  }
  void successor.channel.closed.then(() => stopped.abort('the successor has ended'));
  const { deadlineMs } = successor;
  await Promise.all([
    ...frontends.map(({ succession }) => succession.leave(deadlineMs, stopped.signal)),
    ...workers.map((each) => each.leave(deadlineMs, stopped.signal)),
  ]);
  // The successor sees the sessions of the process before this one through this one.
  await Promise.race([predecessor?.left, whenAborted(stopped.signal)]);
}

/** Where this process is the one that others wait for, it ends when its successor does, and in the same way. */
async function stayFor({ process: child, channel, isMain }: Successor): Promise<void> {
  await channel.ask('left', {}, 5_000).catch(() => {});
  if (isMain) return;
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  process.exitCode = child.exitCode ?? 1;
}

function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function isFrontend(service: RunningService<unknown>): service is RunningFrontend {
  return service.role === 'frontend';
}

function readPath(): string {
  try {
    const { values } = parseArgs({ options: { config: { type: 'string', short: 'c' }, help: { type: 'boolean', short: 'h' } } });
    if (values.help === true) {
      process.stdout.write(usage);
      process.exit(0);
    }
    if (values.config !== undefined) return values.config;
    process.stderr.write(usage);
  } catch (error) {
    process.stderr.write(`archipelago up: ${messageOf(error)}\n${usage}`);
  }
  process.exit(2);
}

function portsOf(ports: Ports, { role, name }: { role: string; name: string }): Ports {
  return {
    ...ports,
    log: ports.log.child({ service: role, node: name }),
    metrics: ports.metrics.withLabels({ service: role, node: name }),
  };
}

/** What services of one process share. */
interface Shared {
  readonly coordinators: ReturnType<typeof createEmbeddedCoordinators>;
  /** The node file. */
  readonly path: string;
  readonly localMembers: readonly string[];
  readonly log: LogConfig;
  readonly sockets: ListeningSockets;
  readonly restarter: Restarter;
  readonly predecessor: Predecessor | undefined;
  /** Of frontends that several processes serve. */
  readonly workers: Workers[];
}

// A process loads the code of the roles it has: the others' would take as much memory as the service itself.
async function startService(config: ServiceConfig, ports: Ports, shared: Shared): Promise<RunningService<unknown>> {
  switch (config.role) {
    case 'directory':
      return (await import('#directory/main.ts')).startDirectory(config, ports, {
        env: process.env,
        readRules: () => accessRulesOf(shared.path, config.name),
      });
    case 'replication':
      return (await import('#replication/main.ts')).startReplication(config, ports, { env: process.env });
    case 'backend-cluster':
      return (await import('#backend-cluster/main.ts')).startBackend(config, ports, { coordinators: shared.coordinators });
    case 'frontend': {
      const { startNodeFrontend } = await import('./frontend.ts');
      const { frontend, workers } = await startNodeFrontend({ ...shared, config, ports });
      if (workers !== undefined) shared.workers.push(workers);
      return frontend;
    }
  }
}

/**
 * SIGHUP has frontends read their certificates again and directory servers their access rules; they log what came of it, and keep the old
 * ones when there is a mistake. `services` may grow.
 */
function reloadOnHangup(services: readonly RunningService<unknown>[], log: Logger): void {
  process.on('SIGHUP', () => {
    log.info({}, 'SIGHUP: certificates and access rules are read again');
    for (const service of services) service.reload?.().catch(() => {});
  });
}

/** The access rules of a directory server, as its node file has them now. */
async function accessRulesOf(path: string, name: string): Promise<readonly string[]> {
  const loaded = loadServicesFile(path, await readFile(path, 'utf8'));
  if ('problems' in loaded) throw new PlatformError('CONFIG_INVALID', loaded.problems.map(problemText).join('\n'));
  const service = loaded.config.services.find((one) => one.role === 'directory' && one.name === name);
  if (service?.role !== 'directory') throw new PlatformError('CONFIG_INVALID', `${path} names no directory server ${name} any more`);
  return service.access ?? [];
}
