/**
 * Very many differences: what the replication service, the admin API in it, and the command take of memory while they are found and listed.
 * Master and replica are stand-ins (stand-ins.ts). Of three differences one is an entry that the replica lacks, one has another content there,
 * and one is an entry of the replica's own.
 *
 *   node bin/run.mjs bench/replication/differences.ts [--entries N] [--differing N]        default 1000000 and 100000
 *
 * Ends with 1 when a list is not what it should be.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { controlOids, encodeSyncInfo, findControl } from '#protocol/ldap/controls.ts';
import { attribute, type LdapMessage, type SearchResultEntry } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { type ServiceProcess, startReplicationProcess } from '#test/interop/replication-process.ts';
import { freePort } from '#test/interop/slapd-server.ts';
import { csn, done, entryOf, namedIn, ordinary, page, type Send, standIn } from './stand-ins.ts';

const { values } = parseArgs({ options: { entries: { type: 'string' }, differing: { type: 'string' } } });
const entries = Number(values.entries ?? 1_000_000);
const differing = Math.min(Number(values.differing ?? 100_000), entries - 2);
const cookie = Buffer.from(`rid=000,csn=${csn},pos=0123456789abcdef.1`);
const token = 'token-of-the-bench';

type Kind = 'missing' | 'different' | 'extra' | undefined;
const kinds = ['missing', 'different', 'extra'] as const;

/** How an entry differs: every so manieth of those behind the first two, which hold the others. */
function kindOf(number: number): Kind {
  if (number < 2) return undefined;
  const step = (entries - 2) / differing;
  const which = Math.floor((number - 2) / step);
  return Math.ceil(which * step) === number - 2 ? kinds[which % 3] : undefined;
}

const atMaster = (number: number): SearchResultEntry | undefined => (kindOf(number) === 'extra' ? undefined : entryOf(number));

function atReplica(number: number): SearchResultEntry | undefined {
  const kind = kindOf(number);
  return kind === 'missing' ? undefined : entryOf(number, kind === 'different' ? '.by-hand' : '');
}

/** Answers a search of a server whose entries are these. */
async function search(message: LdapMessage, send: Send, entry: (number: number) => SearchResultEntry | undefined): Promise<void> {
  const { operation } = message;
  if (operation.type !== 'searchRequest' || ordinary(message, send) || page(message, send, entries, entry)) return;
  const isBase = operation.scope === 'base';
  const found = isBase && operation.baseDn === 'o=mail' ? [0] : namedIn(operation.filter).filter((number) => number < entries);
  for (const number of found) {
    const one = entry(number);
    if (one !== undefined) send({ ...one, attributes: [...one.attributes, ...(isBase ? [attribute('contextCSN', csn)] : [])] });
  }
  const resultCode = isBase && found.length === 0 ? resultCodes.noSuchObject : 0;
  send({ type: 'searchResultDone', resultCode, ...done });
}

async function memoryMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

/** Runs the command with its output in a file; gives its exit code and the most memory it took. */
async function command(args: readonly string[], url: string, directory: string, file: string) {
  const child = spawn(
    process.execPath,
    [resolve('bin/archipelago.mjs'), 'replica', ...args, '--url', url, '--token-file', join(directory, 'token')],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  let highestMb = 0;
  const timer = setInterval(() => void memoryMb(child.pid as number).then((mb) => (highestMb = Math.max(highestMb, mb))), 100);
  const ended = once(child, 'exit');
  await pipeline(child.stdout, createWriteStream(file));
  const [code] = (await ended) as [number | null];
  clearInterval(timer);
  return { code, highestMb };
}

/** How often each word of `pattern` is in a file's lines. */
async function tally(file: string, pattern: RegExp): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for await (const line of createInterface({ input: createReadStream(file) })) {
    const word = pattern.exec(line)?.[1];
    if (word !== undefined) counts[word] = (counts[word] ?? 0) + 1;
  }
  return counts;
}

async function ready(service: ServiceProcess, url: string): Promise<void> {
  for (const deadlineMs = performance.now() + 60_000; ; ) {
    const answer = await fetch(`${url}/api/v1/replicas`, { headers: { authorization: `Bearer ${token}` } }).catch(() => undefined);
    if (answer?.ok === true && /"state":"following"/.test(await answer.text())) return;
    if (service.hasExited() || performance.now() > deadlineMs) throw new Error(service.describe());
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

const directory = await mkdtemp(join(tmpdir(), 'archipelago-differences-'));
const master = await standIn(async (message, send) => {
  if (findControl(message.controls, controlOids.syncRequest) === undefined) {
    if (message.operation.type === 'searchRequest') await search(message, send, atMaster);
    else ordinary(message, send);
    return;
  }
  // The service follows from here on; what differs is for the comparison to find.
  const info = encodeSyncInfo({ kind: 'refreshDelete', cookie, refreshDone: true });
  send({ type: 'intermediateResponse', oid: controlOids.syncInfo, value: info });
});
// Read for the first time, it is empty: the service need not compare everything before it follows.
let isFirstReading = true;
const replica = await standIn(async (message, send) => {
  if (message.operation.type !== 'searchRequest') {
    ordinary(message, send);
    return;
  }
  const isReading = findControl(message.controls, controlOids.pagedResults) !== undefined;
  if (isReading && isFirstReading) {
    isFirstReading = false;
    page(message, send, 0, atReplica);
    return;
  }
  await search(message, send, atReplica);
});
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
await writeFile(join(directory, 'token'), token, { mode: 0o600 });
const service = await startReplicationProcess(master, { 'ldap-eu': replica }, directory, {
  node: { log: { level: 'warn' }, admin: { port, tokenFile: join(directory, 'token') } },
  service: { suffix: 'o=mail', refreshDeletesMaxPercent: 100, verifyContinuously: 0 },
});
let isRight = true;
try {
  await ready(service, url);
  process.stdout.write(`the service takes ${(await memoryMb(service.pid)).toFixed(0)} MB at most before it is asked\n`);
  const wanted = Object.fromEntries(kinds.map((kind, i) => [kind, Math.floor((differing + 2 - i) / 3)]));
  const todo = { add: wanted.missing, modify: wanted.different, delete: wanted.extra };
  for (const [args, pattern, counts] of [
    [['diff', 'ldap-eu', '-o', 'json'], /"kind":"(\w+)"/, wanted],
    [['diff', 'ldap-eu', '-o', 'jsonl'], /"kind":"(\w+)"/, wanted],
    [['repair', 'ldap-eu', '--dry-run'], /^(add|modify|delete) /, todo],
  ] as const) {
    const file = join(directory, 'out');
    const startedMs = performance.now();
    const { code, highestMb } = await command(args, url, directory, file);
    const seconds = (performance.now() - startedMs) / 1000;
    const found = await tally(file, pattern);
    const isSame = JSON.stringify(Object.entries(found).sort()) === JSON.stringify(Object.entries(counts).sort());
    isRight &&= isSame && code === 4;
    process.stdout.write(
      `replica ${args.join(' ')}: ${entries} entries, ${JSON.stringify(found)}${isSame ? '' : ` instead of ${JSON.stringify(counts)}`}, ` +
        `${((await stat(file)).size / 1e6).toFixed(1)} MB of text, exit code ${code}, ${seconds.toFixed(1)} s; ` +
        `memory at most: service ${(await memoryMb(service.pid)).toFixed(0)} MB, command ${highestMb.toFixed(0)} MB\n`,
    );
  }
} catch (error) {
  isRight = false;
  process.stderr.write(`${String(error)}\n${service.describe()}\n`);
} finally {
  await service.kill();
  await rm(directory, { recursive: true, force: true });
}
process.exit(isRight ? 0 : 1);
