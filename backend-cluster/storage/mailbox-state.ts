/**
 * One mailbox of an account in memory, as of the last commit. It is what `OpenAccount` hands out as `Mailbox`; only account-state.ts
 * changes it, and only by applying committed records.
 */

import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { Mailbox, MessageInfo } from '#backend-cluster/mailboxes/open-account.ts';
import { ByteReader, ByteWriter, corrupt, keptCopy } from './binary.ts';
import type { FlagSets } from './flag-sets.ts';
import { bytesPerMessage, MessageColumns, type MessageRow } from './message-columns.ts';

/** UIDs that are gone, remembered for `changesSince`; older ones are forgotten and the answer says that it is not complete. */
export const vanishedMax = 4096;

/** Columns in their stored form. */
export interface PackedColumns {
  readonly count: number;
  /** Packed with zstd, or as they are. */
  readonly isPacked: boolean;
  readonly bytes: Buffer;
}

/** Fewer messages are not worth it; the time for more would be felt by others. */
const packFromCount = 16;
const packToCount = 100_000;
/** The fastest: most of what can be saved is in columns that hardly differ from row to row. */
const packing = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

/** What all mailboxes of an account share. */
export interface MailboxSurroundings {
  readonly flagSets: FlagSets;
  readonly subscriptions: Set<string>;
}

/** See the header of this file. */
export class MailboxState implements Mailbox {
  readonly id: number;
  name: string;
  readonly uidValidity: number;
  readonly specialUse: string | undefined;
  uidNext = 1;
  highestModseq = 1;
  unseenCount = 0;
  sizeBytes = 0;
  /** Parallel and ascending by modseq. */
  vanishedUids: number[] = [];
  vanishedModseqs: number[] = [];
  /** Of what vanished up to this modseq, some is forgotten. */
  vanishedFloor = 0;
  readonly #around: MailboxSurroundings;
  /** One of both is there: columns that are in use, or packed ones that nobody has looked at for a while. */
  #columns: MessageColumns | undefined = new MessageColumns();
  #packed: PackedColumns | undefined;
  #isTouched = true;

  constructor(around: MailboxSurroundings, id: number, name: string, uidValidity: number, specialUse: string | undefined) {
    this.#around = around;
    this.id = id;
    this.name = name;
    this.uidValidity = uidValidity;
    this.specialUse = specialUse;
  }

  get messageCount(): number {
    return this.#columns?.count ?? this.#packed?.count ?? 0;
  }

  /** Unpacks them where they are packed. For use within one turn: a later `pack` lets go of the object. */
  get columns(): MessageColumns {
    this.#isTouched = true;
    if (this.#columns === undefined) {
      this.#columns = unpacked(this.#packed as PackedColumns);
      this.#packed = undefined;
    }
    return this.#columns;
  }

  set columns(columns: MessageColumns) {
    this.#isTouched = true;
    this.#columns = columns;
    this.#packed = undefined;
  }

  /** Packs the columns if nobody has asked for them since the last call: an idle mailbox takes a third of the memory. */
  pack(): void {
    const columns = this.#columns;
    const wasTouched = this.#isTouched;
    this.#isTouched = false;
    if (columns === undefined || wasTouched) return;
    this.#packed = packed(columns);
    this.#columns = undefined;
  }

  /** The columns as a snapshot has them. */
  packedColumns(): PackedColumns {
    return this.#packed ?? packed(this.columns);
  }

  /** Takes what a snapshot has; it is unpacked when somebody asks for it. */
  restorePacked(columns: PackedColumns, numbers: { readonly unseenCount: number; readonly sizeBytes: number }): void {
    this.#columns = undefined;
    this.#packed = columns;
    this.unseenCount = numbers.unseenCount;
    this.sizeBytes = numbers.sizeBytes;
  }

  get memoryBytes(): number {
    return 1024 + (this.#columns?.memoryBytes ?? this.#packed?.bytes.length ?? 0) + this.vanishedUids.length * 16;
  }

  get subscribed(): boolean {
    return this.#around.subscriptions.has(this.name);
  }

  uids(): Uint32Array {
    return this.columns.uid.slice(0, this.columns.count);
  }

  message(uid: number): MessageInfo | undefined {
    const row = this.columns.rowOf(uid);
    return row < 0 ? undefined : this.messageAt(row);
  }

  /** The message at a position of the columns. */
  messageAt(row: number): MessageInfo {
    const columns = this.columns;
    return {
      uid: columns.uid[row] as number,
      modseq: columns.modseq[row] as number,
      flags: this.#around.flagSets.flags(columns.flagSet[row] as number),
      internalDateMs: columns.internalDateMs[row] as number,
      sizeBytes: columns.sizeBytes[row] as number,
      emailId: columns.emailIdOf(row).toString('hex'),
    };
  }

  changesSince(modseq: number): { changed: MessageInfo[]; vanished: number[]; isComplete: boolean } {
    const changed: MessageInfo[] = [];
    for (let row = 0; row < this.columns.count; row += 1) {
      if ((this.columns.modseq[row] as number) > modseq) changed.push(this.messageAt(row));
    }
    let first = this.vanishedModseqs.length;
    while (first > 0 && (this.vanishedModseqs[first - 1] as number) > modseq) first -= 1;
    const vanished = this.vanishedUids.slice(first).sort((a, b) => a - b);
    return { changed, vanished, isComplete: modseq >= this.vanishedFloor };
  }

  /** Adds a message; the numbers of the mailbox follow it. */
  add(message: MessageRow): void {
    this.columns.add(message);
    this.uidNext = Math.max(this.uidNext, message.uid + 1);
    this.highestModseq = Math.max(this.highestModseq, message.modseq);
    this.sizeBytes += message.sizeBytes;
    if (!this.#around.flagSets.isSeen(message.flagSet)) this.unseenCount += 1;
  }

  /** Gives messages another set of flags; UIDs that are not there are passed over. */
  setFlags(uids: readonly number[], flagSet: number, modseq: number): void {
    const { flagSets } = this.#around;
    for (const uid of uids) {
      const row = this.columns.rowOf(uid);
      if (row < 0) continue;
      const wasSeen = flagSets.isSeen(this.columns.flagSet[row] as number);
      if (wasSeen !== flagSets.isSeen(flagSet)) this.unseenCount += wasSeen ? 1 : -1;
      this.columns.flagSet[row] = flagSet;
      this.columns.modseq[row] = modseq;
    }
    this.highestModseq = Math.max(this.highestModseq, modseq);
  }

  /** Takes messages out and remembers that they were there. Returns how many there were and their size. */
  remove(uids: readonly number[], modseq: number): { readonly count: number; readonly bytes: number } {
    const rows: number[] = [];
    let bytes = 0;
    for (const uid of uids) {
      const row = this.columns.rowOf(uid);
      if (row < 0) continue;
      rows.push(row);
      bytes += this.columns.sizeBytes[row] as number;
      if (!this.#around.flagSets.isSeen(this.columns.flagSet[row] as number)) this.unseenCount -= 1;
      this.vanishedUids.push(uid);
      this.vanishedModseqs.push(modseq);
    }
    this.columns.remove(rows);
    this.sizeBytes -= bytes;
    this.highestModseq = Math.max(this.highestModseq, modseq);
    const surplus = this.vanishedUids.length - vanishedMax;
    if (surplus > 0) {
      this.vanishedFloor = this.vanishedModseqs[surplus - 1] as number;
      this.vanishedUids.splice(0, surplus);
      this.vanishedModseqs.splice(0, surplus);
    }
    return { count: rows.length, bytes };
  }
}

function packed(columns: MessageColumns): PackedColumns {
  const out = new ByteWriter(16 + columns.count * bytesPerMessage);
  columns.write(out);
  const plain = out.finish();
  const isPacked = columns.count >= packFromCount && columns.count <= packToCount;
  return { count: columns.count, isPacked, bytes: keptCopy(isPacked ? zstdCompressSync(plain, packing) : plain) };
}

function unpacked({ count, isPacked, bytes }: PackedColumns): MessageColumns {
  const limit = { maxOutputLength: 16 + count * bytesPerMessage };
  const columns = MessageColumns.read(new ByteReader(isPacked ? zstdDecompressSync(bytes, limit) : bytes));
  if (columns.count !== count) throw corrupt(`a mailbox has ${columns.count} messages where ${count} are said`);
  return columns;
}
