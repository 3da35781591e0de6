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

/** Where a design would have its fencing tokens from. */
export interface TokenSource {
  next(): number;
}

/**
 * A token from the coordinator decides who writes: the storage refuses one lower than it has seen for the account, and takes whatever
 * comes with that or a higher one. The coordinator may give a number twice.
 */
export function withTokenFrom(tokens: TokenSource, highest: Map<string, number>): (files: Files) => Files {
  return (files) => {
    const own = new Map<string, number>();
    const rest = withoutRevocation(files);
    return {
      ...rest,
      mkdir: (path) => {
        const account = /^(.*)\/stage\/[^/]+$/.exec(path)?.[1];
        if (account !== undefined) {
          const token = tokens.next();
          own.set(account, token);
          highest.set(account, Math.max(token, highest.get(account) ?? 0));
        }
        return rest.mkdir(path);
      },
      link: async (existing, name) => {
        const account = /^(.*)\/log\/\d+$/.exec(name)?.[1];
        if (account === undefined) return files.link(existing, name);
        const token = own.get(account) ?? 0;
        const seen = highest.get(account) ?? 0;
        if (token < seen) throw Object.assign(new Error(`token ${token} is older than ${seen}`), { code: 'ENOENT' });
        highest.set(account, token);
        return files.rename(existing, name);
      },
    };
  };
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
