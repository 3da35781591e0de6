/** One member in a process of its own, on storage in the directory that it is given; prints where it listens. Ends with its standard input. */
import { mkdir } from 'node:fs/promises';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { startMember } from '#backend-cluster/member.ts';
import { servePop3 } from '#backend-cluster/sessions/pop3/server.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { systemRandom } from '#common/random.ts';
import { TableDirectory, west } from '#test/unit/backend-cluster/cluster/test-cluster.ts';
import { openRedisLeases } from './redis-leases.ts';

const [root = '', label = 'back1', accounts = '0', redisUrl] = process.argv.slice(2);
await mkdir(root, { recursive: true });
const directory = new TableDirectory();
// The same UUID for the same number in every process.
const hex = (i: number): string => i.toString(16).padStart(12, '0');
for (let i = 0; i < Number(accounts); i += 1)
  directory.add(`user${i}@isp.example`, west, { uuid: parseAccountUuid(`aaaaaaaa-0000-4000-8000-${hex(i)}`) });
const ports = { clock: systemClock, random: systemRandom, log: silentLogger, metrics: createMetrics() };
const member = await startMember({
  name: parseMemberName(`${label}.west.isp.example`),
  listen: { address: '127.0.0.1', port: 0 },
  advertise: undefined,
  tls: undefined,
  clusterNetwork: ['127.0.0.1'],
  heartbeatMs: 1_000,
  leaseMs: 8_000,
  idleCloseMs: 600_000,
  openAccountsBytesMax: 2 ** 30,
  tombstoneGraceHours: 1,
  defaultQuotaBytes: 0,
  duties: { httpClient: 'auto', remotePolling: 'auto' },
  ports: { ...ports, network: systemNetwork },
  leases: redisUrl === undefined ? createEmbeddedCoordinators().open(west, systemClock) : openRedisLeases(redisUrl),
  store: await openAccountStore({ root, files: nodeFiles, ...ports }),
  storage: { engine: 'posix', path: root },
  directory: { follow: (onChange) => directory.follow(onChange), reader: directory.reader, writer: directory.writer },
  hasher: createPasswordHasher(systemRandom),
  protocols: {
    imap: { serve: servePop3, capabilities: [] },
    pop3: { serve: servePop3, capabilities: [] },
    managesieve: { serve: servePop3, capabilities: [] },
  },
});
process.stdout.write(`${JSON.stringify({ address: member.status().linkAddress })}\n`);
process.stdin.resume().once('end', () => void member[Symbol.asyncDispose]().then(() => process.exit(0)));
