/**
 * The faults of one history: a swarm picks which kinds this seed has, and each comes, stays a while and goes. `heal` ends all of them.
 */
import type { SimCoordinator } from './coordinator.ts';
import type { SimDisk } from './disk.ts';
import type { Machine } from './machine.ts';
import type { MemberNode } from './member-node.ts';
import type { SimNetwork } from './network.ts';
import type { Chance, World } from './world.ts';

/** What a fault may touch. */
export interface Targets {
  readonly world: World;
  readonly network: SimNetwork;
  readonly disk: SimDisk;
  readonly coordinator: SimCoordinator;
  readonly members: readonly MemberNode[];
  /** Members, coordinator and frontend. */
  readonly machines: readonly Machine[];
}

/** Makes one fault happen; what it returns ends it. */
type Fault = (targets: Targets, chance: Chance) => { readonly forMs: number; readonly end: () => void } | undefined;

/** A pause of at most 9 s, and a lease. */
const apartMs = 12_500;
const nothing = (): void => {};

export const faultKinds: Readonly<Record<string, Fault>> = {
  pause: ({ members }, chance) => {
    const { process } = chance.pick(members);
    process?.pause();
    return { forMs: chance.between(100, 9_000), end: () => process?.resume() };
  },
  suspend: ({ members }, chance) => {
    const { machine } = chance.pick(members);
    machine.suspend();
    return { forMs: chance.between(100, 9_000), end: () => machine.wake() };
  },
  kill: ({ members }, chance) => {
    const node = chance.pick(members);
    node.kill();
    return { forMs: chance.between(50, 5_000), end: () => node.start() };
  },
  'power off': ({ members, network }, chance) => {
    const node = chance.pick(members);
    network.dark.add(node.machine.name);
    node.kill();
    const end = (): void => {
      network.dark.delete(node.machine.name);
      node.start();
    };
    return { forMs: chance.between(500, 6_000), end };
  },
  stop: ({ members, world }, chance) => {
    const node = chance.pick(members);
    const { process } = node;
    process?.resume();
    node.stop(chance.is(0.5));
    // Its supervisor waits for its end.
    const again = (): void => {
      if (node.process === process && process !== undefined) world.after(200, 'supervisor', again);
      else node.start();
    };
    return { forMs: chance.between(50, 5_000), end: again };
  },
  cut: ({ machines, network }, chance) => {
    const a = chance.pick(machines);
    const b = chance.pick(machines);
    if (a === b) return undefined;
    const directions = chance.is(0.5) ? [`${a.name} ${b.name}`] : [`${a.name} ${b.name}`, `${b.name} ${a.name}`];
    for (const direction of directions) network.cuts.add(direction);
    const end = (): void => {
      for (const direction of directions) network.cuts.delete(direction);
    };
    return { forMs: chance.between(500, 8_000), end };
  },
  isolate: ({ machines, members, network }, chance) => {
    const { machine } = chance.pick(members);
    const directions = machines.flatMap(({ name }) => [`${name} ${machine.name}`, `${machine.name} ${name}`]);
    for (const direction of directions) network.cuts.add(direction);
    const end = (): void => {
      for (const direction of directions) network.cuts.delete(direction);
    };
    return { forMs: chance.between(500, 8_000), end };
  },
  'disk cut': ({ members, disk }, chance) => {
    const { name } = chance.pick(members).machine;
    disk.cut.add(name);
    return { forMs: chance.between(500, 8_000), end: () => void disk.cut.delete(name) };
  },
  'disk full': ({ disk }, chance) => {
    disk.faults.isFull = chance.is(0.5) ? 'data' : 'everything';
    return {
      forMs: chance.between(200, 4_000),
      end: () => {
        disk.faults.isFull = 'no';
      },
    };
  },
  'disk slow': ({ disk }, chance) => {
    disk.faults.slowMs = chance.between(50, 1_500);
    return {
      forMs: chance.between(500, 8_000),
      end: () => {
        disk.faults.slowMs = 0;
      },
    };
  },
  'network slow': ({ network }, chance) => {
    network.slowMs = chance.between(20, 600);
    return {
      forMs: chance.between(500, 8_000),
      end: () => {
        network.slowMs = 0;
      },
    };
  },
  'clock jump': ({ members }, chance) => {
    const byMs = chance.is(0.7) ? 5_000 : 4 * 3_600_000;
    chance.pick(members).machine.wallOffsetMs += chance.between(-byMs, byMs);
    return { forMs: 0, end: nothing };
  },
  'clock rate': ({ members }, chance) => {
    const { machine } = chance.pick(members);
    machine.setRate(chance.between(0.8, 1.2));
    return { forMs: chance.between(1_000, 20_000), end: () => machine.setRate(1) };
  },
  'coordinator down': ({ coordinator }, chance) => {
    coordinator.isDown = true;
    return {
      forMs: chance.between(200, 10_000),
      end: () => {
        coordinator.isDown = false;
      },
    };
  },
  'coordinator fail-over': ({ coordinator }, chance) => {
    coordinator.isDown = true;
    const lostMs = chance.between(200, 3_000);
    return {
      forMs: chance.between(100, 3_500),
      end: () => {
        coordinator.isDown = false;
        coordinator.failOver(lostMs);
      },
    };
  },
  'coordinator forgets': ({ coordinator }) => {
    coordinator.forgetAll();
    return { forMs: 0, end: nothing };
  },
  'coordinator old snapshot': ({ coordinator }, chance) => {
    coordinator.isDown = true;
    const lostMs = chance.between(3_000, 30_000);
    return {
      forMs: chance.between(100, 2_000),
      end: () => {
        coordinator.isDown = false;
        coordinator.failOver(lostMs);
      },
    };
  },
  'coordinator clock': ({ coordinator }, chance) => {
    coordinator.clockOffsetMs += chance.between(-4_000, 4_000);
    return { forMs: 0, end: nothing };
  },
  'power cut': ({ members, disk }, chance) => {
    for (const node of members) node.kill();
    disk.powerCut();
    const end = (): void => {
      for (const node of members) node.start();
    };
    return { forMs: chance.between(100, 3_000), end };
  },
};

/** See the header of this file. */
export class Nemesis {
  readonly counts = new Map<string, number>();
  readonly #targets: Targets;
  readonly #chance: Chance;
  readonly #running = new Set<() => void>();
  #isOver = false;

  constructor(targets: Targets) {
    this.#targets = targets;
    this.#chance = targets.world.chance.fork();
  }

  /** Chooses this seed's kinds, and when each fault comes within `phaseMs`. */
  plan(phaseMs: number): void {
    const chance = this.#chance;
    const { network, disk, coordinator } = this.#targets;
    network.lossShare = chance.pick([0, 0, 0.02, 0.1]);
    if (chance.is(0.5)) Object.assign(disk.faults, { lateShare: 0.03, lateMsMax: 6_000 });
    if (chance.is(0.25)) disk.faults.failShare = 0.003;
    if (chance.is(0.25)) disk.faults.lostReplyShare = 0.005;
    if (chance.is(0.25)) disk.faults.twiceShare = 0.01;
    if (chance.is(0.3)) coordinator.twiceShare = 0.05;
    const kinds = Object.keys(faultKinds).filter(() => chance.is(0.35));
    if (kinds.length > 0) this.#planFaults(kinds, 1 + chance.below(10), phaseMs);
  }

  /** Only what makes writers come late: see `SeedOptions.hasLateWriters`. */
  planLateWriters(phaseMs: number, hasFailOvers: boolean): void {
    Object.assign(this.#targets.disk.faults, { lateShare: 0.01, lateMsMax: 9_000 });
    const kinds = ['pause', 'suspend', 'isolate', 'disk cut'];
    this.#planFaults(kinds, 12, phaseMs);
    if (hasFailOvers) this.#planFaults(['coordinator fail-over', 'coordinator forgets'], 8, phaseMs);
  }

  /** One kind, each time after everybody has had time to recover. */
  planOnly(kind: string, phaseMs: number): void {
    for (let atMs = 5_000; atMs <= phaseMs - apartMs; atMs += apartMs) this.#targets.world.after(atMs, kind, () => this.#strike(kind));
  }

  #planFaults(kinds: readonly string[], count: number, phaseMs: number): void {
    const { world } = this.#targets;
    for (let planned = 0; planned < count; planned += 1) {
      const kind = this.#chance.pick(kinds);
      world.after(this.#chance.between(1_000, phaseMs), kind, () => this.#strike(kind));
    }
  }

  #strike(kind: string): void {
    if (this.#isOver) return;
    const struck = (faultKinds[kind] as Fault)(this.#targets, this.#chance);
    if (struck === undefined) return;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    const end = (): void => {
      if (this.#running.delete(end)) struck.end();
    };
    this.#running.add(end);
    this.#targets.world.after(struck.forMs, `${kind} ends`, end);
  }

  /** Ends what still goes on, and lets nothing more begin. */
  heal(): void {
    this.#isOver = true;
    for (const end of [...this.#running]) end();
    const { network, disk, coordinator, members } = this.#targets;
    network.lossShare = 0;
    coordinator.twiceShare = 0;
    Object.assign(disk.faults, { lateShare: 0, failShare: 0, lostReplyShare: 0, twiceShare: 0 });
    // One that was paused when another fault hit it as well.
    for (const { process } of members) process?.resume();
  }
}
