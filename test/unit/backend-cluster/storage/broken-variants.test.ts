/**
 * The histories must be able to fail. Each store here has one safeguard taken away, as a simpler design would have it, and the ledger
 * must find acknowledged mail lost or UIDs given twice.
 */
import { describe, expect, it } from 'vitest';
import type { Files } from '#common/files/files.ts';
import type { Fault } from '#test/fakes/memory-files.ts';
import { countOperations, history, type PowerCut } from './histories.ts';

/** Old slots are removed, but nobody's staging directory is: a sleeper finds its slot's number free again. */
function withoutRevocation(files: Files): Files {
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
function withLeaseOnly(files: Files): Files {
  return { ...withoutRevocation(files), link: (existing, name) => files.rename(existing, name) };
}

/** Commits are answered before their names are on disk. */
function withoutDirectorySync(files: Files): Files {
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

describe('a store with a safeguard taken away', () => {
  const variants: [string, (files: Files) => Files, Fault, PowerCut, RegExp][] = [
    ['compaction without revocation', withoutRevocation, { kind: 'held' }, 'no power cut', /I3: .* is lost/],
    ['writes under a lease alone', withLeaseOnly, { kind: 'held' }, 'no power cut', /I3: .* is lost/],
    ['commits that are not made durable', withoutDirectorySync, { kind: 'dies-after' }, 'names lost', /I3: .* is lost/],
  ];

  it.each(variants)('is caught: %s', async (_, through, fault, cut, expected) => {
    const operations = await countOperations();
    const caught: string[] = [];
    for (let index = 0; index < operations && caught.length < 3; index += 1) {
      const found = await history(index, fault, cut, through).catch((error: unknown) => [`the history ended early: ${String(error)}`]);
      caught.push(...found.filter((violation) => expected.test(violation)));
    }
    expect(caught.length).toBeGreaterThanOrEqual(3);
  });
});
