import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DotDecoder, dotStuffed } from '#protocol/smtp/dot-stuffing.ts';

/** Bytes of the kind that end marks are made of. */
const markBytes = fc.array(fc.constantFrom('\r', '\n', '.', 'a'), { maxLength: 40 }).map((parts) => Buffer.from(parts.join('')));

function decoded(wire: Buffer, cuts: readonly number[] = []): { text: string; rest: string } | undefined {
  const decoder = new DotDecoder(10_000);
  let from = 0;
  for (const cut of [...cuts.filter((at) => at < wire.length).sort((a, b) => a - b), wire.length]) {
    const result = decoder.push(Buffer.from(wire.subarray(from, cut)));
    from = cut;
    if (result.kind === 'done')
      return { text: decoder.text().toString(), rest: Buffer.concat([result.rest, wire.subarray(from)]).toString() };
  }
  return undefined;
}

describe('dot-stuffing', () => {
  it('gives every text back, whatever the chunks, with a final line end', () => {
    fc.assert(
      fc.property(markBytes, fc.array(fc.nat(60), { maxLength: 6 }), (text, cuts) => {
        const wire = Buffer.concat(dotStuffed(text));
        const ended = text.length === 0 || text.toString().endsWith('\r\n') ? text.toString() : `${text.toString()}\r\n`;
        expect(decoded(Buffer.concat([wire, Buffer.from('NOOP\r\n')]), cuts)).toEqual({ text: ended, rest: 'NOOP\r\n' });
      }),
      { numRuns: 2000 },
    );
  });

  it('finds the same end in any chunks, and only at CRLF.CRLF', () => {
    fc.assert(
      fc.property(markBytes, fc.array(fc.nat(60), { maxLength: 6 }), (wire, cuts) => {
        const whole = decoded(wire);
        expect(decoded(wire, cuts)).toEqual(whole);
        expect(whole !== undefined).toBe(`\r\n${wire.toString()}`.includes('\r\n.\r\n'));
      }),
      { numRuns: 2000 },
    );
  });

  it.each(['\n.\n', '\n.\r\n', '\r\n.\n', '\r.\r', '\r\n.\r', '\r.\r\n', '\n\n.\n\n', '\r\n\0.\r\n', '\r.\n'])(
    'takes %j for text',
    (mark) => {
      expect(decoded(Buffer.from(`a${mark}MAIL FROM:<x@y>`))).toBeUndefined();
    },
  );

  it('counts what it drops and still finds the end', () => {
    const decoder = new DotDecoder(10);
    expect(decoder.push(Buffer.from('0123456789\r\n')).kind).toBe('needs-more');
    expect(decoder.push(Buffer.from('more\r\n.\r\nrest'))).toEqual({ kind: 'done', rest: Buffer.from('rest') });
    expect(decoder.isTooBig).toBe(true);
    expect(decoder.text()).toHaveLength(0);
  });
});
