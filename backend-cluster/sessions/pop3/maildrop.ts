/**
 * The maildrop of one POP3 session: INBOX as it was when the session began (RFC 1939 §4), with the marks that DELE sets. Message numbers
 * are its places and never change; what other sessions expunge meanwhile keeps its number and can no longer be read.
 *
 * INBOX is not locked against others: it is shared with IMAP sessions and with deliveries, which an exclusive lock would shut out.
 */
import type { Mailbox, OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { PlatformError } from '#common/errors/platform-error.ts';

/** One message of the snapshot. */
export interface MaildropMessage {
  readonly number: number;
  readonly uid: number;
  readonly sizeBytes: number;
  /** UIDL: `emailId` stays with a message for ever, whatever happens to UIDs. */
  readonly uniqueId: string;
}

/** A maildrop as it is sent to another member: what others have expunged since is in it too. */
export interface MaildropImage {
  readonly inboxId: number;
  readonly uidValidity: number;
  readonly messages: readonly (readonly [uid: number, sizeBytes: number, uniqueId: string])[];
  /** Numbers of the messages with a mark. */
  readonly marked: readonly number[];
}

/** See the header of this file. */
export class Maildrop {
  readonly #account: OpenAccount;
  readonly #inboxId: number;
  readonly #uidValidity: number;
  readonly #messages: readonly MaildropMessage[];
  readonly #marked = new Set<number>();

  private constructor(account: OpenAccount, inbox: Mailbox, messages: readonly MaildropMessage[]) {
    this.#account = account;
    this.#inboxId = inbox.id;
    this.#uidValidity = inbox.uidValidity;
    this.#messages = messages;
  }

  /** INBOX as it is now. */
  static open(account: OpenAccount): Maildrop {
    const inbox = account.mailbox('INBOX');
    if (inbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `account ${account.uuid} has no INBOX; every account must have one`);
    const messages: MaildropMessage[] = [];
    for (const uid of inbox.uids()) {
      const info = inbox.message(uid);
      if (info !== undefined) messages.push({ number: messages.length + 1, uid, sizeBytes: info.sizeBytes, uniqueId: info.emailId });
    }
    return new Maildrop(account, inbox, messages);
  }

  /** As another member had it; `undefined` when that INBOX is no more. */
  static restore(account: OpenAccount, image: MaildropImage): Maildrop | undefined {
    const inbox = account.mailboxById(image.inboxId);
    if (inbox === undefined || inbox.uidValidity !== image.uidValidity) return undefined;
    const messages = image.messages.map(([uid, sizeBytes, uniqueId], index) => ({ number: index + 1, uid, sizeBytes, uniqueId }));
    const maildrop = new Maildrop(account, inbox, messages);
    for (const number of image.marked) maildrop.#marked.add(number);
    return maildrop;
  }

  /** Messages without a mark. */
  present(): MaildropMessage[] {
    return this.#messages.filter((message) => !this.#marked.has(message.number));
  }

  /** The message of that number; `undefined` when there is none or it is marked. */
  find(number: number): MaildropMessage | undefined {
    return this.#marked.has(number) ? undefined : this.#messages[number - 1];
  }

  mark(message: MaildropMessage): void {
    this.#marked.add(message.number);
  }

  unmarkAll(): void {
    this.#marked.clear();
  }

  get markedCount(): number {
    return this.#marked.size;
  }

  image(): MaildropImage {
    const messages = this.#messages.map(({ uid, sizeBytes, uniqueId }) => [uid, sizeBytes, uniqueId] as const);
    return { inboxId: this.#inboxId, uidValidity: this.#uidValidity, messages, marked: [...this.#marked] };
  }

  /** The text; `undefined` when another session has expunged the message. */
  async read(message: MaildropMessage): Promise<Buffer | undefined> {
    if (this.#account.isOpen && this.#account.mailboxById(this.#inboxId)?.message(message.uid) === undefined) return undefined;
    return await this.#account.readRaw(this.#inboxId, message.uid);
  }

  /** UPDATE state (RFC 1939 §6): removes what is marked, all in one commit. Those already gone are passed over. */
  async commit(): Promise<void> {
    if (this.#marked.size === 0) return;
    const uids = this.#messages.filter((message) => this.#marked.has(message.number)).map((message) => message.uid);
    await this.#account.expunge(this.#inboxId, uids, true);
  }
}
