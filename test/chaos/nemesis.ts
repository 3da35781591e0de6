/** What befalls the installation: one fault after the other, sometimes two at a time; each is ended after a while. `end` ends all. */
import type { Chance } from '#test/sim/world.ts';
import { clusters, frontends, type Installation, membersOf, redisAndSentinels } from './installation.ts';

const members = clusters.flatMap(membersOf);
const startAgainTries = 5;

type Undo = () => Promise<void>;
type Fault = (installation: Installation, chance: Chance) => Promise<{ readonly what: string; readonly forMs: number; readonly end: Undo }>;

async function startAgain(installation: Installation, host: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await installation.restart(host);
      return;
    } catch (error) {
      // Its storage may be full or its Redis away: a supervisor goes on trying.
      if (tries >= startAgainTries) throw error;
    }
  }
}

export const faultKinds: Readonly<Record<string, Fault>> = {
  'kill -9 of a member': async (installation, chance) => {
    const host = chance.pick(members);
    await installation.kill(host);
    return { what: host, forMs: chance.between(200, 5_000), end: () => startAgain(installation, host) };
  },
  'kill -9 of a whole cluster': async (installation, chance) => {
    const cluster = chance.pick(clusters);
    await Promise.all(membersOf(cluster).map((host) => installation.kill(host)));
    const end = async (): Promise<void> => {
      await Promise.all(membersOf(cluster).map((host) => startAgain(installation, host)));
    };
    return { what: cluster, forMs: chance.between(200, 2_000), end };
  },
  'SIGSTOP of a member': async (installation, chance) => {
    const host = chance.pick(members);
    await installation.signal(host, 'SIGSTOP');
    return { what: host, forMs: chance.between(500, 9_000), end: () => installation.signal(host, 'SIGCONT') };
  },
  'kill -9 of a frontend': async (installation, chance) => {
    const host = chance.pick(frontends);
    await installation.kill(host);
    return { what: host, forMs: chance.between(200, 2_000), end: () => startAgain(installation, host) };
  },
  partition: async ({ lab }, chance) => {
    const host = chance.pick(members);
    const isOneWay = chance.is(0.5);
    const others = [...members, ...frontends, ...redisAndSentinels].filter((other) => other !== host && chance.is(0.6));
    for (const other of others) {
      await lab.cut(host, other);
      if (!isOneWay) await lab.cut(other, host);
    }
    return {
      what: `${host}${isOneWay ? ' (one way)' : ''} from ${others.join(' ')}`,
      forMs: chance.between(1_000, 9_000),
      end: () => lab.heal(),
    };
  },
  'disk full': async ({ volumes }, chance) => {
    const cluster = chance.pick(clusters);
    await volumes.get(cluster)?.fill();
    return { what: cluster, forMs: chance.between(500, 5_000), end: async () => volumes.get(cluster)?.empty() };
  },
  'storage stall': async ({ volumes }, chance) => {
    const cluster = chance.pick(clusters);
    await volumes.get(cluster)?.freeze();
    return { what: cluster, forMs: chance.between(500, 6_000), end: async () => volumes.get(cluster)?.thaw() };
  },
  'Redis fail-over': async (installation, chance) => {
    const host = chance.pick(['redis1', 'redis2']);
    await installation.kill(host);
    return { what: host, forMs: chance.between(3_000, 8_000), end: () => installation.restart(host) };
  },
};

/** See the header of this file. */
export class Nemesis {
  readonly counts = new Map<string, number>();
  readonly #installation: Installation;
  readonly #chance: Chance;
  readonly #say: (line: string) => void;
  readonly #kinds: readonly string[];

  constructor(installation: Installation, chance: Chance, say: (line: string) => void) {
    this.#installation = installation;
    this.#chance = chance;
    this.#say = say;
    const canFill = [...installation.volumes.values()].every(({ hasFaults }) => hasFaults);
    this.#kinds = Object.keys(faultKinds).filter(
      (kind) => (kind !== 'partition' || installation.lab.hasCuts) && (canFill || (kind !== 'disk full' && kind !== 'storage stall')),
    );
    if (!installation.lab.hasCuts) say('no network namespaces here: nothing is cut');
    if (!canFill) say('no loop devices here: no disk is filled or stalled');
  }

  /** Strikes until `endMs` of `performance.now()`; all is ended when it resolves. */
  async rage(endMs: number): Promise<void> {
    const chance = this.#chance;
    while (performance.now() < endMs) {
      const kinds = [chance.pick(this.#kinds), ...(chance.is(0.3) ? [chance.pick(this.#kinds)] : [])];
      await Promise.all([...new Set(kinds)].map((kind) => this.#strike(kind)));
      await new Promise((resolve) => setTimeout(resolve, chance.between(500, 4_000)));
    }
  }

  async #strike(kind: string): Promise<void> {
    const { what, forMs, end } = await (faultKinds[kind] as Fault)(this.#installation, this.#chance);
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    this.#say(`${kind}: ${what}, for ${(forMs / 1000).toFixed(1)} s`);
    await new Promise((resolve) => setTimeout(resolve, forMs));
    await end();
  }
}
