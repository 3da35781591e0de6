/**
 * `archipelago demo`: the whole federation in one process, with accounts and mail in it, until Ctrl-C.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Ports } from '#common/lifecycle.ts';
import { type LogLevel, logLevels } from '#common/log/logger.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { removeContext, writeContext } from '#operate/cli/context.ts';
import { type Federation, logFileOf, startFederation } from './federation.ts';
import { allOffsets } from './plan.ts';
import { demoText } from './print-demo.ts';

const usage = `usage: archipelago demo [--data DIR] [--port-base N] [--ready-file FILE] [--log-level LEVEL]

Starts two frontend subsets, two Dynamic Clusters, a master directory with two replicas and the replication service in one
process, with sample accounts. Ctrl-C ends it.

  --data DIR         keep all state in DIR and go on from there next time (default: a temporary folder, removed at the end)
  --port-base N      first port, 1024 to 60000 (default: 11000, or 16000, 21000, 26000 when that is taken)
  --ready-file FILE  write a JSON document with every address and credential once everything serves
  --log-level LEVEL  ${logLevels.join(', ')} (default: info); the log goes to archipelago.log in the data folder
`;

// Several demos may run at a time; the CLI asks which one is meant.
const contextName = `demo-${process.pid}`;
const defaultPortBase = 11_000;

await main();

async function main(): Promise<void> {
  const options = readOptions();
  const startedAtMs = systemClock.monotonicMs();
  const root = await makeRoot(options.data);
  const ports: Ports = systemPorts(createLogger(options.logLevel, {}, logFileOf(root)));

  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopped.abort(signal));
  // Timers of the product do not keep the process alive; this one does, until the end is asked for.
  const keepAlive = setInterval(() => {}, 60_000);

  let federation: Federation | undefined;
  try {
    const portBase = options.portBase ?? (await firstFreeBase(ports));
    federation = await startFederation({
      root,
      ports,
      onProgress: progressLine,
      ...(portBase === undefined ? {} : { portBase }),
    });
    progressLine(undefined);
    const { ready } = federation;
    const ca = (await nodeFiles.read(ready.caFile)).toString('utf8');
    await writeContext(process.env, { name: contextName, url: ready.console, token: ready.adminPassword, ca, pid: process.pid });
    if (options.readyFile !== undefined) await nodeFiles.replace(resolve(options.readyFile), `${JSON.stringify(ready, null, 2)}\n`);
    const dataNote = options.data === undefined ? 'everything is then removed' : `its state stays in ${root}`;
    process.stdout.write(demoText(ready, systemClock.monotonicMs() - startedAtMs, dataNote));
    if (!stopped.signal.aborted) await new Promise((end) => stopped.signal.addEventListener('abort', end, { once: true }));
    process.stdout.write('\nstopping ...\n');
  } catch (error) {
    progressLine(undefined);
    const advice = options.portBase === undefined ? '' : 'Another --port-base may be free; without one free ports are found.\n';
    process.stderr.write(`archipelago demo: ${messageOf(error)}\n${advice}The log is in ${logFileOf(root)}.\n`);
    process.exitCode = 1;
  } finally {
    await removeContext(process.env, contextName);
    await federation?.[Symbol.asyncDispose]();
    // After a failure the log is what the operator needs: the folder stays.
    if (options.data === undefined && process.exitCode !== 1) await rm(root, { recursive: true, force: true });
    if (options.readyFile !== undefined) await rm(resolve(options.readyFile), { force: true });
    clearInterval(keepAlive);
  }
  process.exit();
}

/** The folder of all state: the one asked for, or a temporary one. Without one there is nothing to start and nowhere to log. */
async function makeRoot(data: string | undefined): Promise<string> {
  try {
    if (data === undefined) return await mkdtemp(join(tmpdir(), 'archipelago-demo-'));
    await nodeFiles.mkdirAll(resolve(data));
    return resolve(data);
  } catch (error) {
    process.stderr.write(
      `archipelago demo: no folder for its state can be made: ${messageOf(error)}\nName one that can be written: --data DIR (or TMPDIR)\n`,
    );
    process.exit(1);
  }
}

interface DemoOptions {
  readonly data: string | undefined;
  readonly portBase: number | undefined;
  readonly readyFile: string | undefined;
  readonly logLevel: LogLevel;
}

function readOptions(): DemoOptions {
  const fail = (why: string): never => {
    process.stderr.write(`archipelago demo: ${why}\n\n${usage}`);
    process.exit(2);
  };
  try {
    const { values } = parseArgs({
      options: {
        data: { type: 'string' },
        'port-base': { type: 'string' },
        'ready-file': { type: 'string' },
        'log-level': { type: 'string', default: 'info' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help === true) {
      process.stdout.write(usage);
      process.exit(0);
    }
    const portBase = values['port-base'] === undefined ? undefined : Number(values['port-base']);
    if (portBase !== undefined && !(Number.isInteger(portBase) && portBase >= 1024 && portBase <= 60_000)) {
      fail(`--port-base ${values['port-base']} is not a whole number from 1024 to 60000`);
    }
    const logLevel =
      logLevels.find((level) => level === values['log-level']) ??
      fail(`--log-level ${values['log-level']} is not one of ${logLevels.join(', ')}`);
    return { data: values.data, portBase, readyFile: values['ready-file'], logLevel };
  } catch (error) {
    return fail(messageOf(error));
  }
}

/** The first base from 11000 in steps of 5000 whose ports are all free; `undefined` lets the system choose them. */
async function firstFreeBase(ports: Ports): Promise<number | undefined> {
  for (let base = defaultPortBase; base <= 30_000; base += 5000) {
    if (await isFree(base, ports)) return base;
  }
  return undefined;
}

async function isFree(base: number, ports: Ports): Promise<boolean> {
  for (const offset of allOffsets()) {
    try {
      const listener = await ports.network.listen({ host: '127.0.0.1', port: base + offset }, (connection) => connection.destroy());
      await listener.close();
    } catch {
      // Taken: that is the answer.
      return false;
    }
  }
  return true;
}

/** Shows what is being started; `undefined` clears the line. Silent where there is no terminal. */
function progressLine(step: string | undefined): void {
  if (!process.stderr.isTTY) return;
  process.stderr.write(step === undefined ? '\r\x1b[K' : `\r\x1b[Kstarting: ${step}`);
}
