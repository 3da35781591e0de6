/** A frontend of a node file, with all the processes that serve it, as one service of this process. */

import type { LogConfig } from '#common/config/node-file.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { ListeningSockets } from '#common/network/listening-sockets.ts';
import { productVersion } from '#common/version.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import { type RunningFrontend, startFrontend } from '#frontend/main.ts';
import { SharedIndexMemory } from '#frontend/routing/shared-index.ts';
import { wholeFrontend } from '#frontend/subset/whole.ts';
import type { Predecessor } from './predecessor.ts';
import type { Restarter } from './restart.ts';
import { Workers, workersOf } from './workers.ts';

/** What it is started with. */
export interface NodeFrontendOptions {
  readonly config: FrontendConfig;
  readonly ports: Ports;
  readonly log: LogConfig;
  readonly sockets: ListeningSockets;
  readonly localMembers: readonly string[];
  readonly restarter: Restarter;
  readonly predecessor: Predecessor | undefined;
}

/** Starts it. Resolves once it serves and its helpers are ready to; they accept once `workers.open` was called. */
export async function startNodeFrontend(
  options: NodeFrontendOptions,
): Promise<{ frontend: RunningFrontend; workers: Workers | undefined }> {
  const { config, ports, localMembers, predecessor, restarter, sockets } = options;
  const { name } = config;
  const count = workersOf(config);
  // Other processors may show what was written in another order, and the version of the index would promise too much.
  const sharesIndex = count > 1 && config.routing.mode === 'follow' && process.arch === 'x64';
  const indexMemory = sharesIndex ? SharedIndexMemory.create() : undefined;
  const own = await startFrontend(config, ports, process.env, localMembers, {
    inheritance: predecessor?.inheritance(name),
    processes: count,
    indexMemory,
  });
  const { clock, log: logger } = ports;
  const workers =
    count === 1 ? undefined : new Workers({ own, config, log: options.log, localMembers, count, sockets, indexMemory, clock, logger });
  const whole = wholeFrontend({
    own,
    clock: ports.clock,
    pid: process.pid,
    version: productVersion,
    parts: () => [...(workers?.parts() ?? []), ...(predecessor?.parts(name) ?? [])],
    restart: (terms) => restarter.restart(terms),
  });
  const frontend: RunningFrontend = {
    ...whole,
    readiness: () => [
      ...whole.readiness(),
      // This process serves as well: the frontend takes work with fewer.
      ...(workers === undefined ? [] : [{ name: 'workers', ok: true, detail: `${workers.serving} of ${count} processes serve` }]),
    ],
    async reload() {
      workers?.reload();
      await whole.reload?.();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([workers?.[Symbol.asyncDispose](), whole[Symbol.asyncDispose]()]);
    },
  };
  try {
    await workers?.prepare();
  } catch (error) {
    await frontend[Symbol.asyncDispose]();
    throw error;
  }
  return { frontend, workers };
}
