/**
 * The storage engine `posix`: a directory that all members share. layout.ts draws it, posix-log.ts tells why it is safe.
 */
import type { Clock } from '#common/clock.ts';
import type { Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import { storageFailure } from './failures.ts';
import { storeLayout } from './layout.ts';
import { beginOpening, posixReader } from './posix-log.ts';
import { probeStore } from './probe.ts';
import { FileRecords } from './small-records.ts';
import type { StorageEngine } from './storage-engine.ts';

/** What the engine is given. */
export interface PosixEngineOptions {
  /** The shared directory; absolute. */
  readonly root: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly random: Random;
}

/** Opens the engine, making its directories where they are missing. */
export async function openPosixEngine(options: PosixEngineOptions): Promise<StorageEngine> {
  const { files, clock, random } = options;
  const layout = storeLayout(options.root);
  try {
    for (const directory of [`${layout.root}/accounts`, layout.terms, layout.intents, layout.tmp, layout.tombstones]) {
      await files.mkdirAll(directory);
    }
  } catch (error) {
    throw storageFailure(error, layout.root);
  }
  return {
    terms: new FileRecords(files, random, layout.terms, layout.tmp),
    intents: new FileRecords(files, random, layout.intents, layout.tmp),
    tombstones: new FileRecords(files, random, layout.tombstones, layout.tmp),
    probe: () => probeStore({ files, clock, random, root: layout.root }),
    begin: (uuid, openId) => beginOpening(files, layout, uuid, openId),
    reader: (uuid) => posixReader(files, layout, uuid),
    exists: async (uuid) => (await files.size(layout.account(uuid).log)) !== undefined,
    removeAccount: (uuid) => files.removeTree(layout.account(uuid).directory),
  };
}
