/**
 * The account store over a storage engine: puts the parts together. account-store.ts says what it promises.
 */
import { type AccountTuning, type StoredAccountOverLog, usualTuning } from '#backend-cluster/mailboxes/stored-account.ts';
import type { AccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import { summarise } from '#protocol/mime/summary.ts';
import { lookingOnly } from './account-log.ts';
import type { AccountCheck, AccountStore, DamagedAccount, Finding } from './account-store.ts';
import { checkAccount } from './check-account.ts';
import { listDamage, markRepairing, noteDamage, readDamage } from './damage.ts';
import { storageFailure } from './failures.ts';
import { Headroom } from './headroom.ts';
import { storedIntents } from './intents.ts';
import { openAccount } from './open-account.ts';
import { openPosixEngine } from './posix-engine.ts';
import { repairAccount } from './repair-account.ts';
import type { BucketOptions } from './s3/bucket.ts';
import { openS3Engine } from './s3/s3-engine.ts';
import { parseStoredJson } from './small-records.ts';
import type { StorageEngine } from './storage-engine.ts';
import { storeMetrics } from './store-metrics.ts';
import { claimTerm, highestTerm, readTerm } from './terms.ts';
import { listTombstones, writeTombstone } from './tombstones.ts';

/** Longest time for which a repair keeps others from opening its account: it may have died. */
const repairMs = 900_000;

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
  const { terms, tombstones, damaged } = engine;
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
    guessesEnd: engine.guessesEnd === true,
    begin: (uuid: AccountUuid, openId: string) => engine.begin(uuid, openId),
    reader: (uuid: AccountUuid) => engine.reader(uuid),
    headroom: new Headroom(clock, engine.room),
    async checkNotRemoved(uuid: AccountUuid): Promise<void> {
      if (await tombstones.has(uuid))
        throw new PlatformError('ACCT_REMOVED', `account ${uuid} was removed; its storage is kept for a while`);
    },
    async isDamaged(uuid: AccountUuid): Promise<boolean> {
      const known = await readDamage(damaged, uuid);
      if ((known?.repairingUntilMs ?? 0) > clock.nowMs()) {
        throw new PlatformError('STORE_UNAVAILABLE', `account ${uuid} is being repaired`);
      }
      return known !== undefined;
    },
    async noteDamage(uuid: AccountUuid, findings: readonly Finding[], foundBy: string): Promise<void> {
      await noteDamage(damaged, { uuid, findings, foundAtMs: clock.nowMs(), foundBy }).catch((error: unknown) => {
        logger.warn({ account: uuid, cause: messageOf(error) }, 'damage could not be remembered: it is found again at the next look');
      });
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
    intents: storedIntents(engine.intents, logger),
    async checkAccount(uuid, request = {}) {
      const mark = async (findings: readonly Finding[]): Promise<void> => {
        if (request.isMarking !== true) return;
        for (const { file, problem } of findings) {
          metrics.corruptionFound();
          logger.error({ errCode: 'STORE_CORRUPT', account: uuid, file }, `${file}: ${problem}; archipelago store repair ${uuid}`);
        }
        await opener.noteDamage(uuid, findings, 'check');
      };
      let check: AccountCheck;
      try {
        check = await checkAccount(engine.reader(uuid), uuid, request.pace);
      } catch (error) {
        const failure = storageFailure(error, `accounts/${uuid}`);
        // Not even where its parts are can be read, so it cannot be opened at all; it is listed all the same.
        if (failure.code === 'STORE_CORRUPT') await mark([{ file: `accounts/${uuid}`, problem: failure.message }]);
        throw failure;
      }
      if (!check.isComplete) await mark(check.findings);
      return check;
    },
    accounts: (after) => engine.accounts(after),
    listDamaged: (limit) => listDamage(damaged, limit),
    damageOf: (uuid) => readDamage(damaged, uuid),
    async repair(uuid, request) {
      const known = await readDamage(damaged, uuid);
      const nowMs = clock.nowMs();
      try {
        if (!(await engine.exists(uuid))) throw new PlatformError('ACCT_NOT_FOUND', `there is no account ${uuid} in this storage`);
        if (request.isDryRun) return await repairAccount({ ...request, ...repairParts(uuid), log: lookingOnly(engine.reader(uuid)) });
        await markRepairing(damaged, known ?? { uuid, findings: [], foundAtMs: nowMs, foundBy: 'repair' }, nowMs + repairMs);
        const log = await engine.begin(uuid, request.opening.openId);
        const repair = await repairAccount({ ...request, ...repairParts(uuid), log });
        await log.end();
        if (repair.outcome === 'repaired' || repair.outcome === 'whole') await damaged.remove(uuid);
        else await noteRepairOver(repair.findings, known, uuid);
        return repair;
      } catch (error) {
        if (!request.isDryRun) await noteRepairOver([], known, uuid).catch(() => {});
        throw storageFailure(error, `accounts/${uuid}`);
      }
    },
    async adopt(entombed, by) {
      if (!(await tombstones.has(entombed)))
        throw new PlatformError('ACCT_NOT_FOUND', `account ${entombed} has no tombstone: it is not removed`);
      try {
        await engine.moveAccount(entombed, by);
      } catch (error) {
        throw storageFailure(error, `accounts/${entombed}`);
      }
      await tombstones.remove(entombed);
    },
    notes: {
      async read(name) {
        const text = await engine.notes.read(name);
        return text === undefined ? undefined : parseStoredJson(text, `cluster/notes/${name}`);
      },
      write: (name, value) => engine.notes.replace(name, JSON.stringify(value)),
      create: (name, value) => engine.notes.create(name, JSON.stringify(value)),
      names: () => engine.notes.names(),
      remove: (name) => engine.notes.remove(name),
    },
  };

  function repairParts(uuid: AccountUuid) {
    return { uuid, nowMs: clock.nowMs(), nonce: random.bytes(16).toString('hex'), summarise };
  }

  /** It could not be repaired: it may be opened again, read-only as before. */
  async function noteRepairOver(findings: readonly Finding[], known: DamagedAccount | undefined, uuid: AccountUuid): Promise<void> {
    await damaged.remove(uuid);
    const all = known?.findings ?? findings;
    if (all.length > 0)
      await noteDamage(damaged, { uuid, findings: all, foundAtMs: known?.foundAtMs ?? clock.nowMs(), foundBy: known?.foundBy ?? 'repair' });
  }
}
