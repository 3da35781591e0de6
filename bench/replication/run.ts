/**
 * Replication beside its peer: the rate of a first load and the lag of single changes, of slapd's own syncrepl and of our service, in one
 * run on one machine with the same entries. slapd runs once without flushing to disk (dbnosync, the faster peer) and once with it; our
 * servers flush as always.
 *
 *   node bin/run.mjs bench/replication/run.ts [--entries N] [--rounds N] [--warm-up N] [--only PAIR,...]        default 100000, 300, 100, all
 *
 * The first rounds of each pair, `--warm-up`, are not counted: programs that have made few changes yet are slower, which a directory is not for long.
 *
 * Pairs: peer, peer-durable, slapd-slapd, slapd-ours, ours-slapd, ours-ours, seeded. The ratios need `peer`. `seeded` is the first load of a slapd by
 * slapcat and slapadd, with what our service takes then until it has compared the two and follows.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { processorSeconds, type ServiceProcess, startOwnReplication, startOwnServer } from '#test/interop/server-process.ts';
import { startSlapd } from '#test/interop/slapd-server.ts';
import { accountAttributes, at, fill, kinds, type Lags, quantile, timeChanges, timeRefresh, until } from './measure.ts';

const { values } = parseArgs({
  options: { entries: { type: 'string' }, rounds: { type: 'string' }, 'warm-up': { type: 'string' }, only: { type: 'string' } },
});
const entries = Number(values.entries ?? 100_000);
const rounds = Number(values.rounds ?? 300);
const warmUp = Number(values['warm-up'] ?? 100);
const only = values.only?.split(',');

interface Result {
  readonly name: string;
  readonly rate: number;
  /** From the first entry to the last. */
  readonly loadingRate: number;
  /** Processor microseconds an entry of the first load: master, service, replica. */
  readonly costs: readonly (number | undefined)[];
  readonly lags: Lags;
  readonly memoryMb: number | undefined;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function peer(name: string, isDurable: boolean): Promise<Result> {
  await using master = await startSlapd({ isProvider: true, sessionLog: 10_000, isDurable });
  await fill(master, entries);
  const before = await processorSeconds(master.pid);
  const startedMs = performance.now();
  await using replica = await startSlapd({ syncrepl: master, isDurable });
  const startSeconds = (performance.now() - startedMs) / 1000;
  const { whole, loading } = await timeRefresh(replica, entries, async () => {});
  const costs = [(await processorSeconds(master.pid)) - before, undefined, await processorSeconds(replica.pid)];
  const lags = await timeChanges(master, replica, rounds, warmUp);
  return { name, rate: entries / (startSeconds + whole), loadingRate: entries / loading, costs, lags, memoryMb: undefined };
}

async function ours(name: string, isOwnMaster: boolean, isOwnReplica: boolean): Promise<Result> {
  await using master = await (isOwnMaster ? startOwnServer('master') : startSlapd({ isProvider: true, sessionLog: 10_000 }));
  await using replica = await (isOwnReplica ? startOwnServer('replica') : startSlapd({ withSuffix: false }));
  await fill(master, entries);
  let service: ServiceProcess | undefined;
  try {
    const before = [await processorSeconds(master.pid), 0, await processorSeconds(replica.pid)];
    const { whole, loading } = await timeRefresh(replica, entries, async () => {
      service = await startOwnReplication(master, { 'ldap-eu': replica });
    });
    const after = await Promise.all([master.pid, (service as ServiceProcess | undefined)?.pid ?? 0, replica.pid].map(processorSeconds));
    const costs = after.map((one, i) => one - (before[i] as number));
    const lags = await timeChanges(master, replica, rounds, warmUp);
    return { name, rate: entries / whole, loadingRate: entries / loading, costs, lags, memoryMb: await service?.memoryMb() };
  } finally {
    await service?.[Symbol.asyncDispose]();
  }
}

async function seeded(): Promise<Result> {
  const name = 'slapd -> slapd, seeded';
  await using master = await startSlapd({ isProvider: true, sessionLog: 10_000 });
  await fill(master, entries);
  const directory = await mkdtemp(join(tmpdir(), 'archipelago-bench-'));
  try {
    const startedMs = performance.now();
    const seedLdif = join(directory, 'seed.ldif');
    await master.exportTo(seedLdif);
    await using replica = await startSlapd({ seedLdif });
    await using service = await startOwnReplication(master, { 'ldap-eu': replica });
    // Comes only once all that was there before has been compared.
    await using admin = await master.connect();
    await admin.add(at('later'), accountAttributes('later'));
    await using reader = await replica.connect();
    await until(async () => (await reader.readEntry(at('later'), ['1.1'])) !== undefined, 10);
    const rate = entries / ((performance.now() - startedMs) / 1000);
    await timeRefresh(replica, entries, async () => {});
    const costs = [undefined, await processorSeconds(service.pid), undefined];
    return {
      name,
      rate,
      loadingRate: rate,
      costs,
      lags: await timeChanges(master, replica, rounds, warmUp),
      memoryMb: await service.memoryMb(),
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const pairs: Readonly<Record<string, () => Promise<Result>>> = {
  peer: () => peer('slapd -> slapd, its syncrepl', false),
  'peer-durable': () => peer('the same, both flushing', true),
  'slapd-slapd': () => ours('slapd -> slapd, our service', false, false),
  'slapd-ours': () => ours('slapd -> ours', false, true),
  'ours-slapd': () => ours('ours -> slapd', true, false),
  'ours-ours': () => ours('ours -> ours', true, true),
  seeded,
};

const results: Result[] = [];
for (const [name, measure] of Object.entries(pairs)) {
  if (only !== undefined && !only.includes(name)) continue;
  const result = await measure();
  results.push(result);
  // What was measured is not lost with a run that is cut short.
  const medians = kinds.map((kind) => quantile(result.lags[kind].answered, 0.5).toFixed(2)).join(' ');
  const costs = result.costs.map((one) => (one === undefined ? '-' : ((one * 1e6) / entries).toFixed(1))).join(' ');
  say(`${result.name}: ${result.rate.toFixed(0)} entries/s, processor us/entry ${costs}, lag p50 from the answer ${medians}`);
}
const [base] = results as [Result];
const column = (text: string, width = 9): string => text.padStart(width);
const ratio = (of: number, to: number): string => column((of / to).toFixed(2));

say(
  `\nFirst load of ${entries} entries, service start included, and from its first entry on (loading); processor time in microseconds an entry`,
);
say(`${''.padEnd(30)}${['entries/s', 'ratio', 'loading', 'ratio', 'master', 'service', 'replica'].map((one) => column(one, 10)).join('')}`);
for (const { name, rate, loadingRate, costs } of results) {
  const cells = [
    rate.toFixed(0),
    (rate / base.rate).toFixed(2),
    loadingRate.toFixed(0),
    (loadingRate / base.loadingRate).toFixed(2),
    ...costs.map((one) => (one === undefined ? '-' : ((one * 1e6) / entries).toFixed(1))),
  ];
  say(`${name.padEnd(30)}${cells.map((one) => column(one, 10)).join('')}`);
}
for (const from of ['sent', 'answered'] as const) {
  const since = from === 'sent' ? 'from sending the change to the master' : "from the master's answer";
  say(`\nLag of ${rounds} changes of each kind in ms, ${since}, until a reader of the replica sees it: p50, ratio, p99, ratio`);
  say(`${''.padEnd(30)}${kinds.map((kind) => column(kind, 9 * 4)).join('')}`);
  for (const { name, lags } of results) {
    const cells = kinds.map((kind) => {
      const [half, most] = [quantile(lags[kind][from], 0.5), quantile(lags[kind][from], 0.99)];
      const [baseHalf, baseMost] = [quantile(base.lags[kind][from], 0.5), quantile(base.lags[kind][from], 0.99)];
      return `${column(half.toFixed(2))}${ratio(half, baseHalf)}${column(most.toFixed(2))}${ratio(most, baseMost)}`;
    });
    say(`${name.padEnd(30)}${cells.join('')}`);
  }
}
say('');
for (const { name, memoryMb } of results) if (memoryMb !== undefined) say(`${name}: the service's process takes ${memoryMb.toFixed(0)} MB`);
