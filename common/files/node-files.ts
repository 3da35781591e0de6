/**
 * `Files` on this machine's file system. See files.ts for the promises.
 */
import fs, { constants } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, rmdir, stat, statfs, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { errnoOf, type Files } from '#common/files/files.ts';

// Descriptors, where a commit or an opening passes: a `FileHandle` for each costs about as much of the processor as the call itself.
const openFile = promisify(fs.open);
const closeFile = promisify(fs.close);
const readFrom = promisify(fs.read);
const writeParts = promisify(fs.writev);
const writeTo = promisify(fs.write);
const syncData = promisify(fs.fdatasync);
const syncAll = promisify(fs.fsync);

/** The real file system. */
export const nodeFiles: Files = {
  read: (path) => readFile(path),
  async readRange(path, offset, length) {
    const file = await openFile(path, constants.O_RDONLY);
    try {
      const buffer = Buffer.allocUnsafe(length);
      let filled = 0;
      while (filled < length) {
        const { bytesRead } = await readFrom(file, buffer, filled, length - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return buffer.subarray(0, filled);
    } finally {
      await closeFile(file);
    }
  },
  async writeNew(path, parts) {
    const file = await openFile(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600);
    try {
      const total = parts.reduce((sum, part) => sum + part.byteLength, 0);
      let { bytesWritten } = await writeParts(
        file,
        parts.filter((part) => part.byteLength > 0),
      );
      if (bytesWritten < total) {
        // A short write is legal; the rest goes out as one piece.
        const whole = Buffer.concat(parts);
        while (bytesWritten < total) bytesWritten += (await writeTo(file, whole, bytesWritten)).bytesWritten;
      }
      await syncData(file);
    } finally {
      await closeFile(file);
    }
  },
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

async function syncDirectory(path: string): Promise<void> {
  const directory = await openFile(path, constants.O_RDONLY);
  try {
    await syncAll(directory);
  } finally {
    await closeFile(directory);
  }
}
