/**
 * Writes the snapshot of routes when they have changed, and at the end; and has the directory read anew when too many removed accounts
 * may have left addresses behind in the index.
 */
import type { Timer } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { ResumableFollower } from '#directory/client/directory.ts';
import type { RouteSnapshots } from './route-snapshot.ts';
import type { Routes } from './routes.ts';

/** Leftovers that are borne: so many, or this share of all addresses. */
const leftoversMax = { count: 10_000, share: 0.05 };

/** What it is made of. */
export interface SnapshotKeeperOptions {
  readonly snapshots: RouteSnapshots | undefined;
  /** When the snapshot that was read at the start was taken; wall clock. */
  readonly takenAtMs: number | undefined;
  readonly routes: Routes;
  readonly follower: ResumableFollower;
  readonly everyMs: number;
  readonly ports: Pick<Ports, 'clock' | 'log'>;
}

/** See the header of this file. */
export class SnapshotKeeper {
  readonly #options: SnapshotKeeperOptions;
  readonly #timer: Timer;
  #takenAtMs: number | undefined;
  /** Changes that the last snapshot holds, as the follower counts them; -1: those of an earlier process. */
  #changes: number;
  #isFrozen = false;

  constructor(options: SnapshotKeeperOptions) {
    this.#options = options;
    this.#takenAtMs = options.takenAtMs;
    this.#changes = options.takenAtMs === undefined ? -1 : 0;
    this.#timer = options.ports.clock.every(options.everyMs, () => void this.#tick());
  }

  /** Age of the snapshot on disk; `undefined` when there is none. */
  ageMs(): number | undefined {
    return this.#takenAtMs === undefined ? undefined : Math.max(0, this.#options.ports.clock.nowMs() - this.#takenAtMs);
  }

  /** Writes what has changed, and from then on nothing until `thaw`: the directory is another process's. */
  async freeze(): Promise<void> {
    await this.#write();
    this.#isFrozen = true;
  }

  thaw(): void {
    this.#isFrozen = false;
  }

  /** Writes what has changed; call it while the follower still has its position. */
  async stop(): Promise<void> {
    this.#timer.cancel();
    await this.#write();
  }

  async #tick(): Promise<void> {
    const { routes, follower, ports } = this.#options;
    if (routes.leftovers > Math.max(leftoversMax.count, routes.index.addresses * leftoversMax.share)) {
      ports.log.info({ leftovers: routes.leftovers }, 'the directory is read anew: many removed accounts may have left addresses behind');
      follower.refresh();
      return;
    }
    await this.#write();
  }

  async #write(): Promise<void> {
    const { snapshots, routes, follower, ports } = this.#options;
    const position = follower.position();
    const { changes } = follower.status();
    if (this.#isFrozen || snapshots === undefined || position === undefined || changes === this.#changes) return;
    try {
      const atMs = ports.clock.nowMs();
      await snapshots.write(routes, position);
      this.#takenAtMs = atMs;
      this.#changes = changes;
    } catch (error) {
      ports.log.warn(
        { component: 'routes' },
        `the snapshot of routes could not be written; a restart will read them anew: ${messageOf(error)}`,
      );
    }
  }
}
