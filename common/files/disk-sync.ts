/**
 * Brings a file that others write, as the log of a database, to the disk beside the event loop.
 */
import { closeSync, fdatasync, fdatasyncSync, openSync } from 'node:fs';

/** See the header of this file. */
export class DiskSync {
  #file: number | undefined;
  #underWay = 0;
  #isClosing = false;

  /** @param path a file that exists and stays the same one; `undefined` for one that is only in memory, which is always safe */
  constructor(path: string | undefined) {
    if (path !== undefined) this.#file = openSync(path, 'r');
  }

  /** Calls `done` once all that is in the file now is on the disk, or with why it is not. */
  start(done: (failure: Error | undefined) => void): void {
    if (this.#file === undefined) {
      done(undefined);
      return;
    }
    this.#underWay += 1;
    fdatasync(this.#file, (error) => {
      this.#underWay -= 1;
      if (this.#isClosing) this.close();
      done(error ?? undefined);
    });
  }

  /** The same at once. Throws why it is not. */
  now(): void {
    if (this.#file !== undefined) fdatasyncSync(this.#file);
  }

  close(): void {
    this.#isClosing = true;
    if (this.#file === undefined || this.#underWay > 0) return;
    closeSync(this.#file);
    this.#file = undefined;
  }
}
