import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteReader, ByteWriter } from '#backend-cluster/storage/binary.ts';
import { decodePart, encodePart } from '#backend-cluster/storage/body.ts';
import { bodyName, fileAt, fileParts, parseBodyName } from '#backend-cluster/storage/layout.ts';
import type { LogRecord } from '#backend-cluster/storage/records.ts';
import { bodiesOffsetOf, decodeSlotHeader, decodeSlotRecords, encodeSlot, slotHeaderBytes } from '#backend-cluster/storage/slot.ts';
import { decodeSnapshot } from '#backend-cluster/storage/snapshot.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { uuid } from './ledger.ts';

const whole = fc.maxSafeNat();
const text = fc.string({ unit: 'grapheme' });
const ascending = fc.uniqueArray(fc.integer({ min: 1, max: 2 ** 32 - 1 }), { maxLength: 50 }).map((uids) => uids.sort((a, b) => a - b));
const finite = fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
const body = fc.record({ at: fc.integer({ min: -(2 ** 31), max: 2 ** 31 }), offset: whole, summaryBytes: whole, rawBytes: whole });
const emailId = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes));

const record: fc.Arbitrary<LogRecord> = fc.oneof(
  fc.record({ kind: fc.constant('open' as const), epoch: whole, member: text, incarnation: text, atMs: finite }),
  fc.record({
    kind: fc.constant('message' as const),
    mailboxId: whole,
    uid: whole,
    modseq: whole,
    internalDateMs: finite,
    sizeBytes: whole,
    emailId,
    flags: fc.array(text),
    body,
    deliveryId: text,
    storedAtMs: finite,
  }),
  fc.record({
    kind: fc.constant('flags' as const),
    mailboxId: whole,
    modseq: whole,
    groups: fc.array(fc.record({ flags: fc.array(text), uids: ascending })),
  }),
  fc.record({ kind: fc.constant('expunge' as const), mailboxId: whole, modseq: whole, uids: ascending }),
  fc.record({ kind: fc.constant('mailbox-create' as const), mailboxId: whole, name: text, uidValidity: whole, specialUse: text }),
  fc.record({ kind: fc.constant('mailbox-delete' as const), mailboxId: whole }),
  fc.record({ kind: fc.constant('mailbox-rename' as const), mailboxId: whole, name: text }),
  fc.record({ kind: fc.constant('subscribe' as const), name: text, subscribed: fc.boolean() }),
);

function fileOf(records: readonly LogRecord[]): Buffer {
  const nonce = '00112233445566778899aabbccddeeff';
  return Buffer.concat(encodeSlot({ slot: 7, epoch: 3, nonce, records, bodies: [Buffer.from('body')] }).parts);
}

function read(file: Buffer): LogRecord[] {
  const header = decodeSlotHeader(file.subarray(0, slotHeaderBytes));
  return decodeSlotRecords(header, file.subarray(slotHeaderBytes, bodiesOffsetOf(header)));
}

describe('a slot', () => {
  it('gives back the records that were written', () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 8 }), (records) => {
        expect(read(fileOf(records))).toEqual(records);
      }),
      { numRuns: 300 },
    );
  });

  it('is refused as corrupt, and nothing worse, when any bit of header or records is another', () => {
    fc.assert(
      fc.property(fc.array(record, { minLength: 1, maxLength: 4 }), fc.nat(), fc.integer({ min: 0, max: 7 }), (records, at, bit) => {
        const file = fileOf(records);
        const index = at % (file.length - 'body'.length);
        file[index] = (file[index] as number) ^ (1 << bit);
        expect(() => read(file)).toThrow(expect.objectContaining({ code: 'STORE_CORRUPT' }));
      }),
      { numRuns: 300 },
    );
  });
});

describe('the reader', () => {
  it('meets any bytes with a value or STORE_CORRUPT, in bounded memory', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const methods = ['number', 'double', 'string', 'strings', 'count', 'ascending'] as const;
        for (const method of methods) {
          try {
            new ByteReader(Buffer.from(bytes))[method]();
          } catch (error) {
            expect(error).toBeInstanceOf(PlatformError);
          }
        }
        expect(() => decodeSnapshot(uuid, 1, Buffer.from(bytes))).toThrow(PlatformError);
      }),
    );
  });

  it('writes and reads any list of ascending numbers', () => {
    fc.assert(
      fc.property(ascending, (values) => {
        const out = new ByteWriter(1);
        out.ascending(values);
        expect(new ByteReader(Buffer.from(out.finish())).ascending()).toEqual(values);
      }),
    );
  });
});

describe('a stored part', () => {
  it.each([0, 1, 127, 128, 5_000, 40_000, 300_000])('of %i bytes is given back', async (length) => {
    const plain = Buffer.alloc(length, 'some words that repeat ');
    const stored = await encodePart(plain);
    expect((await decodePart(stored)).equals(plain)).toBe(true);
    if (length > 1_000) expect(stored.length).toBeLessThan(length / 5);
    const last = stored.length - 1;
    stored[last] = (stored[last] as number) ^ 1;
    await expect(decodePart(stored)).rejects.toMatchObject({ code: 'STORE_CORRUPT' });
  });

  it.each([1, 600, 40_000])('of %i bytes is damaged, and nothing else, whichever of its first bits is another', async (length) => {
    const stored = await encodePart(Buffer.alloc(length, 'some words that repeat '));
    for (let bit = 0; bit < 8 * Math.min(stored.length, 32); bit += 1) {
      const changed = Buffer.from(stored);
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
      await expect(decodePart(changed), `bit ${bit}`).rejects.toMatchObject({ code: 'STORE_CORRUPT' });
    }
  });
});

describe('names of bodies', () => {
  it('say what they hold and in which epoch it was written', () => {
    for (const at of [1, 999_999_999_999, fileAt(1, 0), fileAt(70_000, 1_048_575)]) expect(parseBodyName(bodyName(at))).toBe(at);
    expect(fileParts(fileAt(70_000, 1_048_575))).toEqual({ epoch: 70_000, counter: 1_048_575 });
    for (const other of ['s1', 'x000000000001', '.nfs0001', 's000000000000']) expect(parseBodyName(other)).toBeUndefined();
  });
});
