/**
 * The records of an account's log: what changed, with every number that was chosen, so that replaying them is the same as having
 * applied them. The first byte is the kind; kinds are never reused, and an unknown one is refused, because what is not understood
 * cannot be carried forward.
 */
import { type ByteReader, type ByteWriter, newer } from './binary.ts';

/** Where the bytes of a message are. */
export interface BodyReference {
  /**
   * Above 0: number of the slot that holds them; 0, only in a record: the slot this record is in, `offset` counted from where that slot's
   * bodies begin; below 0: the file of its own with the number `-at`.
   */
  readonly at: number;
  readonly offset: number;
  /** Stored length of the summary, which comes first, and of the text, which follows it. */
  readonly summaryBytes: number;
  readonly rawBytes: number;
}

/** A message of a mailbox: new, copied or moved there. */
export interface MessageRecord {
  readonly kind: 'message';
  readonly mailboxId: number;
  readonly uid: number;
  readonly modseq: number;
  readonly internalDateMs: number;
  readonly sizeBytes: number;
  /** 16 bytes. */
  readonly emailId: Uint8Array;
  readonly flags: readonly string[];
  readonly body: BodyReference;
  /** Empty: none. */
  readonly deliveryId: string;
  /** Wall clock of the member that stored it; only for forgetting the delivery id. */
  readonly storedAtMs: number;
}

/** One record. */
export type LogRecord =
  | { readonly kind: 'open'; readonly epoch: number; readonly member: string; readonly incarnation: string; readonly atMs: number }
  | MessageRecord
  | {
      readonly kind: 'flags';
      readonly mailboxId: number;
      readonly modseq: number;
      readonly groups: readonly { readonly flags: readonly string[]; readonly uids: readonly number[] }[];
    }
  | { readonly kind: 'expunge'; readonly mailboxId: number; readonly modseq: number; readonly uids: readonly number[] }
  | {
      readonly kind: 'mailbox-create';
      readonly mailboxId: number;
      readonly name: string;
      readonly uidValidity: number;
      /** Empty: none. */
      readonly specialUse: string;
    }
  | { readonly kind: 'mailbox-delete'; readonly mailboxId: number }
  | { readonly kind: 'mailbox-rename'; readonly mailboxId: number; readonly name: string }
  | { readonly kind: 'subscribe'; readonly name: string; readonly subscribed: boolean }
  /** An import: the mailbox's next numbers are at least these. */
  | { readonly kind: 'mailbox-numbers'; readonly mailboxId: number; readonly uidNext: number; readonly modseq: number }
  /** A Sieve script, new or in place of the one of that name. */
  | { readonly kind: 'script-put'; readonly name: string; readonly text: string }
  | { readonly kind: 'script-delete'; readonly name: string }
  /** The script that runs at delivery; empty: none. */
  | { readonly kind: 'script-activate'; readonly name: string };

const kindBytes = {
  open: 1,
  message: 2,
  flags: 3,
  expunge: 4,
  'mailbox-create': 5,
  'mailbox-delete': 6,
  'mailbox-rename': 7,
  subscribe: 8,
  'mailbox-numbers': 9,
  'script-put': 10,
  'script-delete': 11,
  'script-activate': 12,
} as const satisfies Record<LogRecord['kind'], number>;

/** Adds one record to `out`. */
export function writeRecord(out: ByteWriter, record: LogRecord): void {
  out.u8(kindBytes[record.kind]);
  switch (record.kind) {
    case 'open':
      out.number(record.epoch);
      out.string(record.member);
      out.string(record.incarnation);
      out.double(record.atMs);
      return;
    case 'message':
      out.number(record.mailboxId);
      out.number(record.uid);
      out.number(record.modseq);
      out.double(record.internalDateMs);
      out.number(record.sizeBytes);
      out.raw(record.emailId);
      out.strings(record.flags);
      writeBodyReference(out, record.body);
      out.string(record.deliveryId);
      out.double(record.storedAtMs);
      return;
    case 'flags':
      out.number(record.mailboxId);
      out.number(record.modseq);
      out.number(record.groups.length);
      for (const group of record.groups) {
        out.strings(group.flags);
        out.ascending(group.uids);
      }
      return;
    case 'expunge':
      out.number(record.mailboxId);
      out.number(record.modseq);
      out.ascending(record.uids);
      return;
    case 'mailbox-create':
      out.number(record.mailboxId);
      out.string(record.name);
      out.number(record.uidValidity);
      out.string(record.specialUse);
      return;
    case 'mailbox-delete':
      out.number(record.mailboxId);
      return;
    case 'mailbox-rename':
      out.number(record.mailboxId);
      out.string(record.name);
      return;
    case 'subscribe':
      out.string(record.name);
      out.u8(record.subscribed ? 1 : 0);
      return;
    case 'mailbox-numbers':
      out.number(record.mailboxId);
      out.number(record.uidNext);
      out.number(record.modseq);
      return;
    case 'script-put':
      out.string(record.name);
      out.string(record.text);
      return;
    case 'script-delete':
    case 'script-activate':
      out.string(record.name);
  }
}

/** Takes one record. */
export function readRecord(from: ByteReader): LogRecord {
  const kind = from.u8();
  switch (kind) {
    case kindBytes.open:
      return { kind: 'open', epoch: from.number(), member: from.string(), incarnation: from.string(), atMs: from.double() };
    case kindBytes.message:
      return {
        kind: 'message',
        mailboxId: from.number(),
        uid: from.number(),
        modseq: from.number(),
        internalDateMs: from.double(),
        sizeBytes: from.number(),
        emailId: from.raw(16),
        flags: from.strings(),
        body: readBodyReference(from),
        deliveryId: from.string(),
        storedAtMs: from.double(),
      };
    case kindBytes.flags: {
      const mailboxId = from.number();
      const modseq = from.number();
      const groups: { flags: string[]; uids: number[] }[] = [];
      for (let count = from.count(); count > 0; count -= 1) groups.push({ flags: from.strings(), uids: from.ascending() });
      return { kind: 'flags', mailboxId, modseq, groups };
    }
    case kindBytes.expunge:
      return { kind: 'expunge', mailboxId: from.number(), modseq: from.number(), uids: from.ascending() };
    case kindBytes['mailbox-create']:
      return {
        kind: 'mailbox-create',
        mailboxId: from.number(),
        name: from.string(),
        uidValidity: from.number(),
        specialUse: from.string(),
      };
    case kindBytes['mailbox-delete']:
      return { kind: 'mailbox-delete', mailboxId: from.number() };
    case kindBytes['mailbox-rename']:
      return { kind: 'mailbox-rename', mailboxId: from.number(), name: from.string() };
    case kindBytes.subscribe:
      return { kind: 'subscribe', name: from.string(), subscribed: from.u8() === 1 };
    case kindBytes['mailbox-numbers']:
      return { kind: 'mailbox-numbers', mailboxId: from.number(), uidNext: from.number(), modseq: from.number() };
    case kindBytes['script-put']:
      return { kind: 'script-put', name: from.string(), text: from.string() };
    case kindBytes['script-delete']:
      return { kind: 'script-delete', name: from.string() };
    case kindBytes['script-activate']:
      return { kind: 'script-activate', name: from.string() };
    default:
      throw newer(`a record is of kind ${kind}, which this release does not know`);
  }
}

function writeBodyReference(out: ByteWriter, body: BodyReference): void {
  out.u8(body.at < 0 ? 1 : 0);
  out.number(Math.abs(body.at));
  out.number(body.offset);
  out.number(body.summaryBytes);
  out.number(body.rawBytes);
}

function readBodyReference(from: ByteReader): BodyReference {
  const sign = from.u8() === 1 ? -1 : 1;
  const number = from.number();
  return { at: number === 0 ? 0 : sign * number, offset: from.number(), summaryBytes: from.number(), rawBytes: from.number() };
}
