/**
 * Log-ins at a frontend with one process and with two, interleaved, on a machine of two cores: what the second process adds.
 *
 *   bench/frontend/workers.ts [--workers 1,2] [--rounds N] [--seconds N] [--at-a-time N] [--clear [--share S]] [--warm-up SECONDS] [--nginx]
 *
 * Clients and backend share the cores with the frontend. By default the work is made heavy for the frontend alone, with new TLS handshakes and an RSA key of
 * 4096 bits, whose signature costs the server fifty times what it costs the client; `--clear` is the plain log-in, where the clients are the limit and only the CPU
 * of the frontend says something, unless `--share` holds each of its processes to a share of a core (0.3, say; wants root): then they are the limit.
 * Sessions go to a plain backend as a foreign cluster. `--nginx` measures nginx's mail proxy with as many workers beside it: what the machine lets a second
 * process add.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { startProcess } from '#deploy/examples/processes.ts';
import { holdToShare } from '../cpu-share.ts';
import { cpuSeconds } from '../directory/process-use.ts';
import { familyOf, freePort } from '../processes.ts';
import { logIns } from './mail-load.ts';
import { answers, nginxConfig } from './proxies.ts';

const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: '1,2' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    'at-a-time': { type: 'string', default: '64' },
    nginx: { type: 'boolean', default: false },
    clear: { type: 'boolean', default: false },
    share: { type: 'string' },
    'warm-up': { type: 'string', default: '20' },
  },
});
const accounts = 60;
const root = await mkdtemp(join(tmpdir(), 'bench-workers-'));
await using started = new AsyncDisposableStack();
started.defer(() => rm(root, { recursive: true, force: true }));

const backend = await startNode('plain-backend.ts', []);
const site = await startNode('site.ts', [root, String(backend.imap), String(accounts)]);
const [cert, key] = [join(root, 'rsa.pem'), join(root, 'rsa.key')];
const request = ['req', '-x509', '-newkey', 'rsa:4096', '-nodes', '-days', '1', '-subj', '/CN=front1', '-keyout', key, '-out', cert];
execFileSync('openssl', request, { stdio: 'ignore' });

interface Measured {
  readonly name: string;
  readonly workers: number;
  readonly port: number;
  readonly pids: readonly number[];
  hold(share: number): void;
  readonly runs: { rate: number; cpuMs: number; busiest: number; busy: number; failed: number }[];
}
const measured: Measured[] = [];
for (const workers of values.workers.split(',').map(Number)) {
  const config = JSON.parse(await readFile(site.config as string, 'utf8'));
  const port = await freePort();
  const listener = { ...config.listeners[values.clear ? 0 : 1], port };
  const folder = join(root, `workers-${workers}`);
  const frontend = {
    ...config,
    listeners: [listener],
    tls: { certFile: cert, keyFile: key },
    workers,
    queueDirectory: join(folder, 'queue'),
  };
  const nodeFile = join(root, `workers-${workers}.json`);
  await writeFile(nodeFile, JSON.stringify({ services: [frontend] }));
  const child = await startProcess(nodeFile, join(root, `workers-${workers}.log`));
  const free = endLast(child);
  const pids = familyOf(child.pid as number).filter((pid) => pid === child.pid || workers > 1);
  const hold = (share: number): void => void free.push(...pids.map((pid) => holdToShare(pid, share)));
  measured.push({ name: 'ours', workers, port, pids, hold, runs: [] });
  if (values.nginx) measured.push(await startNginx(workers));
}

// The first round warms the programs up: compiling counts as theirs, and would take very long of a share.
for (let round = 0; round <= Number(values.rounds); round += 1) {
  for (const { port, pids, hold, runs } of measured) {
    if (round === 1 && values.share !== undefined) hold(Number(values.share));
    const seconds = Number(round === 0 ? values['warm-up'] : values.seconds);
    const before = pids.map(cpuSeconds);
    const account = (number: number) => ({ name: `plain${number % accounts}@isp.example`, password: 'secret' });
    const { count, failed, seconds: took } = await logIns({ port, tls: !values.clear }, account, Number(values['at-a-time']), seconds);
    const each = pids.map((pid, index) => cpuSeconds(pid) - (before[index] ?? 0));
    const cpu = each.reduce((sum, one) => sum + one, 0);
    if (round > 0)
      runs.push({ rate: count / took, cpuMs: (1000 * cpu) / count, busiest: Math.max(...each) / cpu, busy: cpu / took, failed });
  }
}
process.stdout.write('program  processes  log-ins/s  CPU ms each  cores used  share of the busiest  failed\n');
for (const { name, workers, runs } of measured) {
  const of = (what: keyof (typeof runs)[number]): number =>
    runs.map((run) => run[what]).sort((a, b) => a - b)[runs.length >> 1] ?? Number.NaN;
  const cells = [
    name,
    workers,
    of('rate').toFixed(0),
    of('cpuMs').toFixed(3),
    of('busy').toFixed(2),
    of('busiest').toFixed(2),
    of('failed'),
  ];
  process.stdout.write(`${cells.map((cell, index) => String(cell).padEnd([7, 9, 9, 11, 10, 20, 6][index] ?? 0)).join('  ')}\n`);
}

/** Has it end with the rest. What it returns takes what is to be done once it has. */
function endLast(child: ChildProcess): (() => void)[] {
  const then: (() => void)[] = [];
  started.defer(async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
    for (const one of then) one();
  });
  return then;
}

async function startNginx(workers: number): Promise<Measured> {
  const ports = [await freePort(), await freePort()] as const;
  const base = join(root, `nginx-${workers}`);
  await mkdir(base);
  const facts = { certFile: cert, keyFile: key, imap: Number(backend.imap), auth: Number(backend.auth), buffer: '4k' };
  await writeFile(join(base, 'nginx.conf'), nginxConfig(base, ports, facts, workers));
  const child = spawn('/usr/sbin/nginx', ['-c', join(base, 'nginx.conf'), '-p', base, '-e', join(base, 'log')], { stdio: 'inherit' });
  const free = endLast(child);
  for (let i = 0; i < 400 && !(await answers(ports[0])); i += 1) await new Promise((resolve) => setTimeout(resolve, 25));
  // Its first process only watches over the others.
  const pids = familyOf(child.pid as number).slice(1);
  const hold = (share: number): void => void free.push(...pids.map((pid) => holdToShare(pid, share)));
  return { name: 'nginx', workers, port: ports[values.clear ? 0 : 1], pids, hold, runs: [] };
}

async function startNode(file: string, args: readonly string[]): Promise<Record<string, string | number>> {
  const child = spawn(process.execPath, [join(import.meta.dirname, file), ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  started.defer(async () => {
    const ended = once(child, 'exit');
    child.stdin.end();
    await ended;
  });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return JSON.parse(line) as Record<string, string | number>;
}
