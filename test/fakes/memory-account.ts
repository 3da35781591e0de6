/**
 * `OpenAccount` in memory: the reference for what sessions may rely on, and quick. The transcripts run over this and over the real store.
 */
import type {
  AppendedMessage,
  AppendRequest,
  FlagOperation,
  Mailbox,
  MessageInfo,
  OpenAccount,
} from '#backend-cluster/mailboxes/open-account.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';

interface StoredMessage {
  info: MessageInfo;
  readonly raw: Buffer;
  readonly summary: Buffer;
}

class MemoryMailbox implements Mailbox {
  readonly id: number;
  name: string;
  readonly uidValidity: number;
  uidNext = 1;
  highestModseq = 1;
  readonly specialUse: string | undefined;
  readonly messages = new Map<number, StoredMessage>();
  readonly gone: { readonly uid: number; readonly modseq: number }[] = [];
  /** Expunges before this are forgotten. */
  forgottenModseq = 0;
  readonly #isSubscribed: (name: string) => boolean;

  constructor(id: number, name: string, specialUse: string | undefined, isSubscribed: (name: string) => boolean) {
    this.id = id;
    this.name = name;
    this.uidValidity = 1000 + id;
    this.specialUse = specialUse;
    this.#isSubscribed = isSubscribed;
  }

  get messageCount(): number {
    return this.messages.size;
  }

  get unseenCount(): number {
    return [...this.messages.values()].filter(({ info }) => !info.flags.includes('\\Seen')).length;
  }

  get sizeBytes(): number {
    return [...this.messages.values()].reduce((sum, { info }) => sum + info.sizeBytes, 0);
  }

  get subscribed(): boolean {
    return this.#isSubscribed(this.name);
  }

  uids(): Uint32Array {
    return Uint32Array.from(this.messages.keys());
  }

  message(uid: number): MessageInfo | undefined {
    return this.messages.get(uid)?.info;
  }

  changesSince(modseq: number): { changed: readonly MessageInfo[]; vanished: readonly number[]; isComplete: boolean } {
    if (modseq < this.forgottenModseq) return { changed: [], vanished: [], isComplete: false };
    return {
      changed: [...this.messages.values()].map(({ info }) => info).filter((info) => info.modseq > modseq),
      vanished: this.gone.filter((entry) => entry.modseq > modseq).map(({ uid }) => uid),
      isComplete: true,
    };
  }
}

type ChangeListener = Parameters<OpenAccount['onChange']>[0];

/** See the header of this file. Every call takes a turn of the event loop, as the real one does. */
export class MemoryAccount implements OpenAccount {
  readonly uuid: AccountUuid = parseAccountUuid('00000000-0000-4000-8000-000000000001');
  readonly epoch = 1;
  isOpen = true;
  quotaBytes: number | undefined;
  /** Set by a test: reading this UID fails so. */
  unreadable: { readonly uid: number; readonly error: PlatformError } | undefined;
  #mailboxes: MemoryMailbox[] = [];
  #subscriptions = new Set<string>();
  #listeners = new Set<ChangeListener>();
  #delivered = new Map<string, AppendedMessage>();
  #nextMailboxId = 1;
  #nextEmailId = 1;

  constructor() {
    this.#add('INBOX', undefined);
  }

  mailboxes(): readonly MemoryMailbox[] {
    const rank = (mailbox: Mailbox): string => (mailbox.name === 'INBOX' ? '' : mailbox.name);
    return this.#mailboxes.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1));
  }

  mailbox(name: string): MemoryMailbox | undefined {
    return this.#mailboxes.find((mailbox) => mailbox.name === name);
  }

  mailboxById(id: number): MemoryMailbox | undefined {
    return this.#mailboxes.find((mailbox) => mailbox.id === id);
  }

  subscriptions(): readonly string[] {
    return [...this.#subscriptions].sort();
  }

  async createMailbox(name: string, specialUse?: string): Promise<Mailbox> {
    await this.#turn();
    checkName(name);
    if (this.mailbox(name) !== undefined) throw new PlatformError('MBOX_EXISTS', `mailbox "${name}" exists`);
    for (let at = name.indexOf('/'); at > 0; at = name.indexOf('/', at + 1)) {
      if (this.mailbox(name.slice(0, at)) === undefined) this.#add(name.slice(0, at), undefined);
    }
    const mailbox = this.#add(name, specialUse);
    this.#tell([mailbox.id]);
    return mailbox;
  }

  async deleteMailbox(name: string): Promise<void> {
    await this.#turn();
    if (name === 'INBOX') throw new PlatformError('MBOX_NAME_INVALID', 'INBOX cannot be deleted');
    const mailbox = this.#named(name);
    this.#mailboxes = this.#mailboxes.filter((other) => other !== mailbox);
    this.#tell([mailbox.id]);
  }

  async renameMailbox(from: string, to: string): Promise<void> {
    await this.#turn();
    const mailbox = this.#named(from);
    checkName(to);
    if (this.mailbox(to) !== undefined) throw new PlatformError('MBOX_EXISTS', `mailbox "${to}" exists`);
    if (from === 'INBOX') {
      const target = this.#add(to, undefined);
      this.#transfer(mailbox, [...mailbox.messages.keys()], target, true);
      this.#tell([mailbox.id, target.id]);
      return;
    }
    if (to.startsWith(`${from}/`)) throw new PlatformError('MBOX_NAME_INVALID', 'a mailbox cannot become its own child');
    for (const other of this.#mailboxes) {
      if (other === mailbox || other.name.startsWith(`${from}/`)) other.name = to + other.name.slice(from.length);
    }
    this.#tell([mailbox.id]);
  }

  async subscribe(name: string, subscribed: boolean): Promise<void> {
    await this.#turn();
    if (subscribed) this.#subscriptions.add(name);
    else this.#subscriptions.delete(name);
    this.#tell([]);
  }

  async append(mailboxId: number, messages: readonly AppendRequest[]): Promise<readonly AppendedMessage[]> {
    await this.#turn();
    const mailbox = this.#withId(mailboxId);
    const { usedBytes, limitBytes } = this.quota();
    const added = messages.reduce((sum, message) => sum + message.raw.length, 0);
    if (limitBytes !== undefined && usedBytes + added > limitBytes) throw new PlatformError('MBOX_OVER_QUOTA', 'the account is full');
    const modseq = mailbox.highestModseq + 1;
    const out = messages.map((message) => {
      const known = message.deliveryId === undefined ? undefined : this.#delivered.get(message.deliveryId);
      if (known !== undefined) return known;
      mailbox.highestModseq = modseq;
      const appended = { uidValidity: mailbox.uidValidity, uid: mailbox.uidNext };
      mailbox.uidNext += 1;
      const info = {
        uid: appended.uid,
        modseq,
        flags: message.flags,
        internalDateMs: message.internalDateMs,
        sizeBytes: message.raw.length,
        emailId: (this.#nextEmailId++).toString(16).padStart(32, '0'),
      };
      mailbox.messages.set(appended.uid, { info, raw: message.raw, summary: message.summary });
      if (message.deliveryId !== undefined) this.#delivered.set(message.deliveryId, appended);
      return appended;
    });
    this.#tell([mailbox.id]);
    return out;
  }

  async storeFlags(
    mailboxId: number,
    uids: readonly number[],
    operation: FlagOperation,
    flags: readonly string[],
    unchangedSince?: number,
  ): Promise<{ changed: readonly MessageInfo[]; modified: readonly number[] }> {
    await this.#turn();
    const mailbox = this.#withId(mailboxId);
    const modseq = mailbox.highestModseq + 1;
    const changed: MessageInfo[] = [];
    const modified: number[] = [];
    for (const uid of uids) {
      const stored = mailbox.messages.get(uid);
      if (stored === undefined) continue;
      if (unchangedSince !== undefined && stored.info.modseq > unchangedSince) {
        modified.push(uid);
        continue;
      }
      const next = changedFlags(stored.info.flags, operation, flags);
      if (sameFlags(next, stored.info.flags)) continue;
      stored.info = { ...stored.info, flags: next, modseq };
      mailbox.highestModseq = modseq;
      changed.push(stored.info);
    }
    if (changed.length > 0) this.#tell([mailbox.id]);
    return { changed, modified };
  }

  async copy(fromId: number, uids: readonly number[], toId: number): Promise<readonly { sourceUid: number; uid: number }[]> {
    await this.#turn();
    const pairs = this.#transfer(this.#withId(fromId), uids, this.#withId(toId), false);
    if (pairs.length > 0) this.#tell([toId]);
    return pairs;
  }

  async move(fromId: number, uids: readonly number[], toId: number): Promise<readonly { sourceUid: number; uid: number }[]> {
    await this.#turn();
    const pairs = this.#transfer(this.#withId(fromId), uids, this.#withId(toId), true);
    if (pairs.length > 0) this.#tell([fromId, toId]);
    return pairs;
  }

  async expunge(mailboxId: number, uids?: readonly number[], force?: boolean): Promise<readonly number[]> {
    await this.#turn();
    const mailbox = this.#withId(mailboxId);
    const chosen = (uids ?? [...mailbox.messages.keys()]).filter((uid) => {
      const info = mailbox.message(uid);
      return info !== undefined && (force === true || info.flags.includes('\\Deleted'));
    });
    this.#remove(mailbox, chosen);
    if (chosen.length > 0) this.#tell([mailbox.id]);
    return chosen;
  }

  async readRaw(mailboxId: number, uid: number): Promise<Buffer> {
    await this.#turn();
    if (this.unreadable?.uid === uid) throw this.unreadable.error;
    return this.#stored(mailboxId, uid).raw;
  }

  async readSummary(mailboxId: number, uid: number): Promise<Buffer> {
    await this.#turn();
    return this.#stored(mailboxId, uid).summary;
  }

  readonly #scripts = new Map<string, string>();
  #activeScript = '';

  scripts(): { texts: ReadonlyMap<string, string>; active: string | undefined } {
    return { texts: this.#scripts, active: this.#activeScript === '' ? undefined : this.#activeScript };
  }

  checkScriptRoom(): void {}

  async putScript(name: string, text: string): Promise<void> {
    this.#scripts.set(name, text);
  }

  async deleteScript(name: string): Promise<void> {
    if (!this.#scripts.has(name)) throw new PlatformError('SCRIPT_NOT_FOUND', name);
    if (this.#activeScript === name) throw new PlatformError('SCRIPT_ACTIVE', name);
    this.#scripts.delete(name);
  }

  async renameScript(from: string, to: string): Promise<void> {
    const text = this.#scripts.get(from);
    if (text === undefined) throw new PlatformError('SCRIPT_NOT_FOUND', from);
    if (this.#scripts.has(to)) throw new PlatformError('SCRIPT_EXISTS', to);
    this.#scripts.set(to, text);
    this.#scripts.delete(from);
    if (this.#activeScript === from) this.#activeScript = to;
  }

  async activateScript(name: string): Promise<void> {
    if (name !== '' && !this.#scripts.has(name)) throw new PlatformError('SCRIPT_NOT_FOUND', name);
    this.#activeScript = name;
  }

  quota(): { usedBytes: number; limitBytes: number | undefined; messages: number } {
    return {
      usedBytes: this.#mailboxes.reduce((sum, mailbox) => sum + mailbox.sizeBytes, 0),
      limitBytes: this.quotaBytes,
      messages: this.#mailboxes.reduce((sum, mailbox) => sum + mailbox.messageCount, 0),
    };
  }

  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Another member has opened the account. */
  depose(): void {
    this.isOpen = false;
    for (const listener of [...this.#listeners]) listener({ mailboxIds: [], closed: true });
  }

  async #turn(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (!this.isOpen) throw new PlatformError('CLUSTER_DEPOSED', 'the account was opened elsewhere');
  }

  #tell(mailboxIds: readonly number[]): void {
    for (const listener of [...this.#listeners]) listener({ mailboxIds, closed: false });
  }

  #add(name: string, specialUse: string | undefined): MemoryMailbox {
    const mailbox = new MemoryMailbox(this.#nextMailboxId, name, specialUse, (each) => this.#subscriptions.has(each));
    this.#nextMailboxId += 1;
    this.#mailboxes.push(mailbox);
    return mailbox;
  }

  #transfer(from: MemoryMailbox, uids: readonly number[], to: MemoryMailbox, isMove: boolean): { sourceUid: number; uid: number }[] {
    const present = uids.filter((uid) => from.messages.has(uid));
    const modseq = to.highestModseq + 1;
    const pairs = present.map((sourceUid) => {
      const stored = from.messages.get(sourceUid) as StoredMessage;
      const uid = to.uidNext;
      to.uidNext += 1;
      to.highestModseq = modseq;
      to.messages.set(uid, { ...stored, info: { ...stored.info, uid, modseq } });
      return { sourceUid, uid };
    });
    if (isMove) this.#remove(from, present);
    return pairs;
  }

  #remove(mailbox: MemoryMailbox, uids: readonly number[]): void {
    if (uids.length === 0) return;
    mailbox.highestModseq += 1;
    for (const uid of uids) {
      mailbox.messages.delete(uid);
      mailbox.gone.push({ uid, modseq: mailbox.highestModseq });
    }
  }

  #named(name: string): MemoryMailbox {
    const mailbox = this.mailbox(name);
    if (mailbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `there is no mailbox "${name}"`);
    return mailbox;
  }

  #withId(id: number): MemoryMailbox {
    const mailbox = this.mailboxById(id);
    if (mailbox === undefined) throw new PlatformError('MBOX_NOT_FOUND', `there is no mailbox ${id}`);
    return mailbox;
  }

  #stored(mailboxId: number, uid: number): StoredMessage {
    const stored = this.#withId(mailboxId).messages.get(uid);
    if (stored === undefined) throw new PlatformError('MBOX_NOT_FOUND', `mailbox ${mailboxId} has no message ${uid}`);
    return stored;
  }
}

function checkName(name: string): void {
  const isBad = name === '' || name.startsWith('/') || name.endsWith('/') || name.includes('//') || /[\p{Cc}*%]/u.test(name);
  if (isBad) throw new PlatformError('MBOX_NAME_INVALID', `"${name}" cannot be the name of a mailbox`);
}

function changedFlags(current: readonly string[], operation: FlagOperation, flags: readonly string[]): readonly string[] {
  const named = new Set(flags.map((flag) => flag.toLowerCase()));
  if (operation === 'remove') return current.filter((flag) => !named.has(flag.toLowerCase()));
  const kept = operation === 'add' ? current : [];
  const present = new Set(kept.map((flag) => flag.toLowerCase()));
  return [...kept, ...flags.filter((flag) => !present.has(flag.toLowerCase()))];
}

function sameFlags(a: readonly string[], b: readonly string[]): boolean {
  const fold = (flags: readonly string[]): string =>
    flags
      .map((flag) => flag.toLowerCase())
      .toSorted()
      .join(' ');
  return fold(a) === fold(b);
}
