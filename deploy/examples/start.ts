/**
 * Starts the federation of the sample node files, one process each, on loopback:
 *
 *     node bin/run.mjs deploy/examples/start.ts [--dir DIR]
 *
 * DIR (default: deploy/examples) gets `run/` with certificates, secrets, data and logs. Ctrl-C ends all processes.
 */

import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { startProcesses } from './processes.ts';

const { values } = parseArgs({ options: { dir: { type: 'string', default: 'deploy/examples' } } });
const processes = await startProcesses(resolve(values.dir), (line) => process.stdout.write(`${line}\n`));
process.stdout.write(
  `\nAll ${processes.running.size} processes serve; logs and secrets are in ${processes.layout.root}. Ctrl-C ends them.\n`,
);
await new Promise<void>((end) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => end());
});
await processes[Symbol.asyncDispose]();
