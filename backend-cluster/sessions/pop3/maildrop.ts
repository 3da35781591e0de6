/**
 * The maildrop of one POP3 session: INBOX as it was when the session began (RFC 1939 §4), with the marks that DELE sets. Message numbers
 * are its places and never change; what other sessions expunge meanwhile keeps its number and can no longer be read.
 *
 * INBOX is not locked against others: it is shared with IMAP sessions and with deliveries, which an exclusive lock would shut out.
 */
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { PlatformError } from '#common/errors/platform-error.ts';

/** One message of the snapshot. */
export interface MaildropMessage {
  readonly number: number;
  readonly uid: number;
  readonly sizeBytes: number;
  /** UIDL: `emailId` stays with a message for ever, whatever happens to UIDs. */
  readonly uniqueId: string;
}

/** See the header of this file. */
export class Maildrop {
  readonly #account: OpenAccount;
  readonly #inboxId: number;
  readonly #messages: readonly MaildropMessage[];
  readonly #marked = new Set<number>();

  constructor(account: OpenAccount) {
    const inbox = account.mailbox('INBOX');
    if (inbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `account ${account.uuid} has no INBOX; every account must have one`);
    this.#account = account;
    this.#inboxId = inbox.id;
    const messages: MaildropMessage[] = [];
    for (const uid of inbox.uids()) {
      const info = inbox.message(uid);
      if (info !== undefined) messages.push({ number: messages.length + 1, uid, sizeBytes: info.sizeBytes, uniqueId: info.emailId });
    }
    this.#messages = messages;
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
