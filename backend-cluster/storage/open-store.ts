/**
 * The account store over a storage engine: puts the parts together. account-store.ts says what it promises.
 */
import { type AccountTuning, type StoredAccountOverLog, usualTuning } from '#backend-cluster/mailboxes/stored-account.ts';
import type { AccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import type { AccountStore } from './account-store.ts';
import { checkAccount } from './check-account.ts';
import { storageFailure } from './failures.ts';
import { storedIntents } from './intents.ts';
import { openAccount } from './open-account.ts';
import { openPosixEngine } from './posix-engine.ts';
import type { BucketOptions } from './s3/bucket.ts';
import { openS3Engine } from './s3/s3-engine.ts';
import type { StorageEngine } from './storage-engine.ts';
import { storeMetrics } from './store-metrics.ts';
import { claimTerm, highestTerm, readTerm } from './terms.ts';
import { listTombstones, writeTombstone } from './tombstones.ts';

/** What every store is given. */
export interface StoreParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Other than the usual values; for tests. */
  readonly tuning?: Partial<AccountTuning>;
}

/** What the store on a shared directory is given. */
export interface AccountStoreOptions extends StoreParts {
  /** The directory that all members of the cluster share; absolute. */
  readonly root: string;
  readonly files: Files;
}

/** Opens the store on a shared directory, making its directories where they are missing. */
export async function openAccountStore(options: AccountStoreOptions): Promise<AccountStore> {
  return storeOver(await openPosixEngine(options), options);
}

/** Opens the store in a bucket of an S3 server. */
export function openBucketStore(bucket: BucketOptions, parts: StoreParts): AccountStore {
  return storeOver(openS3Engine(bucket), parts);
}

/** The store over an engine. */
export function storeOver(engine: StorageEngine, options: StoreParts): AccountStore {
  const { clock, random } = options;
  const { terms, tombstones } = engine;
  const logger = options.log.child({ component: 'storage' });
  const open = new Set<StoredAccountOverLog>();
  const metrics = storeMetrics(options.metrics, () => ({
    accounts: open.size,
    bytes: [...open].reduce((sum, account) => sum + account.memoryBytes, 0),
  }));
  const opener = {
    clock,
    random,
    logger,
    metrics,
    tuning: { ...usualTuning, ...options.tuning },
    begin: (uuid: AccountUuid, openId: string) => engine.begin(uuid, openId),
    async checkNotRemoved(uuid: AccountUuid): Promise<void> {
      if (await tombstones.has(uuid))
        throw new PlatformError('ACCT_REMOVED', `account ${uuid} was removed; its storage is kept for a while`);
    },
    ended: (account: StoredAccountOverLog) => void open.delete(account),
  };

  return {
    probe: () => engine.probe(),
    async open(uuid, opening) {
      const account = await openAccount(opener, uuid, opening);
      if (account.isOpen) open.add(account);
      return account;
    },
    async state(uuid) {
      if (await tombstones.has(uuid)) return 'tombstone';
      try {
        return (await engine.exists(uuid)) ? 'present' : 'absent';
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    },
    async entomb(uuid, { name, removedAtMs }) {
      await writeTombstone(tombstones, { uuid, name, removedAtMs });
      // Whoever has it open cannot commit any more.
      try {
        if (!(await engine.exists(uuid))) return;
        const opening = await engine.begin(uuid, `entomb.${random.uuid()}`);
        await opening.end();
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    },
    listTombstones: () => listTombstones(tombstones),
    restore: (uuid) => tombstones.remove(uuid),
    async purge(uuid) {
      if (!(await tombstones.has(uuid))) throw new PlatformError('ACCT_EXISTS', `account ${uuid} has no tombstone: it is not removed`);
      try {
        await engine.removeAccount(uuid);
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
      await tombstones.remove(uuid);
      logger.info({ account: uuid }, 'storage of a removed account was purged');
    },
    highestTerm: () => highestTerm(terms),
    claimTerm: (term, claim) => claimTerm(terms, term, claim),
    readTerm: (term) => readTerm(terms, term),
    intents: storedIntents(engine.intents),
    async checkAccount(uuid) {
      try {
        return await checkAccount(engine.reader(uuid), uuid);
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    },
  };
}
