/**
 * The changes that will go into one slot, while they are put together. Nobody sees them before the slot is committed, so they are
 * planned against the committed state plus the few numbers that earlier changes of the same group have already taken.
 *
 * Which changes may share a group: appends to any mailboxes; changes of messages, when no other change of the group touches their
 * mailboxes; a change of the mailboxes themselves is alone. What does not fit waits for the next group, in order.
 */
import { messagesPerMailboxMax } from '#backend-cluster/mailboxes/limits.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { AccountState, StoredDelivery } from './account-state.ts';
import type { MailboxState } from './mailbox-state.ts';
import type { LogRecord } from './records.ts';

/** What a change touches. */
export type ChangeScope =
  | { readonly kind: 'append'; readonly mailboxId: number }
  | { readonly kind: 'messages'; readonly mailboxIds: readonly number[] }
  | { readonly kind: 'account' };

interface Counters {
  uidNext: number;
  messageCount: number;
  modseq: number;
}

/** See the header of this file. */
export class GroupPlan {
  readonly state: AccountState;
  readonly nowMs: number;
  readonly records: LogRecord[] = [];
  readonly bodies: Uint8Array[] = [];
  /** Bytes in `bodies`: where the next body will begin. */
  bodyBytes = 0;
  /** What the account would hold. */
  usedBytes: number;
  readonly #counters = new Map<number, Counters>();
  readonly #deliveries = new Map<string, StoredDelivery>();
  readonly #appended = new Set<number>();
  readonly #changed = new Set<number>();
  #isAlone = false;
  #isEmpty = true;

  constructor(state: AccountState, nowMs: number) {
    this.state = state;
    this.nowMs = nowMs;
    this.usedBytes = state.usedBytes;
  }

  /** Takes a change in, if it goes with those that are here. */
  admit(scope: ChangeScope): boolean {
    if (this.#isAlone) return false;
    if (scope.kind === 'account') {
      if (!this.#isEmpty) return false;
      this.#isAlone = true;
    } else if (scope.kind === 'append') {
      if (this.#changed.has(scope.mailboxId)) return false;
      this.#appended.add(scope.mailboxId);
    } else {
      if (scope.mailboxIds.some((id) => this.#changed.has(id) || this.#appended.has(id))) return false;
      for (const id of scope.mailboxIds) this.#changed.add(id);
    }
    this.#isEmpty = false;
    return true;
  }

  mailbox(id: number): MailboxState {
    const mailbox = this.state.mailboxes.get(id);
    if (mailbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `the account has no mailbox ${id} (any more)`);
    return mailbox;
  }

  /** Throws `MBOX_LIMIT` when the mailbox has no room for `added` messages more, or no UIDs left for them. */
  checkRoom(mailbox: MailboxState, added: number): void {
    const { messageCount, uidNext } = this.#of(mailbox);
    if (messageCount + added <= messagesPerMailboxMax && uidNext + added < 2 ** 32) return;
    throw new PlatformError(
      'MBOX_LIMIT',
      `mailbox ${mailbox.id} has ${messageCount} messages and next UID ${uidNext}: no room for ${added} more`,
    );
  }

  /** The next UID, taken. */
  takeUid(mailbox: MailboxState): number {
    const counters = this.#of(mailbox);
    counters.messageCount += 1;
    counters.uidNext += 1;
    return counters.uidNext - 1;
  }

  /** A UID that was chosen elsewhere, taken; false when it is not above all that were given out. */
  placeUid(mailbox: MailboxState, uid: number): boolean {
    const counters = this.#of(mailbox);
    if (uid < counters.uidNext || uid >= 2 ** 32) return false;
    counters.messageCount += 1;
    counters.uidNext = uid + 1;
    return true;
  }

  /** The next modification sequence number, taken. */
  takeModseq(mailbox: MailboxState): number {
    const counters = this.#of(mailbox);
    counters.modseq += 1;
    return counters.modseq;
  }

  delivery(id: string): StoredDelivery | undefined {
    return this.state.deliveries.get(id) ?? this.#deliveries.get(id);
  }

  noteDelivery(id: string, delivery: StoredDelivery): void {
    this.#deliveries.set(id, delivery);
  }

  /** Adds the bytes of a message and returns where they begin, counted from the first body of the slot. */
  addBody(parts: readonly Uint8Array[]): number {
    const offset = this.bodyBytes;
    for (const part of parts) {
      this.bodies.push(part);
      this.bodyBytes += part.byteLength;
    }
    return offset;
  }

  #of(mailbox: MailboxState): Counters {
    let counters = this.#counters.get(mailbox.id);
    if (counters === undefined) {
      counters = { uidNext: mailbox.uidNext, messageCount: mailbox.messageCount, modseq: mailbox.highestModseq };
      this.#counters.set(mailbox.id, counters);
    }
    return counters;
  }
}
