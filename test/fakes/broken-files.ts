/**
 * Files through which a store loses one of its safeguards, as a simpler design would have it. A test of safety that passes over these is
 * no test.
 */
import type { Files } from '#common/files/files.ts';

/** Old slots are removed, but nobody's staging directory is: a sleeper finds its slot's number free again. */
export function withoutRevocation(files: Files): Files {
  const own = new Set<string>();
  return {
    ...bound(files),
    mkdir: (path) => {
      own.add(path);
      return files.mkdir(path);
    },
    list: async (path) => (await files.list(path)).filter((name) => !path.endsWith('/stage') || own.has(`${path}/${name}`)),
  };
}

/** A lease alone decides who writes: nobody is revoked, and slots are put into place by rename, so whoever comes last has them. */
export function withLeaseOnly(files: Files): Files {
  return { ...withoutRevocation(files), link: (existing, name) => files.rename(existing, name) };
}

/** Commits are answered before their names are on disk. */
export function withoutDirectorySync(files: Files): Files {
  return { ...bound(files), syncDirectory: () => Promise.resolve() };
}

function bound(files: Files): Files {
  return {
    read: (path) => files.read(path),
    readRange: (path, offset, length) => files.readRange(path, offset, length),
    writeNew: (path, parts) => files.writeNew(path, parts),
    link: (existing, name) => files.link(existing, name),
    rename: (from, to) => files.rename(from, to),
    unlink: (path) => files.unlink(path),
    mkdir: (path) => files.mkdir(path),
    mkdirAll: (path) => files.mkdirAll(path),
    rmdir: (path) => files.rmdir(path),
    removeTree: (path) => files.removeTree(path),
    list: (path) => files.list(path),
    size: (path) => files.size(path),
    syncDirectory: (path) => files.syncDirectory(path),
    replace: (path, content) => files.replace(path, content),
  };
}
