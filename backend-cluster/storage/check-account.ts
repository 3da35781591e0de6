/**
 * Reads everything of an account and verifies it: every snapshot, every slot, and every body that a message refers to. Nothing is opened
 * or changed, so the account may be in use meanwhile; what its host removes between two looks is looked at again.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import { type AccountReader, fileOfBody } from './account-log.ts';
import type { AccountState } from './account-state.ts';
import type { AccountCheck, CheckRequest, Finding } from './account-store.ts';
import { decodePart } from './body.ts';
import { type AccountHistory, readHistory, readSlotContent } from './history.ts';
import type { BodyReference } from './records.ts';
import { decodeSlotHeader, slotHeaderBytes } from './slot.ts';
import { decodeSnapshot } from './snapshot.ts';

/** Times that the account's history is read anew because it changed under way. */
const attemptsMax = 5;

/** Something that failed when it was read. */
type Suspect = { readonly slot: number } | { readonly snapshot: number } | { readonly body: CheckedBody };

/** A body, and the size of its text as the index has it. */
interface CheckedBody extends BodyReference {
  readonly sizeBytes: number;
}

/** See the header of this file. Only the reading of much is paced: what belongs together is read in one go. */
export async function checkAccount(log: AccountReader, uuid: AccountUuid, pace?: CheckRequest['pace']): Promise<AccountCheck> {
  const paced = pace === undefined ? log : pacedReader(log, pace);
  let slots: number[];
  try {
    slots = await log.listSlots();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new PlatformError('ACCT_NOT_FOUND', `there is no account ${uuid} in this storage`);
    throw error;
  }
  const history = await settledHistory(log, uuid);
  const { state } = history;
  const suspects: Suspect[] = [];
  const place = bodyPlaces(paced);
  const look = async (suspect: Suspect): Promise<void> => {
    if ((await problemOf(paced, uuid, suspect, place)) !== undefined) suspects.push(suspect);
  };
  // What the newest snapshot covers is not needed now, but it is what a damaged snapshot would be replaced with.
  for (const slot of slots.filter((covered) => covered <= history.snapshotSlot)) await look({ slot });
  for (const snapshot of history.snapshots.filter((older) => older < history.snapshotSlot)) await look({ snapshot });
  const bodies = bodiesOf(state);
  for (const body of bodies.values()) await look({ body });
  const { findings, isComplete } =
    suspects.length === 0 && history.findings.length === 0 ? { findings: [], isComplete: true } : await confirm(log, uuid, suspects);
  return {
    uuid,
    epoch: state.epoch,
    lastSlot: state.slot,
    snapshots: history.snapshots.length,
    slots: slots.length,
    mailboxes: state.mailboxes.size,
    messages: state.messageCount,
    usedBytes: state.usedBytes,
    bodies: bodies.size,
    findings,
    isComplete,
  };
}

/** A history in which something is missing may have been read while its host removed what a new snapshot covers. */
async function settledHistory(log: AccountReader, uuid: AccountUuid): Promise<AccountHistory> {
  let history = await readHistory(log, uuid);
  for (let attempt = 1; attempt < attemptsMax && history.findings.length > 0; attempt += 1) {
    const again = await readHistory(log, uuid);
    const isSettled = again.snapshotSlot === history.snapshotSlot && again.findings.length === history.findings.length;
    history = again;
    if (isSettled) break;
  }
  return history;
}

/** What is still wrong, and still wanted: reading took its time, and the account went on meanwhile. */
async function confirm(
  log: AccountReader,
  uuid: AccountUuid,
  suspects: readonly Suspect[],
): Promise<Pick<AccountCheck, 'findings' | 'isComplete'>> {
  const history = await settledHistory(log, uuid);
  const [slots, bodies] = [new Set(await log.listSlots()), bodiesOf(history.state)];
  const findings: Finding[] = [...history.findings];
  let { isComplete } = history;
  const place = bodyPlaces(log);
  for (const suspect of suspects) {
    const isWanted =
      'slot' in suspect
        ? slots.has(suspect.slot) && suspect.slot <= history.snapshotSlot
        : 'snapshot' in suspect
          ? history.snapshots.includes(suspect.snapshot)
          : bodies.has(keyOf(suspect.body));
    const problem = isWanted ? await problemOf(log, uuid, suspect, place) : undefined;
    if (problem === undefined) continue;
    if ('body' in suspect) isComplete = false;
    const file = 'body' in suspect ? await fileOfBody(log, suspect.body.at) : log.nameOf(suspect);
    if (!findings.some((finding) => finding.file === file)) findings.push({ file, problem });
  }
  return { findings, isComplete };
}

/** Reads and verifies; what is wrong, if anything is. Input and output errors are thrown. */
async function problemOf(log: AccountReader, uuid: AccountUuid, suspect: Suspect, place: BodyPlaces): Promise<string | undefined> {
  try {
    if ('slot' in suspect) await readSlotContent(log, suspect.slot);
    else if ('snapshot' in suspect) decodeSnapshot(uuid, suspect.snapshot, await log.readSnapshot(suspect.snapshot));
    else return (await place(suspect.body.at)) ?? (await verifyBody(log, suspect.body));
    return undefined;
  } catch (error) {
    if (!isDamage(error)) throw error;
    return messageOf(error);
  }
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
    settle: () => log.settle(),
    readSlot: (slot, offset, length) => paced(log.readSlot(slot, offset, length)),
    listBodies: () => log.listBodies(),
    readBody: (at, offset, length) => paced(log.readBody(at, offset, length)),
    findings: () => log.findings(),
    nameOf: (what) => log.nameOf(what),
  };
}

/** Every body that a message refers to, once. */
function bodiesOf(state: AccountState): Map<string, CheckedBody> {
  const found = new Map<string, CheckedBody>();
  for (const { columns } of state.mailboxes.values()) {
    for (let row = 0; row < columns.count; row += 1) {
      const body = columns.bodyOf(row);
      found.set(keyOf(body), { ...body, sizeBytes: columns.sizeBytes[row] as number });
    }
  }
  return found;
}

function keyOf({ at, offset }: BodyReference): string {
  return `${at} ${offset}`;
}

async function verifyBody(log: AccountReader, body: CheckedBody): Promise<string | undefined> {
  const stored = await log.readBody(body.at, body.offset, body.summaryBytes + body.rawBytes);
  await decodePart(stored.subarray(0, body.summaryBytes));
  return sizeProblem(await decodePart(stored.subarray(body.summaryBytes)), body.sizeBytes);
}

/** What is wrong with a text that is whole by itself, as it also is where one file stands in the place of another. */
export function sizeProblem(raw: Buffer, sizeBytes: number): string | undefined {
  return raw.length === sizeBytes ? undefined : `the text has ${raw.length} bytes where the message has ${sizeBytes}: it is another one's`;
}

/** What is wrong with the place of the bodies in a slot, if anything is: they are found by the slot's name and an offset alone. */
export type BodyPlaces = (at: number) => Promise<string | undefined>;

/** Looks at each slot once. A damaged header does not tell, and what cannot be read is told by whoever reads the body. */
export function bodyPlaces(log: AccountReader): BodyPlaces {
  const known = new Map<number, Promise<string | undefined>>();
  const look = async (at: number): Promise<string | undefined> => {
    try {
      const { slot } = decodeSlotHeader(await log.readBody(at, 0, slotHeaderBytes));
      return slot === at ? undefined : `the file stands under the name of slot ${at} and is slot ${slot}`;
    } catch (error) {
      if (error instanceof PlatformError || isDamage(error)) return undefined;
      throw error;
    }
  };
  return (at) => {
    // Below 0 it is a file of its own.
    if (at < 0) return Promise.resolve(undefined);
    let problem = known.get(at);
    if (problem === undefined) {
      problem = look(at);
      known.set(at, problem);
    }
    return problem;
  };
}
