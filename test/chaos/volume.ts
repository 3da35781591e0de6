/**
 * A file system of its own, in a file, for the storage of one cluster: it can be filled to the last block, and be made to stand still as
 * a storage that does not answer. Needs root and loop devices; the mount is seen by this process and those it
 * starts. Without, it is a directory like any other, and nothing can befall it.
 */
import { execFile } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const megabytes = 160;

/** See the header of this file. */
export class Volume {
  readonly path: string;
  readonly hasFaults: boolean;
  #isFrozen = false;

  private constructor(path: string, hasFaults: boolean) {
    this.path = path;
    this.hasFaults = hasFaults;
  }

  static async create(path: string): Promise<Volume> {
    const image = `${path}.img`;
    await mkdir(path, { recursive: true });
    try {
      await run('truncate', ['-s', `${megabytes}M`, image]);
      await run('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
      await run('mount', ['-o', 'loop', image, path]);
      return new Volume(path, true);
    } catch {
      await rm(image, { force: true });
      return new Volume(path, false);
    }
  }

  /**
   * Takes away what a run that was ended by force left of the volume at `path`. Its mount may have gone with the namespace that saw it, and
   * a frozen file system outlives that: it is mounted once more, because that is how it is thawed.
   */
  static async sweep(path: string): Promise<void> {
    const image = `${path}.img`;
    const { stdout } = await run('losetup', ['-n', '-O', 'NAME', '-j', image]).catch(() => ({ stdout: '' }));
    for (const device of stdout.split('\n').filter((line) => line !== '')) {
      await run('mount', [device, path]).catch(() => {});
      await run('fsfreeze', ['-u', path]).catch(() => {});
      await run('umount', [path]).catch(() => run('umount', ['-l', path]).catch(() => {}));
    }
  }

  /** Nothing can be written any more. */
  async fill(): Promise<void> {
    // The first takes what can be had in one piece, the second the rest; that it fails is the point.
    await run('fallocate', ['-l', `${megabytes}M`, `${this.path}/ballast`]).catch(() => {});
    await run('dd', ['if=/dev/zero', `of=${this.path}/ballast`, 'bs=64K', 'oflag=append', 'conv=notrunc']).catch(() => {});
  }

  async empty(): Promise<void> {
    await rm(`${this.path}/ballast`, { force: true });
  }

  /** Whoever writes waits. */
  async freeze(): Promise<void> {
    this.#isFrozen = true;
    await run('fsfreeze', ['-f', this.path]);
  }

  async thaw(): Promise<void> {
    if (!this.#isFrozen) return;
    this.#isFrozen = false;
    await run('fsfreeze', ['-u', this.path]);
  }

  async remove(): Promise<void> {
    if (!this.hasFaults) return;
    await this.thaw().catch(() => {});
    await run('umount', [this.path]).catch(() => run('umount', ['-l', this.path]));
    await rm(`${this.path}.img`, { force: true });
  }
}
