/**
 * The head of an account: the one object that says what the account is. Replacing it, on condition that it is still the version that was
 * read, is the only way to change an account on an object store.
 *
 *     header (24 bytes): magic version length crc | index                                        | inline slots
 *                                                 | opening, open-id, nonce                      | the newest ones,
 *                                                 | snapshots: slot, object                      | as they are
 *                                                 | segments: object, offset, slots, their length |
 *
 * A slot that is small travels in the head itself: one request commits it. When the inline slots grow beyond a limit, they move together
 * into a segment, an object of its own that the head refers to; a large slot goes there at once. Objects are written before the head that
 * names them, under names that are used once, and removed after the head that no longer does. The nonce makes every version differ from
 * every other, so no ETag ever returns.
 */
import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter, corrupt, newer } from '#backend-cluster/storage/binary.ts';
import { slotMagic } from '#backend-cluster/storage/slot.ts';

const magic = 'APSH';
const version = 1;
const headerBytes = 24;

/** Bytes of slots that travel in the head. A commit writes them all again, so more would cost more than a segment now and then saves. */
export const inlineBytesMax = 64 * 1024;

/** Consecutive slots in one object. */
export interface Segment {
  readonly object: string;
  /** Where the first of them begins; above 0 when slots before it have left the log. */
  readonly offset: number;
  readonly firstSlot: number;
  readonly lengths: readonly number[];
}

/** See the header of this file. */
export interface AccountHead {
  /** Counts openings, those that never committed included. */
  readonly opening: number;
  /** Who may replace this head. */
  readonly openId: string;
  /** 16 bytes, in hex; of this version alone. */
  readonly nonce: string;
  /** Ascending. */
  readonly snapshots: readonly { readonly slot: number; readonly object: string }[];
  /** Ascending and without gaps, the inline slots right after them. */
  readonly segments: readonly Segment[];
  readonly firstInline: number;
  readonly inline: readonly Buffer[];
}

/** Where a slot is. */
export type SlotPlace =
  | { readonly inline: Buffer }
  | { readonly object: string; readonly segmentBytes: number; readonly offset: number; readonly length: number };

/** The head of an account that nothing was committed to. */
export const emptyHead: Omit<AccountHead, 'openId' | 'nonce'> = { opening: 0, snapshots: [], segments: [], firstInline: 1, inline: [] };

/** The parts of the object, in order. */
export function encodeHead(head: AccountHead): Uint8Array[] {
  const out = new ByteWriter(512 + 4 * head.segments.reduce((sum, segment) => sum + segment.lengths.length + 16, 0));
  out.number(head.opening);
  out.string(head.openId);
  out.raw(Buffer.from(head.nonce, 'hex'));
  out.number(head.snapshots.length);
  for (const { slot, object } of head.snapshots) {
    out.number(slot);
    out.string(object);
  }
  out.number(head.segments.length);
  for (const { object, offset, firstSlot, lengths } of head.segments) {
    out.string(object);
    out.number(offset);
    out.number(firstSlot);
    out.number(lengths.length);
    for (const length of lengths) out.number(length);
  }
  out.number(head.firstInline);
  out.number(head.inline.length);
  for (const slot of head.inline) out.number(slot.length);
  const index = out.finish();
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, 'latin1');
  header.writeUInt16LE(version, 4);
  header.writeUInt32LE(index.length, 8);
  header.writeUInt32LE(
    head.inline.reduce((crc, slot) => crc32(slot, crc), crc32(index)),
    12,
  );
  header.writeUInt32LE(crc32(header.subarray(0, 20)), 20);
  return [header, index, ...head.inline];
}

/** Reads a head or throws `STORE_CORRUPT`; `name` is for the message. */
export function decodeHead(bytes: Buffer, name: string): AccountHead {
  if (bytes.length < headerBytes) throw corrupt(`${name} ends after ${bytes.length} bytes, within its header`);
  if (bytes.toString('latin1', 0, 4) !== magic) throw corrupt(`${name} is not the head of an account: its first bytes are others`);
  if (crc32(bytes.subarray(0, 20)) !== bytes.readUInt32LE(20)) throw corrupt(`the header of ${name} fails its checksum`);
  const written = bytes.readUInt16LE(4);
  if (written > version) throw newer(`${name} is of version ${written}, this member reads ${version}`);
  if (written !== version) throw corrupt(`${name} is of version ${written}; this member reads ${version}`);
  if (crc32(bytes.subarray(headerBytes)) !== bytes.readUInt32LE(12)) throw corrupt(`${name} fails its checksum`);
  return parseHead(bytes, headerBytes + bytes.readUInt32LE(8), name);
}

function parseHead(bytes: Buffer, indexEnd: number, name: string): AccountHead {
  const from = new ByteReader(bytes.subarray(headerBytes, indexEnd));
  const opening = from.number();
  const openId = from.string();
  const nonce = from.raw(16).toString('hex');
  const snapshots: { slot: number; object: string }[] = [];
  for (let count = from.count(); count > 0; count -= 1) snapshots.push({ slot: from.number(), object: from.string() });
  const segments: Segment[] = [];
  for (let count = from.count(); count > 0; count -= 1) {
    segments.push({ object: from.string(), offset: from.number(), firstSlot: from.number(), lengths: numbers(from) });
  }
  const firstInline = from.number();
  const inline: Buffer[] = [];
  let at = indexEnd;
  for (const length of numbers(from)) {
    inline.push(bytes.subarray(at, at + length));
    at += length;
  }
  if (from.remaining > 0 || at !== bytes.length) throw corrupt(`${name} has other bytes than its index says`);
  return { opening, openId, nonce, snapshots, segments, firstInline, inline };
}

/**
 * What a head that fails its checksum still says, for reading: its index where that is consistent. Slots, snapshots and bodies have
 * checksums of their own, so whatever is wrong in it is found when they are read. `undefined` when nothing can be made of it.
 */
export function salvageHead(bytes: Buffer): AccountHead | undefined {
  if (bytes.length < headerBytes) return undefined;
  const firstSlot = bytes.indexOf(slotMagic, headerBytes, 'latin1');
  for (const indexEnd of [headerBytes + bytes.readUInt32LE(8), firstSlot < 0 ? bytes.length : firstSlot]) {
    if (indexEnd > bytes.length) continue;
    try {
      return parseHead(bytes, indexEnd, 'the head');
    } catch {
      // Not by this length of its index; the next one is tried.
    }
  }
  return undefined;
}

/** The newest slot; 0 when there is none. */
export function lastSlotOf(head: AccountHead): number {
  return head.firstInline + head.inline.length - 1;
}

/** All slots, ascending. */
export function slotsOf(head: AccountHead): number[] {
  const first = head.segments[0]?.firstSlot ?? head.firstInline;
  return Array.from({ length: lastSlotOf(head) - first + 1 }, (_, i) => first + i);
}

/** Where a slot is; `undefined` when it is not in the log. */
export function placeOf(head: AccountHead, slot: number): SlotPlace | undefined {
  const inline = head.inline[slot - head.firstInline];
  if (inline !== undefined) return { inline };
  // Few: a snapshot takes their place every thousand records.
  const segment = head.segments.find(({ firstSlot, lengths }) => slot >= firstSlot && slot < firstSlot + lengths.length);
  if (segment === undefined) return undefined;
  const index = slot - segment.firstSlot;
  const sum = (lengths: readonly number[]): number => lengths.reduce((total, length) => total + length, 0);
  return {
    object: segment.object,
    segmentBytes: segment.offset + sum(segment.lengths),
    offset: segment.offset + sum(segment.lengths.slice(0, index)),
    length: segment.lengths[index] as number,
  };
}

/** The head with these slots, and all before them, gone. */
export function withoutSlotsUpTo(head: AccountHead, slot: number): AccountHead {
  const segments = head.segments.flatMap((segment): Segment[] => {
    const gone = Math.max(0, Math.min(segment.lengths.length, slot - segment.firstSlot + 1));
    if (gone === segment.lengths.length) return [];
    const bytes = segment.lengths.slice(0, gone).reduce((sum, length) => sum + length, 0);
    const { object, offset, firstSlot, lengths } = segment;
    return [{ object, offset: offset + bytes, firstSlot: firstSlot + gone, lengths: lengths.slice(gone) }];
  });
  const goneInline = Math.max(0, Math.min(head.inline.length, slot - head.firstInline + 1));
  return { ...head, segments, firstInline: head.firstInline + goneInline, inline: head.inline.slice(goneInline) };
}

/** Names of the objects that a head refers to. */
export function objectsOf(head: AccountHead): Set<string> {
  return new Set([...head.segments, ...head.snapshots].map(({ object }) => object));
}

function numbers(from: ByteReader): number[] {
  return Array.from({ length: from.count() }, () => from.number());
}
