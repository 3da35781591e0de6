/**
 * A directory that always answers, after a while: the faults of directories are another simulation's.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { DirectoryChange, DirectoryFollower, DirectoryReader, DirectoryWriter, LookupAnswer } from '#directory/client/directory.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { SimProcess } from './machine.ts';
import type { World } from './world.ts';

/** See the header of this file. */
export class SimDirectory {
  readonly world: World;
  readonly records: readonly AccountRecord[];

  constructor(world: World, records: readonly AccountRecord[]) {
    this.world = world;
    this.records = records;
  }

  follow(process: SimProcess, onChange: (change: DirectoryChange) => void): DirectoryFollower {
    let isRefreshed = false;
    this.world.after(20, 'directory', () =>
      process.deliver('directory', () => {
        for (const record of this.records) onChange({ type: 'put', record });
        onChange({ type: 'refreshed', cookie: undefined });
        isRefreshed = true;
      }),
    );
    return {
      status: () => ({
        server: 'simulated',
        state: isRefreshed ? 'following' : 'connecting',
        refreshedOnce: isRefreshed,
        silentMs: 0,
        changes: 0,
        lastError: undefined,
      }),
      whenRefreshed: async () => {},
      [Symbol.asyncDispose]: async () => {},
    };
  }

  readerFor(process: SimProcess): DirectoryReader {
    const answer = (record: AccountRecord | undefined): Promise<LookupAnswer> =>
      new Promise((resolve) => {
        const found = { record, server: 'simulated', authoritative: true };
        this.world.after(5, 'look-up', () => process.deliver('look-up', () => resolve(found)));
      });
    return {
      findAccount: (name: AccountName) => answer(this.records.find((record) => record.name === name)),
      findAccountByUuid: (uuid: AccountUuid) => answer(this.records.find((record) => record.uuid === uuid)),
      findDomain: async () => undefined,
      listAccounts: async () => this.records,
      listClusters: async () => [],
      servers: async () => [],
      [Symbol.asyncDispose]: async () => {},
    };
  }

  /** Nothing is written in this simulation. */
  get writer(): DirectoryWriter {
    const refuse = async (): Promise<never> => {
      throw new PlatformError('DIR_REFUSED', 'this directory does not change');
    };
    return {
      createAccount: refuse,
      renameAccount: refuse,
      removeAccount: refuse,
      setPassword: refuse,
      setStatus: refuse,
      createDomain: refuse,
      [Symbol.asyncDispose]: async () => {},
    };
  }
}
