/**
 * Our directory server against OpenLDAP's slapd: `node bin/run.mjs bench/directory/run.ts [--entries N] [--rounds N] [--seconds N] [--only PART,...]`
 * with the parts import, search, tls, add. Same data, same client, same machine, in short turns one after the other, so that what else the
 * machine does meets both. Prints both sides and the ratio; the searches' figure to compare is per CPU second of the server.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { pagesBytesMax } from '#directory/store/database.ts';
import { writeLdif } from './accounts.ts';
import type { LoadOptions, LoadResult } from './load.ts';
import { cpuSeconds, memoryMb } from './process-use.ts';
import { type BenchServer, bytesIn, configureSlapd, importOwn, importSlapd, makeCertificate, startOwn, startSlapd } from './servers.ts';

const { values: given } = parseArgs({
  options: {
    entries: { type: 'string', default: '100000' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    only: { type: 'string', default: 'import,search,tls,add' },
    profile: { type: 'string' },
  },
});
const entries = Number(given.entries);
const rounds = Number(given.rounds);
const seconds = Number(given.seconds);
const warmUpSeconds = 6;
/** What our server may take beside its caches. */
const besideCacheMb = 300;
const parts = new Set(given.only.split(','));

interface Measured extends LoadResult {
  /** Requests per CPU second of the server. */
  readonly perCpuSecond: number;
}

const folder = await mkdtemp(join(tmpdir(), 'archipelago-bench-'));
const servers: BenchServer[] = [];
try {
  await main();
} finally {
  for (const server of servers) await server.stop();
  await rm(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const tls = makeCertificate(folder);
  const ldif = join(folder, 'accounts.ldif');
  await writeLdif(ldif, entries);
  const ownData = join(folder, 'own');
  const configuration = await configureSlapd(join(folder, 'slapd'), tls);
  print(`${entries} accounts, ${rounds} rounds of ${seconds} s each; medians\n`);

  // The first import fills the servers; the others are measured only.
  const imports = { own: [await importOwn(ownData, ldif)], slapd: [await importSlapd(configuration, ldif)] };
  if (parts.has('import')) {
    for (let round = 1; round < rounds; round += 1) {
      const again = join(folder, `again${round}`);
      imports.own.push(await importOwn(join(again, 'own'), ldif));
      const other = await configureSlapd(join(again, 'slapd'), tls);
      imports.slapd.push(await importSlapd(other, ldif));
      await rm(again, { recursive: true });
    }
    for (const [name, title] of [
      ['seconds', 'per second'],
      ['cpuSeconds', 'per CPU second'],
    ] as const) {
      const [ours, theirs] = [imports.own, imports.slapd].map((took) => entries / median(took.map((one) => one[name])));
      compare(`bulk import (slapadd -q), entries ${title}`, ours as number, theirs as number, 1);
    }
    const peaks = [imports.own, imports.slapd].map((took) => Math.max(...took.map((one) => one.peakMb)));
    print(`${'most memory during the import, MB'.padEnd(56)} ${figure(peaks[0] as number)} ${figure(peaks[1] as number)}`);
    const bytes = [await bytesIn(ownData), await bytesIn(join(folder, 'slapd', 'data'))] as const;
    print(`${'bytes on disk per account'.padEnd(56)} ${figure(bytes[0] / entries)} ${figure(bytes[1] / entries)}   wanted: at most 500`);
  }

  const own = await startOwn(ownData, tls, given.profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', given.profile]);
  servers.push(own);
  const slapd = await startSlapd(configuration);
  servers.push(slapd);
  if (parts.has('search')) await searches('searches', own, slapd, false, 1.5);
  if (parts.has('tls')) await searches('searches under TLS', own, slapd, true, 1.2);
  if (parts.has('add')) {
    const sides = [own, slapd].map((server) => ({ server, rules: 'built-in' as const }));
    const [ours, theirs] = (await inTurns(sides, { tls: false, what: 'add', connections: 4, depth: 32 })) as [Measured[], Measured[]];
    compare('durable adds 4x32, adds/s', rate(ours), rate(theirs), 20);
    compare('durable adds 4x32, adds per CPU second', middle(ours, 'perCpuSecond'), middle(theirs, 'perCpuSecond'));
    latency('durable adds 4x32', ours, theirs);
  }
  const [ours, theirs] = [memoryMb(own.pid), memoryMb(slapd.pid)];
  const cached = (await own.cachedMb()) ?? { now: 0, most: 0 };
  print(
    `${'memory after the run, MB'.padEnd(56)} ${figure(ours.resident)} ${figure(theirs.resident)}   wanted: at most ${besideCacheMb} and the cache, ${besideCacheMb + cached.most}`,
  );
  print(`${'most memory of the run, MB'.padEnd(56)} ${figure(ours.peak)} ${figure(theirs.peak)}`);
  print(`our caches take ${cached.now} MB of at most ${cached.most}; beside what is counted come ${pagesBytesMax / 1_048_576} MB of pages`);
}

// Without access rules on either side, and ours once more with those that an installation has.
async function searches(what: string, own: BenchServer, slapd: BenchServer, tls: boolean, wanted: number): Promise<void> {
  for (const [connections, depth] of [
    [4, 32],
    [1, 1],
  ] as const) {
    const sides = [
      { server: own, rules: 'none' },
      { server: slapd, rules: 'none' },
      { server: own, rules: 'built-in' },
    ] as const;
    const [ours, theirs, ruled] = (await inTurns(sides, { tls, what: 'search', connections, depth })) as [
      Measured[],
      Measured[],
      Measured[],
    ];
    const title = `${what} ${connections}x${depth}`;
    compare(`${title}, per CPU second`, middle(ours, 'perCpuSecond'), middle(theirs, 'perCpuSecond'), depth > 1 ? wanted : undefined);
    compare('  ours with its built-in access rules', middle(ruled, 'perCpuSecond'), middle(theirs, 'perCpuSecond'));
    compare(`${title}, per second`, rate(ours), rate(theirs));
    latency(title, ours, theirs);
  }
}

async function inTurns(
  sides: readonly { readonly server: BenchServer; readonly rules: 'built-in' | 'none' }[],
  load: Pick<LoadOptions, 'tls' | 'what' | 'connections' | 'depth'>,
): Promise<Measured[][]> {
  const results: Measured[][] = sides.map(() => []);
  // One turn to warm up, which does not count: compilers and caches, the system's too, are then where a running server has them.
  for (let round = 0; round <= rounds; round += 1) {
    for (const [i, { server, rules }] of sides.entries()) {
      await server.useRules(rules);
      const measured = await underLoad(server, {
        ...load,
        seconds: round === 0 && load.depth > 1 ? warmUpSeconds : seconds,
        tag: `new${round}x${load.depth}x`,
      });
      if (round > 0) results[i]?.push(measured);
    }
  }
  return results;
}

async function underLoad(server: BenchServer, load: Omit<LoadOptions, 'port' | 'entries'>): Promise<Measured> {
  const options: LoadOptions = { ...load, port: load.tls ? server.tlsPort : server.port, entries };
  const before = cpuSeconds(server.pid);
  const child = spawn(process.execPath, [join(import.meta.dirname, 'load.ts'), JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`the load on ${server.name} ended with ${code}`);
  const result = JSON.parse(text) as LoadResult;
  return { ...result, perCpuSecond: result.done / (cpuSeconds(server.pid) - before) };
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function middle(results: readonly Measured[], name: keyof Measured): number {
  return median(results.map((one) => one[name]));
}

function rate(results: readonly Measured[]): number {
  return median(results.map((one) => one.done / one.seconds));
}

function compare(what: string, ours: number, theirs: number, wanted?: number): void {
  const goal = wanted === undefined ? '' : `  wanted: ${wanted.toFixed(1)}`;
  print(`${what.padEnd(56)} ${figure(ours)} ${figure(theirs)}   ratio ${(ours / theirs).toFixed(2)}${goal}`);
}

function latency(what: string, ours: readonly Measured[], theirs: readonly Measured[]): void {
  for (const name of ['p50Ms', 'p99Ms'] as const) {
    const title = `${what}, ${name.slice(0, 3)} in ms`;
    const [a, b] = [middle(ours, name), middle(theirs, name)];
    print(`${title.padEnd(56)} ${a.toFixed(2).padStart(10)} ${b.toFixed(2).padStart(10)}`);
  }
}

function figure(value: number): string {
  return Math.round(value).toLocaleString('en').padStart(10);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
