/**
 * Keeps an account's log short: a snapshot, then removal of what two snapshots cover.
 *
 * The order makes every step harmless to stop after: the new snapshot is durable; slots up to the *previous* snapshot that still hold
 * wanted bodies get a second name, durably; then those slots go, lowest first; then older snapshots; last the bodies that no message
 * refers to. The previous snapshot and the slots after it stay, so a newest snapshot that rots is no loss. The last slot is never among
 * those removed.
 *
 * A member that is deposed in the middle and wakes up later does no harm either: it removes only slots, snapshots and bodies up to its
 * own last slot and epoch, and what its state did not refer to there nobody can ever refer to again. It must not judge anything newer:
 * a listing may show it bodies of its successor.
 */
import type { OpeningLog } from './account-log.ts';
import type { AccountState } from './account-state.ts';
import { fileParts } from './layout.ts';
import { encodeSnapshot } from './snapshot.ts';

/** A snapshot as taken at one moment, to be written while the account goes on. */
export interface SnapshotPlan {
  readonly slot: number;
  readonly epoch: number;
  readonly parts: readonly Uint8Array[];
  /** The snapshot before this one; 0 when there is none, and then nothing is removed. */
  readonly previousSlot: number;
  /** Found damaged when the account was opened: removed once this one is there. */
  readonly damagedSnapshots: readonly number[];
  readonly inUse: ReadonlySet<number>;
  /** Files of this epoch from this counter on are not judged, nor those being written. */
  readonly fileCounter: number;
  readonly filesUnderWay: ReadonlySet<number>;
}

/** Takes the snapshot of a state, at once. */
export function planSnapshot(
  state: AccountState,
  previousSlot: number,
  files: { readonly counter: number; readonly underWay: ReadonlySet<number> },
  damagedSnapshots: readonly number[] = [],
): SnapshotPlan {
  return {
    slot: state.slot,
    epoch: state.epoch,
    parts: encodeSnapshot(state),
    previousSlot,
    damagedSnapshots,
    inUse: state.bodiesInUse(),
    fileCounter: files.counter,
    filesUnderWay: new Set(files.underWay),
  };
}

/** Writes the snapshot and removes what is no longer needed. May be stopped after any step. */
export async function compact(log: OpeningLog, plan: SnapshotPlan): Promise<{ readonly slots: number; readonly bodies: number }> {
  await log.writeSnapshot(plan.slot, plan.parts);
  const covered = plan.previousSlot === 0 ? [] : (await log.listSlots()).filter((slot) => slot <= plan.previousSlot);
  const kept = covered.filter((slot) => plan.inUse.has(slot));
  for (const slot of kept) await log.keepBodiesOf(slot);
  if (kept.length > 0) await log.syncBodies();
  if (covered.length > 0) await log.removeSlots(covered);
  for (const slot of await log.listSnapshots()) {
    if (slot < plan.previousSlot || plan.damagedSnapshots.includes(slot)) await log.removeSnapshot(slot);
  }
  let bodies = 0;
  for (const at of await log.listBodies()) {
    if (plan.inUse.has(at) || !isToBeJudged(plan, at)) continue;
    await log.removeBody(at);
    bodies += 1;
  }
  return { slots: covered.length, bodies };
}

function isToBeJudged(plan: SnapshotPlan, at: number): boolean {
  if (at > 0) return at <= plan.slot;
  const { epoch, counter } = fileParts(at);
  if (epoch !== plan.epoch) return epoch < plan.epoch;
  return counter < plan.fileCounter && !plan.filesUnderWay.has(at);
}
