import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dataBytesMax, FrameBatch, FrameDecoder, type FrameType, frameTypes, parseJsonObject } from '#protocol/link/frames.ts';

interface Seen {
  type: number;
  channel: number;
  payload: string;
}

function decode(chunks: readonly Buffer[]): Seen[] {
  const seen: Seen[] = [];
  const decoder = new FrameDecoder();
  for (const chunk of chunks) {
    decoder.push(chunk, (type, channel, payload) => seen.push({ type, channel, payload: payload.toString('hex') }));
    expect(decoder.pendingBytes).toBeLessThan(dataBytesMax + 9);
  }
  return seen;
}

const frame = fc.oneof(
  fc.record({
    type: fc.constant(frameTypes.data),
    channel: fc.integer({ min: 1, max: 0xffff_ffff }),
    payload: fc.uint8Array({ maxLength: 300 }),
  }),
  fc.record({
    type: fc.constant(frameTypes.reset),
    channel: fc.integer({ min: 1, max: 0xffff_ffff }),
    payload: fc.uint8Array({ maxLength: 40 }),
  }),
  fc.record({ type: fc.constant(frameTypes.end), channel: fc.integer({ min: 1, max: 9 }), payload: fc.constant(new Uint8Array()) }),
  fc.record({
    type: fc.constant(frameTypes.credit),
    channel: fc.integer({ min: 1, max: 9 }),
    payload: fc.uint8Array({ minLength: 4, maxLength: 4 }),
  }),
);

/** The first octets of a frame that claims so many octets of payload. */
function header(type: FrameType, channel: number, length: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUIntBE(length, 0, 3);
  bytes[3] = type;
  bytes.writeUInt32BE(channel, 4);
  return bytes;
}

describe('frames of the link', () => {
  it('come out the same however the bytes are split', () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 40 }),
        (frames, cuts) => {
          const batch = new FrameBatch();
          for (const f of frames) batch.add(f.type as FrameType, f.channel, f.payload);
          const { bytes } = batch;
          expect(bytes.length).toBe(batch.length);
          const chunks: Buffer[] = [];
          for (let at = 0, i = 0; at < bytes.length; i += 1) {
            const length = cuts[i % cuts.length] as number;
            chunks.push(bytes.subarray(at, at + length));
            at += length;
          }
          const expected = frames.map((f) => ({ type: f.type, channel: f.channel, payload: Buffer.from(f.payload).toString('hex') }));
          expect(decode(chunks)).toEqual(expected);
          expect(decode([bytes])).toEqual(expected);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('tell that the end of their channel, and of no other, lies right behind them', () => {
    const data = (channel: number): Buffer => Buffer.concat([header(frameTypes.data, channel, 1), Buffer.from('x')]);
    const end = (channel: number): Buffer => header(frameTypes.end, channel, 0);
    const seen: string[] = [];
    const decoder = new FrameDecoder();
    const all = Buffer.concat([data(1), end(2), data(3), end(3), data(4), data(5), end(5).subarray(0, 7)]);
    for (const chunk of [all, end(5).subarray(7)]) {
      decoder.push(chunk, (type, channel, _payload, endsNext) => {
        if (type === frameTypes.data) seen.push(`${channel} ${endsNext}`);
      });
    }
    expect(seen).toEqual(['1 false', '3 true', '4 false', '5 false']);
  });

  it.each([
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a TLS client hello', Buffer.from('16030100a5010000a10303', 'hex')],
    ['a data frame that is too long', header(frameTypes.data, 1, dataBytesMax + 1)],
    ['an unknown type', Buffer.from([0, 0, 0, 99, 0, 0, 0, 1])],
    ['a credit without its number', header(frameTypes.credit, 1, 0)],
  ])('refuses %s on its header alone and decodes nothing after it', (_what, bytes) => {
    const decoder = new FrameDecoder();
    const seen: number[] = [];
    expect(() => decoder.push(bytes, (type) => seen.push(type))).toThrow(expect.objectContaining({ code: 'LINK_PROTOCOL' }));
    decoder.push(header(frameTypes.end, 1, 0), (type) => seen.push(type));
    expect(seen).toEqual([]);
  });

  it('refuses JSON that is no object, and never sends what would not be accepted', () => {
    expect(() => parseJsonObject(Buffer.from('[1]'))).toThrow(expect.objectContaining({ code: 'LINK_PROTOCOL' }));
    expect(() => parseJsonObject(Buffer.from('{"a":'))).toThrow(expect.objectContaining({ code: 'LINK_PROTOCOL' }));
    const batch = new FrameBatch();
    batch.add(frameTypes.end, 1);
    expect(() => batch.addJson(frameTypes.open, 2, { text: 'x'.repeat(20_000) })).toThrow(
      expect.objectContaining({ code: 'LINK_PROTOCOL' }),
    );
    batch.add(frameTypes.end, 3);
    expect(decode([batch.bytes])).toEqual([
      { type: frameTypes.end, channel: 1, payload: '' },
      { type: frameTypes.end, channel: 3, payload: '' },
    ]);
  });

  it('are put together in one piece, however large they are', () => {
    const batch = new FrameBatch();
    const piece = Buffer.alloc(dataBytesMax, 'x');
    const result = { text: 'ü'.repeat(300_000) };
    for (let i = 1; i <= 7; i += 1) batch.add(frameTypes.data, i, piece);
    batch.addJson(frameTypes.result, 8, result);
    const expected = [1, 2, 3, 4, 5, 6, 7].map((channel) => ({ type: frameTypes.data, channel, payload: piece.toString('hex') }));
    const payload = Buffer.from(JSON.stringify(result)).toString('hex');
    expect(decode([batch.bytes])).toEqual([...expected, { type: frameTypes.result, channel: 8, payload }]);
    batch.clear(false);
    expect(batch.bytes).toHaveLength(0);
  });

  it('leave what somebody keeps of a batch alone', () => {
    const batch = new FrameBatch();
    batch.add(frameTypes.data, 1, Buffer.from('one'));
    const kept = batch.bytes;
    batch.clear(true);
    batch.add(frameTypes.data, 2, Buffer.from('two'));
    expect(decode([kept, batch.bytes])).toEqual([
      { type: frameTypes.data, channel: 1, payload: Buffer.from('one').toString('hex') },
      { type: frameTypes.data, channel: 2, payload: Buffer.from('two').toString('hex') },
    ]);
  });
});
