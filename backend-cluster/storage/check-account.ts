/**
 * Reads everything of an account and verifies it: every snapshot, every slot, and every body that a message refers to. Nothing is opened
 * or changed, so the account may be in use meanwhile; what its host removes between two looks is looked at again.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import type { AccountReader } from './account-log.ts';
import type { AccountState } from './account-state.ts';
import type { AccountCheck, CheckRequest, Finding } from './account-store.ts';
import { decodePart } from './body.ts';
import { readHistory, readSlotContent } from './history.ts';
import type { BodyReference } from './records.ts';
import { decodeSnapshot } from './snapshot.ts';

/** Times that an account is read anew because it changed under way. */
const attemptsMax = 3;

/** See the header of this file. */
export async function checkAccount(given: AccountReader, uuid: AccountUuid, pace?: CheckRequest['pace']): Promise<AccountCheck> {
  const log = pace === undefined ? given : pacedReader(given, pace);
  let check = await checkOnce(log, uuid);
  for (let attempt = 1; attempt < attemptsMax && check.findings.length > 0; attempt += 1) {
    const again = await checkOnce(log, uuid);
    const isSettled = again.lastSlot === check.lastSlot && again.findings.length === check.findings.length;
    check = again;
    if (isSettled) break;
  }
  return check;
}

async function checkOnce(log: AccountReader, uuid: AccountUuid): Promise<AccountCheck> {
  let slots: number[];
  try {
    slots = await log.listSlots();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new PlatformError('ACCT_NOT_FOUND', `there is no account ${uuid} in this storage`);
    throw error;
  }
  const history = await readHistory(log, uuid);
  const { state } = history;
  const findings: Finding[] = [...history.findings];
  const note = (file: string, error: unknown): void => {
    if (!isDamage(error)) throw error;
    if (!findings.some((finding) => finding.file === file)) findings.push({ file, problem: messageOf(error) });
  };
  // What the newest snapshot covers is not needed now, but it is what a damaged snapshot would be replaced with.
  for (const slot of slots.filter((covered) => covered <= history.snapshotSlot)) {
    await readSlotContent(log, slot).catch((error: unknown) => note(log.nameOf({ slot }), error));
  }
  for (const slot of history.snapshots.filter((older) => older < history.snapshotSlot)) {
    try {
      decodeSnapshot(uuid, slot, await log.readSnapshot(slot));
    } catch (error) {
      note(log.nameOf({ snapshot: slot }), error);
    }
  }
  const bodies = bodiesOf(state);
  let isComplete = history.isComplete;
  for (const body of bodies) {
    try {
      await verifyBody(log, body);
    } catch (error) {
      isComplete = false;
      note(log.nameOf({ body: body.at }), error);
    }
  }
  return {
    uuid,
    epoch: state.epoch,
    lastSlot: state.slot,
    snapshots: history.snapshots.length,
    slots: slots.length,
    mailboxes: state.mailboxes.size,
    messages: state.messageCount,
    usedBytes: state.usedBytes,
    bodies: bodies.length,
    findings,
    isComplete,
  };
}

/** Whether a failure to read says that what is stored is not what was written. */
export function isDamage(error: unknown): boolean {
  return (error instanceof PlatformError && error.code === 'STORE_CORRUPT') || errnoOf(error) === 'ENOENT';
}

/** Reads no faster than `pace` allows. */
function pacedReader(log: AccountReader, pace: (bytes: number) => Promise<void>): AccountReader {
  const paced = async (work: Promise<Buffer>): Promise<Buffer> => {
    const bytes = await work;
    await pace(bytes.length);
    return bytes;
  };
  return {
    listSnapshots: () => log.listSnapshots(),
    readSnapshot: (slot) => paced(log.readSnapshot(slot)),
    listSlots: () => log.listSlots(),
    readSlot: (slot, offset, length) => paced(log.readSlot(slot, offset, length)),
    listBodies: () => log.listBodies(),
    readBody: (at, offset, length) => paced(log.readBody(at, offset, length)),
    findings: () => log.findings(),
    nameOf: (what) => log.nameOf(what),
  };
}

function bodiesOf(state: AccountState): BodyReference[] {
  const found = new Map<string, BodyReference>();
  for (const { columns } of state.mailboxes.values()) {
    for (let row = 0; row < columns.count; row += 1) {
      const body = columns.bodyOf(row);
      found.set(`${body.at} ${body.offset}`, body);
    }
  }
  return [...found.values()];
}

async function verifyBody(log: AccountReader, body: BodyReference): Promise<void> {
  const stored = await log.readBody(body.at, body.offset, body.summaryBytes + body.rawBytes);
  await decodePart(stored.subarray(0, body.summaryBytes));
  await decodePart(stored.subarray(body.summaryBytes));
}
