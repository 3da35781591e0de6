/**
 * Opening an account: revoke every other opening, read what is there, commit the opening as a record. posix-log.ts tells why this is safe.
 */

import { initialRecords } from '#backend-cluster/mailboxes/mailbox-changes.ts';
import { type AccountTuning, StoredAccountOverLog } from '#backend-cluster/mailboxes/stored-account.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, withTimeout } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Random } from '#common/random.ts';
import { type AccountReader, LateLog, lookingOnly, type OpeningLog } from './account-log.ts';
import type { AccountOpening, Finding } from './account-store.ts';
import { isFull, storageFailure } from './failures.ts';
import type { Headroom } from './headroom.ts';
import { type AccountHistory, readHistory } from './history.ts';
import type { LogRecord } from './records.ts';
import { encodeSlot } from './slot.ts';
import type { StoreMetrics } from './store-metrics.ts';

/** What opening needs. */
export interface OpenerParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  readonly tuning: AccountTuning;
  /** `beginOpening` of the engine: the opening's directory is made and all others are revoked. */
  begin(uuid: AccountUuid, openId: string): Promise<OpeningLog>;
  reader(uuid: AccountUuid): AccountReader;
  readonly headroom: Headroom;
  /** Throws `ACCT_REMOVED` when there is a tombstone. */
  checkNotRemoved(uuid: AccountUuid): Promise<void>;
  /** Whether damage is known; throws `STORE_UNAVAILABLE` while a repair has the account. */
  isDamaged(uuid: AccountUuid): Promise<boolean>;
  /** Remembers damage that lost something; never rejects. */
  noteDamage(uuid: AccountUuid, findings: readonly Finding[], foundBy: string): Promise<void>;
  readonly ended: (account: StoredAccountOverLog) => void;
}

/** See `AccountStore.open`. */
export async function openAccount(parts: OpenerParts, uuid: AccountUuid, opening: AccountOpening): Promise<StoredAccountOverLog> {
  const { clock, metrics, tuning } = parts;
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/.test(opening.openId)) {
    throw new PlatformError('BUG_UNEXPECTED', `"${opening.openId}" is no id of an opening`);
  }
  const startedMs = clock.monotonicMs();
  try {
    const account = await withTimeout(
      clock,
      tuning.timeoutMs,
      open(parts, uuid, opening),
      () =>
        new PlatformError(
          'STORE_UNAVAILABLE',
          `account ${uuid} could not be opened within ${tuning.timeoutMs} ms: storage does not answer`,
        ),
    );
    metrics.opened('opened', (clock.monotonicMs() - startedMs) / 1000);
    return account;
  } catch (error) {
    const failure = openingFailure(error, uuid);
    metrics.opened(failure.code, 0);
    throw failure;
  }
}

async function open(parts: OpenerParts, uuid: AccountUuid, opening: AccountOpening): Promise<StoredAccountOverLog> {
  const { clock, tuning } = parts;
  const logger = parts.logger.child({ account: uuid });
  const [isKnownDamaged] = await Promise.all([parts.isDamaged(uuid), parts.checkNotRemoved(uuid)]);
  const begun = await parts.begin(uuid, opening.openId).catch((error: unknown) => {
    if (!isFull(error)) throw error;
    // Without room for an opening the account can still be read, and taken as soon as there is room.
    return storageFailure(error, `accounts/${uuid}`);
  });
  // It may have been removed since we looked first. Whoever removes it from now on revokes this opening, so once more is enough, and nothing
  // that follows waits for it.
  const removal = failureOf(parts.checkNotRemoved(uuid));
  const settling = begun instanceof PlatformError ? undefined : failureOf(begun.settle());
  const looked = begun instanceof PlatformError ? lookingOnly(parts.reader(uuid)) : begun;
  let history = await readHistory(looked, uuid).catch((error: unknown) => {
    // An account that is not there yet has nothing to be read.
    throw begun instanceof PlatformError && errnoOf(error) === 'ENOENT' ? begun : error;
  });
  if (!history.isComplete) {
    // A listing that this machine remembers may be older than what another one removed: look once more before calling it damage.
    await looked.refresh();
    history = await readHistory(looked, uuid);
  }
  // Nobody is shown what a failure of power can still take away. Without an opening others may have added slots until now.
  const unsettled = await (settling ?? failureOf(looked.settle()));
  if (unsettled !== undefined) throw unsettled.error;
  reportFindings(history, logger, parts.metrics);
  const { state } = history;
  const log = begun instanceof PlatformError ? new LateLog(parts.reader(uuid), state.slot) : begun;
  const isReadOnly = isKnownDamaged || !history.isComplete;
  let isConfirmed = false;
  const confirm = async (): Promise<void> => {
    if (isConfirmed) return;
    if (log instanceof LateLog) {
      try {
        const late = await parts.begin(uuid, opening.openId);
        if (((await late.listSlots()).at(-1) ?? 0) !== state.slot) throw lostRace(uuid, undefined);
        log.begun(late);
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    }
    await commitOpening(parts, log, history, opening);
    isConfirmed = true;
  };
  if (!isReadOnly) {
    await confirm().catch((error: unknown) => {
      // An account that was never opened has nothing to be read.
      if (!isFull(error) || state.slot === 0) throw error;
      logger.warn({ errCode: 'STORE_FULL' }, 'shared storage is full: the account can be read; it is taken over with its first change');
    });
  }
  if (!history.isComplete) await parts.noteDamage(uuid, history.findings, 'opening');
  const removed = await removal;
  if (removed !== undefined) throw removed.error;
  const account: StoredAccountOverLog = new StoredAccountOverLog({
    state,
    log,
    // Of an opening that is not committed yet: what it will have.
    epoch: () => state.epoch + (isConfirmed || isReadOnly ? 0 : 1),
    confirm,
    headroom: parts.headroom,
    limits: { quotaBytes: opening.quotaBytes === 0 ? undefined : opening.quotaBytes },
    snapshotSlot: history.snapshotSlot,
    recordsSince: history.slotsReplayed,
    isReadOnly,
    damagedSnapshots: history.damagedSnapshots,
    damaged: (findings) => parts.noteDamage(uuid, findings, 'reading'),
    tuning,
    clock,
    random: parts.random,
    logger: logger.child({ epoch: state.epoch }),
    metrics: parts.metrics,
    ended: () => parts.ended(account),
  });
  return account;
}

async function commitOpening(parts: OpenerParts, log: OpeningLog, history: AccountHistory, opening: AccountOpening): Promise<void> {
  const { state } = history;
  const nowMs = parts.clock.nowMs();
  const slot = state.slot + 1;
  const epoch = state.epoch + 1;
  const nonce = parts.random.bytes(16).toString('hex');
  const records: LogRecord[] = [{ kind: 'open', epoch, member: opening.member, incarnation: opening.incarnation, atMs: nowMs }];
  if (state.slot === 0) {
    records.push(...initialRecords(nowMs));
    await log.secure();
  }
  const encoded = encodeSlot({ slot, epoch, nonce, records, bodies: [] });
  const outcome = await log.commit(slot, nonce, encoded.parts);
  if (outcome.kind === 'full') {
    throw new PlatformError('STORE_FULL', `shared storage is full: ${log.nameOf({ slot })} was not written`, { cause: outcome.cause });
  }
  if (outcome.kind === 'unknown') throw storageFailure(outcome.cause, log.nameOf({ slot }));
  if (outcome.kind === 'deposed') throw lostRace(state.uuid, outcome.cause);
  for (const record of records) state.apply(record, { slot, epoch, bodiesOffset: encoded.bodiesOffset });
  state.slot = slot;
}

function reportFindings(history: AccountHistory, logger: Logger, metrics: StoreMetrics): void {
  for (const { file, problem } of history.findings) {
    metrics.corruptionFound();
    const consequence = history.isComplete
      ? 'an older snapshot covers for it'
      : `the account is read-only: archipelago store repair ${history.state.uuid}`;
    logger.error({ errCode: 'STORE_CORRUPT', file }, `${file}: ${problem}; ${consequence}`);
  }
}

function openingFailure(error: unknown, uuid: AccountUuid): PlatformError {
  if (error instanceof PlatformError) return error;
  // Our directory went away under us: somebody else is opening the account, or it was purged.
  const errno = errnoOf(error);
  if (errno === 'ENOENT' || errno === 'ESTALE') return lostRace(uuid, error);
  return storageFailure(error, `accounts/${uuid}`);
}

function lostRace(uuid: AccountUuid, cause: unknown): PlatformError {
  return new PlatformError('CLUSTER_DEPOSED', `another opening of account ${uuid} was faster; ask the Controller who has it`, { cause });
}

/** How something that runs beside other things failed, if it did. */
function failureOf(work: Promise<unknown>): Promise<{ readonly error: unknown } | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
}
