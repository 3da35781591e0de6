/**
 * `Files` on this machine's file system. See files.ts for the promises.
 */
import fs, { constants } from 'node:fs';
import { link, mkdir, open, readdir, rename, rm, rmdir, stat, statfs, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, type Files } from '#common/files/files.ts';

// Descriptors and callbacks, where a commit or an opening passes: a `FileHandle`, or a promise for each call, costs about as much of the
// processor as the call itself.

/** No page of a file is smaller, nor ends elsewhere. */
const sectorBytes = 512;
const readAtOnceMax = 64 * 1_048_576;

/** The real file system. */
export const nodeFiles: Files = {
  read: (path) =>
    withOpen(path, constants.O_RDONLY, (file, done) => {
      fs.fstat(file, (error, stats) => {
        if (error !== null) done(error);
        // What the kernel makes up, and a pipe, tell no size; and this one has words for files that are too large for memory.
        else if (stats.size === 0 || stats.size > readAtOnceMax) fs.readFile(file, done);
        else readFully(file, Buffer.allocUnsafeSlow(stats.size), 0, 0, done);
      });
    }),
  readRange: (path, offset, length) =>
    withOpen(path, constants.O_RDONLY, (file, done) => readFully(file, Buffer.allocUnsafe(length), offset, 0, done)),
  writeNew: (path, parts) =>
    withOpen<void>(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, (file, done) => {
      writeAll(
        file,
        parts.filter((part) => part.byteLength > 0),
        (error) => {
          if (error === null) fs.fdatasync(file, done);
          else done(error);
        },
      );
    }),
  link: (existing, name) => link(existing, name),
  rename: (from, to) => rename(from, to),
  unlink: (path) => unlink(path),
  mkdir: (path) => mkdir(path, { mode: 0o700 }),
  async mkdirAll(path) {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    for (let made = path; ; made = dirname(made)) {
      await syncDirectory(dirname(made));
      if (made === first) return;
    }
  },
  rmdir: (path) => rmdir(path),
  removeTree: (path) => rm(path, { recursive: true, force: true }),
  list: (path) => readdir(path),
  async size(path) {
    try {
      return (await stat(path)).size;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  },
  async room(path) {
    const { bsize, bavail, blocks } = await statfs(path);
    return { freeBytes: bsize * bavail, totalBytes: bsize * blocks };
  },
  syncDirectory,
  async replace(path, content) {
    const directory = dirname(path);
    replacements += 1;
    const temporary = join(directory, `.${process.pid}.${replacements}.tmp`);
    try {
      const handle = await open(temporary, 'w', 0o600);
      try {
        await handle.writeFile(content);
        await handle.datasync();
      } finally {
        await handle.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
    await syncDirectory(directory);
  },
};

let replacements = 0;

type Done<T> = (error: Error | null, value?: T) => void;

/** Opens the file for what `work` does with it. Nobody waits for its close: what was written is synced by then, and of what was only read it can tell nothing. */
function withOpen<T>(path: string, flags: number, work: (file: number, done: Done<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    fs.open(path, flags, 0o600, (failure, file) => {
      if (failure !== null) {
        reject(failure);
        return;
      }
      const done: Done<T> = (error, value) => {
        fs.close(file, () => {});
        if (error === null) resolve(value as T);
        else reject(error);
      };
      try {
        work(file, done);
      } catch (error) {
        done(error as Error);
      }
    });
  });
}

/** Fills the buffer from there on; less at the end of the file. */
function readFully(file: number, buffer: Buffer, offset: number, filled: number, done: Done<Buffer>): void {
  if (filled === buffer.length) {
    done(null, buffer);
    return;
  }
  fs.read(file, buffer, filled, buffer.length - filled, offset + filled, (error, bytesRead) => {
    if (error !== null) {
      done(error, buffer);
      return;
    }
    const now = filled + bytesRead;
    // The kernel gives less than was asked for at the end of the file, or where a page could not be had: at the end of one before it.
    if (bytesRead === 0 || (offset + now) % sectorBytes !== 0) done(null, buffer.subarray(0, now));
    else readFully(file, buffer, offset, now, done);
  });
}

function writeAll(file: number, parts: readonly Uint8Array[], done: (error: Error | null) => void): void {
  fs.writev(file, parts, (error, bytesWritten) => {
    const total = parts.reduce((sum, part) => sum + part.byteLength, 0);
    if (error !== null || bytesWritten === total) done(error);
    // A short write is legal; the rest goes out as one piece.
    else writeAll(file, [Buffer.concat(parts).subarray(bytesWritten)], done);
  });
}

function syncDirectory(path: string): Promise<void> {
  return withOpen<void>(path, constants.O_RDONLY, (directory, done) => fs.fsync(directory, done));
}
