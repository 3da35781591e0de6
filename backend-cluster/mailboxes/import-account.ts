/**
 * Takes an archive into an open account, as it comes in. Every message is stored once, also when an import is done again after it was cut
 * short: with their UIDs messages are known by these, without by archive and file.
 */
import type { ImportedMessage, StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { printable } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import {
  type ArchivedMailbox,
  type ArchivedMessage,
  type ArchivedScript,
  type ArchiveHead,
  ArchiveReader,
  batchBytesMax,
  batchMessagesMax,
} from '#protocol/archive/format.ts';
import { TarDecoder } from '#protocol/archive/tar.ts';
import { normaliseLineEnds, summarise } from '#protocol/mime/summary.ts';
import type { ImportTarget } from './import-changes.ts';
import { checkScript } from './script-changes.ts';

/** What an import came to. */
export interface ImportReport {
  readonly mailboxes: number;
  readonly messages: number;
  /** Messages that were there already. */
  readonly skipped: number;
  readonly bytes: number;
  /** Sieve scripts that are here as they are in the archive. */
  readonly scripts: number;
  /** Those that are not, and why; the first of them. */
  readonly scriptsLeft: readonly string[];
  /** Mailboxes whose messages got new UIDs, because they were in use here. */
  readonly renumbered: readonly string[];
}

const listedMax = 100;

/** With these the account says no to a script; anything else is a failure of the import. */
const scriptRefusals: ReadonlySet<string> = new Set(['SCRIPT_EXISTS', 'SCRIPT_INVALID', 'MBOX_LIMIT']);

/** See the header of this file. Feed it in order; nothing is acknowledged before `end`. */
export class AccountImport {
  readonly #account: StoredAccount;
  readonly #tar = new TarDecoder();
  readonly #reader = new ArchiveReader();
  readonly #targets = new Map<number, { readonly mailbox: ArchivedMailbox; readonly target: ImportTarget }>();
  #head: ArchiveHead | undefined;
  #mailbox = 0;
  #batch: ImportedMessage[] = [];
  #batchBytes = 0;
  #isWhole = false;
  #stored = 0;
  #seen = 0;
  #bytes = 0;
  #scripts = 0;
  readonly #scriptsLeft: string[] = [];

  constructor(account: StoredAccount) {
    this.#account = account;
  }

  /** Resolves when what is complete is stored, so that whoever feeds it does not run ahead. */
  async push(chunk: Buffer): Promise<void> {
    for (const { name, body } of this.#tar.push(chunk)) {
      const part = this.#reader.take(name, body);
      if (part?.kind === 'head') this.#head = part.head;
      if (part?.kind === 'end') this.#isWhole = true;
      if (part?.kind === 'script') await this.#addScript(part.script, part.text);
      if (part?.kind === 'message') await this.#add(part.mailbox, part.file, part.message);
    }
  }

  /** Call it when the archive has come in as a whole. */
  async end(): Promise<ImportReport> {
    await this.#flush();
    if (!this.#isWhole || this.#head === undefined) {
      throw new PlatformError(
        'PROTO_SYNTAX',
        `the archive was cut off: ${this.#stored} messages were stored; import it again from the start`,
      );
    }
    // Mailboxes without messages, and numbers above those of the last message.
    for (const { number } of this.#head.mailboxes) {
      const { mailbox, target } = await this.#targetOf(number);
      if (target.keepsUids) await this.#account.finishImport(target.mailboxId, mailbox.uidNext ?? 1, mailbox.highestModseq ?? 1);
    }
    for (const name of this.#head.subscriptions) await this.#account.subscribe(String(name), true);
    const renumbered = [...this.#targets.values()].filter(({ mailbox, target }) => mailbox.uidValidity !== undefined && !target.keepsUids);
    return {
      mailboxes: this.#targets.size,
      messages: this.#stored,
      skipped: this.#seen - this.#stored,
      bytes: this.#bytes,
      scripts: this.#scripts,
      scriptsLeft: this.#scriptsLeft,
      renumbered: renumbered.slice(0, listedMax).map(({ mailbox }) => mailbox.name),
    };
  }

  /** What is here already stays, and so does the choice of what runs; a script that cannot be stored is no reason to leave the mail. */
  async #addScript({ name, isActive }: ArchivedScript, text: string): Promise<void> {
    try {
      const { texts, active } = this.#account.scripts();
      const here = texts.get(name);
      if (here !== undefined && here !== text) throw new PlatformError('SCRIPT_EXISTS', 'there is another one of that name');
      if (here === undefined) {
        checkScript(text);
        await this.#account.putScript(name, text);
      }
      if (isActive && active === undefined) await this.#account.activateScript(name);
      this.#scripts += 1;
    } catch (error) {
      const { code, message } = asPlatformError(error);
      if (!scriptRefusals.has(code)) throw error;
      if (this.#scriptsLeft.length < listedMax) this.#scriptsLeft.push(`"${printable(name)}": ${message}`);
    }
  }

  async #add(mailbox: number, file: string, message: ArchivedMessage): Promise<void> {
    if (mailbox !== this.#mailbox) await this.#flush();
    this.#mailbox = mailbox;
    const raw = normaliseLineEnds(message.raw);
    this.#batch.push({
      raw,
      summary: summarise(raw),
      flags: message.flags,
      internalDateMs: message.internalDateMs,
      deliveryId: `import:${this.#head?.id}:${file}`.slice(0, 200),
      uid: message.uid,
      modseq: message.modseq,
      emailId: message.emailId,
    });
    this.#batchBytes += raw.length;
    this.#seen += 1;
    this.#bytes += raw.length;
    if (this.#batch.length >= batchMessagesMax || this.#batchBytes >= batchBytesMax) await this.#flush();
  }

  async #flush(): Promise<void> {
    if (this.#batch.length === 0) return;
    const { target } = await this.#targetOf(this.#mailbox);
    const batch = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#stored += await this.#account.importMessages(target, batch);
  }

  async #targetOf(number: number): Promise<{ readonly mailbox: ArchivedMailbox; readonly target: ImportTarget }> {
    const known = this.#targets.get(number);
    if (known !== undefined) return known;
    const mailbox = this.#head?.mailboxes.find((one) => one.number === number);
    if (mailbox === undefined)
      throw new PlatformError('PROTO_SYNTAX', `the archive has messages of a mailbox ${number} that archive.json does not name`);
    const { name, uidValidity, specialUse } = mailbox;
    const found = { mailbox, target: await this.#account.importMailbox({ name, uidValidity, specialUse }) };
    this.#targets.set(number, found);
    return found;
  }
}
