/**
 * A member of the cluster on its machine: the product's member, started as its main does, with the simulated world for ports. A
 * supervisor starts it again after it died.
 */

import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { type RunningBackend, startMember } from '#backend-cluster/member.ts';
import { createImapServer, imapCapabilities } from '#backend-cluster/sessions/imap/server.ts';
import { serveManageSieve } from '#backend-cluster/sessions/managesieve/server.ts';
import { pop3Capabilities, servePop3 } from '#backend-cluster/sessions/pop3/server.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import type { Files } from '#common/files/files.ts';
import { parseMemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import type { Random } from '#common/random.ts';
import type { Secret } from '#common/secret.ts';
import type { SimCoordinator } from './coordinator.ts';
import type { SimDirectory } from './directory.ts';
import type { SimDisk } from './disk.ts';
import { type Machine, SimProcess } from './machine.ts';
import type { SimNetwork } from './network.ts';

export const heartbeatMs = 500;
export const leaseMs = 3_000;
const linkPort = 7_000;
const startAgainMs = 1_000;
/** A stop that takes longer is made a kill, as service supervisors do. */
const stopWithinMs = 10_000;

/** What all members share. */
export interface Surroundings {
  readonly network: SimNetwork;
  readonly disk: SimDisk;
  readonly coordinator: SimCoordinator;
  readonly directory: SimDirectory;
  readonly log: (node: string) => Logger;
  /** See `SimDisk.portOf`. */
  readonly through: (files: Files) => Files;
  /** Records after which a snapshot is taken: few, so that a short history has many. */
  readonly snapshotRecords: number;
}

/** Costs nothing, and compares: what it guards is not the matter here. */
const plainHasher: PasswordHasher = {
  verifyPassword: async (stored, given: Secret<string>) => stored.includes(`{CLEARTEXT}${given.reveal()}`),
  hashPassword: async (given) => `{CLEARTEXT}${given.reveal()}`,
  storedValues: async (given) => [`{CLEARTEXT}${given.reveal()}`],
  verifyNothing: async () => false,
};

const noMetrics: Metrics = {
  counter: () => ({ add: () => {} }),
  gauge: () => ({ set: () => {} }),
  histogram: () => ({ observe: () => {} }),
  onCollect: () => {},
  withLabels: () => noMetrics,
  render: async () => '',
};

/** See the header of this file. */
export class MemberNode {
  readonly machine: Machine;
  readonly address: MemberAddress;
  readonly #surroundings: Surroundings;
  /** The member while its process runs and has joined. */
  member: RunningBackend | undefined;
  starts = 0;

  constructor(machine: Machine, surroundings: Surroundings) {
    this.machine = machine;
    this.#surroundings = surroundings;
    this.address = { name: parseMemberName(machine.name), host: machine.host, port: linkPort };
  }

  get process(): SimProcess | undefined {
    return this.machine.process;
  }

  /** Whether this start of this member takes connections. */
  isServing(name: unknown, incarnation: unknown): boolean {
    const own = this.member?.status().cluster.members.find((view) => view.name === this.machine.name);
    return name === this.machine.name && own?.incarnation === incarnation && own?.state === 'active';
  }

  start(): void {
    if (this.machine.process !== undefined) return;
    const process = new SimProcess(this.machine);
    this.starts += 1;
    this.machine.world.note(`start ${this.machine.name}`);
    this.#run(process).then(
      (member) => {
        if (process.isAlive) this.member = member;
      },
      // Storage was out of reach, or full: a supervisor tries again.
      () => {
        process.die();
        this.machine.world.after(startAgainMs, 'supervisor', () => this.start());
      },
    );
  }

  /** As SIGKILL does. */
  kill(): void {
    this.machine.process?.die();
    this.member = undefined;
  }

  /** As SIGTERM does, with or without a drain before; the process is over at the latest when its supervisor loses patience. */
  stop(drainsFirst: boolean): void {
    const { member, process } = this;
    if (process === undefined) return;
    const over = (): void => {
      if (!process.isAlive) return;
      process.die();
      // Also one that had not joined yet when it was told to stop.
      this.member = undefined;
    };
    this.machine.world.after(stopWithinMs, 'patience', over);
    if (member === undefined) return;
    const leave = async (): Promise<void> => {
      if (drainsFirst) await member.drain();
      await member[Symbol.asyncDispose]();
    };
    leave().then(over, over);
  }

  async #run(process: SimProcess): Promise<RunningBackend> {
    const { network, disk, coordinator, directory, through, snapshotRecords } = this.#surroundings;
    const ports = portsOf(process, network, this.#surroundings.log(this.machine.name));
    const store = await openAccountStore({
      ...ports,
      root: '/store',
      files: disk.portOf(process, through),
      tuning: { snapshotRecords, snapshotAtCloseSlots: 4, timeoutMs: 4_000 },
    });
    return startMember({
      name: this.address.name,
      listen: { address: this.machine.host, port: linkPort },
      advertise: undefined,
      tls: undefined,
      clusterNetwork: ['127.0.0.0/8'],
      heartbeatMs,
      leaseMs,
      idleCloseMs: 3_000,
      openAccountsBytesMax: 64 * 1024,
      tombstoneGraceHours: 1,
      defaultQuotaBytes: 0,
      duties: { httpClient: 'auto', remotePolling: 'auto' },
      ports,
      leases: coordinator.portOf(process),
      store,
      storage: { engine: 'posix', path: '/store' },
      directory: {
        follow: (onChange) => directory.follow(process, onChange),
        reader: directory.readerFor(process),
        writer: directory.writer,
      },
      hasher: plainHasher,
      protocols: {
        imap: { serve: createImapServer(), capabilities: imapCapabilities },
        pop3: { serve: servePop3, capabilities: pop3Capabilities },
        managesieve: { serve: serveManageSieve, capabilities: [] },
      },
    });
  }
}

/** A frontend's link client on its machine. */
export function frontendLink(process: SimProcess, network: SimNetwork, log: Logger): LinkClient {
  return createLinkClient({ name: process.machine.name, role: 'frontend', tls: undefined, ports: portsOf(process, network, log) });
}

function portsOf(process: SimProcess, network: SimNetwork, log: Logger) {
  const random: Random = process.world.chance.fork().port();
  return { clock: process.clock, random, network: network.portOf(process), log, metrics: noMetrics };
}
