/**
 * Hosts as containers of the local Docker daemon, one for each: a file system with the product in it, a process table in which the server is
 * process 1, and a network of their own without a way out. The clients run on this machine, which is the network's gateway. As root.
 *
 * What a host is told and what it keeps lies in the run's folder, which is seen under the same path everywhere. Volumes must be mounted before
 * the first host starts: a container does not see what is mounted later.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { BoundPorts, type ContainerRuntimeClient, GenericContainer, getContainerRuntimeClient, Wait } from 'testcontainers';
import type { Hosts, Server } from '../hosts.ts';
import { productImage } from './image.ts';

// Its own container that removes others comes from a registry; here leftovers are found by their label.
process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';

type Container = ReturnType<ContainerRuntimeClient['container']['getById']>;
type Docker = ContainerRuntimeClient['container']['dockerode'];

const run = promisify(execFile);
/** On networks and containers: the process that made them. */
const ownerLabel = 'archipelago.chaos.process';
const imageLabel = 'archipelago.chaos.image';
const launcher = '/opt/archipelago/bin/archipelago.mjs';
const startedWithinMs = 60_000;
const endedWithinMs = 10_000;
/** How often something is tried, every quarter of a second, that Docker refuses for a moment. */
const triesMax = 40;
/** Networks of other runs, or of others, that are stepped over. */
const subnetsMax = 64;

/** See the header of this file. */
export class Containers implements Hosts {
  /** By which the same hosts are found from another process. */
  readonly name: string;
  readonly network: string;
  readonly hasCuts = true;
  readonly client = [];
  readonly #docker: Docker;
  readonly #image: string;
  readonly #folder: string;
  readonly #addresses: ReadonlyMap<string, string>;
  readonly #containers = new Map<string, Container>();
  #cuts: { readonly from: string; readonly to: string }[] = [];

  private constructor(docker: Docker, found: { name: string; image: string; subnet: string }, hosts: readonly string[], folder: string) {
    this.#docker = docker;
    this.name = found.name;
    this.#image = found.image;
    this.network = found.subnet;
    this.#folder = folder;
    const prefix = found.subnet.replace(/\.0\/24$/, '');
    // The first one, the client, has the gateway's address.
    this.#addresses = new Map(hosts.map((host, index) => [host, `${prefix}.${index + 1}`]));
  }

  /** Removes what dead runs left, builds the image if it is not there, and makes the network. Hosts start with their servers. */
  static async create(name: string, hosts: readonly string[], folder: string, say: (line: string) => void): Promise<Containers> {
    if (process.getuid?.() !== 0) throw new Error('--containers cuts networks and mounts volumes, which this user may not: run it as root');
    const client = await getContainerRuntimeClient().catch((error: unknown) => {
      throw new Error(
        `no Docker daemon answers (${(error as Error).message}), and --containers needs one on this machine: ` +
          '"npm run chaos:docker -- up", as root on Debian, installs and starts one',
      );
    });
    const docker = client.container.dockerode;
    await sweep(docker);
    const image = await productImage(client, say);
    const subnet = await makeNetwork(docker, name, image);
    return new Containers(docker, { name, image, subnet }, hosts, folder);
  }

  /** The same hosts, seen from another process. */
  static async known(name: string, hosts: readonly string[], folder: string): Promise<Containers> {
    const docker = (await getContainerRuntimeClient()).container.dockerode;
    const { Labels, IPAM } = await docker.getNetwork(name).inspect();
    const image = Labels?.[imageLabel];
    const subnet = IPAM?.Config?.[0]?.Subnet;
    if (image === undefined || subnet === undefined) throw new Error(`the network ${name} is not one of a run`);
    return new Containers(docker, { name, image, subnet }, hosts, folder);
  }

  addressOf(host: string): string {
    const address = this.#addresses.get(host);
    if (address === undefined) throw new Error(`there is no host ${host}`);
    return address;
  }

  serve(host: string, nodeFile: string, logFile: string): Promise<Server> {
    // What it says on stdout is for Docker, the log is for whoever looks for it after the run.
    const command = ['sh', '-c', 'exec "$@" 2>>"$0"', logFile, 'node', launcher, 'up', '--config', nodeFile];
    return this.#start(host, command, /started$/);
  }

  redis(host: string, args: readonly string[]): Promise<Server> {
    return this.#start(host, ['redis-server', ...args], /Ready to accept connections|\+monitor master/);
  }

  async cut(from: string, to: string): Promise<void> {
    this.#cuts.push({ from, to });
    await this.#drop(from, to);
  }

  async heal(): Promise<void> {
    this.#cuts = [];
    await Promise.all([...this.#containers.keys()].map((host) => this.#iptables(host, '-F', 'INPUT')));
  }

  async remove(): Promise<void> {
    await removeOf(this.#docker, (owner) => owner === ownerOf(this.name));
  }

  async #start(host: string, command: string[], ready: RegExp): Promise<Server> {
    const wait = Wait.forLogMessage(ready);
    const known = this.#containers.get(host);
    if (known === undefined) {
      const started = await new HostContainer(this.#image, this.name, this.addressOf(host))
        .withLabels({ [ownerLabel]: ownerOf(this.name) })
        .withHostname(host)
        .withUser('0:0')
        .withBindMounts([{ source: this.#folder, target: this.#folder, mode: 'rw' }])
        .withCommand(command)
        .withWaitStrategy(wait)
        .withStartupTimeout(startedWithinMs)
        .withAutoCleanup(false)
        .start();
      const container = this.#docker.getContainer(started.getId());
      this.#containers.set(host, container);
      await this.#cutAgain(host);
      return new ContainerServer(container);
    }
    // What it says may be older than the moment that the daemon gives for its start; the end of its last run is older than both.
    const endedAt = new Date((await known.inspect()).State.FinishedAt);
    await known.start().catch(unless(304));
    // Its network is a new one, and nothing is cut there yet.
    await this.#cutAgain(host);
    const server = new ContainerServer(known);
    try {
      await wait.withStartupTimeout(startedWithinMs).waitUntilReady(known, new BoundPorts(), endedAt);
    } catch (error) {
      await server.end('SIGKILL');
      throw new Error(`${host} did not start; see its log`, { cause: error });
    }
    return server;
  }

  async #cutAgain(host: string): Promise<void> {
    for (const { from, to } of this.#cuts) if (to === host) await this.#drop(from, to);
  }

  #drop(from: string, to: string): Promise<void> {
    return this.#iptables(to, '-A', 'INPUT', '-s', this.addressOf(from), '-j', 'DROP');
  }

  /** In the network of a host; one that does not run has none. */
  async #iptables(host: string, ...args: string[]): Promise<void> {
    const container = this.#containers.get(host);
    if (container === undefined) return;
    for (let tries = 1; ; tries += 1) {
      const { State, NetworkSettings } = await container.inspect();
      if (!State.Running || NetworkSettings.SandboxKey === '') return;
      try {
        await run('nsenter', [`--net=${NetworkSettings.SandboxKey}`, 'iptables', '-w', ...args]);
        return;
      } catch (error) {
        // It has just ended, and the daemon says so a little later.
        if (tries >= triesMax) throw error;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
  }
}

/** A container with an address that is known before it starts, because node files and certificates name it. */
class HostContainer extends GenericContainer {
  readonly #network: string;
  readonly #address: string;

  constructor(image: string, network: string, address: string) {
    super(image);
    this.#network = network;
    this.#address = address;
    this.withNetworkMode(network);
  }

  protected override async beforeContainerCreated(): Promise<void> {
    this.createOpts.NetworkingConfig = { EndpointsConfig: { [this.#network]: { IPAMConfig: { IPv4Address: this.#address } } } };
  }
}

class ContainerServer implements Server {
  readonly #container: Container;
  readonly #ended: Promise<void>;
  #isRunning = true;

  constructor(container: Container) {
    this.#container = container;
    const over = (): void => {
      this.#isRunning = false;
    };
    this.#ended = container.wait().then(over, over);
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  async signal(signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      try {
        await (signal === 'SIGSTOP' ? this.#container.pause() : this.#container.unpause());
        return;
      } catch (error) {
        // It has ended, or is so already. What waits for a disk cannot be frozen just now.
        const { Running, Paused } = (await this.#container.inspect()).State;
        if (!Running || Paused === (signal === 'SIGSTOP')) return;
        if (tries >= triesMax) throw error;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (!this.#isRunning) return;
    const kill = async (by: string): Promise<void> => {
      // The daemon complains when the container ended before, or does so late, as one that waits for a storage: that is seen below.
      await this.#container.kill({ signal: by }).catch(() => {});
    };
    await kill(signal);
    const timer = setTimeout(() => void kill('SIGKILL'), endedWithinMs);
    await this.#ended;
    clearTimeout(timer);
  }
}

async function makeNetwork(docker: Docker, name: string, image: string): Promise<string> {
  let last: unknown;
  for (let number = 1; number <= subnetsMax; number += 1) {
    const prefix = `198.18.${number}`;
    const subnet = `${prefix}.0/24`;
    try {
      await docker.createNetwork({
        Name: name,
        Driver: 'bridge',
        Internal: true,
        IPAM: { Driver: 'default', Config: [{ Subnet: subnet, Gateway: `${prefix}.1` }] },
        Labels: { [ownerLabel]: ownerOf(name), [imageLabel]: image },
      });
      return subnet;
    } catch (error) {
      if (!/overlap/i.test(String(error))) throw error;
      last = error;
    }
  }
  throw new Error(`none of the networks 198.18.1.0/24 to 198.18.${subnetsMax}.0/24 is free; "docker network ls" shows who has them`, {
    cause: last,
  });
}

/** Removes containers and networks of runs whose process is no more. */
async function sweep(docker: Docker): Promise<void> {
  await removeOf(docker, (owner) => {
    try {
      process.kill(Number(owner), 0);
      return false;
    } catch {
      return true;
    }
  });
}

async function removeOf(docker: Docker, isWanted: (owner: string) => boolean): Promise<void> {
  const filters = { label: [ownerLabel] };
  const containers = await docker.listContainers({ all: true, filters });
  const ours = containers.filter(({ Labels }) => isWanted(Labels[ownerLabel] as string));
  await Promise.all(ours.map(({ Id }) => docker.getContainer(Id).remove({ force: true, v: true }).catch(unless(404))));
  for (const { Id, Labels } of await docker.listNetworks({ filters })) {
    if (isWanted(Labels?.[ownerLabel] as string)) await docker.getNetwork(Id).remove().catch(unless(404));
  }
}

/** The process in the name of a run. */
function ownerOf(name: string): string {
  return name.replace(/^\D+/, '');
}

function unless(status: number): (error: { readonly statusCode?: number }) => void {
  return (error) => {
    if (error.statusCode !== status) throw error;
  };
}
