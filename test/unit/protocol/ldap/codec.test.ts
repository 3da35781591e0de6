import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Secret } from '#common/secret.ts';
import { BerWriter } from '#protocol/ldap/ber.ts';
import { type Decoded, LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage, writeMessage } from '#protocol/ldap/encode.ts';
import type { LdapMessage } from '#protocol/ldap/messages.ts';
import { parseMessage } from '#protocol/ldap/parse.ts';
import { message } from './arbitraries.ts';

// Secrets compare equal by their class alone, so they are opened for comparison.
function comparable(one: LdapMessage): unknown {
  return JSON.parse(
    JSON.stringify(one, (_key, value) => (value instanceof Secret ? { revealed: value.reveal()?.toString('hex') } : value), 0),
  );
}

function revealed(one: LdapMessage): unknown {
  if (one.operation.type !== 'bindRequest') return comparable(one);
  const auth = one.operation.authentication;
  const opened = auth.method === 'simple' ? auth.password.reveal() : auth.credentials?.reveal();
  return { ...(comparable(one) as object), opened: opened?.toString('hex') };
}

function decodeAll(chunks: readonly Buffer[], messageBytesMax = 16_777_216): { messages: LdapMessage[]; last: Decoded } {
  const decoder = new LdapDecoder({ messageBytesMax });
  const messages: LdapMessage[] = [];
  let last: Decoded = { outcome: 'needs-more' };
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (last = decoder.next(); last.outcome === 'message'; last = decoder.next()) messages.push(last.message);
  }
  return { messages, last };
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const sorted = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const chunks: Buffer[] = [];
  let from = 0;
  for (const cut of [...sorted, bytes.length]) {
    chunks.push(Buffer.from(bytes.subarray(from, cut)));
    from = cut;
  }
  return chunks;
}

describe('the LDAP codec', () => {
  it('reads back every message it writes, however the bytes are split', () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 4 }), fc.array(fc.nat(5000), { maxLength: 12 }), (messages, cuts) => {
        const writer = new BerWriter();
        for (const one of messages) writeMessage(writer, one);
        const decoded = decodeAll(split(writer.take(), cuts));
        expect(decoded.last.outcome).toBe('needs-more');
        expect(decoded.messages.map(revealed)).toEqual(messages.map(revealed));
      }),
      { numRuns: 300 },
    );
  });

  it('gives the same messages for single bytes as for one chunk', () => {
    fc.assert(
      fc.property(message, (one) => {
        const bytes = encodeMessage(one);
        const decoded = decodeAll([...bytes].map((byte) => Buffer.from([byte])));
        expect(decoded.messages.map(revealed)).toEqual([revealed(one)]);
      }),
      { numRuns: 50 },
    );
  });

  it('never throws on changed bytes', () => {
    fc.assert(
      fc.property(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 5 }), (one, changes) => {
        const bytes = Buffer.from(encodeMessage(one));
        for (const [where, what] of changes) bytes[where % bytes.length] = what;
        decodeAll([bytes], 65_536);
        parseMessage(bytes);
      }),
      { numRuns: 2000 },
    );
  });

  it('ends broken streams at the same message, whatever the split, and lazily read entries never throw', () => {
    fc.assert(
      fc.property(
        fc.array(message, { minLength: 1, maxLength: 3 }),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
        fc.array(fc.nat(5000), { maxLength: 12 }),
        (messages, changes, cuts) => {
          const writer = new BerWriter();
          for (const one of messages) writeMessage(writer, one);
          const bytes = writer.take();
          for (const [where, what] of changes) bytes[where % bytes.length] = what;
          const whole = decodeAll([Buffer.from(bytes)], 65_536);
          const pieces = decodeAll(split(bytes, cuts), 65_536);
          expect(pieces.messages.map(revealed)).toEqual(whole.messages.map(revealed));
          expect(pieces.last).toEqual(whole.last);
          const lazy = new LdapDecoder({ messageBytesMax: 65_536, entriesAreLazy: true });
          lazy.push(Buffer.from(bytes));
          for (let next = lazy.next(); next.outcome === 'message'; next = lazy.next()) {
            const { operation } = next.message;
            if (operation.type === 'searchResultEntry') expect(Array.isArray(operation.attributes)).toBe(true);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('never throws on arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (array) => {
        decodeAll([Buffer.from(array)], 65_536);
        parseMessage(Buffer.concat([Buffer.from([0x30, array.length & 0x7f]), Buffer.from(array)]));
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['an indefinite length', '3080020101420000', 'malformed'],
    ['a length of nine octets', '3089000000000000000000', 'malformed'],
    ['a length of 2^31', '308480000000', 'malformed'],
    ['a first byte that starts no message', '474554202f20', 'malformed'],
    ['an operation that passes the end of its message', '3005020101427f', 'malformed'],
    ['an unknown operation', '30050201017f00', 'malformed'],
    ['a negative message ID', '30050201ff4200', 'malformed'],
    ['a message that claims 512 MiB', '308420000000', 'too-big'],
  ])('ends the stream at %s', (_what, hex, outcome) => {
    const { last, messages } = decodeAll([Buffer.from(hex, 'hex')]);
    expect(messages).toEqual([]);
    expect(last.outcome).toBe(outcome);
  });

  it('accepts lengths longer than they need be', () => {
    const { messages } = decodeAll([Buffer.from('30840000000902840000000101' + '4200', 'hex')]);
    expect(messages.map((one) => one.operation.type)).toEqual(['unbindRequest']);
  });

  it('takes any non-zero boolean as true', () => {
    const bytes = encodeMessage({
      id: 1,
      operation: { type: 'modifyDnRequest', dn: 'cn=a', newRdn: 'cn=b', deleteOldRdn: true, newSuperior: undefined },
      controls: [],
    });
    const changed = Buffer.from(bytes);
    expect(changed[changed.length - 1]).toBe(0xff);
    changed[changed.length - 1] = 0x01;
    expect(decodeAll([changed]).messages[0]?.operation).toMatchObject({ deleteOldRdn: true });
  });

  it('holds the limit before bind and the wider one after', () => {
    const big = encodeMessage({
      id: 2,
      operation: { type: 'addRequest', dn: 'cn=a', attributes: [{ type: 'jpegPhoto', values: [Buffer.alloc(100_000)] }] },
      controls: [],
    });
    expect(decodeAll([big], 65_536).last.outcome).toBe('too-big');
    const decoder = new LdapDecoder({ messageBytesMax: 65_536 });
    decoder.setMessageBytesMax(1_000_000);
    decoder.push(big);
    expect(decoder.next().outcome).toBe('message');
  });

  it('refuses a filter nested deeper than the limit', () => {
    const deep = (depth: number): Buffer => {
      let inner = Buffer.from([0x87, 0x02, 0x63, 0x6e]);
      for (let i = 0; i < depth; i += 1) {
        inner = Buffer.concat([
          inner.length < 128 ? Buffer.from([0xa2, inner.length]) : Buffer.from([0xa2, 0x82, inner.length >> 8, inner.length & 255]),
          inner,
        ]);
      }
      const fields = Buffer.concat([Buffer.from('04000a01020a0100020100020100010100', 'hex'), inner, Buffer.from('3000', 'hex')]);
      const search = Buffer.concat([Buffer.from([0x63, 0x82, fields.length >> 8, fields.length & 255]), fields]);
      const body = Buffer.concat([Buffer.from('020101', 'hex'), search]);
      return Buffer.concat([Buffer.from([0x30, 0x82, body.length >> 8, body.length & 255]), body]);
    };
    expect(parseMessage(deep(30)).outcome).toBe('message');
    expect(parseMessage(deep(40))).toMatchObject({ outcome: 'over-limit', id: 1 });
    expect(parseMessage(deep(5000)).outcome).toBe('over-limit');
  });

  it('keeps memory near the bytes that came, not the bytes that were claimed', () => {
    const decoder = new LdapDecoder({ messageBytesMax: 16_777_216 });
    decoder.push(Buffer.from([0x30, 0x84, 0x00, 0xff, 0xff, 0x00]));
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 5000; i += 1) {
      decoder.push(Buffer.from([0x04]));
      expect(decoder.next().outcome).toBe('needs-more');
    }
    expect(decoder.bufferedBytes).toBe(5006);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4_000_000);
  });

  it('ignores elements that a later version of the standard appends', () => {
    const parsed = parseMessage(Buffer.from('3011' + '020107' + '650c' + '0a0100' + '0400' + '0400' + '8a03414243', 'hex'));
    expect(parsed).toMatchObject({ outcome: 'message', message: { id: 7, operation: { type: 'searchResultDone', resultCode: 0 } } });
  });
});
