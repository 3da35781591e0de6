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
import { corrupt } from './binary.ts';
import type { LogRecord } from './records.ts';
import { bodiesOffsetOf, decodeSlotHeader, decodeSlotRecords, type SlotHeader, slotHeaderBytes } from './slot.ts';
import { decodeSnapshot } from './snapshot.ts';

/** Read at once of each slot: the header and, nearly always, all of its records. */
const firstReadBytes = 4096;
/** Slots read ahead at the same time. */
const readAhead = 8;

/** What storage says of an account. */
export interface AccountHistory {
  readonly state: AccountState;
  /** Newest snapshots first; those found whole and used, and those that are older. */
  readonly snapshots: readonly number[];
  /** The snapshot that `state` began with; 0 when it began with nothing. */
  readonly snapshotSlot: number;
  readonly slotsReplayed: number;
  readonly findings: readonly Finding[];
  /** False when something is lost: a slot is damaged or missing. A damaged snapshot alone loses nothing while an older one covers for it. */
  readonly isComplete: boolean;
}

/** One slot, taken apart. */
export interface SlotContent {
  readonly header: SlotHeader;
  readonly records: readonly LogRecord[];
}

/** Reads one slot without its bodies. Throws `STORE_CORRUPT`, or what the engine throws. */
export async function readSlotContent(log: AccountReader, slot: number): Promise<SlotContent> {
  const start = await log.readSlot(slot, 0, firstReadBytes);
  const header = decodeSlotHeader(start);
  if (header.slot !== slot) throw corrupt(`the file stands under the name of slot ${slot} and is slot ${header.slot}`);
  const end = bodiesOffsetOf(header);
  const records =
    end <= start.length ? start.subarray(slotHeaderBytes, end) : await log.readSlot(slot, slotHeaderBytes, header.recordsBytes);
  return { header, records: decodeSlotRecords(header, records) };
}

/** See the header of this file. */
export async function readHistory(log: AccountReader, uuid: AccountUuid): Promise<AccountHistory> {
  const findings: Finding[] = [];
  const snapshots = (await log.listSnapshots()).reverse();
  const slots = await log.listSlots();
  const state = await newestState(log, uuid, snapshots, findings);
  const snapshotSlot = state.slot;
  const harmless = findings.length;
  const toReplay = slots.filter((slot) => slot > snapshotSlot);
  for (let i = 0; i < toReplay.length; i += readAhead) {
    const group = toReplay.slice(i, i + readAhead);
    const contents = await Promise.all(group.map((slot) => readSlotContent(log, slot).catch((error: unknown) => damage(error))));
    for (const [j, slot] of group.entries()) replay(log, state, slot, contents[j] as SlotContent | PlatformError, findings);
  }
  // Snapshots without any slot: the log always keeps its last one, so it was lost.
  if (slots.length === 0 && snapshots.length > 0) findings.push({ file: log.nameOf({ slot: snapshotSlot }), problem: 'the log is empty' });
  return { state, snapshots, snapshotSlot, slotsReplayed: toReplay.length, findings, isComplete: findings.length === harmless };
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
  const place = { slot, epoch: content.header.epoch, bodiesOffset: bodiesOffsetOf(content.header) };
  for (const record of content.records) {
    try {
      state.apply(record, place);
    } catch (error) {
      found(messageOf(damage(error)));
    }
  }
  // Invariant I2: every slot belongs to the opening that came last before it.
  if (place.epoch !== state.epoch) found(`the slot is of epoch ${place.epoch} where epoch ${state.epoch} has the account`);
}

/** `STORE_CORRUPT` as it is, a file that is gone as such; anything else is thrown. */
function damage(error: unknown): PlatformError {
  if (error instanceof PlatformError && error.code === 'STORE_CORRUPT') return error;
  if (errnoOf(error) === 'ENOENT') return corrupt('the file is gone');
  throw error;
}
