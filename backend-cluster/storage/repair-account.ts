/**
 * Brings an account with damaged files back to a whole one, in an opening of its own.
 *
 *     read what is left ─► read every body ─► commit the opening ─► snapshot of what is whole ─► read it back ─► the old files go
 *
 * What can be had again is: records behind a damaged header, summaries (from the text), snapshots (from the slots), messages whose
 * mailbox was made in a lost slot. What cannot is a loss, and nothing is written before somebody has agreed to it. After a loss the
 * numbers of every mailbox jump ahead of all that the lost slots may have given out, so that no UID names two messages.
 *
 * It may be stopped after any step: until the new snapshot is there the account is as damaged as it was, from then on it is whole.
 */
import { inboxRecords } from '#backend-cluster/mailboxes/mailbox-changes.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { fileOfBody, type OpeningLog } from './account-log.ts';
import type { AccountState } from './account-state.ts';
import type { AccountOpening, AccountRepair, Finding, LostMessage } from './account-store.ts';
import { decodePart, encodePart } from './body.ts';
import { bodyPlaces, isDamage, sizeProblem } from './check-account.ts';
import { storageFailure } from './failures.ts';
import { type AccountHistory, readHistory } from './history.ts';
import { fileAt } from './layout.ts';
import type { MailboxState } from './mailbox-state.ts';
import type { LogRecord } from './records.ts';
import { encodeSlot } from './slot.ts';
import { decodeSnapshot, encodeSnapshot } from './snapshot.ts';

/** More messages than fit into one slot: what the numbers of a mailbox jump by for each slot that was lost. */
const numbersPerSlot = 2 ** 20;
/** Lost messages that are listed; all are counted. */
const lostListedMax = 1_000;

/** What a repair is given. */
export interface RepairParts {
  readonly log: OpeningLog;
  readonly uuid: AccountUuid;
  readonly opening: AccountOpening;
  readonly nowMs: number;
  /** 16 bytes, in hex. */
  readonly nonce: string;
  /** Agrees to the loss of what cannot be had again. */
  readonly discardLost: boolean;
  /** Only says what would be done. */
  readonly isDryRun: boolean;
  /** A message's summary, from its text. */
  summarise(raw: Buffer): Buffer;
}

interface Mending {
  readonly mailbox: MailboxState;
  readonly uid: number;
  readonly summary: Buffer;
  readonly raw: Buffer;
}

/** See the header of this file. Rejects as `AccountStore.open` does. */
export async function repairAccount(parts: RepairParts): Promise<AccountRepair> {
  const { log, uuid } = parts;
  let history = await readHistory(log, uuid);
  if (!history.isComplete) {
    await log.refresh();
    history = await readHistory(log, uuid);
  }
  const { state } = history;
  const bodies = await judgeBodies(parts, state);
  const lostSlots = await slotsLost(log, history);
  const findings = [...history.findings, ...bodies.findings];
  const losses = lostSlots + bodies.lost.length;
  const outcome = (kind: AccountRepair['outcome']): AccountRepair => ({
    uuid,
    outcome: kind,
    findings,
    lostSlots,
    lostMessages: bodies.lost.length,
    lost: bodies.lost.slice(0, lostListedMax),
    mended: bodies.mended.length,
    messages: state.messageCount,
  });
  if (findings.length === 0) return outcome('whole');
  if (parts.isDryRun || (losses > 0 && !parts.discardLost)) return outcome(losses > 0 ? 'would-lose' : 'can-be-repaired');
  await rewrite(parts, history, bodies.mended, bodies.lost, lostSlots);
  return outcome('repaired');
}

/** Reads every body that a message refers to. */
async function judgeBodies(
  { log, summarise }: RepairParts,
  state: AccountState,
): Promise<{ findings: Finding[]; lost: LostMessage[]; mended: Mending[] }> {
  const findings: Finding[] = [];
  const lost: LostMessage[] = [];
  const mended: Mending[] = [];
  const place = bodyPlaces(log);
  for (const mailbox of state.mailboxes.values()) {
    const { columns } = mailbox;
    for (let row = 0; row < columns.count; row += 1) {
      const body = columns.bodyOf(row);
      const read = async (offset: number, length: number): Promise<Buffer | string> => {
        try {
          return await decodePart(await log.readBody(body.at, offset, length));
        } catch (error) {
          if (!isDamage(error)) throw error;
          return messageOf(error);
        }
      };
      const sizeBytes = columns.sizeBytes[row] as number;
      const misplaced = await place(body.at);
      const summary = misplaced ?? (await read(body.offset, body.summaryBytes));
      const text = misplaced ?? (await read(body.offset + body.summaryBytes, body.rawBytes));
      const raw = typeof text === 'string' ? text : (sizeProblem(text, sizeBytes) ?? text);
      if (typeof summary !== 'string' && typeof raw !== 'string') continue;
      const file = await fileOfBody(log, body.at);
      const why = typeof raw === 'string' ? raw : String(summary);
      if (!findings.some((finding) => finding.file === file)) findings.push({ file, problem: why });
      const uid = columns.uid[row] as number;
      if (typeof raw === 'string') {
        lost.push({ mailbox: mailbox.name, uid, internalDateMs: columns.internalDateMs[row] as number, sizeBytes, file, why });
      } else {
        mended.push({ mailbox, uid, summary: summarise(raw), raw });
      }
    }
  }
  return { findings, lost, mended };
}

/** Slots after the snapshot whose records are not in the state. */
async function slotsLost(log: OpeningLog, history: AccountHistory): Promise<number> {
  if (history.isComplete) return 0;
  const after = (await log.listSlots()).filter((slot) => slot > history.snapshotSlot);
  const missing = after.length === 0 ? 0 : (after.at(-1) as number) - history.snapshotSlot - after.length;
  return missing + history.slotsUnread + (after.length === 0 && history.damagedSnapshots.length > 0 ? 1 : 0);
}

async function rewrite(
  parts: RepairParts,
  history: AccountHistory,
  mended: readonly Mending[],
  lost: readonly LostMessage[],
  lostSlots: number,
): Promise<void> {
  const { log, uuid, opening, nonce, nowMs } = parts;
  const { state } = history;
  // Above every name that is there, so that nothing damaged stands where something new must go.
  const slot = Math.max(state.slot, ...history.snapshots, ...(await log.listSlots())) + 1;
  const epoch = state.epoch + 1 + lostSlots;
  const records: LogRecord[] = [{ kind: 'open', epoch, member: opening.member, incarnation: opening.incarnation, atMs: nowMs }];
  // The slot that made it is lost, and so is all that it had.
  if (!state.byName.has('INBOX')) records.push(...inboxRecords(state, nowMs));
  const encoded = encodeSlot({ slot, epoch, nonce, records, bodies: [] });
  const outcome = await log.commit(slot, nonce, encoded.parts);
  if (outcome.kind === 'deposed') {
    throw new PlatformError('CLUSTER_DEPOSED', `account ${uuid} was opened while it was being repaired; close it and try again`);
  }
  if (outcome.kind !== 'committed') throw storageFailure(outcome.cause, log.nameOf({ slot }));
  for (const record of records) state.apply(record, { slot, epoch, bodiesOffset: encoded.bodiesOffset });
  state.slot = slot;

  for (const [i, { mailbox, uid, summary, raw }] of mended.entries()) {
    const [packedSummary, packedRaw] = [await encodePart(summary), await encodePart(raw)];
    const at = fileAt(epoch, i + 1);
    await log.writeBody(at, [packedSummary, packedRaw]);
    mailbox.columns.placeBody(mailbox.columns.rowOf(uid), {
      at,
      offset: 0,
      summaryBytes: packedSummary.length,
      rawBytes: packedRaw.length,
    });
  }
  for (const { mailbox: name, uid } of lost) {
    const mailbox = state.byName.get(name) as MailboxState;
    state.apply(
      { kind: 'expunge', mailboxId: mailbox.id, modseq: mailbox.highestModseq + 1, uids: [uid] },
      { slot, epoch, bodiesOffset: 0 },
    );
  }
  if (lostSlots > 0) skipNumbers(state, lostSlots);

  await log.writeSnapshot(slot, encodeSnapshot(state));
  decodeSnapshot(uuid, slot, await log.readSnapshot(slot));
  const inUse = state.bodiesInUse();
  const old = (await log.listSlots()).filter((one) => one < slot);
  for (const kept of old.filter((one) => inUse.has(one))) await log.keepBodiesOf(kept);
  await log.syncBodies();
  for (const snapshot of await log.listSnapshots()) if (snapshot !== slot) await log.removeSnapshot(snapshot);
  await log.removeSlots(old);
}

/** No number that a lost slot may have given out is given out again (RFC 9051 §2.3.1.1, RFC 7162 §3.1). */
function skipNumbers(state: AccountState, lostSlots: number): void {
  for (const mailbox of state.mailboxes.values()) {
    mailbox.uidNext = Math.min(mailbox.uidNext + lostSlots * numbersPerSlot, 2 ** 32 - 1);
    mailbox.highestModseq += lostSlots * numbersPerSlot;
    // What vanished in a lost slot is not known: whoever asks since then compares all.
    mailbox.vanishedFloor = mailbox.highestModseq;
  }
  state.nextMailboxId += lostSlots * 1_000;
  state.lastUidValidity += lostSlots * 1_000;
}
