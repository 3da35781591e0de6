/**
 * Tries the entries that a replica refused again: at once or soon, then less and less often. What stood in the way may have been another
 * change, or a schema that is mended by now.
 *
 * What counts is the master's state, which must be one that the replica may be given: a master that was restored from an older backup, or is
 * away, is not asked.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import type { Pipeline } from '#replication/pipeline.ts';
import type { Quarantine } from '#replication/quarantine.ts';

/** When they are tried again: first, and at last. */
export const refusedAgainMs = 500;
const refusedAgainMaxMs = 60_000;

/** See the header of this file. Of a replica that is connected; `cancel` when it is not any more. */
export class RefusedAgain {
  readonly #ports: { readonly clock: Clock; readonly random: Random };
  readonly #quarantine: Pick<Quarantine, 'size' | 'list'>;
  readonly #pipeline: Pick<Pipeline, 'hasRoom' | 'isPending' | 'push'>;
  readonly #isFollowing: () => boolean;
  #timer: Timer | undefined;

  /** `isFollowing`: whether the replica follows the master at this moment. */
  constructor(
    ports: { readonly clock: Clock; readonly random: Random },
    quarantine: Pick<Quarantine, 'size' | 'list'>,
    pipeline: Pick<Pipeline, 'hasRoom' | 'isPending' | 'push'>,
    isFollowing: () => boolean,
  ) {
    this.#ports = ports;
    this.#isFollowing = isFollowing;
    this.#quarantine = quarantine;
    this.#pipeline = pipeline;
  }

  /** Tries them after that time, roughly, and goes on with growing pauses while there are any. */
  tryFrom(delayMs: number): void {
    const { clock, random } = this.#ports;
    this.#timer?.cancel();
    this.#timer = clock.after(jitteredMs(random, delayMs), () => {
      if (this.#quarantine.size === 0) return;
      if (!this.#isFollowing()) {
        this.tryFrom(Math.max(refusedAgainMs, delayMs));
        return;
      }
      this.#tryNow();
      this.tryFrom(Math.min(refusedAgainMaxMs, Math.max(refusedAgainMs, delayMs * 2)));
    });
  }

  cancel(): void {
    this.#timer?.cancel();
  }

  #tryNow(): void {
    for (const { uuid, dn } of this.#quarantine.list(this.#quarantine.size)) {
      if (!this.#pipeline.hasRoom) return;
      if (this.#pipeline.isPending(uuid)) continue;
      this.#pipeline.push({
        uuid,
        entry: { dn, attributes: [] },
        isNew: false,
        cookie: undefined,
        receivedMs: this.#ports.clock.monotonicMs(),
        isCheck: true,
      });
    }
  }
}
