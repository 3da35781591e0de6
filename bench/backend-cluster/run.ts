/**
 * Measures a Dynamic Cluster: deliveries against Dovecot's LMTP, opening, memory, ownership, fail-over, very many sleeping accounts. Each
 * part prints what was wanted beside what was seen; bench/README.md tells how to read it.
 *
 *   node bin/run.mjs bench/backend-cluster/run.ts [--only deliver,parallel,open,memory,sleepers,grant,failover] [--seconds 10] [--rounds 50] [--folder DIR]
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { failOver } from './fail-over.ts';
import { grantTimes } from './grants.ts';
import { type Delivered, deliver, linkDoor, socketDoor } from './lmtp-load.ts';
import { dovecotVersion, type MailServer, startDovecot, startMemberProcess } from './servers.ts';
import { countAccounts, makeAccount, makeSleepers, multiply, openMany, openTimes, storeAt, uuidOf } from './store-figures.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    seconds: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '50' },
    folder: { type: 'string', default: tmpdir() },
  },
});
/** Openings after which the engine has compiled what they need, as in a member that has run for a minute. */
const openedBefore = 200;
const parts = { deliver: delivery, parallel, open, memory, sleepers, grant, failover };
const wanted = values.only?.split(',') ?? Object.keys(parts);
const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)];
const folder = await mkdtemp(join(values.folder, 'archipelago-bench-'));
try {
  for (const [name, part] of Object.entries(parts)) if (wanted.includes(name)) await part(join(folder, name));
} finally {
  await rm(folder, { recursive: true, force: true });
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function delivery(at: string): Promise<void> {
  say(
    `deliveries of 10 kB over LMTP, fsync on, 100 accounts, 32 in flight, ${seconds} s each, in turn; dovecot ${dovecotVersion()} with mdbox`,
  );
  const rates: Record<string, { rate: number[]; perCpu: number[] }> = {};
  // In turn and twice, so that what else the machine does falls on both.
  for (let round = 0; round < 2; round += 1) {
    for (const name of ['archipelago', 'dovecot']) {
      const where = join(at, `${name}-${round}`);
      const server = name === 'dovecot' ? await startDovecot(await ready(where)) : await startMemberProcess(where, 'back1', 100);
      try {
        await using door = name === 'dovecot' ? socketDoor(server.port) : linkDoor(server.port);
        await deliver(door, { inFlight: 32, accounts: 100, seconds: 3 });
        const { result, cpuSeconds } = await withCpu(server, () => deliver(door, { inFlight: 32, accounts: 100, seconds }));
        say(`  ${name.padEnd(12)} ${line(result)}, ${(result.count / cpuSeconds).toFixed(0)} per CPU second of the server`);
        const seen = rates[name] ?? { rate: [], perCpu: [] };
        rates[name] = seen;
        seen.rate.push(result.count / result.seconds);
        seen.perCpu.push(result.count / cpuSeconds);
      } finally {
        await server.stop();
      }
    }
  }
  const ratio = (key: 'rate' | 'perCpu'): string => (mean(rates.archipelago?.[key] ?? []) / mean(rates.dovecot?.[key] ?? [])).toFixed(2);
  say(`  ratio ${ratio('rate')} of the rate (wanted 1.5), ${ratio('perCpu')} per CPU second`);
}

async function parallel(at: string): Promise<void> {
  const server = await startMemberProcess(at, 'back1', 100);
  try {
    await using door = linkDoor(server.port);
    await deliver(door, { inFlight: 32, accounts: 100, seconds: 2 });
    const one = await deliver(door, { inFlight: 1, accounts: 100, seconds });
    const many = await deliver(door, { inFlight: 32, accounts: 100, seconds });
    say(`one at a time ${line(one)}\n32 in flight  ${line(many)}`);
    say(`  ratio ${(many.count / many.seconds / (one.count / one.seconds)).toFixed(2)} (wanted 4)`);
  } finally {
    await server.stop();
  }
}

async function open(at: string): Promise<void> {
  const store = await storeAt(at);
  await makeAccount(store, uuidOf(1), 10_000);
  const first = await openTimes(store, uuidOf(1), rounds);
  await openTimes(store, uuidOf(1), openedBefore);
  const { p50Ms, worstMs } = await openTimes(store, uuidOf(1), rounds);
  const told = `median ${p50Ms.toFixed(2)} ms, worst ${worstMs.toFixed(2)} ms (wanted 2)`;
  say(
    `opening an account of 10,000 messages, ${rounds} times: ${told}; in a process that has opened nothing before ${first.p50Ms.toFixed(2)} ms`,
  );
}

async function memory(at: string): Promise<void> {
  const store = await storeAt(at);
  await makeAccount(store, uuidOf(1), 1_000);
  const uuids = await multiply(at, uuidOf(1), 5_000);
  const { residentMb, messages } = await openMany(store, uuids);
  say(`5,000 open accounts of 1,000 messages (${messages} in all): ${residentMb} MB (wanted 250)`);
}

async function sleepers(at: string): Promise<void> {
  const store = await storeAt(at);
  await makeAccount(store, uuidOf(1), 1_000);
  const few = await openTimes(store, uuidOf(1), rounds);
  const before = process.memoryUsage().rss;
  await makeSleepers(at, 1_000_000);
  const many = await openTimes(store, uuidOf(1), rounds);
  const startMs = performance.now();
  await storeAt(at);
  const startedMs = performance.now() - startMs;
  say(
    `opening beside ${(await countAccounts(at)).toLocaleString('en')} account directories: median ${many.p50Ms.toFixed(2)} ms; alone ${few.p50Ms.toFixed(2)} ms`,
  );
  say(`  opening the store itself ${startedMs.toFixed(1)} ms; memory grew by ${Math.round((process.memoryUsage().rss - before) / 1e6)} MB`);
  spawnSync('rm', ['-rf', at]);
}

async function grant(at: string): Promise<void> {
  const { p50Ms, p99Ms, worstMs, count } = await grantTimes(at);
  say(
    `ownership granted by a Controller with Redis, asked over the link, ${count} times: median ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)}, worst ${worstMs.toFixed(2)} (wanted 1)`,
  );
}

async function failover(at: string): Promise<void> {
  const kill = await failOver(at, 'SIGKILL', rounds);
  say(`fail-over after SIGKILL, ${rounds} times: median ${kill.p50Ms.toFixed(0)} ms, worst ${kill.worstMs.toFixed(0)} ms (wanted 2000)`);
  const stop = await failOver(at, 'SIGSTOP', rounds);
  say(
    `fail-over after SIGSTOP, ${rounds} times: median ${stop.p50Ms.toFixed(0)} ms, worst ${stop.worstMs.toFixed(0)} ms (wanted lease 8000 + 2000)`,
  );
}

async function withCpu<T>(server: MailServer, work: () => Promise<T>): Promise<{ result: T; cpuSeconds: number }> {
  const before = server.cpuSeconds();
  const result = await work();
  return { result, cpuSeconds: server.cpuSeconds() - before };
}

async function ready(path: string): Promise<string> {
  spawnSync('mkdir', ['-p', path]);
  // Its delivering processes run as another user.
  spawnSync('chmod', ['a+rx', folder, join(path, '..'), path]);
  return path;
}

function line({ count, seconds: took, p50Ms, p99Ms }: Delivered): string {
  return `${(count / took).toFixed(0)}/s, p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
