/**
 * The storage engine `posix`: a directory that all members share. layout.ts draws it, posix-log.ts tells why it is safe.
 */
import { type AccountUuid, tryParseAccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import { storageFailure } from './failures.ts';
import { type StoreLayout, storeLayout } from './layout.ts';
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
    for (const directory of [
      `${layout.root}/accounts`,
      layout.terms,
      layout.intents,
      layout.tmp,
      layout.tombstones,
      layout.damaged,
      layout.notes,
    ]) {
      await files.mkdirAll(directory);
    }
  } catch (error) {
    throw storageFailure(error, layout.root);
  }
  return {
    terms: new FileRecords(files, random, layout.terms, layout.tmp),
    intents: new FileRecords(files, random, layout.intents, layout.tmp),
    tombstones: new FileRecords(files, random, layout.tombstones, layout.tmp),
    damaged: new FileRecords(files, random, layout.damaged, layout.tmp),
    notes: new FileRecords(files, random, layout.notes, layout.tmp),
    probe: () => probeStore({ files, clock, random, root: layout.root }),
    begin: (uuid, openId) => beginOpening(files, layout, uuid, openId),
    guessesEnd: true,
    reader: (uuid) => posixReader(files, layout, uuid),
    exists: async (uuid) => (await files.size(layout.account(uuid).log)) !== undefined,
    ...(files.room === undefined ? {} : { room: async () => (files.room as NonNullable<Files['room']>)(layout.root) }),
    accounts: (after) => listAccounts(files, layout.root, after),
    moveAccount: (from, to) => moveAccount(files, layout, from, to),
    removeAccount: (uuid) => files.removeTree(layout.account(uuid).directory),
  };
}

/** Directory by directory, so that neither memory nor the time to the first one grows with the number of accounts. */
async function* listAccounts(files: Files, root: string, after: string): AsyncGenerator<AccountUuid> {
  const below = async (directory: string, from: string): Promise<string[]> => {
    try {
      return (await files.list(directory)).filter((name) => name >= from).sort();
    } catch (error) {
      // Removed since its parent was listed.
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  };
  const [firstStart, secondStart] = [after.slice(0, 2), after.slice(2, 4)];
  for (const first of await below(`${root}/accounts`, firstStart)) {
    for (const second of await below(`${root}/accounts/${first}`, first === firstStart ? secondStart : '')) {
      for (const name of await below(`${root}/accounts/${first}/${second}`, after)) {
        const uuid = tryParseAccountUuid(name);
        if (uuid !== undefined && uuid > after) yield uuid;
      }
    }
  }
}

/** A rename: whoever still has the account open under its old name finds its staging directory gone. */
async function moveAccount(files: Files, layout: StoreLayout, from: AccountUuid, to: AccountUuid): Promise<void> {
  const [source, target] = [layout.account(from).directory, layout.account(to).directory];
  const parentOf = (path: string): string => path.slice(0, path.lastIndexOf('/'));
  await files.mkdirAll(parentOf(target));
  try {
    await files.rename(source, target);
  } catch (error) {
    const isDone = errnoOf(error) === 'ENOENT' && (await files.size(layout.account(to).log)) !== undefined;
    if (!isDone) throw error;
  }
  await files.syncDirectory(parentOf(target));
  await files.syncDirectory(parentOf(source)).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}
