/**
 * Files, as the rest of the code is given them: few operations, each with what it promises about durability, so that a double which
 * loses unsynced writes, answers late or fails can stand in for a disk. The real one is node-files.ts.
 *
 * Failures carry the system's code (`ENOENT`, `EEXIST`, `ENOSPC`, `ESTALE`, `EIO` ...) in `code`, as `NodeJS.ErrnoException` does.
 */

/** Operations on files below one or several roots. Paths are absolute. */
export interface Files {
  /** Whole content; `ENOENT` when missing. */
  read(path: string): Promise<Buffer>;
  /** `length` bytes from `offset`; fewer at the end of the file. */
  readRange(path: string, offset: number, length: number): Promise<Buffer>;
  /** Creates the file (fails with `EEXIST`), writes and fsyncs it. Its name is durable only after `syncDirectory`. */
  writeNew(path: string, parts: readonly Uint8Array[]): Promise<void>;
  /** Gives an existing file a second name; `EEXIST` when that name is taken. The name is durable only after `syncDirectory`. */
  link(existing: string, name: string): Promise<void>;
  /** Renames over whatever has the new name. Durable only after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; `ENOENT` when missing. */
  unlink(path: string): Promise<void>;
  /** Creates one directory; `EEXIST` when it is there. */
  mkdir(path: string): Promise<void>;
  /** Creates a directory and its parents; no failure when they are there. Each new name is durable on return. */
  mkdirAll(path: string): Promise<void>;
  /** Removes an empty directory; `ENOENT`, `ENOTEMPTY`. */
  rmdir(path: string): Promise<void>;
  /** Removes a tree; no failure when it is missing. */
  removeTree(path: string): Promise<void>;
  /** Names in a directory, in no order; `ENOENT` when missing. */
  list(path: string): Promise<string[]>;
  /** Size in bytes, or `undefined` when there is no such file. */
  size(path: string): Promise<number | undefined>;
  /** Room on the file system that a path is on, for this process; missing where nobody can tell. */
  room?(path: string): Promise<Room>;
  /** Makes the names in a directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Replaces a file atomically and durably: temporary file, fsync, rename, fsync of the directory. For single-writer files only. */
  replace(path: string, content: Uint8Array | string): Promise<void>;
}

/** Bytes. */
export interface Room {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** The system's error code of anything thrown, e.g. `ENOENT`; `undefined` when it has none. */
export function errnoOf(thrown: unknown): string | undefined {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : undefined;
}
