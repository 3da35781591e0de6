/**
 * All of an account after one slot, in one file. Opening reads the newest one and the slots after it, so it costs what changed since,
 * not what the account holds.
 *
 *     header (40 bytes): magic version slot epoch length crc | payload
 */
import { crc32 } from 'node:zlib';
import type { AccountUuid } from '#common/account-name.ts';
import { AccountState } from './account-state.ts';
import { ByteReader, ByteWriter, corrupt, keptCopy, newer } from './binary.ts';
import type { MailboxState } from './mailbox-state.ts';
import { MessageColumns } from './message-columns.ts';

const magic = 'APSN';
const version = 3;
/** Has no scripts; still written for accounts that have none, which older members can then read. */
const versionWithoutScripts = 2;
/** Had the columns as they are. */
const oldVersion = 1;
const headerBytes = 40;

/** The parts of the file, in order. */
export function encodeSnapshot(state: AccountState): Uint8Array[] {
  const out = new ByteWriter(4096 + state.messageCount * 32);
  out.number(state.nextMailboxId);
  out.number(state.lastUidValidity);
  out.strings([...state.subscriptions]);
  const sets = state.flagSets.all();
  out.number(sets.length);
  for (const flags of sets) out.strings(flags);
  out.number(state.mailboxes.size);
  for (const mailbox of state.mailboxes.values()) {
    out.number(mailbox.id);
    out.string(mailbox.name);
    out.number(mailbox.uidValidity);
    out.string(mailbox.specialUse ?? '');
    out.number(mailbox.uidNext);
    out.number(mailbox.highestModseq);
    const columns = mailbox.packedColumns();
    out.number(columns.count);
    out.number(mailbox.unseenCount);
    out.number(mailbox.sizeBytes);
    out.u8(columns.isPacked ? 1 : 0);
    out.number(columns.bytes.length);
    out.raw(columns.bytes);
    out.number(mailbox.vanishedFloor);
    out.number(mailbox.vanishedUids.length);
    for (let i = 0; i < mailbox.vanishedUids.length; i += 1) {
      out.number(mailbox.vanishedUids[i] as number);
      out.number(mailbox.vanishedModseqs[i] as number);
    }
  }
  out.number(state.deliveries.size);
  for (const [id, delivery] of state.deliveries) {
    out.string(id);
    out.number(delivery.mailboxId);
    out.number(delivery.uidValidity);
    out.number(delivery.uid);
    out.double(delivery.storedAtMs);
  }
  const hasScripts = state.scripts.size > 0;
  if (hasScripts) {
    out.number(state.scripts.size);
    for (const [name, text] of state.scripts) {
      out.string(name);
      out.string(text);
    }
    out.string(state.activeScript);
  }
  const payload = out.finish();
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, 'latin1');
  header.writeUInt16LE(hasScripts ? version : versionWithoutScripts, 4);
  header.writeBigUInt64LE(BigInt(state.slot), 8);
  header.writeBigUInt64LE(BigInt(state.epoch), 16);
  header.writeBigUInt64LE(BigInt(payload.length), 24);
  header.writeUInt32LE(crc32(payload), 32);
  header.writeUInt32LE(crc32(header.subarray(0, 36)), 36);
  return [header, payload];
}

/** Reads a snapshot or throws `STORE_CORRUPT`. */
export function decodeSnapshot(uuid: AccountUuid, slot: number, bytes: Buffer): AccountState {
  if (bytes.length < headerBytes) throw corrupt(`the file ends after ${bytes.length} bytes, within its header`);
  if (bytes.toString('latin1', 0, 4) !== magic) throw corrupt('the file is not a snapshot: its first bytes are others');
  if (crc32(bytes.subarray(0, 36)) !== bytes.readUInt32LE(36)) throw corrupt('the header fails its checksum');
  const written = bytes.readUInt16LE(4);
  if (written > version) throw newer(`the snapshot is of version ${written}, this member reads up to ${version}`);
  if (![version, versionWithoutScripts, oldVersion].includes(written)) {
    throw corrupt(`the snapshot is of version ${written}; this member reads up to ${version}`);
  }
  const payload = bytes.subarray(headerBytes);
  if (BigInt(payload.length) !== bytes.readBigUInt64LE(24))
    throw corrupt(`the payload has ${payload.length} bytes, the header says others`);
  if (crc32(payload) !== bytes.readUInt32LE(32)) throw corrupt('the payload fails its checksum');
  if (BigInt(slot) !== bytes.readBigUInt64LE(8)) throw corrupt('the file stands under the name of another slot');

  const from = new ByteReader(payload);
  const state = new AccountState(uuid);
  state.slot = slot;
  state.epoch = Number(bytes.readBigUInt64LE(16));
  const nextMailboxId = from.number();
  const lastUidValidity = from.number();
  for (const name of from.strings()) state.subscriptions.add(name);
  for (let count = from.count(), id = 0; id < count; id += 1) {
    if (state.flagSets.intern(from.strings()) !== id) throw corrupt('a set of flags is there twice');
  }
  for (let count = from.count(); count > 0; count -= 1) readMailbox(from, state, written);
  for (let count = from.count(); count > 0; count -= 1) {
    state.deliveries.set(from.string(), {
      mailboxId: from.number(),
      uidValidity: from.number(),
      uid: from.number(),
      storedAtMs: from.double(),
    });
  }
  if (written === version) {
    for (let count = from.count(); count > 0; count -= 1) state.scripts.set(from.string(), from.string());
    state.activeScript = from.string();
  }
  if (from.remaining > 0) throw corrupt(`${from.remaining} bytes are left at the end`);
  state.nextMailboxId = Math.max(state.nextMailboxId, nextMailboxId);
  state.lastUidValidity = Math.max(state.lastUidValidity, lastUidValidity);
  return state;
}

function readMailbox(from: ByteReader, state: AccountState, written: number): void {
  const id = from.number();
  const name = from.string();
  const uidValidity = from.number();
  const specialUse = from.string();
  const mailbox = state.restoreMailbox(id, name, uidValidity, specialUse === '' ? undefined : specialUse);
  mailbox.uidNext = from.number();
  mailbox.highestModseq = from.number();
  if (written === oldVersion) readPlainColumns(from, state, mailbox);
  else readColumns(from, mailbox);
  mailbox.vanishedFloor = from.number();
  for (let count = from.count(); count > 0; count -= 1) {
    mailbox.vanishedUids.push(from.number());
    mailbox.vanishedModseqs.push(from.number());
  }
  state.usedBytes += mailbox.sizeBytes;
  state.messageCount += mailbox.messageCount;
}

/** They are unpacked when somebody asks for them: opening costs what is looked at, not what the account holds. */
function readColumns(from: ByteReader, mailbox: MailboxState): void {
  const count = from.number();
  const [unseenCount, sizeBytes] = [from.number(), from.number()];
  const isPacked = from.u8() === 1;
  // A copy: the snapshot's other bytes are let go.
  const bytes = keptCopy(from.raw(from.number()));
  mailbox.restorePacked({ count, isPacked, bytes }, { unseenCount, sizeBytes });
}

function readPlainColumns(from: ByteReader, state: AccountState, mailbox: MailboxState): void {
  const columns = MessageColumns.read(from);
  mailbox.columns = columns;
  for (let row = 0; row < columns.count; row += 1) {
    const flagSet = columns.flagSet[row] as number;
    if (flagSet >= state.flagSets.size) throw corrupt(`message ${columns.uid[row]} of mailbox ${mailbox.id} has flags that are not listed`);
    if (!state.flagSets.isSeen(flagSet)) mailbox.unseenCount += 1;
    mailbox.sizeBytes += columns.sizeBytes[row] as number;
  }
}
