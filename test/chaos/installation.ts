/**
 * Two clusters of three members, two frontends and a directory, each a process of its own on a host of its own. East meets at Redis with
 * a replica and three Sentinels, west at a socket; each cluster has its storage on a volume of its own.
 */

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAccountName, parseDomainName } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import type { DirectoryAccess } from '#common/config/options.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseClusterName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { systemPorts } from '#common/system-ports.ts';
import { identityDn, type Layout, layoutOf } from '#deploy/dev/plan.ts';
import { registerTopology } from '#deploy/dev/seed.ts';
import { prepareState } from '#deploy/dev/state.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { resolveAccess } from '#directory/client/access.ts';
import { openDirectoryWriter } from '#directory/client/write.ts';
import type { Hosts, Server } from './hosts.ts';
import { Volume } from './volume.ts';

export const clusters = ['east', 'west'] as const;
export const membersOf = (cluster: string): string[] => [1, 2, 3].map((number) => `${cluster}${number}`);
export const frontends = ['front1', 'front2'] as const;
const redisHosts = ['redis1', 'redis2'] as const;
const sentinelHosts = ['sentinel1', 'sentinel2', 'sentinel3'] as const;
/** What members talk to besides each other. */
export const redisAndSentinels = [...redisHosts, ...sentinelHosts];
/** All hosts of the lab. */
export const hosts = ['client', 'directory', ...redisAndSentinels, ...frontends, ...clusters.flatMap(membersOf)];
/** Where members listen. */
export const linkPort = 7700;
/** Where frontends listen. */
export const ports = { imaps: 7993, smtp: 7025 };
export const leaseMs = 3_000;
export const password = 'chaos-secret';

/** See the header of this file. */
export class Installation {
  readonly lab: Hosts;
  readonly layout: Layout;
  readonly volumes = new Map<string, Volume>();
  readonly #servers = new Map<string, Server>();
  readonly #starting = new Set<Promise<Server>>();
  readonly #directory: string;
  #stopping: Promise<void> | undefined;

  private constructor(lab: Hosts, directory: string) {
    this.lab = lab;
    this.#directory = directory;
    this.layout = layoutOf(join(directory, 'run'));
  }

  static async start(lab: Hosts, directory: string, accounts: readonly { name: string; cluster: string }[]): Promise<Installation> {
    const made = new Installation(lab, directory);
    // From the process that made the lab, once or more.
    process.on('SIGTERM', () => {
      void made.stop().finally(() => process.exit(130));
    });
    try {
      await made.#prepare();
      await made.#startRedis();
      await made.restart('directory');
      await made.#provision(accounts);
      // Two at a time: their code is compiled at the start, which on a small machine takes its time.
      const started = await Promise.allSettled(
        clusters.map(async (cluster, index) => {
          for (const name of [...membersOf(cluster), frontends[index] as string]) await made.restart(name);
        }),
      );
      for (const outcome of started) if (outcome.status === 'rejected') throw outcome.reason;
      return made;
    } catch (error) {
      await made.stop();
      throw error;
    }
  }

  /** Starts a server that does not run. */
  async restart(host: string): Promise<void> {
    if (this.isRunning(host)) return;
    if (host.startsWith('redis')) await this.#redis(host, true);
    else await this.#start(host, () => this.lab.serve(host, join(this.#directory, `${host}.yaml`), join(this.layout.root, `${host}.log`)));
  }

  isRunning(host: string): boolean {
    return this.#servers.get(host)?.isRunning === true;
  }

  async signal(host: string, signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    await this.#servers.get(host)?.signal(signal);
  }

  async kill(host: string): Promise<void> {
    await this.#servers.get(host)?.end('SIGKILL');
  }

  /** Ends everything; unmounts. Once: a signal and the run that fails by it both ask for it. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    for (const volume of this.volumes.values()) await volume.thaw().catch(() => {});
    await Promise.allSettled(this.#starting);
    await Promise.all(
      [...this.#servers].map(async ([host, server]) => {
        await server.signal('SIGCONT');
        await server.end(redisAndSentinels.some((one) => one === host) ? 'SIGKILL' : 'SIGTERM');
      }),
    );
    for (const volume of this.volumes.values()) await volume.remove();
  }

  async #start(host: string, start: () => Promise<Server>): Promise<void> {
    if (this.#stopping !== undefined) throw new Error(`${host} is not started: the run is being stopped`);
    const starting = start();
    this.#starting.add(starting);
    try {
      this.#servers.set(host, await starting);
    } finally {
      this.#starting.delete(starting);
    }
  }

  async #prepare(): Promise<void> {
    await mkdir(this.layout.root, { recursive: true, mode: 0o700 });
    await prepareState(this.layout, nodeFiles, systemClock, systemRandom);
    const ca = await createThrowawayCa(systemClock, systemRandom);
    await writeFile(this.layout.caFile, ca.certificate);
    for (const host of hosts) {
      const { name, role } = serverOf(host);
      const issued = await ca.issue([name, 'localhost', this.lab.addressOf(host), `urn:archipelago:role:${role}`]);
      const { certFile, keyFile } = this.layout.tls(host);
      await writeFile(certFile, issued.certificate);
      await writeFile(keyFile, issued.key, { mode: 0o600 });
      await writeFile(join(this.#directory, `${host}.yaml`), JSON.stringify({ log: { level: 'info' }, services: [this.#service(host)] }));
    }
    for (const cluster of clusters) this.volumes.set(cluster, await Volume.create(storageOf(this.layout, cluster)));
  }

  // What a node file says; JSON is YAML.
  #service(host: string): object {
    const { name, role } = serverOf(host);
    const address = this.lab.addressOf(host);
    const link = this.layout.link(host);
    const tls = this.layout.tls(host);
    const access = (identity: 'cluster' | 'frontend'): DirectoryAccess => this.access(identity);
    if (role === 'directory') {
      const identities = (['admin', 'replicator', 'cluster', 'provisioner', 'frontend'] as const).map((identity) => ({
        dn: identityDn(identity),
        rights: identity,
        password: { file: this.layout.secret(identity) },
      }));
      const listeners = [{ address, port: 7389, tls: 'starttls' }];
      return { role, name, mode: 'master', suffix: 'o=mail', dataDirectory: this.layout.data('directory'), listeners, tls, identities };
    }
    if (role === 'frontend') {
      const listeners = [
        { protocol: 'imap', tls: 'implicit', address, port: ports.imaps },
        { protocol: 'smtp', tls: 'starttls', address, port: ports.smtp },
      ];
      const queueDirectory = this.layout.data('queue', host);
      return {
        role,
        name,
        subset: 'eu',
        region: 'eu',
        defaultDomain: 'isp.example',
        listeners,
        tls,
        directory: access('frontend'),
        link,
        queueDirectory,
      };
    }
    const cluster = host.slice(0, 4);
    const coordinator =
      cluster === 'west'
        ? { engine: 'socket', path: join(this.layout.root, 'west.sock') }
        : { engine: 'redis', url: `redis-sentinel://${sentinelHosts.map((one) => `${this.lab.addressOf(one)}:26379`).join(',')}/east` };
    return {
      role: 'backend-cluster',
      name,
      listen: { address, port: linkPort },
      clusterNetwork: [this.lab.network],
      storage: { engine: 'posix', path: join(storageOf(this.layout, cluster), 'store') },
      coordinator,
      directory: access('cluster'),
      link,
      heartbeatMs: 500,
      leaseMs,
    };
  }

  /** How a service, or this test, reaches the directory. */
  access(identity: 'admin' | 'cluster' | 'frontend'): DirectoryAccess {
    const url = `ldap://${this.lab.addressOf('directory')}:7389`;
    return {
      servers: [url],
      master: url,
      suffix: 'o=mail',
      timeoutMs: 10_000,
      bindDn: identityDn(identity),
      bindPassword: { file: this.layout.secret(identity) },
      caFile: this.layout.caFile,
    } as DirectoryAccess;
  }

  async #provision(accounts: readonly { name: string; cluster: string }[]): Promise<void> {
    const parts = systemPorts(silentLogger);
    const access = this.access('admin');
    const topology = Object.fromEntries(
      clusters.map((cluster) => {
        const members = membersOf(cluster).map((host) => ({ name: serverOf(host).name, link: `${this.lab.addressOf(host)}:${linkPort}` }));
        return [`${cluster}.isp.example`, { members }];
      }),
    );
    await registerTopology(access, topology, parts);
    await using writer = openDirectoryWriter({ access: await resolveAccess(access, parts.files), ports: parts });
    await writer.createDomain(parseDomainName('isp.example'));
    for (const { name, cluster } of accounts) {
      await writer.createAccount({
        name: parseAccountName(name),
        hostServer: parseClusterName(`${cluster}.isp.example`),
        password: new Secret(password),
      });
    }
  }

  async #startRedis(): Promise<void> {
    await this.#redis('redis1', false);
    await this.#redis('redis2', true);
    for (const host of sentinelHosts) {
      const settings = [
        `sentinel announce-ip ${this.lab.addressOf(host)}`,
        `sentinel monitor east ${this.lab.addressOf('redis1')} 6379 2`,
        'sentinel down-after-milliseconds east 1500',
        'sentinel failover-timeout east 6000',
      ];
      await this.#redisServer(host, 26379, settings, ['--sentinel']);
    }
  }

  // One that comes back is a replica of the other: Sentinel makes it so as well, and not always before it is asked something.
  #redis(host: string, isReplica: boolean): Promise<void> {
    const other = redisHosts.find((one) => one !== host) as string;
    const settings = [
      `replica-announce-ip ${this.lab.addressOf(host)}`,
      'save ""',
      'repl-diskless-sync-delay 0',
      'min-replicas-to-write 0',
      ...(isReplica ? [`replicaof ${this.lab.addressOf(other)} 6379`] : []),
    ];
    return this.#redisServer(host, 6379, settings, []);
  }

  async #redisServer(host: string, port: number, settings: readonly string[], args: readonly string[]): Promise<void> {
    const directory = this.layout.data('redis', host);
    await mkdir(directory, { recursive: true });
    const file = join(directory, 'redis.conf');
    const lines = [`port ${port}`, `bind ${this.lab.addressOf(host)}`, 'protected-mode no', `dir ${directory}`, ...settings];
    await writeFile(file, `${lines.join('\n')}\n`);
    await this.#start(host, () => this.lab.redis(host, [file, ...args]));
  }
}

/** Where the volume of a cluster is mounted. */
export function storageOf(layout: Layout, cluster: string): string {
  return layout.data('storage', cluster);
}

/** Name and role of the server on a host; the client may ask members as the admin API does. */
export function serverOf(host: string): { name: string; role: 'backend-cluster' | 'frontend' | 'directory' | 'operate' } {
  if (host === 'client') return { name: 'client.isp.example', role: 'operate' };
  if (host.startsWith('front')) return { name: `${host}.eu.isp.example`, role: 'frontend' };
  if (/^(east|west)\d$/.test(host)) return { name: `back${host.at(-1)}.${host.slice(0, 4)}.isp.example`, role: 'backend-cluster' };
  return { name: `${host}.isp.example`, role: 'directory' };
}
