/**
 * All index data of one account in memory, and the one function that changes it: `apply`. An owner applies a record once its slot is
 * committed, an opener applies the same record while it replays the log, so both arrive at the same state.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { corrupt } from './binary.ts';
import { FlagSets } from './flag-sets.ts';
import { MailboxState } from './mailbox-state.ts';
import type { LogRecord, MessageRecord } from './records.ts';

/** Time for which a delivery id is remembered at least; a day more than promised, for clocks of members that differ. */
export const deliveryMemoryMs = 8 * 24 * 3600 * 1000;

/** Where a delivery went. */
export interface StoredDelivery {
  readonly mailboxId: number;
  readonly uidValidity: number;
  readonly uid: number;
  readonly storedAtMs: number;
}

/** Where the record being applied is. */
export interface SlotPlace {
  readonly slot: number;
  readonly epoch: number;
  /** Added to the offset of bodies that are in this slot. */
  readonly bodiesOffset: number;
}

/** See the header of this file. */
export class AccountState {
  readonly uuid: AccountUuid;
  flagSets = new FlagSets();
  readonly subscriptions = new Set<string>();
  readonly mailboxes = new Map<number, MailboxState>();
  readonly byName = new Map<string, MailboxState>();
  /** In the order in which they were stored. */
  readonly deliveries = new Map<string, StoredDelivery>();
  /** Sieve scripts, by name. */
  readonly scripts = new Map<string, string>();
  /** The one that runs at delivery; empty: none. */
  activeScript = '';
  epoch = 0;
  /** Last slot that is in this state; 0 when there is none. */
  slot = 0;
  nextMailboxId = 1;
  lastUidValidity = 0;
  usedBytes = 0;
  messageCount = 0;

  constructor(uuid: AccountUuid) {
    this.uuid = uuid;
  }

  get memoryBytes(): number {
    let bytes = 4096 + this.deliveries.size * 200 + this.flagSets.size * 150;
    for (const mailbox of this.mailboxes.values()) bytes += mailbox.memoryBytes;
    for (const text of this.scripts.values()) bytes += 2 * text.length;
    return bytes;
  }

  /** Applies one record and returns the mailbox it concerns. Throws `STORE_CORRUPT` when it does not fit what is there. */
  apply(record: LogRecord, place: SlotPlace): number | undefined {
    switch (record.kind) {
      case 'open':
        // A lower epoch after a higher one would mean that two owners wrote in turn: invariant I2 is broken.
        if (record.epoch <= this.epoch) throw corrupt(`an opening of epoch ${record.epoch} follows one of epoch ${this.epoch}`);
        this.epoch = record.epoch;
        return undefined;
      case 'message':
        return this.#applyMessage(record, place);
      case 'flags': {
        const mailbox = this.#mailbox(record.mailboxId);
        for (const group of record.groups) mailbox.setFlags(group.uids, this.flagSets.intern(group.flags), record.modseq);
        return mailbox.id;
      }
      case 'expunge': {
        const mailbox = this.#mailbox(record.mailboxId);
        const removed = mailbox.remove(record.uids, record.modseq);
        this.messageCount -= removed.count;
        this.usedBytes -= removed.bytes;
        return mailbox.id;
      }
      case 'mailbox-create':
        this.#create(record.mailboxId, record.name, record.uidValidity, record.specialUse === '' ? undefined : record.specialUse);
        return record.mailboxId;
      case 'mailbox-delete': {
        const mailbox = this.#mailbox(record.mailboxId);
        this.mailboxes.delete(mailbox.id);
        this.byName.delete(mailbox.name);
        this.messageCount -= mailbox.messageCount;
        this.usedBytes -= mailbox.sizeBytes;
        return mailbox.id;
      }
      case 'mailbox-rename': {
        const mailbox = this.#mailbox(record.mailboxId);
        if (this.byName.has(record.name)) throw corrupt(`two mailboxes would have the name of mailbox ${mailbox.id}`);
        this.byName.delete(mailbox.name);
        mailbox.name = record.name;
        this.byName.set(record.name, mailbox);
        return mailbox.id;
      }
      case 'subscribe':
        if (record.subscribed) this.subscriptions.add(record.name);
        else this.subscriptions.delete(record.name);
        return this.byName.get(record.name)?.id;
      case 'mailbox-numbers': {
        const mailbox = this.#mailbox(record.mailboxId);
        mailbox.uidNext = Math.max(mailbox.uidNext, record.uidNext);
        mailbox.highestModseq = Math.max(mailbox.highestModseq, record.modseq);
        // What vanished where the mailbox came from is not known here.
        mailbox.vanishedFloor = Math.max(mailbox.vanishedFloor, record.modseq);
        return mailbox.id;
      }
      case 'script-put':
        this.scripts.set(record.name, record.text);
        return undefined;
      case 'script-delete':
        if (!this.scripts.delete(record.name)) throw corrupt('a script is deleted that there is not');
        if (this.activeScript === record.name) this.activeScript = '';
        return undefined;
      case 'script-activate':
        if (record.name !== '' && !this.scripts.has(record.name)) throw corrupt('a script becomes active that there is not');
        this.activeScript = record.name;
        return undefined;
    }
  }

  /** Adds a mailbox as a snapshot has it. */
  restoreMailbox(id: number, name: string, uidValidity: number, specialUse: string | undefined): MailboxState {
    return this.#create(id, name, uidValidity, specialUse);
  }

  /** A mailbox that a change is about to make, for planning what goes into it. It is not part of the account. */
  unborn(id: number, name: string): MailboxState {
    return new MailboxState(this, id, name, 0, undefined);
  }

  /** Forgets what nobody may ask for any more: old delivery ids, and sets of flags that no message has. */
  tidy(nowMs: number): void {
    for (const [id, delivery] of this.deliveries) {
      if (nowMs - delivery.storedAtMs < deliveryMemoryMs) break;
      this.deliveries.delete(id);
    }
    if (this.flagSets.size > 64) this.#repackFlagSets();
  }

  /** Packs what nobody has asked for since the last call. */
  pack(): void {
    for (const mailbox of this.mailboxes.values()) mailbox.pack();
  }

  /** Everything that live messages refer to: slot numbers and, below 0, files of their own. */
  bodiesInUse(): Set<number> {
    const used = new Set<number>();
    for (const { columns } of this.mailboxes.values()) {
      for (let row = 0; row < columns.count; row += 1) used.add(columns.bodyAt[row] as number);
    }
    return used;
  }

  #applyMessage(record: MessageRecord, place: SlotPlace): number {
    const mailbox = this.#mailbox(record.mailboxId);
    if (record.uid < mailbox.uidNext) throw corrupt(`UID ${record.uid} of mailbox ${mailbox.id} is given a second time`);
    const body = record.body.at === 0 ? { ...record.body, at: place.slot, offset: place.bodiesOffset + record.body.offset } : record.body;
    mailbox.add({ ...record, body, flagSet: this.flagSets.intern(record.flags) });
    this.usedBytes += record.sizeBytes;
    this.messageCount += 1;
    if (record.deliveryId !== '') {
      this.deliveries.set(record.deliveryId, {
        mailboxId: mailbox.id,
        uidValidity: mailbox.uidValidity,
        uid: record.uid,
        storedAtMs: record.storedAtMs,
      });
    }
    return mailbox.id;
  }

  #create(id: number, name: string, uidValidity: number, specialUse: string | undefined): MailboxState {
    if (this.byName.has(name)) throw corrupt(`two mailboxes would have the name of mailbox ${id}`);
    if (this.mailboxes.has(id)) throw corrupt(`mailbox ${id} is made a second time`);
    const mailbox = new MailboxState(this, id, name, uidValidity, specialUse);
    this.mailboxes.set(id, mailbox);
    this.byName.set(name, mailbox);
    this.nextMailboxId = Math.max(this.nextMailboxId, id + 1);
    this.lastUidValidity = Math.max(this.lastUidValidity, uidValidity);
    return mailbox;
  }

  #mailbox(id: number): MailboxState {
    const mailbox = this.mailboxes.get(id);
    if (mailbox === undefined) throw corrupt(`a record names mailbox ${id}, which there is not`);
    return mailbox;
  }

  #repackFlagSets(): void {
    const old = this.flagSets;
    const fresh = new FlagSets();
    const numbers = new Map<number, number>();
    for (const { columns } of this.mailboxes.values()) {
      for (let row = 0; row < columns.count; row += 1) {
        const from = columns.flagSet[row] as number;
        let to = numbers.get(from);
        if (to === undefined) {
          to = fresh.intern(old.flags(from));
          numbers.set(from, to);
        }
        columns.flagSet[row] = to;
      }
    }
    this.flagSets = fresh;
  }
}
