/** A frontend of ours in a process of its own, by the configuration that stands in the file it is given; prints its listeners. Ends with its standard input. */
import { readFileSync } from 'node:fs';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import { startFrontend } from '#frontend/main.ts';

const [file = '', logFile = ''] = process.argv.slice(2);
const frontend = await startFrontend(JSON.parse(readFileSync(file, 'utf8')) as FrontendConfig, {
  clock: systemClock,
  random: systemRandom,
  network: systemNetwork,
  files: nodeFiles,
  // Log lines cost what they cost in production.
  log: createLogger('info', {}, logFile),
  metrics: createMetrics(),
});
const keepAlive = setInterval(() => {}, 60_000);
process.stdout.write(`${JSON.stringify(frontend.status().listeners)}\n`);
process.stdin.resume().once('end', () => {
  clearInterval(keepAlive);
  process.exit(0);
});
