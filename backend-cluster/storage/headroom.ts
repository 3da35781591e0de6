/**
 * Room that new mail may not take: with it an account can be opened, read, marked and emptied on storage that is full, and compaction can
 * give back what was expunged. Without it a full disk could only be helped from outside.
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Room } from '#common/files/files.ts';

/** What is kept free: this share of the storage, and no more than that many bytes. */
const share = 0.02;
const bytesMax = 64 * 1024 * 1024;
/** How long an answer counts, where there is plenty of room. */
const freshMs = 1_000;

/** See the header of this file. */
export class Headroom {
  readonly #clock: Clock;
  readonly #look: (() => Promise<Room>) | undefined;
  #taken = 0;
  #seen: { readonly atMs: number; readonly room: Room } | undefined;
  /** One look at a time: each forgets what was let in before it, and may do so once. */
  #looking: Promise<void> | undefined;

  /** Without `look` there is always room until the storage itself says otherwise. */
  constructor(clock: Clock, look: (() => Promise<Room>) | undefined) {
    this.#clock = clock;
    this.#look = look;
  }

  /** As last seen; compaction should give back what it can. Has a look taken when the last one is old. */
  get isShort(): boolean {
    void this.#refresh(freshMs);
    return this.#seen !== undefined && this.#freeBytes() < 2 * keptBytes(this.#seen.room);
  }

  /** Rejects with `STORE_FULL` when a new message of so many bytes would reach into what is kept. */
  async check(bytes: number): Promise<void> {
    await this.#refresh(freshMs);
    if (this.#seen !== undefined && this.#freeBytes() - bytes < 2 * keptBytes(this.#seen.room)) await this.#refresh(0);
    if (this.#seen === undefined) return;
    const kept = keptBytes(this.#seen.room);
    const free = this.#freeBytes();
    if (free - bytes < kept) {
      throw new PlatformError(
        'STORE_FULL',
        `shared storage has ${free} bytes free; the last ${kept} are kept so that accounts can still be opened and emptied`,
      );
    }
    this.#taken += bytes;
  }

  /** What was let in since the last look counts as written, as a whole. */
  #freeBytes(): number {
    return (this.#seen?.room.freeBytes ?? 0) - this.#taken;
  }

  /** Never rejects: who cannot look goes on, and the write itself tells. */
  async #refresh(olderThanMs: number): Promise<void> {
    const look = this.#look;
    if (look === undefined || (this.#seen !== undefined && this.#clock.monotonicMs() - this.#seen.atMs < olderThanMs)) return;
    this.#looking ??= this.#lookNow(look).finally(() => {
      this.#looking = undefined;
    });
    await this.#looking;
  }

  async #lookNow(look: () => Promise<Room>): Promise<void> {
    const atMs = this.#clock.monotonicMs();
    const taken = this.#taken;
    const room = await look().catch(() => undefined);
    this.#seen = room === undefined ? undefined : { atMs, room };
    this.#taken -= taken;
  }
}

function keptBytes({ totalBytes }: Room): number {
  return Math.min(bytesMax, Math.floor(totalBytes * share));
}
