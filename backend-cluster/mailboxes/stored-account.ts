/**
 * An open account over its log: `OpenAccount` for the protocols, `StoredAccount` for the host.
 *
 * The parts: `state` is the account as of the last commit, the queue is the only way to change it, and reading bodies goes to storage.
 * Snapshots are taken at one moment between two commits and written while the account goes on, one at a time.
 *
 * States: `open` → `closing` (close was called: what is queued is still committed) → `closed`; or `open` → `failed` (deposed, or an
 * outcome that is not known: nothing more is written). Outside `open` every call rejects.
 */

import { fileOfBody, type OpeningLog } from '#backend-cluster/storage/account-log.ts';
import type { AccountState } from '#backend-cluster/storage/account-state.ts';
import type { Finding, ImportedMessage, StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { decodePart } from '#backend-cluster/storage/body.ts';
import { isDamage } from '#backend-cluster/storage/check-account.ts';
import { type Change, CommitQueue } from '#backend-cluster/storage/commit-queue.ts';
import { compact, planSnapshot } from '#backend-cluster/storage/compaction.ts';
import { isFull } from '#backend-cluster/storage/failures.ts';
import type { Headroom } from '#backend-cluster/storage/headroom.ts';
import { fileAt, filesPerEpoch } from '#backend-cluster/storage/layout.ts';
import type { MailboxState } from '#backend-cluster/storage/mailbox-state.ts';
import type { StoreMetrics } from '#backend-cluster/storage/store-metrics.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, withTimeout } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Random } from '#common/random.ts';
import { appendChange, type PreparedMessage, prepareMessages } from './append.ts';
import { copyChange, moveChange } from './copy-messages.ts';
import { expungeChange } from './expunge.ts';
import { type ImportTarget, importMailboxChange, importMessagesChange, importNumbersChange, type MailboxImport } from './import-changes.ts';
import { createMailboxChange, deleteMailboxChange, renameMailboxChange, subscribeChange } from './mailbox-changes.ts';
import { foldMailboxName } from './mailbox-names.ts';
import type { AppendedMessage, AppendRequest, FlagOperation, Mailbox } from './open-account.ts';
import { type AccountLimits, checkQuota } from './quota.ts';
import { activateScriptChange, checkScriptRoom, deleteScriptChange, putScriptChange, renameScriptChange } from './script-changes.ts';
import { storeFlagsChange } from './store-flags.ts';

/** When snapshots are taken, and how long storage may take. */
export interface AccountTuning {
  /** Records after which a snapshot is due; more for a large account, whose snapshot costs more. */
  readonly snapshotRecords: number;
  /** Slots from which closing takes a snapshot: fewer are read faster than a snapshot is written. */
  readonly snapshotAtCloseSlots: number;
  /** Time after which storage counts as not answering. */
  readonly timeoutMs: number;
}

/** The usual values. */
export const usualTuning: AccountTuning = { snapshotRecords: 1_000, snapshotAtCloseSlots: 20, timeoutMs: 30_000 };

/** Most records between two snapshots, however large the account is. */
const snapshotRecordsMax = 8_000;

/** What an open account is made of. */
export interface StoredAccountParts {
  readonly state: AccountState;
  readonly log: OpeningLog;
  readonly epoch: number;
  /** See `CommitQueueOptions`. */
  confirm(): Promise<void>;
  /** The opening's own commit, while that is under way: when it fails, the account was never ours to change. */
  readonly confirming: Promise<void> | undefined;
  readonly headroom: Headroom;
  readonly limits: AccountLimits;
  /** Slot of the snapshot that the state began with; 0 when there is none. */
  readonly snapshotSlot: number;
  /** Records and slots after it. */
  readonly recordsSince: number;
  readonly isReadOnly: boolean;
  /** Found damaged at opening, with others that cover for them. */
  readonly damagedSnapshots: readonly number[];
  /** Remembers damage that was found while the account is open; never rejects. */
  damaged(findings: readonly Finding[]): Promise<void>;
  readonly tuning: AccountTuning;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  /** Called once, when it is no longer open. */
  readonly ended: () => void;
}

/** See the header of this file. */
export class StoredAccountOverLog implements StoredAccount {
  readonly #parts: StoredAccountParts;
  readonly #queue: CommitQueue;
  readonly #listeners = new Set<(change: { mailboxIds: readonly number[]; closed: boolean }) => void>();
  readonly #filesUnderWay = new Set<number>();
  #fileCounter = 0;
  #snapshotSlot: number;
  #isReadOnly: boolean;
  #damagedSnapshots: readonly number[];
  #recordsSince: number;
  #compacting: Promise<void> | undefined;
  #refusal: PlatformError | undefined;
  #closing: Promise<void> | undefined;

  constructor(parts: StoredAccountParts) {
    this.#parts = parts;
    this.#snapshotSlot = parts.snapshotSlot;
    this.#recordsSince = parts.recordsSince;
    this.#isReadOnly = parts.isReadOnly;
    this.#damagedSnapshots = parts.damagedSnapshots;
    this.#queue = new CommitQueue({
      ...parts,
      timeoutMs: parts.tuning.timeoutMs,
      committed: (mailboxIds, records) => this.#committed(mailboxIds, records),
      failed: (error) => this.#end(error),
    });
    parts.confirming?.catch((error: unknown) => {
      const failure = asPlatformError(error);
      parts.logger.warn({ errCode: failure.code, epoch: parts.epoch }, failure.message);
      this.#queue.fail(failure);
    });
    // What an older one covers for is made good at once.
    if (parts.damagedSnapshots.length > 0 && !parts.isReadOnly) this.#startSnapshot();
  }

  get uuid(): AccountUuid {
    return this.#parts.state.uuid;
  }

  get epoch(): number {
    return this.#parts.epoch;
  }

  get isOpen(): boolean {
    return this.#refusal === undefined;
  }

  get isReadOnly(): boolean {
    return this.#isReadOnly;
  }

  /** Called now and then: index data that was not used since the last time takes less room from now on. */
  pack(): void {
    this.#parts.state.pack();
  }

  get memoryBytes(): number {
    return this.#parts.state.memoryBytes;
  }

  mailboxes(): readonly Mailbox[] {
    const names = [...this.#parts.state.byName.keys()].filter((name) => name !== 'INBOX').sort();
    return ['INBOX', ...names].flatMap((name) => this.#parts.state.byName.get(name) ?? []);
  }

  mailbox(name: string): Mailbox | undefined {
    return this.#parts.state.byName.get(foldMailboxName(name));
  }

  mailboxById(id: number): Mailbox | undefined {
    return this.#parts.state.mailboxes.get(id);
  }

  subscriptions(): readonly string[] {
    return [...this.#parts.state.subscriptions].sort();
  }

  async createMailbox(name: string, specialUse?: string): Promise<Mailbox> {
    return this.#change(() => createMailboxChange(name, specialUse));
  }

  async deleteMailbox(name: string): Promise<void> {
    await this.#change(() => deleteMailboxChange(name));
  }

  async renameMailbox(from: string, to: string): Promise<void> {
    await this.#change(() => renameMailboxChange(from, to));
  }

  async subscribe(name: string, subscribed: boolean): Promise<void> {
    await this.#change(() => subscribeChange(name, subscribed));
  }

  async append(mailboxId: number, messages: readonly AppendRequest[]): Promise<readonly AppendedMessage[]> {
    const { state, limits } = this.#parts;
    const fresh = messages.filter((message) => message.deliveryId === undefined || !state.deliveries.has(message.deliveryId));
    return this.#store(mailboxId, messages, sizeOf(fresh), (prepared) => appendChange(mailboxId, prepared, limits));
  }

  async importMailbox(mailbox: MailboxImport): Promise<ImportTarget> {
    return this.#change(() => importMailboxChange(mailbox));
  }

  async importMessages(target: ImportTarget, messages: readonly ImportedMessage[]): Promise<number> {
    const { limits } = this.#parts;
    return this.#store(target.mailboxId, messages, 0, (prepared) => {
      const numbered = prepared.map((message, i) => {
        const { uid, modseq, emailId } = messages[i] as ImportedMessage;
        return { ...message, uid, modseq, emailId: emailId === undefined ? message.emailId : Buffer.from(emailId, 'hex') };
      });
      return importMessagesChange(target, numbered, limits);
    });
  }

  async finishImport(mailboxId: number, uidNext: number, modseq: number): Promise<void> {
    await this.#change(() => importNumbersChange(mailboxId, uidNext, modseq));
  }

  /** Packs messages, writes the large ones, and commits. `freshBytes`: what they are certain to add. */
  async #store<T>(
    mailboxId: number,
    messages: readonly AppendRequest[],
    freshBytes: number,
    make: (prepared: readonly PreparedMessage[]) => Change<T>,
  ): Promise<T> {
    this.#checkWritable();
    const { state, limits, random, headroom } = this.#parts;
    // Refused now rather than after the bytes were packed and written; the commit looks again.
    if (!state.mailboxes.has(mailboxId)) throw new PlatformError('MBOX_NOT_FOUND', `the account has no mailbox ${mailboxId}`);
    checkQuota(state.usedBytes, freshBytes, limits);
    await headroom.check(sizeOf(messages));
    // The number of a large message's file is made of the opening's epoch: the opening must be committed before.
    if (this.epoch !== state.epoch) await this.#change(() => emptyChange(mailboxId));
    const files: number[] = [];
    try {
      const prepared = await prepareMessages(messages, random, async (parts) => {
        const at = this.#nextFile();
        files.push(at);
        await this.#writeFile(at, parts);
        return at;
      });
      return await this.#change(() => make(prepared));
    } catch (error) {
      // Still open: the messages are certainly not stored, and on a full disk their files must not stay until the next compaction.
      if (this.isOpen) await Promise.all(files.map((at) => this.#removeFile(at)));
      throw error;
    } finally {
      // From here on a file belongs to a message or to nobody; the next compaction removes the latter.
      for (const at of files) this.#filesUnderWay.delete(at);
    }
  }

  async storeFlags(
    mailboxId: number,
    uids: readonly number[],
    operation: FlagOperation,
    flags: readonly string[],
    unchangedSince?: number,
  ) {
    return this.#change(() => storeFlagsChange(mailboxId, uids, operation, flags, unchangedSince));
  }

  async copy(fromId: number, uids: readonly number[], toId: number) {
    return this.#change(() => copyChange(fromId, uids, toId, this.#parts.limits));
  }

  async move(fromId: number, uids: readonly number[], toId: number) {
    return this.#change(() => moveChange(fromId, uids, toId));
  }

  async expunge(mailboxId: number, uids?: readonly number[], force = false): Promise<readonly number[]> {
    return this.#change(() => expungeChange(mailboxId, uids, force));
  }

  scripts(): { texts: ReadonlyMap<string, string>; active: string | undefined } {
    const { scripts, activeScript } = this.#parts.state;
    return { texts: scripts, active: activeScript === '' ? undefined : activeScript };
  }

  checkScriptRoom(name: string, bytes: number): void {
    checkScriptRoom(this.#parts.state, name, bytes);
  }

  async putScript(name: string, text: string): Promise<void> {
    await this.#change(() => putScriptChange(name, text));
  }

  async deleteScript(name: string): Promise<void> {
    await this.#change(() => deleteScriptChange(name));
  }

  async renameScript(from: string, to: string): Promise<void> {
    await this.#change(() => renameScriptChange(from, to));
  }

  async activateScript(name: string): Promise<void> {
    await this.#change(() => activateScriptChange(name));
  }

  readRaw(mailboxId: number, uid: number): Promise<Buffer> {
    return this.#readPart(mailboxId, uid, 'raw');
  }

  readSummary(mailboxId: number, uid: number): Promise<Buffer> {
    return this.#readPart(mailboxId, uid, 'summary');
  }

  quota(): { usedBytes: number; limitBytes: number | undefined; messages: number } {
    const { state, limits } = this.#parts;
    return { usedBytes: state.usedBytes, limitBytes: limits.quotaBytes, messages: state.messageCount };
  }

  setQuota(limitBytes: number | undefined): void {
    this.#parts.limits.quotaBytes = limitBytes === 0 ? undefined : limitBytes;
  }

  onChange(listener: (change: { readonly mailboxIds: readonly number[]; readonly closed: boolean }) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async checkHeld(): Promise<boolean> {
    if (!this.isOpen) return false;
    const { log, clock, tuning, logger } = this.#parts;
    let isHeld: boolean;
    try {
      isHeld = await withTimeout(clock, tuning.timeoutMs, log.isHeld(), () => new Error('storage does not answer'));
    } catch (error) {
      throw new PlatformError('STORE_UNAVAILABLE', `whether the account is still open here is not known: ${messageOf(error)}`, {
        cause: error,
      });
    }
    if (!isHeld && this.isOpen) {
      logger.warn({ errCode: 'CLUSTER_DEPOSED', epoch: this.epoch }, 'another opening has the account: found when it was looked at again');
      this.#queue.fail(new PlatformError('CLUSTER_DEPOSED', 'another opening has the account'));
    }
    return this.isOpen;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { log, logger, clock, tuning, state } = this.#parts;
    const wasOpen = this.isOpen;
    if (wasOpen) this.#end(new PlatformError('STORE_UNAVAILABLE', 'the account is being closed here; open it again'));
    await this.#queue.idle();
    // A failed opening leaves its staging directory to the next one: what it still has under way must find it gone, not reused.
    if (!wasOpen) return;
    const bounded = (work: Promise<void> | undefined): Promise<void> =>
      withTimeout(clock, tuning.timeoutMs, work ?? Promise.resolve(), () => new Error('storage does not answer'));
    try {
      // Bounded already.
      await this.#parts.confirming;
      await bounded(this.#compacting);
      const since = state.slot - this.#snapshotSlot;
      if (since >= tuning.snapshotAtCloseSlots || (this.#parts.headroom.isShort && since > 1)) this.#startSnapshot();
      await bounded(this.#compacting);
      await bounded(log.end());
    } catch (error) {
      logger.warn({ cause: messageOf(error) }, 'the account was not closed in good order; the next opening clears up');
    }
  }

  async #change<T>(make: () => Change<T>): Promise<T> {
    this.#checkWritable();
    return this.#queue.submit(make());
  }

  #checkOpen(): void {
    if (this.#refusal !== undefined) throw this.#refusal;
  }

  #checkWritable(): void {
    this.#checkOpen();
    if (this.isReadOnly)
      throw new PlatformError(
        'STORE_CORRUPT',
        `the account is read-only, because something stored is damaged: archipelago store repair ${this.uuid}`,
      );
  }

  #committed(mailboxIds: readonly number[], records: number): void {
    this.#recordsSince += records;
    const { state, tuning } = this.#parts;
    const due = Math.min(Math.max(tuning.snapshotRecords, state.messageCount / 16), snapshotRecordsMax);
    // Where room is short, what was removed is given back at once.
    const isWanted = this.#parts.headroom.isShort && this.#recordsSince > 0;
    if (isWanted || this.#recordsSince >= Math.max(due, tuning.snapshotRecords)) this.#startSnapshot();
    this.#notify({ mailboxIds, closed: false });
  }

  /** Takes the snapshot now and writes it in the background; nothing when one is being written. */
  #startSnapshot(): void {
    // A damaged account keeps all that is left of it.
    if (this.#compacting !== undefined || this.#isReadOnly) return;
    const { state, log, clock, tuning, logger, metrics } = this.#parts;
    state.tidy(clock.nowMs());
    const plan = planSnapshot(
      state,
      this.#snapshotSlot,
      { counter: this.#fileCounter, underWay: this.#filesUnderWay },
      this.#damagedSnapshots,
    );
    const startedMs = clock.monotonicMs();
    // Also when it fails: trying again after every commit would help nobody.
    this.#recordsSince = 0;
    this.#compacting = withTimeout(clock, 10 * tuning.timeoutMs, compact(log, plan), () => new Error('storage does not answer'))
      .then(
        (removed) => {
          this.#snapshotSlot = plan.slot;
          this.#damagedSnapshots = [];
          metrics.compacted('done');
          logger.debug({ slot: plan.slot, ...removed, durationMs: clock.monotonicMs() - startedMs }, 'snapshot written');
        },
        (error: unknown) => {
          metrics.compacted('failed');
          logger.warn({ slot: plan.slot, cause: messageOf(error) }, 'snapshot not finished; the log stays longer than needed');
        },
      )
      .finally(() => {
        this.#compacting = undefined;
      });
  }

  #nextFile(): number {
    if (this.#fileCounter >= filesPerEpoch) {
      throw new PlatformError(
        'MBOX_LIMIT',
        `one opening stores at most ${filesPerEpoch} large messages; close the account and open it again`,
      );
    }
    const at = fileAt(this.epoch, this.#fileCounter);
    this.#fileCounter += 1;
    this.#filesUnderWay.add(at);
    return at;
  }

  async #writeFile(at: number, parts: readonly Uint8Array[]): Promise<void> {
    const { log, clock, tuning } = this.#parts;
    const file = log.nameOf({ body: at });
    try {
      await withTimeout(clock, tuning.timeoutMs, log.writeBody(at, parts), () => new Error('storage does not answer'));
    } catch (error) {
      if (isFull(error)) throw new PlatformError('STORE_FULL', `shared storage is full: ${file} was not written`, { cause: error });
      const failure = new PlatformError('STORE_UNAVAILABLE', `${file} could not be written: ${messageOf(error)}`, { cause: error });
      this.#queue.fail(failure);
      throw failure;
    }
  }

  async #removeFile(at: number): Promise<void> {
    const { log, logger } = this.#parts;
    await log.removeBody(at).catch((error: unknown) => {
      logger.warn({ file: log.nameOf({ body: at }), cause: messageOf(error) }, 'a file without a message stays until the next compaction');
    });
  }

  async #readPart(mailboxId: number, uid: number, part: 'raw' | 'summary'): Promise<Buffer> {
    this.#checkOpen();
    const { state, log, logger, metrics, clock, tuning } = this.#parts;
    const found = findMessage(state.mailboxes.get(mailboxId), uid);
    const body = found.mailbox.columns.bodyOf(found.row);
    const [offset, length] = part === 'summary' ? [body.offset, body.summaryBytes] : [body.offset + body.summaryBytes, body.rawBytes];
    const read = async (): Promise<Buffer> => {
      const timeout = (): Error => new Error('storage does not answer');
      return decodePart(await withTimeout(clock, tuning.timeoutMs, log.readBody(body.at, offset, length), timeout));
    };
    try {
      // What is damaged is damaged twice: one wrong answer of a network or a cache makes no account read-only.
      return await read().catch((error: unknown) => {
        if (!isDamage(error)) throw error;
        return read();
      });
    } catch (error) {
      const isGone = errnoOf(error) === 'ENOENT';
      // Expunged while it was being read, and then removed by a compaction: no damage.
      if (isGone) findMessage(state.mailboxes.get(mailboxId), uid);
      if (!isDamage(error)) {
        const message = `${log.nameOf({ body: body.at })} cannot be read: ${messageOf(error)}`;
        throw new PlatformError('STORE_UNAVAILABLE', message, { cause: error });
      }
      // A host that slept reads by an index of then: its successor has expunged the message since, and compacted the file away. That is no
      // damage, and the account must not become read-only for it.
      if (!(await this.checkHeld())) throw new PlatformError('CLUSTER_DEPOSED', 'another opening has the account', { cause: error });
      this.#isReadOnly = true;
      metrics.corruptionFound();
      const file = await fileOfBody(log, body.at);
      const problem = isGone ? 'the file is gone' : messageOf(error);
      const message = `the ${part} of a message is damaged: ${file}: ${problem}; the account is read-only: archipelago store repair ${this.uuid}`;
      logger.error({ errCode: 'STORE_CORRUPT', file, mailboxId, uid }, message);
      await this.#parts.damaged([{ file, problem }]);
      throw new PlatformError('STORE_CORRUPT', message, { fields: { file, mailboxId, uid }, cause: error });
    }
  }

  /** From now on every call rejects with this. */
  #end(reason: PlatformError): void {
    if (this.#refusal !== undefined) return;
    this.#refusal = reason;
    this.#parts.ended();
    this.#notify({ mailboxIds: [], closed: true });
    this.#listeners.clear();
  }

  #notify(change: { mailboxIds: readonly number[]; closed: boolean }): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(change);
      } catch (error) {
        // One session's trouble is not the account's, nor that of the other sessions.
        this.#parts.logger.error({ errCode: 'BUG_UNEXPECTED', cause: messageOf(error) }, 'a listener of the account failed');
      }
    }
  }
}

function sizeOf(messages: readonly AppendRequest[]): number {
  return messages.reduce((sum, message) => sum + message.raw.length, 0);
}

/** Changes nothing: for what comes with a commit. */
function emptyChange(mailboxId: number): Change<void> {
  return { scope: { kind: 'append', mailboxId }, bytes: 0, plan: () => () => undefined };
}

function findMessage(mailbox: MailboxState | undefined, uid: number): { readonly mailbox: MailboxState; readonly row: number } {
  const row = mailbox?.columns.rowOf(uid) ?? -1;
  if (mailbox === undefined || row < 0) throw new PlatformError('MBOX_NOT_FOUND', `there is no message with UID ${uid} (any more)`);
  return { mailbox, row };
}
