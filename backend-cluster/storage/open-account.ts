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
import type { AccountState } from './account-state.ts';
import type { AccountOpening, Finding } from './account-store.ts';
import { isFull, storageFailure } from './failures.ts';
import type { Headroom } from './headroom.ts';
import { type AccountHistory, type ForeseenEnd, lastSlotOf, readHistory } from './history.ts';
import type { LogRecord } from './records.ts';
import { type EncodedSlot, encodeSlot } from './slot.ts';
import type { StoreMetrics } from './store-metrics.ts';

/** What opening needs. */
export interface OpenerParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  readonly tuning: AccountTuning;
  /** See `StorageEngine`. */
  readonly guessesEnd: boolean;
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
    const account = await withTimeout(clock, tuning.timeoutMs, open(parts, uuid, opening), () => noAnswer(uuid, tuning.timeoutMs));
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
  // Others may still change it, so this is a guess: it serves for what is thrown away if it was wrong.
  const guess = parts.guessesEnd ? lastSlotOf(parts.reader(uuid)).catch(() => undefined) : undefined;
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
  // The opening's record is written while the account is still being read, and gets its name afterwards if it turned out to be the right one.
  let foreseen: OpeningSlot | undefined;
  const foresee: ForeseenEnd = (last) => {
    if (foreseen?.slot === last.slot + 1 && foreseen.epoch === last.epoch + 1) return;
    foreseen = openingSlot(parts, opening, last, []);
    looked.prepare?.(foreseen.nonce, foreseen.encoded.parts);
  };
  const canPrepare = !isKnownDamaged && looked.prepare !== undefined;
  const guessed = canPrepare ? await guess : undefined;
  if (guessed !== undefined) foresee(guessed);
  let history = await readHistory(looked, uuid, canPrepare ? foresee : undefined).catch((error: unknown) => {
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
  /** Of an opening that is not committed yet: what it will have. */
  const epoch = isReadOnly ? state.epoch : state.epoch + 1;
  const taken = Promise.withResolvers<void>();
  const commit = async (): Promise<void> => {
    if (log instanceof LateLog) {
      try {
        const late = await parts.begin(uuid, opening.openId);
        if (((await late.listSlots()).at(-1) ?? 0) !== state.slot) throw lostRace(uuid, undefined);
        log.begun(late);
      } catch (error) {
        throw storageFailure(error, `accounts/${uuid}`);
      }
    }
    // Once only: the account keeps what is here as long as it is open.
    const written = foreseen;
    foreseen = undefined;
    await commitOpening(parts, log, state, opening, written, taken.resolve);
  };
  let committing: Promise<void> | undefined;
  const confirm = (): Promise<void> => {
    committing ??= commit().catch((error: unknown) => {
      // Certainly not there: it is tried again with the next change.
      if (isFull(error)) committing = undefined;
      throw error;
    });
    return committing;
  };
  let confirming: Promise<void> | undefined;
  if (!isReadOnly) {
    // Once the slot is ours, what was read is all that there is, and it is durable: it may be shown. The opening's own record may not be yet,
    // so whatever changes something waits for it. A new account has nothing that is durable, and what is damaged is made good first.
    const canBeShown = state.slot > 0 && history.findings.length === 0;
    const confirmed = confirm();
    if (canBeShown) confirming = withTimeout(clock, tuning.timeoutMs, confirmed, () => noAnswer(uuid, tuning.timeoutMs));
    // Told by the account, once there is one.
    confirming?.catch(() => {});
    await (canBeShown ? Promise.race([confirmed, taken.promise]) : confirmed).catch((error: unknown) => {
      confirming = undefined;
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
    epoch,
    confirm,
    confirming,
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
    logger: logger.child({ epoch }),
    metrics: parts.metrics,
    ended: () => parts.ended(account),
  });
  return account;
}

/** The slot that an opening commits. */
interface OpeningSlot {
  readonly slot: number;
  readonly epoch: number;
  readonly nonce: string;
  readonly records: readonly LogRecord[];
  readonly encoded: EncodedSlot;
}

function openingSlot(
  parts: OpenerParts,
  opening: AccountOpening,
  last: { readonly slot: number; readonly epoch: number },
  more: readonly LogRecord[],
): OpeningSlot {
  const [slot, epoch] = [last.slot + 1, last.epoch + 1];
  const nonce = parts.random.bytes(16).toString('hex');
  const { member, incarnation } = opening;
  const records: LogRecord[] = [{ kind: 'open', epoch, member, incarnation, atMs: parts.clock.nowMs() }, ...more];
  return { slot, epoch, nonce, records, encoded: encodeSlot({ slot, epoch, nonce, records, bodies: [] }) };
}

/** Calls `taken` once the slot is nobody else's, and resolves when it is durable and applied. */
async function commitOpening(
  parts: OpenerParts,
  log: OpeningLog,
  state: AccountState,
  opening: AccountOpening,
  foreseen: OpeningSlot | undefined,
  taken: () => void,
): Promise<void> {
  const isNew = state.slot === 0;
  if (isNew) await log.secure();
  const isAsForeseen = foreseen?.slot === state.slot + 1 && foreseen.epoch === state.epoch + 1;
  const made = isAsForeseen ? foreseen : openingSlot(parts, opening, state, isNew ? initialRecords(parts.clock.nowMs()) : []);
  const { slot, epoch, nonce, records, encoded } = made;
  const outcome = await log.commit(slot, nonce, encoded.parts, taken);
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

function noAnswer(uuid: AccountUuid, limitMs: number): PlatformError {
  return new PlatformError('STORE_UNAVAILABLE', `account ${uuid} could not be opened within ${limitMs} ms: storage does not answer`);
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
