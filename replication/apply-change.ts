/**
 * Brings one entry of a replica to the master's state, whatever is in the way: a name that is still taken, a parent that is not there yet,
 * an entry that moved between look-up and write. Every road ends in `decide` on what is there now, so doing it twice does no harm.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { isServerFailure, resultCodeOf } from '#directory/client/ldap-errors.ts';
import { normalizeDnText, splitDn } from '#protocol/ldap/dn.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { decide, decideKnown, type EntryImage, type Step } from '#replication/decide.ts';
import type { LagMeter } from '#replication/lag.ts';
import { inReplicaForm, knownAs, masterUuidAttributes } from '#replication/master-entry.ts';
import { findAtMaster, type Replica } from '#replication/replica.ts';
import type { Shadow } from '#replication/store/shadow.ts';

/** Times that one change is tried with something moved out of its way in between. */
const attemptsMax = 8;
/** Levels above an entry that are fetched from the master when they are missing. */
const parentsMax = 32;

/** What applying a change needs besides the change. */
export interface ApplyContext {
  readonly replica: Replica;
  /** A connection to the master for questions; the stream has its own. */
  readonly master: () => Promise<LdapConnection>;
  readonly lag: LagMeter;
  readonly log: Logger;
  /** Resolves when every change received before this one is done. */
  readonly earlierDone: () => Promise<void>;
  /** Resolves when the pending change of that entry is done, if it is before this one; false when there is none before. */
  readonly pendingBefore: (uuid: string) => Promise<boolean>;
  /** Whether a change of that entry is still to come in what was received. */
  readonly isPendingLater: (uuid: string) => boolean;
  /** Whether the entry is known to be gone at the master. */
  readonly isDoomed: (uuid: string) => boolean;
  /** Resolves when every change received before this one of an entry below that name is done: a rename takes the name from them. */
  readonly earlierBelowDone: (dn: string) => Promise<void>;
  /** What the replica is known to hold; it is told what becomes of that. */
  readonly shadow: Pick<Shadow, 'find' | 'put' | 'forget' | 'renamed'> | undefined;
  /** Whether a write may rely on it. */
  readonly mayRely: boolean;
  /** Set during a refresh: told that an entry with others below it got another name. */
  readonly onContainerMoved: (() => void) | undefined;
}

/** Applies an entry's new state. `isNew`: the replica is not expected to have it, so that no look-up is spent. */
export async function applyPut(context: ApplyContext, uuid: string, received: EntryImage, isNew: boolean): Promise<void> {
  const { replica } = context;
  let master = knownAs(received, uuid);
  let expectsNothing = isNew;
  let lastError: unknown;
  if (!isNew && (await putKnown(context, uuid, master))) return;
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const present = expectsNothing ? undefined : await replica.find(uuid);
    expectsNothing = false;
    const steps = decide(master, present, replica.keepsCsn);
    try {
      await writeSteps(context, uuid, steps, master);
      return;
    } catch (error) {
      lastError = error;
      context.shadow?.forget(uuid);
      await clearTheWay(context, uuid, master, present !== undefined, error, attempt);
      if (attempt < 2 || resultCodeOf(error) !== resultCodes.noSuchObject) continue;
      // The name it was given is of a parent that has another by now: what counts is the master's state of today.
      const current = await findAtMaster(await context.master(), replica.suffix, uuid, replica.scope);
      // Gone meanwhile; its deletion is on its way.
      if (current === undefined) return;
      master = current;
    }
  }
  throw targetRefused(replica, master.dn, lastError, master);
}

async function writeSteps(context: ApplyContext, uuid: string, steps: readonly Step[], master: EntryImage): Promise<void> {
  for (const step of steps) {
    if (step.kind === 'rename') await beforeRename(context, step.dn);
    await context.replica.write(step, uuid);
    if (step.kind === 'rename') context.shadow?.renamed(step.dn, master.dn);
    context.lag.wrote(step.kind);
  }
  context.shadow?.put(uuid, master.dn, master.attributes);
}

/** Writes a change by what the replica is known to hold; false when that does not do and the entry must be read. */
async function putKnown(context: ApplyContext, uuid: string, master: EntryImage): Promise<boolean> {
  const known = context.mayRely ? context.shadow?.find(uuid) : undefined;
  const steps = known === undefined ? [] : decideKnown(master, known, context.replica.keepsCsn);
  if (steps.length === 0) return false;
  try {
    await writeSteps(context, uuid, steps, master);
    return true;
  } catch (error) {
    context.shadow?.forget(uuid);
    if (isServerFailure(error)) throw error;
    return false;
  }
}

/** Applies a deletion; an entry that is not there is done. `lastDn`, where it probably is, saves a look-up. */
export async function applyDelete(context: ApplyContext, uuid: string, lastDn?: string): Promise<void> {
  const { replica, lag } = context;
  let lastError: unknown;
  // Only where the replica makes sure itself that the name is still this entry's.
  let guess = replica.asserts ? (lastDn ?? context.shadow?.find(uuid)?.dn) : undefined;
  context.shadow?.forget(uuid);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const present = guess === undefined ? await replica.find(uuid) : { dn: guess };
    guess = undefined;
    if (present === undefined) return;
    try {
      await replica.delete(present.dn, uuid);
      lag.wrote('delete');
      return;
    } catch (error) {
      const code = resultCodeOf(error);
      lastError = error;
      // It moved or went since we looked.
      if (code === resultCodes.noSuchObject || code === resultCodes.assertionFailed) continue;
      if (code !== resultCodes.notAllowedOnNonLeaf) throw targetRefused(replica, present.dn, error);
      if (attempt === 0) await context.earlierDone();
      else await removeForeignChildren(context, present.dn);
    }
  }
  throw targetRefused(replica, uuid, lastError);
}

async function beforeRename(context: ApplyContext, dn: string): Promise<void> {
  await context.earlierBelowDone(dn);
  if (context.onContainerMoved !== undefined && (await hasChildren(context.replica, dn))) context.onContainerMoved();
}

async function hasChildren(replica: Replica, dn: string): Promise<boolean> {
  try {
    return (await replica.connection.searchAll({ baseDn: dn, scope: 'one', attributes: ['1.1'] }, 1)).length > 0;
  } catch (error) {
    if (resultCodeOf(error) === resultCodes.noSuchObject) return false;
    throw error;
  }
}

async function clearTheWay(
  context: ApplyContext,
  uuid: string,
  master: EntryImage,
  wasThere: boolean,
  error: unknown,
  attempt: number,
): Promise<void> {
  switch (resultCodeOf(error)) {
    case resultCodes.entryAlreadyExists:
    // slapd's answer to a second entry of one entryUUID.
    case resultCodes.constraintViolation:
      await freeTheName(context, uuid, master, wasThere, error);
      return;
    case resultCodes.assertionFailed:
      // Another entry has the name we found this one under: look again.
      return;
    case resultCodes.noSuchObject:
      // The entry itself moved on (found again by UUID), or its parent is still to come.
      if (attempt === 0) await context.earlierDone();
      else await ensureParents(context, master.dn);
      return;
    default:
      throw isServerFailure(error) ? error : targetRefused(context.replica, master.dn, error, master);
  }
}

/** Somebody on the replica has the name that this entry has at the master. */
async function freeTheName(context: ApplyContext, uuid: string, master: EntryImage, wasThere: boolean, error: unknown): Promise<void> {
  const { replica, lag, log } = context;
  const holder = await replica.holderOf(master.dn);
  // Nobody, or ourselves: look again.
  if (holder === undefined || holder === uuid) {
    if (resultCodeOf(error) !== resultCodes.entryAlreadyExists) throw targetRefused(replica, master.dn, error);
    return;
  }
  if (await context.pendingBefore(holder)) return;
  if (context.onContainerMoved !== undefined && (await hasChildren(replica, master.dn))) context.onContainerMoved();
  if (context.isPendingLater(holder)) {
    // A swap, or a chain met from its end: whoever holds the name is moved when its own change comes.
    await displace(context, master.dn, holder);
    return;
  }
  const current = context.isDoomed(holder) ? undefined : await findAtMaster(await context.master(), replica.suffix, holder, replica.scope);
  if (current !== undefined && normalizeDnText(current.dn) !== normalizeDnText(master.dn)) {
    await displace(context, master.dn, holder);
    await applyPut(context, holder, current, false);
    return;
  }
  if (current !== undefined) {
    // By now the master has the holder under this name: our change is old, and the one behind it will say where this entry went.
    await displace(context, master.dn, holder);
    return;
  }
  // During a refresh it may simply not have been named yet.
  if (!context.isDoomed(holder) && context.onContainerMoved === undefined) {
    lag.conflicted();
    log.warn({ dn: master.dn, holder, uuid }, 'the replica has an entry of its own under a name of the master; the master’s replaces it');
  }
  // Adopted, an entry would have the other's content under its own UUID for a moment: a new user the password of the one before. What holds
  // others below it cannot be removed.
  const isRemovable = wasThere || context.isDoomed(holder) || !(await hasChildren(replica, master.dn));
  if (isRemovable) return applyDelete(context, holder);
  context.shadow?.forget(holder);
  await replica.adopt(master.dn, uuid);
}

async function displace(context: ApplyContext, dn: string, holder: string): Promise<void> {
  context.shadow?.forget(holder);
  await context.replica.displace(dn, holder);
}

/** Children that keep a deleted entry in place and that the master does not know were made at the replica by hand. */
async function removeForeignChildren(context: ApplyContext, dn: string): Promise<void> {
  const { replica, lag, log } = context;
  const children = await replica.connection.searchAll({ baseDn: dn, scope: 'one', attributes: ['entryUUID'] }, 1000);
  const master = await context.master();
  for (const child of children) {
    const uuid = textOf(child.attributes, 'entryUUID')?.toLowerCase() ?? '';
    const current = await findAtMaster(master, replica.suffix, uuid, replica.scope);
    if (current !== undefined) {
      await applyPut(context, uuid, current, false);
      continue;
    }
    if (context.isDoomed(uuid)) {
      await applyDelete(context, uuid);
      continue;
    }
    lag.conflicted();
    log.warn({ dn: child.dn, uuid }, 'the replica has an entry of its own below one that the master removed; it is removed');
    await applyDelete(context, uuid);
  }
}

/** Puts the entries above `dn` in place, from the top down, as the master has them now. */
async function ensureParents(context: ApplyContext, dn: string): Promise<void> {
  const master = await context.master();
  const suffix = normalizeDnText(context.replica.suffix);
  const missing: string[] = [];
  let at = splitDn(dn)?.parent ?? '';
  while (at !== '' && missing.length < parentsMax && (await context.replica.holderOf(at)) === undefined) {
    missing.unshift(at);
    if (normalizeDnText(at) === suffix) break;
    at = splitDn(at)?.parent ?? '';
  }
  for (const parent of missing) {
    const read = await master.readEntry(parent, [...context.replica.scope.selection, ...masterUuidAttributes]);
    const entry = read === undefined ? undefined : inReplicaForm(read);
    // Gone at the master as well: the change that says so is on its way.
    if (entry === undefined) return;
    const uuid = textOf(entry.attributes, 'entryUUID')?.toLowerCase() ?? '';
    await applyPut(context, uuid, context.replica.scope.trim(entry), false);
  }
}

// OpenLDAP counts the value it means ("objectClass: value #0 invalid per syntax"); the values are here.
function valueMeant(text: string, master: EntryImage | undefined): string {
  const [, type, index] = /([A-Za-z][A-Za-z0-9;-]*): value #(\d+)/.exec(text) ?? [];
  if (type === undefined || master === undefined) return '';
  const values = master.attributes.find((one) => one.type.toLowerCase() === type.toLowerCase())?.values;
  const value = values?.[Number(index)]?.toString('utf8');
  return value === undefined || /password/i.test(type) ? '' : ` (${type} "${value.slice(0, 200)}")`;
}

function targetRefused(replica: Replica, what: string, error: unknown, master?: EntryImage): unknown {
  if (isServerFailure(error)) return error;
  const code = resultCodeOf(error);
  return new PlatformError(
    'REPL_TARGET_REFUSED',
    `the replica ${replica.connection.url} does not take "${what}": ${messageOf(error)}${valueMeant(messageOf(error), master)}. ` +
      'Compare its schema and the rights of our identity there with the master’s; the entry is tried again until it is taken.',
    { fields: { resultCode: code }, cause: error },
  );
}
