/**
 * Making, removing, renaming and subscribing mailboxes (RFC 9051 §6.3.4 to §6.3.8). Each is alone in its commit, so it is planned
 * against the committed state.
 */
import type { AccountState } from '#backend-cluster/storage/account-state.ts';
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import type { GroupPlan } from '#backend-cluster/storage/group-plan.ts';
import { inboxId } from '#backend-cluster/storage/history.ts';
import type { MailboxState } from '#backend-cluster/storage/mailbox-state.ts';
import type { LogRecord } from '#backend-cluster/storage/records.ts';
import { printable } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { planMove } from './copy-messages.ts';
import { mailboxesMax, subscriptionsMax } from './limits.ts';
import { foldMailboxName, initialMailboxes, parentNames, parseMailboxName, parseSpecialUse } from './mailbox-names.ts';

/** The records with which an account begins. */
export function initialRecords(nowMs: number): LogRecord[] {
  const records: LogRecord[] = [];
  const uidValidity = uidValidityAfter(0, nowMs);
  for (const [i, { name, specialUse }] of [{ name: 'INBOX', specialUse: '' }, ...initialMailboxes].entries()) {
    records.push({ kind: 'mailbox-create', mailboxId: i + 1, name, uidValidity: uidValidity + i, specialUse });
    records.push({ kind: 'subscribe', name, subscribed: true });
  }
  return records;
}

/** Makes INBOX in an account that has lost it. */
export function inboxRecords(state: AccountState, nowMs: number): LogRecord[] {
  const mailboxId = state.mailboxes.has(inboxId) ? state.nextMailboxId : inboxId;
  const uidValidity = uidValidityAfter(state.lastUidValidity, nowMs);
  return [
    { kind: 'mailbox-create', mailboxId, name: 'INBOX', uidValidity, specialUse: '' },
    { kind: 'subscribe', name: 'INBOX', subscribed: true },
  ];
}

/** Makes a mailbox and those above it that are missing. */
export function createMailboxChange(name: string, specialUse: string | undefined): Change<MailboxState> {
  const wanted = parseMailboxName(name);
  const use = specialUse === undefined ? '' : parseSpecialUse(specialUse);
  return {
    scope: { kind: 'account' },
    bytes: 2048,
    plan(plan) {
      const { state } = plan;
      if (state.byName.has(wanted)) throw new PlatformError('MBOX_EXISTS', `there is a mailbox "${printable(wanted)}" already`);
      const missing = parentNames(wanted).filter((parent) => !state.byName.has(parent));
      checkMailboxCount(state, missing.length + 1);
      const id = addMailboxes(plan, [...missing.map((parent) => ({ name: parent, use: '' })), { name: wanted, use }]);
      return () => present(state.mailboxes.get(id));
    },
  };
}

/** Removes a mailbox with its messages; mailboxes below it stay. */
export function deleteMailboxChange(name: string): Change<void> {
  const folded = foldMailboxName(name);
  return {
    scope: { kind: 'account' },
    bytes: 2048,
    plan(plan) {
      const mailbox = find(plan.state, folded);
      if (folded === 'INBOX') throw new PlatformError('MBOX_NAME_INVALID', 'INBOX cannot be deleted');
      plan.records.push({ kind: 'mailbox-delete', mailboxId: mailbox.id });
      return () => undefined;
    },
  };
}

/** Renames a mailbox and those below it. */
export function renameMailboxChange(from: string, to: string): Change<void> {
  const oldName = foldMailboxName(from);
  const newName = parseMailboxName(to);
  return {
    scope: { kind: 'account' },
    bytes: 4096,
    plan(plan) {
      const { state } = plan;
      const mailbox = find(state, oldName);
      if (state.byName.has(newName)) throw new PlatformError('MBOX_EXISTS', `there is a mailbox "${printable(newName)}" already`);
      if (oldName === 'INBOX') {
        planInboxRename(plan, mailbox, newName);
        return () => undefined;
      }
      if (newName.startsWith(`${oldName}/`)) {
        throw new PlatformError('MBOX_NAME_INVALID', `mailbox "${printable(oldName)}" cannot be moved below itself`);
      }
      const below = [...state.byName.values()].filter((other) => other.name.startsWith(`${oldName}/`));
      const renames = [mailbox, ...below].map((moved) => ({
        mailbox: moved,
        name: parseMailboxName(newName + moved.name.slice(oldName.length)),
      }));
      for (const { name } of renames) {
        if (state.byName.has(name)) throw new PlatformError('MBOX_EXISTS', `there is a mailbox "${printable(name)}" already`);
      }
      const missing = missingParents(state, newName);
      checkMailboxCount(state, missing.length);
      addMailboxes(
        plan,
        missing.map((parent) => ({ name: parent, use: '' })),
      );
      for (const { mailbox: moved, name } of renames) plan.records.push({ kind: 'mailbox-rename', mailboxId: moved.id, name });
      return () => undefined;
    },
  };
}

/** Subscribes or unsubscribes a name, whether or not there is such a mailbox. */
export function subscribeChange(name: string, subscribed: boolean): Change<void> {
  const folded = subscribed ? parseMailboxName(name) : foldMailboxName(name);
  return {
    scope: { kind: 'account' },
    bytes: 2048,
    plan(plan) {
      const { subscriptions } = plan.state;
      if (subscriptions.has(folded) !== subscribed) {
        if (subscribed && subscriptions.size >= subscriptionsMax) {
          throw new PlatformError('MBOX_LIMIT', `the account has ${subscriptions.size} subscribed names, which is all it may have`);
        }
        plan.records.push({ kind: 'subscribe', name: folded, subscribed });
      }
      return () => undefined;
    },
  };
}

/** RFC 9051 §6.3.6: the messages of INBOX move to the new mailbox, INBOX stays and so do the mailboxes below it. */
function planInboxRename(plan: GroupPlan, inbox: MailboxState, newName: string): void {
  const { state } = plan;
  const missing = missingParents(state, newName);
  checkMailboxCount(state, missing.length + 1);
  const id = addMailboxes(
    plan,
    [...missing, newName].map((name) => ({ name, use: '' })),
  );
  const rows = Array.from({ length: inbox.messageCount }, (_, row) => row);
  planMove(plan, inbox, rows, state.unborn(id, newName));
}

function missingParents(state: AccountState, name: string): string[] {
  return parentNames(name).filter((parent) => !state.byName.has(parent));
}

/** Adds records for new mailboxes and returns the id of the last one. An import brings its UIDVALIDITY. */
export function addMailboxes(
  plan: GroupPlan,
  mailboxes: readonly { readonly name: string; readonly use: string; readonly uidValidity?: number }[],
): number {
  const { state } = plan;
  let mailboxId = state.nextMailboxId - 1;
  let uidValidity = state.lastUidValidity;
  for (const { name, use, uidValidity: given } of mailboxes) {
    mailboxId += 1;
    uidValidity = given ?? uidValidityAfter(uidValidity, plan.nowMs);
    plan.records.push({ kind: 'mailbox-create', mailboxId, name, uidValidity, specialUse: use });
  }
  return mailboxId;
}

/**
 * UIDVALIDITY is a time in seconds where that is higher than the last one given in this account, else the next number: so no name ever
 * has the same one twice, whatever clocks do (RFC 9051 §2.3.1.1).
 */
function uidValidityAfter(last: number, nowMs: number): number {
  return Math.max(last + 1, Math.floor(nowMs / 1000) % 2 ** 32);
}

/** Throws `MBOX_LIMIT` when so many mailboxes more are too many. */
export function checkMailboxCount(state: AccountState, added: number): void {
  if (state.mailboxes.size + added <= mailboxesMax) return;
  throw new PlatformError('MBOX_LIMIT', `the account has ${state.mailboxes.size} mailboxes of the ${mailboxesMax} it may have`);
}

function find(state: AccountState, name: string): MailboxState {
  const mailbox = state.byName.get(name);
  if (mailbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `there is no mailbox "${printable(name)}"`);
  return mailbox;
}

/** What a committed change must have made. */
export function present(mailbox: MailboxState | undefined): MailboxState {
  if (mailbox === undefined) throw new PlatformError('BUG_UNEXPECTED', 'a mailbox that was just made is not there');
  return mailbox;
}
