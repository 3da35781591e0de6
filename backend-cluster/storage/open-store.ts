/**
 * The account store on a shared directory: puts the parts together. account-store.ts says what it promises.
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
import { storeLayout } from './layout.ts';
import { openAccount } from './open-account.ts';
import { beginOpening, posixReader } from './posix-log.ts';
import { probeStore } from './probe.ts';
import { SmallRecords } from './small-records.ts';
import { storeMetrics } from './store-metrics.ts';
import { claimTerm, highestTerm, readTerm } from './terms.ts';
import { listTombstones, writeTombstone } from './tombstones.ts';

/** What the store is given. */
export interface AccountStoreOptions {
  /** The directory that all members of the cluster share; absolute. */
  readonly root: string;
  readonly files: Files;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Other than the usual values; for tests. */
  readonly tuning?: Partial<AccountTuning>;
}

/** Opens the store, making its directories where they are missing. */
export async function openAccountStore(options: AccountStoreOptions): Promise<AccountStore> {
  const { files, clock, random } = options;
  const layout = storeLayout(options.root);
  const logger = options.log.child({ component: 'storage' });
  try {
    for (const directory of [`${layout.root}/accounts`, layout.terms, layout.intents, layout.tmp, layout.tombstones]) {
      await files.mkdirAll(directory);
    }
  } catch (error) {
    throw storageFailure(error, layout.root);
  }
  const terms = new SmallRecords(files, random, layout.terms, layout.tmp);
  const tombstones = new SmallRecords(files, random, layout.tombstones, layout.tmp);
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
    begin: (uuid: AccountUuid, openId: string) => beginOpening(files, layout, uuid, openId),
    async checkNotRemoved(uuid: AccountUuid): Promise<void> {
      if (await tombstones.has(uuid))
        throw new PlatformError('ACCT_REMOVED', `account ${uuid} was removed; its storage is kept for a while`);
    },
    ended: (account: StoredAccountOverLog) => void open.delete(account),
  };

  return {
    probe: () => probeStore({ files, clock, random, root: layout.root }),
    async open(uuid, opening) {
      const account = await openAccount(opener, uuid, opening);
      if (account.isOpen) open.add(account);
      return account;
    },
    async state(uuid) {
      if (await tombstones.has(uuid)) return 'tombstone';
      try {
        return (await files.size(layout.account(uuid).log)) === undefined ? 'absent' : 'present';
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    },
    async entomb(uuid, { name, removedAtMs }) {
      await writeTombstone(tombstones, { uuid, name, removedAtMs });
      // Whoever has it open cannot commit any more.
      try {
        if ((await files.size(layout.account(uuid).stage)) === undefined) return;
        const opening = await beginOpening(files, layout, uuid, `entomb.${random.uuid()}`);
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
        await files.removeTree(layout.account(uuid).directory);
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
      await tombstones.remove(uuid);
      logger.info({ account: uuid }, 'storage of a removed account was purged');
    },
    highestTerm: () => highestTerm(terms),
    claimTerm: (term, claim) => claimTerm(terms, term, claim),
    readTerm: (term) => readTerm(terms, term),
    intents: storedIntents(new SmallRecords(files, random, layout.intents, layout.tmp)),
    async checkAccount(uuid) {
      try {
        return await checkAccount(posixReader(files, layout, uuid), uuid);
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    },
  };
}
