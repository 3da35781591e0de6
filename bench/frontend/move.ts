/**
 * Idle IMAP sessions that go with their accounts when a member is drained: `bench/frontend/move.ts [--sessions N]`. The whole federation, its
 * clients included, is this one process; printed is how many clients lost their connection (none should) and how long it took.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { nodeNetwork } from '#common/network/node-network.ts';
import { systemRandom } from '#common/random.ts';
import { logFileOf, startFederation } from '#deploy/dev/federation.ts';
import type { SampleAccount } from '#deploy/dev/sample-mail.ts';

const { values } = parseArgs({ options: { sessions: { type: 'string' } } });
const sessions = Number(values.sessions ?? 1000);
const atATime = 50;
const accountsUsed = 3;

const root = await mkdtemp(join(tmpdir(), 'bench-move-'));
const federation = await startFederation({
  root,
  ports: {
    clock: systemClock,
    random: systemRandom,
    network: nodeNetwork,
    files: nodeFiles,
    log: createLogger('info', {}, logFileOf(root)),
    metrics: createMetrics(),
  },
});
const frontends = Object.values(federation.ready.subsets).flatMap((subset) => subset.frontends.map(({ imap }) => imap));
const sockets: Socket[] = [];
let lost = 0;

/** Logs in, selects INBOX and idles; resolves then. */
function idle(number: number): Promise<void> {
  const account = federation.ready.accounts[number % accountsUsed] as SampleAccount;
  const [host = '', port] = (frontends[number % frontends.length] as string).split(':');
  // One loopback address for 64 clients: a frontend takes a hundred of one address.
  const socket = connect({ host, port: Number(port), localAddress: `127.0.${1 + (number >> 6)}.${1 + (number & 63)}` });
  sockets.push(socket);
  const said = [
    { after: 'ready', say: `a LOGIN ${account.name} ${account.password}\r\n` },
    { after: 'a OK', say: 'b SELECT INBOX\r\nc IDLE\r\n' },
  ];
  return new Promise((resolve, reject) => {
    let heard = '';
    socket.on('error', () => {});
    socket.on('close', () => {
      lost += 1;
      reject(new Error(`closed after ${heard}`));
    });
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('latin1');
      const next = said[0];
      if (next !== undefined && heard.includes(next.after)) {
        said.shift();
        heard = '';
        socket.write(next.say);
      } else if (next === undefined && heard.includes('+ idling')) resolve();
    });
  });
}

function sessionsByMember(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const frontend of federation.frontends.values()) {
    for (const { member } of frontend.status().sessions) counts.set(member, (counts.get(member) ?? 0) + 1);
  }
  return counts;
}

for (let at = 0; at < sessions; at += atATime) {
  await Promise.all(Array.from({ length: Math.min(atATime, sessions - at) }, (_, i) => idle(at + i)));
}
const [busiest = '', count = 0] = [...sessionsByMember()].sort((a, b) => b[1] - a[1])[0] ?? [];
const began = performance.now();
await federation.members.get(busiest)?.drain();
while ((sessionsByMember().get(busiest) ?? 0) > 0 && lost === 0) await new Promise((resolve) => setTimeout(resolve, 50));
const seconds = ((performance.now() - began) / 1000).toFixed(1);
process.stdout.write(
  `${sessions} idle sessions, ${count} of them on ${busiest}; drained in ${seconds} s; connections lost: ${lost}; now on ${[...sessionsByMember()].map(([name, now]) => `${name} ${now}`).join(', ')}\n`,
);
for (const socket of sockets) socket.removeAllListeners('close').destroy();
await federation[Symbol.asyncDispose]();
await rm(root, { recursive: true, force: true });
process.exit(lost === 0 ? 0 : 1);
