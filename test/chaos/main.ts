/**
 * `npm run chaos -- --minutes N [--seed S]`: two clusters of three members as real processes in a network of namespaces, with clients and a
 * nemesis. Prints what it did and what was broken; exits with 1 when anything was. Wants root, and Debian's redis-server, iproute2, iptables
 * and e2fsprogs. Without root, namespaces or loop devices it says which faults it does without. `--keep` leaves the folder with the logs.
 *
 * `--containers` puts each server into a container of its own instead, of an image with the product that is built here when the product has
 * changed. Wants a Docker daemon on this machine, see containers/docker.sh.
 *
 * `--measure kill` and `--measure stop` instead kill or stop the host of an account, 50 times, and say how long it could not be reached.
 *
 * The run itself is a second process on the lab's host `client`; this one makes the lab and takes it away, whatever becomes of the run.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { layoutOf } from '#deploy/dev/plan.ts';
import { Containers } from './containers/containers.ts';
import type { Hosts } from './hosts.ts';
import { clusters, hosts, leaseMs, storageOf } from './installation.ts';
import { measureFailover } from './measure.ts';
import { NetLab } from './netlab.ts';
import { runChaos } from './run-chaos.ts';
import { Volume } from './volume.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string' },
    measure: { type: 'string' },
    times: { type: 'string', default: '50' },
    containers: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    inside: { type: 'string' },
    folder: { type: 'string' },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.trunc(performance.timeOrigin) % 1_000_000);
const times = Number(values.times);
const isMeasure = values.measure === 'kill' || values.measure === 'stop';
const isWell = minutes > 0 && minutes <= 24 * 60 && Number.isInteger(seed) && Number.isInteger(times) && times > 0;
if (!isWell || (values.measure !== undefined && !isMeasure)) {
  process.stderr.write('usage: npm run chaos -- [--containers] [--keep] [--minutes N] [--seed S] | --measure kill|stop [--times T]\n');
  process.exit(2);
}

if (values.inside !== undefined && values.folder !== undefined) {
  await inside(values.inside, values.folder);
} else {
  process.exitCode = await outside();
}

async function outside(): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'archipelago-chaos-'));
  const name = `chaos${process.pid}`;
  const lab = await make(name, folder).catch(async (error: Error) => {
    await rm(folder, { recursive: true, force: true });
    process.stderr.write(`${error.message}\n`);
  });
  if (lab === undefined) return 1;
  let group: number | undefined;
  try {
    const own = [fileURLToPath(import.meta.url), '--inside', lab.hasCuts ? name : 'loopback', '--folder', folder];
    const [command = process.execPath, ...rest] = [...lab.client, process.execPath];
    const child = spawn(
      command,
      [
        ...rest,
        ...own,
        '--minutes',
        String(minutes),
        '--seed',
        String(seed),
        ...(values.containers ? ['--containers'] : []),
        ...(values.measure === undefined ? [] : ['--measure', values.measure, '--times', values.times]),
      ],
      // A group of its own: what it leaves behind when it is ended by force can be ended as one.
      { stdio: 'inherit', detached: true },
    );
    group = child.pid;
    // The one inside stops what it started, and this one then takes the lab away.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill('SIGTERM'));
    const [code] = (await once(child, 'exit')) as [number | null];
    return code ?? 1;
  } finally {
    if (group !== undefined) endGroup(group);
    // Before the lab: nothing that waits for a frozen storage can be ended.
    for (const cluster of clusters) await Volume.sweep(storageOf(layoutOf(join(folder, 'run')), cluster));
    await lab.remove();
    if (values.keep) console.log(`logs: ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  }
}

function make(name: string, folder: string): Promise<Hosts> {
  if (values.containers) return Containers.create(name, hosts, folder, (line) => console.log(line));
  return NetLab.create(name, hosts).catch(() => NetLab.onLoopback(hosts));
}

function known(name: string, folder: string): Promise<Hosts> | Hosts {
  if (values.containers) return Containers.known(name, hosts, folder);
  return name === 'loopback' ? NetLab.onLoopback(hosts) : NetLab.known(name, hosts);
}

function endGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL');
  } catch {
    // Nothing is left of it, as it should be.
  }
}

async function inside(name: string, folder: string): Promise<void> {
  const startedMs = performance.now();
  const say = (line: string): void => console.log(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s  ${line}`);
  const lab = await known(name, folder);
  if (values.measure === 'kill' || values.measure === 'stop') {
    const measured = await measureFailover({ lab, directory: folder, blow: values.measure, times, say });
    const sorted = measured.map((ms) => ms / 1000).sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)] as number;
    say(
      `${values.measure}: ${sorted.length} times, median ${median.toFixed(2)} s, worst ${(sorted.at(-1) as number).toFixed(2)} s; lease ${leaseMs / 1000} s`,
    );
    process.exit(0);
  }
  say(`seed ${seed}, ${minutes} minutes`);
  const result = await runChaos({ lab, directory: folder, seed, rageMs: minutes * 60_000, say });
  const { counts, faults, violations, settledMs } = result;
  const kinds = [...faults].sort(([a], [b]) => (a < b ? -1 : 1)).map(([kind, times]) => `${kind} ${times}`);
  say(`faults: ${kinds.join(', ')}`);
  say(
    `${counts.sent} messages sent, ${counts.acknowledged} acknowledged; ${counts.sessions} IMAP sessions, ${counts.changes} changes; settled ${(settledMs / 1000).toFixed(1)} s after the healing`,
  );
  for (const violation of violations) say(`VIOLATION ${violation}`);
  say(violations.length === 0 ? 'zero violations' : `${violations.length} violations`);
  process.exit(violations.length === 0 ? 0 : 1);
}
