/**
 * Reads an account from storage: the newest snapshot that is whole, then every slot after it, in order.
 *
 * What cannot be read is never passed over in silence: it becomes a finding with the name of its file, and the account is then shown
 * read-only with what the rest gives. An input or output error is not a finding: it rejects, because trying again can help.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import type { AccountReader } from './account-log.ts';
import { AccountState } from './account-state.ts';
import type { Finding } from './account-store.ts';
import { corrupt, isNewer } from './binary.ts';
import type { LogRecord } from './records.ts';
import { bodiesOffsetOf, decodeSlotHeader, decodeSlotRecords, type SlotHeader, salvageSlotHeader, slotHeaderBytes } from './slot.ts';
import { decodeSnapshot } from './snapshot.ts';

/** Read at once of each slot: the header and, nearly always, all of its records. */
const firstReadBytes = 4096;
/** Slots read ahead at the same time: all that a closed account usually has after its snapshot. */
const readAhead = 20;
/** Records that are looked for behind a damaged header. */
const salvagedBytesMax = 64 * 1024 * 1024;

/** What storage says of an account. */
export interface AccountHistory {
  readonly state: AccountState;
  /** Newest snapshots first; those found whole and used, and those that are older. */
  readonly snapshots: readonly number[];
  /** The snapshot that `state` began with; 0 when it began with nothing. */
  readonly snapshotSlot: number;
  /** Snapshots, newer than the one that was used, that are damaged. */
  readonly damagedSnapshots: readonly number[];
  readonly slotsReplayed: number;
  /** Of these, slots whose records could not be read. */
  readonly slotsUnread: number;
  readonly findings: readonly Finding[];
  /** False when something is lost: a slot is damaged or missing. A damaged snapshot alone loses nothing while an older one covers for it. */
  readonly isComplete: boolean;
}

/** Every account's first mailbox. */
export const inboxId = 1;

/** One slot, taken apart. */
export interface SlotContent {
  readonly header: SlotHeader;
  readonly records: readonly LogRecord[];
  /** What is wrong with its header, when the records are whole all the same. */
  readonly damage?: string;
}

/** Reads one slot without its bodies. Throws `STORE_CORRUPT`, or what the engine throws. */
export async function readSlotContent(log: AccountReader, slot: number): Promise<SlotContent> {
  const start = await log.readSlot(slot, 0, firstReadBytes);
  let header: SlotHeader;
  try {
    header = decodeSlotHeader(start);
  } catch (error) {
    if (isNewer(error)) throw error;
    const content = await salvageSlot(log, slot, start);
    if (content === undefined) throw error;
    return { ...content, damage: messageOf(error) };
  }
  if (header.slot !== slot) throw corrupt(`the file stands under the name of slot ${slot} and is slot ${header.slot}`);
  const end = bodiesOffsetOf(header);
  const records =
    end <= start.length ? start.subarray(slotHeaderBytes, end) : await log.readSlot(slot, slotHeaderBytes, header.recordsBytes);
  return { header, records: decodeSlotRecords(header, records) };
}

/** The records of a slot whose header is damaged in what they do not depend on: their checksum says so. */
async function salvageSlot(log: AccountReader, slot: number, start: Buffer): Promise<SlotContent | undefined> {
  const header = salvageSlotHeader(start);
  // No slot is without records, and of nothing any checksum of zeros is right: that is how a file looks whose blocks were never written.
  if (header === undefined || header.recordsBytes === 0 || header.recordsBytes > salvagedBytesMax) return undefined;
  try {
    const records = decodeSlotRecords(header, await log.readSlot(slot, slotHeaderBytes, header.recordsBytes));
    // Numbers in the header are what may be damaged; the name and the records tell them.
    return { header: { ...header, slot }, records };
  } catch (error) {
    if (isNewer(error)) throw error;
    return undefined;
  }
}

/** Told of the last slot as soon as it is read: where the account will stand, unless something is damaged. */
export type ForeseenEnd = (last: { readonly slot: number; readonly epoch: number }) => void;

/** Where the last slot is, `undefined` when there is none or it is damaged. Rejects as reading does. */
export async function lastSlotOf(log: AccountReader): Promise<Parameters<ForeseenEnd>[0] | undefined> {
  const slot = (await log.listSlots()).at(-1);
  if (slot === undefined) return undefined;
  const header = decodeSlotHeader(await log.readSlot(slot, 0, slotHeaderBytes));
  return { slot, epoch: header.epoch };
}

/**
 * See the header of this file. With `foreseen`, the log must be that of an opening, which nobody else changes any more: it is read in
 * another order then. Others list snapshots before slots, so that a compaction between both takes nothing away that is looked for.
 */
export async function readHistory(log: AccountReader, uuid: AccountUuid, foreseen?: ForeseenEnd): Promise<AccountHistory> {
  const findings: Finding[] = [];
  const listing = log.listSnapshots();
  const listingSlots = foreseen === undefined ? listing.then(() => log.listSlots()) : log.listSlots();
  const looking = listingSlots.then(async (all) => {
    const read = new Map<number, SlotContent | PlatformError>();
    const last = all.at(-1);
    if (foreseen !== undefined && last !== undefined) {
      // A snapshot may cover for it: whether it must be readable is not known yet.
      const content = await contentOrDamage(log, last).catch(() => undefined);
      if (content !== undefined) read.set(last, content);
      if (content !== undefined && 'header' in content && content.damage === undefined)
        foreseen({ slot: last, epoch: content.header.epoch });
    }
    // Nearly always rightly: what follows the newest snapshot.
    const newest = (await listing).at(-1) ?? 0;
    const ahead = all.filter((slot) => slot > newest && !read.has(slot)).slice(0, readAhead);
    await Promise.all(ahead.map(async (slot) => read.set(slot, await contentOrDamage(log, slot))));
    return { all, ahead: read };
  });
  const reading = listing.then((all) => newestState(log, uuid, all.toReversed(), findings));
  const [state, { all: slots, ahead }] = await Promise.all([reading, looking]);
  const snapshots = (await listing).toReversed();
  const snapshotSlot = state.slot;
  const harmless = findings.length;
  findings.push(...log.findings());
  let slotsUnread = 0;
  const toReplay = slots.filter((slot) => slot > snapshotSlot);
  for (let i = 0; i < toReplay.length; i += readAhead) {
    const group = toReplay.slice(i, i + readAhead);
    const contents = await Promise.all(group.map((slot) => ahead.get(slot) ?? contentOrDamage(log, slot)));
    for (const [j, slot] of group.entries()) {
      const content = contents[j] as SlotContent | PlatformError;
      if (content instanceof PlatformError) slotsUnread += 1;
      replay(log, state, slot, content, findings);
    }
  }
  // Snapshots without any slot: the log always keeps its last one, so it was lost.
  if (slots.length === 0 && snapshots.length > 0) findings.push({ file: log.nameOf({ slot: snapshotSlot }), problem: 'the log is empty' });
  const damagedSnapshots = snapshots.filter((slot) => slot > snapshotSlot);
  const isComplete = findings.length === harmless;
  return { state, snapshots, snapshotSlot, damagedSnapshots, slotsReplayed: toReplay.length, slotsUnread, findings, isComplete };
}

async function newestState(
  log: AccountReader,
  uuid: AccountUuid,
  snapshots: readonly number[],
  findings: Finding[],
): Promise<AccountState> {
  for (const slot of snapshots) {
    try {
      return decodeSnapshot(uuid, slot, await log.readSnapshot(slot));
    } catch (error) {
      findings.push({ file: log.nameOf({ snapshot: slot }), problem: messageOf(damage(error)) });
    }
  }
  return new AccountState(uuid);
}

function replay(log: AccountReader, state: AccountState, slot: number, content: SlotContent | PlatformError, findings: Finding[]): void {
  const found = (problem: string): void => void findings.push({ file: log.nameOf({ slot }), problem });
  if (slot !== state.slot + 1) found(`slots ${state.slot + 1} to ${slot - 1} are missing before it`);
  state.slot = slot;
  if (content instanceof PlatformError) {
    found(content.message);
    return;
  }
  if (content.damage !== undefined) found(content.damage);
  const place = { slot, epoch: content.header.epoch, bodiesOffset: bodiesOffsetOf(content.header) };
  for (const record of content.records) {
    try {
      if (findings.length > 0) makeRoomFor(state, record);
      state.apply(record, place);
    } catch (error) {
      found(messageOf(damage(error)));
    }
  }
  // Invariant I2: every slot belongs to the opening that came last before it.
  if (content.damage === undefined && place.epoch !== state.epoch)
    found(`the slot is of epoch ${place.epoch} where epoch ${state.epoch} has the account`);
  // The opening itself may be what was lost.
  if (findings.length > 0) state.epoch = Math.max(state.epoch, place.epoch);
}

function contentOrDamage(log: AccountReader, slot: number): Promise<SlotContent | PlatformError> {
  return readSlotContent(log, slot).catch((error: unknown) => damage(error));
}

/** A message whose mailbox was made in a slot that is lost is not lost with it. */
function makeRoomFor(state: AccountState, record: LogRecord): void {
  if (record.kind !== 'message' || state.mailboxes.has(record.mailboxId)) return;
  const name = record.mailboxId === inboxId ? 'INBOX' : `Recovered ${record.mailboxId}`;
  if (!state.byName.has(name)) state.restoreMailbox(record.mailboxId, name, state.lastUidValidity + 1, undefined);
}

/** `STORE_CORRUPT` as it is, a file that is gone as such; anything else is thrown. */
function damage(error: unknown): PlatformError {
  if (error instanceof PlatformError && error.code === 'STORE_CORRUPT') return error;
  if (errnoOf(error) === 'ENOENT') return corrupt('the file is gone');
  throw error;
}
