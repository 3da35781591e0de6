/**
 * The content of one message, read only as far as it is asked for: the summary for envelope and structure, the bytes for sections.
 */
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { type MimePart, scanMessage } from '#protocol/mime/part.ts';
import { readSummary } from '#protocol/mime/summary.ts';

/** A message whose bytes are kept for the next command, octets: clients fetch large ones piece by piece. */
const keptBytesMax = 4 * 1024 * 1024;

/** Reads and remembers the parts of one message. */
export class MessageContent {
  readonly mailboxId: number;
  readonly uid: number;
  readonly #account: OpenAccount;
  #raw: Buffer | undefined;
  #structure: MimePart | undefined;

  constructor(account: OpenAccount, mailboxId: number, uid: number) {
    this.#account = account;
    this.mailboxId = mailboxId;
    this.uid = uid;
  }

  /** All octets. */
  async raw(): Promise<Buffer> {
    this.#raw ??= await this.#account.readRaw(this.mailboxId, this.uid);
    return this.#raw;
  }

  /** Envelope and structure: from the summary, or scanned anew when there is none that can be read. */
  async structure(): Promise<MimePart> {
    this.#structure ??= readSummary(await this.#account.readSummary(this.mailboxId, this.uid)) ?? scanMessage(await this.raw());
    return this.#structure;
  }

  /** May be kept until the next command. */
  get isSmallEnoughToKeep(): boolean {
    return this.#raw !== undefined && this.#raw.length <= keptBytesMax;
  }
}
