/**
 * Runs every sample node file as a process of its own: the same federation as the demo's, as an installation would have it.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, open, readdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { systemPorts } from '#common/system-ports.ts';
import { directoryAccess, type Layout, layoutOf } from '#deploy/dev/plan.ts';
import { provisionSamples, registerTopology } from '#deploy/dev/seed.ts';
import { prepareState } from '#deploy/dev/state.ts';
import { loadServicesFile } from '#operate/config/service-schemas.ts';

const examples = dirname(fileURLToPath(import.meta.url));
const launcher = resolve(examples, '../../bin/archipelago.mjs');
const startedWithinMs = 60_000;
const endedWithinMs = 10_000;

/** The running processes. */
export interface Processes extends AsyncDisposable {
  readonly layout: Layout;
  /** By the name of the node file without its ending. */
  readonly running: ReadonlyMap<string, ChildProcess>;
  /** Starts one again that has ended. */
  restart(name: string): Promise<void>;
}

/** Starts all of them in `directory`, servers before those who need them, with the sample accounts in the directory. */
export async function startProcesses(directory: string, report: (line: string) => void): Promise<Processes> {
  const layout = layoutOf(join(directory, 'run'));
  await mkdir(layout.root, { recursive: true, mode: 0o700 });
  const ports = systemPorts(silentLogger);
  await prepareState(layout, nodeFiles, systemClock, systemRandom);

  const running = new Map<string, ChildProcess>();
  const stopAll = async (): Promise<void> => {
    // Frontends first: clients leave before what they need does.
    await Promise.all([...running.values()].reverse().map(stop));
  };
  const start = async (name: string): Promise<void> => {
    report(`starting ${name}`);
    running.set(name, await startProcess(join(directory, `${name}.yaml`), join(layout.root, `${name}.log`)));
  };
  try {
    const files = await nodeFilesByRole(directory);
    for (const role of ['directory', 'replication', 'backend-cluster'] as const) for (const { name } of files[role]) await start(name);
    const master = files.directory.find(({ service }) => service.role === 'directory' && service.mode === 'master')?.service;
    if (master?.role !== 'directory') throw new Error('no node file has the master directory');
    const url = `ldaps://127.0.0.1:${master.listeners.find(({ tls }) => tls === 'implicit')?.port}`;
    const access = directoryAccess(layout, 'admin', [url], url);
    const members = files['backend-cluster'].flatMap(({ service }) =>
      service.role === 'backend-cluster' ? [{ name: service.name, link: `${service.listen.address}:${service.listen.port}` }] : [],
    );
    const clusters = Map.groupBy(members, ({ name }) => name.slice(name.indexOf('.') + 1));
    await registerTopology(access, Object.fromEntries([...clusters].map(([cluster, of]) => [cluster, { members: of }])), ports);
    await provisionSamples(access, ports);
    for (const { name } of files.frontend) await start(name);
  } catch (error) {
    await stopAll();
    throw error;
  }
  return { layout, running, restart: start, [Symbol.asyncDispose]: stopAll };
}

type Role = 'directory' | 'replication' | 'backend-cluster' | 'frontend';

async function nodeFilesByRole(directory: string) {
  const byRole: Record<Role, { name: string; service: ServiceOf }[]> = {
    directory: [],
    replication: [],
    'backend-cluster': [],
    frontend: [],
  };
  for (const file of (await readdir(examples)).filter((each) => each.endsWith('.yaml')).sort()) {
    const path = join(directory, file);
    if (resolve(path) !== join(examples, file)) await copyFile(join(examples, file), path);
    const loaded = loadServicesFile(path, (await nodeFiles.read(path)).toString('utf8'));
    if ('problems' in loaded) throw new Error(`${path} has mistakes; run "archipelago config check ${path}"`);
    const service = loaded.config.services[0];
    // The master comes before its replicas, everything else in the order of its names.
    if (service !== undefined) byRole[service.role].push({ name: basename(file, '.yaml'), service });
  }
  byRole.directory.sort((a, b) => Number(isReplica(a.service)) - Number(isReplica(b.service)));
  return byRole;
}

type ServiceOf = Extract<ReturnType<typeof loadServicesFile>, { config: unknown }>['config']['services'][number];

function isReplica(service: ServiceOf): boolean {
  return service.role === 'directory' && service.mode === 'replica';
}

/** Starts one process, of this tree's program or another's, with the command `through` before its own, and resolves once it says that it has started. */
export async function startProcess(
  nodeFile: string,
  logFile: string,
  through: readonly string[] = [],
  program: string = launcher,
): Promise<ChildProcess> {
  const log = await open(logFile, 'a', 0o600);
  const [command = process.execPath, ...args] = [...through, process.execPath, program, 'up', '--config', nodeFile];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', log.fd] });
  await log.close();
  let said = '';
  const serves = new Promise<void>((done, fail) => {
    const timer = setTimeout(
      () => fail(new Error(`${nodeFile} did not start within ${startedWithinMs / 1000} s; see ${logFile}`)),
      startedWithinMs,
    );
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk;
      if (!said.includes('started\n')) return;
      clearTimeout(timer);
      done();
    });
    child.once('exit', (code) => {
      clearTimeout(timer);
      fail(new Error(`${nodeFile} ended with ${code} while starting; see ${logFile}`));
    });
  });
  try {
    await serves;
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), endedWithinMs);
  await ended;
  clearTimeout(timer);
}
