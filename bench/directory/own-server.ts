/**
 * Our server as a process: `own-server.ts DATA CERT KEY`. Prints its ports as a line of JSON, and then a line for each line of its standard input:
 * `cache` is answered with what its caches take and may take; `rules built-in` and `rules none` put other access rules in force. It ends with its input.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { startDirectory } from '#directory/main.ts';
import { adminDn, adminPassword, suffix } from './accounts.ts';

const [dataDirectory = '', certFile = '', keyFile = ''] = process.argv.slice(2);
const secret = join(dataDirectory, 'secret');
await nodeFiles.mkdirAll(dataDirectory);
await writeFile(secret, adminPassword);
const metrics = createMetrics();
// Behind a rule that allows all of everybody no other is looked at.
const noRules = ['to * by * manage'];
let rules: readonly string[] = [];
const running = await startDirectory(
  {
    role: 'directory',
    name: 'bench',
    mode: 'master',
    suffix,
    dataDirectory,
    listeners: [
      { address: '127.0.0.1', port: 0, tls: 'none' },
      { address: '127.0.0.1', port: 0, tls: 'implicit' },
    ],
    tls: { certFile, keyFile },
    identities: [{ dn: adminDn, rights: 'admin', password: { file: secret } }],
    placement: 'fewest-accounts',
    messageBytesMax: 16_777_216,
    connectionsMax: 1000,
    idleTimeoutMs: 3_600_000,
  },
  {
    clock: systemClock,
    random: systemRandom,
    network: systemNetwork,
    files: nodeFiles,
    // At the level and to the sink that an installation has; the file is beside the data.
    log: createLogger('info', {}, join(dataDirectory, 'log.jsonl')),
    metrics,
  },
  { readRules: () => Promise.resolve(rules) },
);
const [port, tlsPort] = running.urls.map((url) => Number(new URL(url).port));
process.stdout.write(`${JSON.stringify({ port, tlsPort })}\n`);
const input = createInterface(process.stdin);
input.on('line', async (line) => {
  if (line.startsWith('rules ')) {
    rules = line === 'rules none' ? noRules : [];
    await running.reload();
    process.stdout.write('done\n');
    return;
  }
  const { cache } = running.status();
  process.stdout.write(`${JSON.stringify(cache)}\n`);
});
input.once('close', async () => {
  await running[Symbol.asyncDispose]();
  process.exit(0);
});
