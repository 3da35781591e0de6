/**
 * `archipelago up --config FILE`: runs the services that a node file names, in one process, until SIGTERM or SIGINT; SIGHUP reads
 * certificates and access rules again.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { systemClock } from '#common/clock.ts';
import { problemText } from '#common/config/node-file.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Ports, RunningService } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { nodeNetwork } from '#common/network/node-network.ts';
import { systemRandom } from '#common/random.ts';
import { loadServicesFile, type ServiceConfig } from '#operate/config/service-schemas.ts';

const usage =
  'usage: archipelago up --config FILE\n\nRuns the services that the node file names until SIGTERM or SIGINT; SIGHUP reads certificates and access rules again. "archipelago config check FILE" checks it.\n';

/** Order of starting; stopping goes the other way, so that clients leave before what they need does. */
const startOrder = ['directory', 'replication', 'backend-cluster', 'frontend'];

await main();

async function main(): Promise<void> {
  const path = readPath();
  const loaded = loadServicesFile(path, await readText(path));
  if ('problems' in loaded) {
    process.stderr.write(
      `${loaded.problems.map(problemText).join('\n')}\narchipelago up: ${path} has ${loaded.problems.length} mistake(s); nothing was started\n`,
    );
    process.exit(2);
  }
  const { config } = loaded;
  if (config.data !== undefined) await mkdir(config.data, { recursive: true, mode: 0o700 });
  const ports: Ports = {
    clock: systemClock,
    random: systemRandom,
    network: nodeNetwork,
    files: nodeFiles,
    log: createLogger(config.log.level, {}, config.log.file),
    metrics: createMetrics(),
  };
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort(signal));
  const services: RunningService<unknown>[] = [];
  reloadOnHangup(services, ports.log);
  // Timers of the product do not keep the process alive; this one does, until the end is asked for.
  const keepAlive = setInterval(() => {}, 60_000);
  const started = new AsyncDisposableStack();
  try {
    const coordinators = createEmbeddedCoordinators();
    const localMembers = config.services.flatMap(({ role, name }) => (role === 'backend-cluster' ? [name] : []));
    const ordered = [...config.services].sort((a, b) => startOrder.indexOf(a.role) - startOrder.indexOf(b.role));
    for (const service of ordered) {
      services.push(started.use(await startService(service, portsOf(ports, service), coordinators, path, localMembers)));
      ports.log.info({ service: service.role, node: service.name }, 'started');
    }
    if (config.admin !== undefined) {
      const name = config.services[0]?.name ?? 'node';
      const { startAdminFromConfig } = await import('./admin.ts');
      const admin = started.use(await startAdminFromConfig(config.admin, name, services, portsOf(ports, { role: 'operate', name })));
      ports.log.info({ service: 'operate', node: name, url: admin.url }, 'admin API serves');
    }
    // For whoever started this process and waits for it: one line, once all listeners are bound.
    process.stdout.write(`archipelago: ${services.map((service) => `${service.role} ${service.name}`).join(', ')} started\n`);
    if (!stopped.signal.aborted) await new Promise((end) => stopped.signal.addEventListener('abort', end, { once: true }));
    ports.log.info({ signal: stopped.signal.reason }, 'stopping');
  } catch (error) {
    ports.log.error({ err: error }, 'start failed');
    process.stderr.write(`archipelago up: ${messageOf(error)}\n`);
    process.exitCode = 1;
  } finally {
    await started.disposeAsync();
    clearInterval(keepAlive);
  }
  process.exit();
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

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    process.stderr.write(`archipelago up: cannot read ${path}: ${messageOf(error)}\n`);
    process.exit(2);
  }
}

function portsOf(ports: Ports, { role, name }: { role: string; name: string }): Ports {
  return {
    ...ports,
    log: ports.log.child({ service: role, node: name }),
    metrics: ports.metrics.withLabels({ service: role, node: name }),
  };
}

// A process loads the code of the roles it has: the others' would take as much memory as the service itself.
async function startService(
  config: ServiceConfig,
  ports: Ports,
  coordinators: ReturnType<typeof createEmbeddedCoordinators>,
  path: string,
  localMembers: readonly string[],
): Promise<RunningService<unknown>> {
  switch (config.role) {
    case 'directory':
      return (await import('#directory/main.ts')).startDirectory(config, ports, {
        env: process.env,
        readRules: () => accessRulesOf(path, config.name),
      });
    case 'replication':
      return (await import('#replication/main.ts')).startReplication(config, ports, { env: process.env });
    case 'backend-cluster':
      return (await import('#backend-cluster/main.ts')).startBackend(config, ports, { coordinators });
    case 'frontend':
      return (await import('#frontend/main.ts')).startFrontend(config, ports, undefined, localMembers);
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
