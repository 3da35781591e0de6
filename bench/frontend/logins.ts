/**
 * Proxied IMAP sessions against nginx's mail proxy and Dovecot's, the same plain backend behind all of them; ours also over the link to a member of ours.
 *
 *   bench/frontend/logins.ts [--only logins,tls,resumed,beside,idle,bulk] [--proxies own-link,own-plain,nginx,nginx-64k,haproxy,dovecot]
 *                            [--rounds N] [--seconds N] [--warm-up SECONDS] [--at-a-time N] [--idle N] [--share S] [--node FLAG]...
 *
 * Rounds are interleaved and medians printed. CPU is that of the proxy's own processes: what answers nginx's auth_http is not in it, Dovecot's auth process,
 * which is its routing, is. HAProxy passes bytes on (mode tcp) and knows nothing of log-ins. Wants nginx's mail module, haproxy and dovecot-imapd, and
 * root for Dovecot. `--share` holds each proxy to that share of its core (0.3, say; wants root), so that rates say what the proxy can do, and not its clients.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { holdToShare } from '../cpu-share.ts';
import { residentKb } from '../directory/process-use.ts';
import { bulk, type Entrance, logIns, messageBytes, Session } from './mail-load.ts';
import { type MailProxy, startBench } from './proxies.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: 'logins,tls,resumed,beside,idle,bulk' },
    proxies: { type: 'string', default: 'own-link,own-plain,nginx,nginx-64k,haproxy,dovecot' },
    'warm-up': { type: 'string', default: '20' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    'at-a-time': { type: 'string', default: '64' },
    idle: { type: 'string', default: '8000' },
    share: { type: 'string' },
    node: { type: 'string', multiple: true, default: [] },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const atATime = Number(values['at-a-time']);
const only = values.only.split(',');

const root = await mkdtemp(join(tmpdir(), 'bench-logins-'));
const bench = await startBench(root, values.proxies.split(','), values.node).catch(async (error: unknown) => {
  await rm(root, { recursive: true, force: true });
  throw error;
});
const free: (() => void)[] = [];
try {
  const { share } = values;
  if (share !== undefined) free.push(...bench.proxies.flatMap(({ pids }) => pids().map((pid) => holdToShare(pid, Number(share)))));
  if (only.includes('logins')) await measureLogins('plain', ({ plain }) => plain);
  if (only.includes('tls')) await measureLogins('TLS 1.3, new handshakes', ({ secure }) => secure);
  if (only.includes('resumed')) await measureLogins('TLS 1.3, resumed', ({ secure }) => secure, { resumes: true });
  if (only.includes('beside')) {
    await measureLogins('plain, beside two sessions that fetch 1 MiB over and over', ({ plain }) => plain, { isBeside: true });
    await measureLogins('TLS 1.3, beside the same', ({ secure }) => secure, { isBeside: true });
  }
  if (only.includes('idle')) {
    await measureIdle('plain', ({ plain }) => plain);
    await measureIdle('TLS', ({ secure }) => secure);
  }
  if (only.includes('bulk')) {
    await measureBulk('plain', ({ plain }) => plain);
    await measureBulk('TLS', ({ secure }) => secure);
  }
} finally {
  await bench[Symbol.asyncDispose]();
  for (const one of free) one();
  await rm(root, { recursive: true, force: true });
}
process.exit();

async function measureLogins(
  what: string,
  entrance: (proxy: MailProxy) => Entrance,
  { resumes = false, isBeside = false } = {},
): Promise<void> {
  // A member of ours has no message to fetch.
  const proxies = isBeside ? bench.proxies.filter(({ name }) => name !== 'own-link') : bench.proxies;
  const found = new Map<
    string,
    { rate: number; cpuMs: number; p50: number; p99: number; failed: number; busy: number; resumed: number }[]
  >();
  for (const { name } of proxies) found.set(name, []);
  // The first round warms the programs up: what runs for months has been compiled by then.
  for (let round = 0; round <= rounds; round += 1) {
    for (const proxy of proxies) {
      const cpuBefore = proxy.cpuSeconds();
      const lasting = round === 0 ? Number(values['warm-up']) : seconds;
      const transfers = isBeside ? bulk(entrance(proxy), proxy.account, 'download', 2, lasting) : undefined;
      const made = await logIns(entrance(proxy), proxy.account, atATime, lasting, resumes);
      await transfers;
      const { count, failed, seconds: took, tookMs, resumed } = made;
      const cpu = proxy.cpuSeconds() - cpuBefore;
      if (round === 0) continue;
      const at = (share: number): number => tookMs[Math.floor(share * (count - 1))] ?? Number.NaN;
      found.get(proxy.name)?.push({
        rate: count / took,
        cpuMs: (1000 * cpu) / count,
        p50: at(0.5),
        p99: at(0.99),
        failed,
        busy: cpu / took,
        resumed: resumed / count,
      });
    }
  }
  print(
    `log-ins, ${what}, ${atATime} at a time`,
    ['proxy', 'per CPU second', 'CPU ms each', 'per second', 'its core busy', 'p50 ms', 'p99 ms', 'failed', 'resumed'],
    [...found].map(([name, runs]) => {
      const of = (key: keyof (typeof runs)[number]): number => median(runs.map((run) => run[key]));
      return [
        name,
        (1000 / of('cpuMs')).toFixed(0),
        of('cpuMs').toFixed(3),
        of('rate').toFixed(0),
        `${(100 * of('busy')).toFixed(0)} %`,
        of('p50').toFixed(1),
        of('p99').toFixed(1),
        String(runs.reduce((sum, { failed }) => sum + failed, 0)),
        `${(100 * of('resumed')).toFixed(0)} %`,
      ];
    }),
  );
}

async function measureIdle(what: string, entrance: (proxy: MailProxy) => Entrance): Promise<void> {
  const rows: string[][] = [];
  const count = Number(values.idle);
  for (const proxy of bench.proxies) {
    const openMany = async (from: number, many: number): Promise<Session[]> => {
      const opened: Session[] = [];
      for (let at = from; at < from + many; at += 20) {
        const some = Array.from({ length: Math.min(20, from + many - at) }, (_, i) =>
          Session.open(entrance(proxy), proxy.account, at + i).then(async (session) => {
            // Each has moved data before it goes idle; a member of ours has no such message, and says so.
            for (let turn = 0; turn < 4; turn += 1) await session.say(`n NOOP\r\n`, 'n OK');
            if (proxy.name !== 'own-link') await session.say('d FETCH 1 BODY[]\r\n', 'd OK');
            return session;
          }),
        );
        opened.push(...(await Promise.all(some)));
      }
      return opened;
    };
    const resident = (): number => proxy.pids().reduce((sum, pid) => sum + residentKb(pid), 0);
    // Pools and code that the first ones bring in belong to all.
    const first = await openMany(0, 200);
    await settle();
    const before = resident();
    const sessions = await openMany(200, count);
    await settle();
    const after = resident();
    const lost = [...first, ...sessions].filter(({ isClosed }) => isClosed).length;
    rows.push([proxy.name, ((after - before) / count).toFixed(1), String(lost)]);
    for (const session of [...first, ...sessions]) session.close();
    await settle();
  }
  print(`idle sessions that have moved 1 MB, ${what}, ${count} after the first 200`, ['proxy', 'KiB each', 'lost'], rows);
}

async function measureBulk(what: string, entrance: (proxy: MailProxy) => Entrance): Promise<void> {
  const rows: string[][] = [];
  // A member of ours keeps what it is given; its store would be measured.
  const proxies = bench.proxies.filter(({ name }) => name !== 'own-link');
  for (const direction of ['download', 'upload'] as const) {
    const found = new Map<string, { rate: number; cpuMs: number }[]>(proxies.map(({ name }) => [name, []]));
    for (let round = 0; round <= rounds; round += 1) {
      for (const proxy of proxies) {
        const cpuBefore = proxy.cpuSeconds();
        const { bytes, seconds: took } = await bulk(entrance(proxy), proxy.account, direction, 4, seconds);
        const cpu = proxy.cpuSeconds() - cpuBefore;
        if (round > 0) found.get(proxy.name)?.push({ rate: bytes / took / 1e6, cpuMs: (1000 * cpu) / (bytes / messageBytes) });
      }
    }
    for (const [name, runs] of found) {
      const rate = median(runs.map((run) => run.rate));
      rows.push([direction, name, rate.toFixed(0), median(runs.map((run) => run.cpuMs)).toFixed(2)]);
    }
  }
  print(`messages of 1 MiB, ${what}, 4 sessions`, ['direction', 'proxy', 'MB/s', 'CPU ms a MiB'], rows);
}

/** Time for garbage to go and counters to settle. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 2000));
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

function print(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((word, at) => Math.max(word.length, ...rows.map((row) => (row[at] ?? '').length)));
  const line = (cells: readonly string[]): string => cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('  ');
  process.stdout.write(`\n${title}\n${[head, ...rows].map(line).join('\n')}\n`);
}
