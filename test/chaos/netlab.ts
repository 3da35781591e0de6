/**
 * A network of named hosts on this machine: one network namespace for each, joined by a bridge in a namespace of its own. There is no way
 * out of it, and nothing outside is touched. Needs root.
 * Without, the hosts are addresses of the loopback interface, and nothing can be cut.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { startProcess } from '#deploy/examples/processes.ts';
import type { Hosts, Server } from './hosts.ts';

const run = promisify(execFile);
const endedWithinMs = 10_000;

/** See the header of this file. */
export class NetLab implements Hosts {
  readonly network: string;
  readonly hasCuts: boolean;
  readonly #name: string;
  readonly #addresses: ReadonlyMap<string, string>;

  private constructor(name: string, hosts: readonly string[], hasCuts: boolean) {
    this.#name = name;
    this.hasCuts = hasCuts;
    const prefix = hasCuts ? '198.18.0' : '127.0.1';
    // Whatever loopback address one dials, the kernel dials from 127.0.0.1.
    this.network = hasCuts ? `${prefix}.0/24` : '127.0.0.0/8';
    this.#addresses = new Map(hosts.map((host, index) => [host, `${prefix}.${index + 1}`]));
  }

  /** Makes the hosts. */
  static async create(name: string, hosts: readonly string[]): Promise<NetLab> {
    const lab = new NetLab(name, hosts, true);
    try {
      await lab.#make();
      return lab;
    } catch (error) {
      await lab.remove();
      throw error;
    }
  }

  /** The same lab, seen from a process that runs in it. */
  static known(name: string, hosts: readonly string[]): NetLab {
    return new NetLab(name, hosts, true);
  }

  static onLoopback(hosts: readonly string[]): NetLab {
    return new NetLab('', hosts, false);
  }

  async #make(): Promise<void> {
    const bridge = this.#namespace('sw');
    await ip('netns', 'add', bridge);
    await ip('-n', bridge, 'link', 'add', 'br0', 'type', 'bridge');
    await ip('-n', bridge, 'link', 'set', 'br0', 'up');
    for (const [host, address] of this.#addresses) {
      const own = this.#namespace(host);
      await ip('netns', 'add', own);
      await ip('-n', own, 'link', 'set', 'lo', 'up');
      await ip('-n', own, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', `to-${host}`, 'netns', bridge);
      await ip('-n', bridge, 'link', 'set', `to-${host}`, 'master', 'br0', 'up');
      await ip('-n', own, 'addr', 'add', `${address}/24`, 'dev', 'eth0');
      await ip('-n', own, 'link', 'set', 'eth0', 'up');
    }
    // Or the first cut finds that there is no iptables.
    await this.heal();
  }

  addressOf(host: string): string {
    const address = this.#addresses.get(host);
    if (address === undefined) throw new Error(`the lab has no host ${host}`);
    return address;
  }

  get client(): readonly string[] {
    return this.#on('client');
  }

  async serve(host: string, nodeFile: string, logFile: string): Promise<Server> {
    return new ServerProcess(await startProcess(nodeFile, logFile, this.#on(host)));
  }

  async redis(host: string, args: readonly string[]): Promise<Server> {
    const [command, ...rest] = [...this.#on(host), 'redis-server', ...args] as [string, ...string[]];
    return new ServerProcess(spawn(command, rest, { stdio: 'ignore' }));
  }

  async cut(from: string, to: string): Promise<void> {
    await this.#iptables(to, '-A', 'INPUT', '-s', this.addressOf(from), '-j', 'DROP');
  }

  async heal(): Promise<void> {
    if (!this.hasCuts) return;
    await Promise.all([...this.#addresses.keys()].map((host) => this.#iptables(host, '-F', 'INPUT')));
  }

  async remove(): Promise<void> {
    if (!this.hasCuts) return;
    for (const host of ['sw', ...this.#addresses.keys()]) {
      const name = this.#namespace(host);
      // Whatever still runs there was started for this lab.
      const left = await run('ip', ['netns', 'pids', name]).catch(() => ({ stdout: '' }));
      for (const pid of left.stdout.split('\n').filter((line) => line !== '')) endQuietly(Number(pid));
      await ip('netns', 'del', name).catch(() => {});
    }
  }

  #on(host: string): string[] {
    return this.hasCuts ? ['ip', 'netns', 'exec', this.#namespace(host)] : [];
  }

  #iptables(host: string, ...args: string[]): Promise<unknown> {
    return run('ip', ['netns', 'exec', this.#namespace(host), 'iptables', '-w', ...args]);
  }

  #namespace(host: string): string {
    return `${this.#name}-${host}`;
  }
}

class ServerProcess implements Server {
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.#child = child;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async signal(signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    this.#child.kill(signal);
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (!this.isRunning) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), endedWithinMs);
    await ended;
    clearTimeout(timer);
  }
}

function endQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

function ip(...args: string[]): Promise<unknown> {
  return run('ip', args);
}
