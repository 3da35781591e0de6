/**
 * The index data of a mailbox's messages as packed columns in UID order: 64 bytes a message and no object for it. Messages are added at
 * the end, because UIDs only grow; removing closes the gaps.
 */
import { type ByteReader, type ByteWriter, corrupt } from './binary.ts';
import type { BodyReference } from './records.ts';

/** Bytes of memory and of a snapshot for one message. */
export const bytesPerMessage = 64;

/** A message to be added. */
export interface MessageRow {
  readonly uid: number;
  readonly modseq: number;
  readonly internalDateMs: number;
  readonly sizeBytes: number;
  readonly emailId: Uint8Array;
  readonly flagSet: number;
  /** With `at` other than 0. */
  readonly body: BodyReference;
}

/** The columns. `row` below is a position from 0 to `count - 1`; it changes when messages are removed. */
export class MessageColumns {
  count = 0;
  uid = new Uint32Array(0);
  flagSet = new Uint32Array(0);
  sizeBytes = new Uint32Array(0);
  bodyOffset = new Uint32Array(0);
  summaryBytes = new Uint32Array(0);
  rawBytes = new Uint32Array(0);
  modseq = new Float64Array(0);
  internalDateMs = new Float64Array(0);
  bodyAt = new Float64Array(0);
  emailId = new Uint8Array(0);

  get memoryBytes(): number {
    return this.uid.length * bytesPerMessage;
  }

  /** Position of a UID, or -1. */
  rowOf(uid: number): number {
    const row = this.rowFrom(uid);
    return row < this.count && this.uid[row] === uid ? row : -1;
  }

  /** Position of the first message with this UID or a higher one; `count` when there is none. */
  rowFrom(uid: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.uid[middle] as number) < uid) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  add(message: MessageRow): void {
    const row = this.count;
    if (row === this.uid.length) this.#resize(Math.max(16, row + (row >>> 1)));
    this.uid[row] = message.uid;
    this.flagSet[row] = message.flagSet;
    this.sizeBytes[row] = message.sizeBytes;
    this.bodyOffset[row] = message.body.offset;
    this.summaryBytes[row] = message.body.summaryBytes;
    this.rawBytes[row] = message.body.rawBytes;
    this.modseq[row] = message.modseq;
    this.internalDateMs[row] = message.internalDateMs;
    this.bodyAt[row] = message.body.at;
    this.emailId.set(message.emailId, row * 16);
    this.count = row + 1;
  }

  bodyOf(row: number): BodyReference {
    return {
      at: this.bodyAt[row] as number,
      offset: this.bodyOffset[row] as number,
      summaryBytes: this.summaryBytes[row] as number,
      rawBytes: this.rawBytes[row] as number,
    };
  }

  /** The bytes of a message are somewhere else now. */
  placeBody(row: number, body: BodyReference): void {
    this.bodyAt[row] = body.at;
    this.bodyOffset[row] = body.offset;
    this.summaryBytes[row] = body.summaryBytes;
    this.rawBytes[row] = body.rawBytes;
  }

  emailIdOf(row: number): Buffer {
    return Buffer.from(this.emailId.subarray(row * 16, row * 16 + 16));
  }

  /** Takes out the rows given in ascending order. */
  remove(rows: readonly number[]): void {
    if (rows.length === 0) return;
    let to = rows[0] as number;
    for (let i = 0; i < rows.length; i += 1) {
      const from = (rows[i] as number) + 1;
      const end = i + 1 < rows.length ? (rows[i + 1] as number) : this.count;
      for (const column of this.#numbers()) column.copyWithin(to, from, end);
      this.emailId.copyWithin(to * 16, from * 16, end * 16);
      to += end - from;
    }
    this.count = to;
    if (this.uid.length > 64 && this.count < this.uid.length >>> 2) this.#resize(this.count + (this.count >>> 1));
  }

  write(out: ByteWriter): void {
    out.number(this.count);
    for (const column of this.#numbers()) {
      const used = column.subarray(0, this.count);
      out.raw(new Uint8Array(used.buffer, used.byteOffset, used.byteLength));
    }
    out.raw(this.emailId.subarray(0, this.count * 16));
  }

  static read(from: ByteReader): MessageColumns {
    const columns = new MessageColumns();
    const count = from.number();
    if (count * bytesPerMessage > from.remaining) throw corrupt(`a mailbox says it has ${count} messages`);
    columns.#resize(count);
    columns.count = count;
    for (const column of columns.#numbers()) {
      const bytes = from.raw(column.byteLength);
      new Uint8Array(column.buffer, column.byteOffset, column.byteLength).set(bytes);
    }
    columns.emailId.set(from.raw(count * 16));
    for (let row = 1; row < count; row += 1) {
      if ((columns.uid[row] as number) <= (columns.uid[row - 1] as number)) throw corrupt('UIDs of a mailbox are not in ascending order');
    }
    return columns;
  }

  #numbers(): (Uint32Array | Float64Array)[] {
    return [
      this.uid,
      this.flagSet,
      this.sizeBytes,
      this.bodyOffset,
      this.summaryBytes,
      this.rawBytes,
      this.modseq,
      this.internalDateMs,
      this.bodyAt,
    ];
  }

  #resize(capacity: number): void {
    const grow = <T extends Uint32Array | Float64Array | Uint8Array>(fresh: T, old: T): T => {
      fresh.set(old.subarray(0, Math.min(old.length, fresh.length)));
      return fresh;
    };
    this.uid = grow(new Uint32Array(capacity), this.uid);
    this.flagSet = grow(new Uint32Array(capacity), this.flagSet);
    this.sizeBytes = grow(new Uint32Array(capacity), this.sizeBytes);
    this.bodyOffset = grow(new Uint32Array(capacity), this.bodyOffset);
    this.summaryBytes = grow(new Uint32Array(capacity), this.summaryBytes);
    this.rawBytes = grow(new Uint32Array(capacity), this.rawBytes);
    this.modseq = grow(new Float64Array(capacity), this.modseq);
    this.internalDateMs = grow(new Float64Array(capacity), this.internalDateMs);
    this.bodyAt = grow(new Float64Array(capacity), this.bodyAt);
    this.emailId = grow(new Uint8Array(capacity * 16), this.emailId);
  }
}
