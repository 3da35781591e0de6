/**
 * One slot of an account's log: a file that is written once, complete, and never changed. It carries every change that was committed
 * together.
 *
 *     header (64 bytes)  | records                 | bodies of messages up to 256 kB
 *     magic version slot | what changed, in order; | each part with its own checksum,
 *     epoch nonce ...crc | checksum in the header  | see body.ts
 *
 * Opening an account reads headers and records and skips the bodies. The nonce tells an owner whether the slot it finds taken is the one
 * it wrote itself (the answer was lost) or somebody else's (it is deposed).
 *
 * Checksums are CRC-32 as in zlib: Node computes it in native code; the Castagnoli polynomial would be a table in JavaScript, slower by
 * an order of magnitude, for no difference at these lengths.
 */
import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter, corrupt, newer } from './binary.ts';
import { type LogRecord, readRecord, writeRecord } from './records.ts';

/** First bytes of every slot. */
export const slotMagic = 'APSL';
const version = 1;

/** Length of the header, and so where the records begin. */
export const slotHeaderBytes = 64;

/** What the header of a slot says. */
export interface SlotHeader {
  readonly slot: number;
  readonly epoch: number;
  /** 16 bytes, in hex. */
  readonly nonce: string;
  readonly recordCount: number;
  readonly recordsBytes: number;
  readonly bodiesBytes: number;
  readonly recordsCrc: number;
}

/** A slot about to be written. */
export interface NewSlot {
  readonly slot: number;
  readonly epoch: number;
  readonly nonce: string;
  readonly records: readonly LogRecord[];
  readonly bodies: readonly Uint8Array[];
}

/** Where a slot's bodies begin. */
export function bodiesOffsetOf(header: { readonly recordsBytes: number }): number {
  return slotHeaderBytes + header.recordsBytes;
}

/** The parts of the file, in order, and where its bodies begin. */
export interface EncodedSlot {
  readonly parts: Uint8Array[];
  readonly bodiesOffset: number;
  readonly bytes: number;
}

/** Puts a slot into the form in which it is stored. */
export function encodeSlot(slot: NewSlot): EncodedSlot {
  const out = new ByteWriter(256 * slot.records.length + 64);
  for (const record of slot.records) writeRecord(out, record);
  const records = out.finish();
  const bodiesBytes = slot.bodies.reduce((sum, body) => sum + body.byteLength, 0);
  const header = Buffer.alloc(slotHeaderBytes);
  header.write(slotMagic, 0, 'latin1');
  header.writeUInt16LE(version, 4);
  header.writeBigUInt64LE(BigInt(slot.slot), 8);
  header.writeBigUInt64LE(BigInt(slot.epoch), 16);
  header.write(slot.nonce, 24, 16, 'hex');
  header.writeUInt32LE(slot.records.length, 40);
  header.writeUInt32LE(records.length, 44);
  header.writeBigUInt64LE(BigInt(bodiesBytes), 48);
  header.writeUInt32LE(crc32(records), 56);
  header.writeUInt32LE(crc32(header.subarray(0, 60)), 60);
  return {
    parts: [header, records, ...slot.bodies],
    bodiesOffset: slotHeaderBytes + records.length,
    bytes: slotHeaderBytes + records.length + bodiesBytes,
  };
}

/** Reads the header from the first bytes of a slot file, or throws `STORE_CORRUPT`. */
export function decodeSlotHeader(start: Buffer): SlotHeader {
  if (start.length < slotHeaderBytes) throw corrupt(`the file ends after ${start.length} bytes, within its header`);
  if (start.toString('latin1', 0, 4) !== slotMagic) throw corrupt('the file is not a slot: its first bytes are others');
  if (crc32(start.subarray(0, 60)) !== start.readUInt32LE(60)) throw corrupt('the header fails its checksum');
  const written = start.readUInt16LE(4);
  if (written > version) throw newer(`the slot is of version ${written}, this member reads ${version}`);
  if (written !== version) throw corrupt(`the slot is of version ${written}; this member reads ${version}`);
  return headerFields(start);
}

/** What a header that fails its checksum says all the same; the checksum of the records tells whether it may be believed. */
export function salvageSlotHeader(start: Buffer): SlotHeader | undefined {
  return start.length < slotHeaderBytes ? undefined : headerFields(start);
}

function headerFields(start: Buffer): SlotHeader {
  return {
    slot: Number(start.readBigUInt64LE(8)),
    epoch: Number(start.readBigUInt64LE(16)),
    nonce: start.toString('hex', 24, 40),
    recordCount: start.readUInt32LE(40),
    recordsBytes: start.readUInt32LE(44),
    bodiesBytes: Number(start.readBigUInt64LE(48)),
    recordsCrc: start.readUInt32LE(56),
  };
}

/** The records of a slot, given its header and exactly their bytes; `STORE_CORRUPT` when they are not what was written. */
export function decodeSlotRecords(header: SlotHeader, bytes: Buffer): LogRecord[] {
  if (bytes.length < header.recordsBytes)
    throw corrupt(`the file ends within its records: ${bytes.length} of ${header.recordsBytes} bytes`);
  if (crc32(bytes) !== header.recordsCrc) throw corrupt('the records fail their checksum');
  const from = new ByteReader(bytes);
  const records: LogRecord[] = [];
  for (let i = 0; i < header.recordCount; i += 1) records.push(readRecord(from));
  if (from.remaining > 0) throw corrupt(`${from.remaining} bytes are left after the last record`);
  return records;
}
