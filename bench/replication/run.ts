/**
 * Replication beside its peer: the rate of a first load and the lag of single changes, of slapd's own syncrepl and of our service, in one
 * run on one machine with the same entries. OpenLDAP runs without flushing to disk (dbnosync); our servers flush as always.
 *
 *   node bin/run.mjs bench/replication/run.ts [ACCOUNTS] [ROUNDS]        default 20000 and 300
 */
import { startSlapd } from '#test/interop/slapd-server.ts';
import { fill, kinds, type Lags, quantile, timeChanges, timeRefresh } from './measure.ts';
import { startOwnReplication, startOwnServer } from './own-servers.ts';

const accounts = Number(process.argv[2] ?? 20_000);
const rounds = Number(process.argv[3] ?? 300);

interface Result {
  readonly name: string;
  readonly rate: number;
  readonly lags: Lags;
  readonly memoryMb: number | undefined;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function peer(): Promise<Result> {
  await using master = await startSlapd({ isProvider: true, sessionLog: 10_000 });
  await fill(master, accounts);
  let replica: Awaited<ReturnType<typeof startSlapd>> | undefined;
  try {
    const startedMs = performance.now();
    replica = await startSlapd({ syncrepl: master });
    const started = replica;
    const seconds = (performance.now() - startedMs) / 1000 + (await timeRefresh(started, accounts, async () => {}));
    return {
      name: 'slapd -> slapd (syncrepl)',
      rate: accounts / seconds,
      lags: await timeChanges(master, started, rounds),
      memoryMb: undefined,
    };
  } finally {
    await replica?.[Symbol.asyncDispose]();
  }
}

async function ours(name: string, isOwnMaster: boolean, isOwnReplica: boolean): Promise<Result> {
  await using master = await (isOwnMaster ? startOwnServer('master') : startSlapd({ isProvider: true, sessionLog: 10_000 }));
  await using replica = await (isOwnReplica ? startOwnServer('replica') : startSlapd({ withSuffix: false }));
  await fill(master, accounts);
  let service: Awaited<ReturnType<typeof startOwnReplication>> | undefined;
  try {
    const seconds = await timeRefresh(replica, accounts, async () => {
      service = await startOwnReplication(master, replica);
    });
    const lags = await timeChanges(master, replica, rounds);
    return { name, rate: accounts / seconds, lags, memoryMb: await service?.memoryMb() };
  } finally {
    await service?.[Symbol.asyncDispose]();
  }
}

say(`${accounts} accounts, ${rounds} changes of each kind; lag in ms from the master's answer until a reader of the replica sees it`);
const base = await peer();
const results = [
  base,
  await ours('slapd -> slapd (our service)', false, false),
  await ours('slapd -> ours', false, true),
  await ours('ours -> slapd', true, false),
  await ours('ours -> ours', true, true),
];
const cell = (text: string, width: number): string => text.padStart(width);
say(
  `${'pair'.padEnd(30)}${cell('entries/s', 12)}${cell('ratio', 8)}${kinds.map((kind) => cell(`${kind} p50`, 12) + cell('p99', 8) + cell('ratios', 13)).join('')}${cell('MB', 8)}`,
);
for (const { name, rate, lags, memoryMb } of results) {
  const columns = kinds.map((kind) => {
    const [half, most] = [quantile(lags[kind], 0.5), quantile(lags[kind], 0.99)];
    const ratios = `${(half / quantile(base.lags[kind], 0.5)).toFixed(2)}/${(most / quantile(base.lags[kind], 0.99)).toFixed(2)}`;
    return cell(half.toFixed(2), 12) + cell(most.toFixed(2), 8) + cell(ratios, 13);
  });
  const memory = memoryMb === undefined ? '-' : memoryMb.toFixed(0);
  say(`${name.padEnd(30)}${cell(rate.toFixed(0), 12)}${cell((rate / base.rate).toFixed(2), 8)}${columns.join('')}${cell(memory, 8)}`);
}
