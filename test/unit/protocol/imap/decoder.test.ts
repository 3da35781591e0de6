import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CommandDecoder, lineBytesMax } from '#protocol/imap/decoder.ts';

/** All commands in `bytes`, fed in the given pieces; literals up to `literalMax` are accepted. */
function decode(pieces: readonly Buffer[], literalMax = 1000): string[] {
  const decoder = new CommandDecoder();
  const out: string[] = [];
  for (const piece of pieces) {
    decoder.push(piece);
    for (let event = decoder.next(); event !== undefined; event = decoder.next()) {
      if (event.kind === 'literal') {
        if (event.sizeBytes <= literalMax) decoder.acceptLiteral();
        else {
          out.push(`literal of ${event.sizeBytes} refused`);
          decoder.refuseLiteral();
        }
        continue;
      }
      const text = event.pieces.map((part) =>
        part.kind === 'literal' ? `<${part.bytes.toString('latin1')}>` : part.bytes.toString('latin1'),
      );
      out.push(event.kind === 'command' ? text.join('') : `refused: ${event.why}`);
    }
  }
  return out;
}

const one = (text: string): Buffer[] => [Buffer.from(text, 'latin1')];
const bytewise = (text: string): Buffer[] => [...Buffer.from(text, 'latin1')].map((byte) => Buffer.from([byte]));

describe('the command decoder', () => {
  test('literals of all kinds become pieces of their command, whatever they hold', () => {
    expect(decode(one('a LOGIN {3}\r\na\r\n {2+}\r\n}\n x\r\nb NOOP\n'))).toEqual(['a LOGIN <a\r\n> <}\n> x', 'b NOOP']);
    expect(decode(one('a APPEND x ~{1}\r\n\0\r\n'))).toEqual(['a APPEND x <\0>']);
    expect(decode(one('a X {0}\r\n\r\n'))).toEqual(['a X <>']);
  });

  test('what only looks like an announcement is text', () => {
    for (const text of ['a {x}', 'a {}', 'a {-1}', 'a {1++}', 'a {1} ', 'a 1}', 'a {1234567890123456}']) {
      expect(decode(one(`${text}\r\n`))).toEqual([text]);
    }
  });

  test('any split of the bytes gives the same commands', () => {
    const word = fc.constantFrom(
      'a1 NOOP',
      ' ',
      '\r\n',
      '\n',
      '{3}\r\n',
      '{5+}\r\n',
      '~{2}\r\n',
      'abc',
      '"x"',
      '{9999+}\r\n',
      '{2000}\r\n',
      '\0',
      'é',
      '{',
      '}',
    );
    fc.assert(
      fc.property(
        fc.array(word, { maxLength: 40 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 60 }),
        (words, cuts) => {
          const all = Buffer.from(words.join(''), 'latin1');
          const pieces: Buffer[] = [];
          for (let at = 0, cut = 0; at < all.length; cut += 1) {
            const next = at + (cuts[cut % cuts.length] as number);
            pieces.push(all.subarray(at, next));
            at = next;
          }
          const expected = decode([all]);
          expect(decode(pieces)).toEqual(expected);
          expect(decode(bytewise(all.toString('latin1')))).toEqual(expected);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('a refused literal that is on its way is read over, and the next command is understood', () => {
    expect(decode(one(`a X {5000+}\r\n${'y'.repeat(5000)} {2000+}\r\n${'z'.repeat(2000)} end\r\nb NOOP\r\n`))).toEqual([
      'literal of 5000 refused',
      'b NOOP',
    ]);
  });

  test('a line that is too long is refused once, with its end found, in bounded memory', () => {
    const long = `a ${'x'.repeat(3 * lineBytesMax)} {4+}\r\nABCD tail\r\nb NOOP\r\n`;
    const expected = [`refused: A command line is longer than ${lineBytesMax} octets`, 'b NOOP'];
    expect(decode(one(long))).toEqual(expected);
    const decoder = new CommandDecoder();
    let most = 0;
    for (let at = 0; at < long.length; at += 1000) {
      decoder.push(Buffer.from(long.slice(at, at + 1000)));
      for (let event = decoder.next(); event !== undefined; event = decoder.next());
      most = Math.max(most, decoder.heldBytes);
    }
    expect(most).toBeLessThanOrEqual(lineBytesMax + 1000);
    expect(decode(Array.from({ length: Math.ceil(long.length / 777) }, (_, i) => Buffer.from(long.slice(i * 777, i * 777 + 777))))).toEqual(
      expected,
    );
  });

  test('a long literal that comes in small pieces is whole, and announcing one costs no memory', () => {
    const content = Array.from({ length: 9000 }, (_, i) => String.fromCharCode(33 + (i % 90))).join('');
    const text = `a X {9000+}\r\n${content}\r\nb NOOP\r\n`;
    const pieces = Array.from({ length: Math.ceil(text.length / 7) }, (_, i) => Buffer.from(text.slice(i * 7, i * 7 + 7)));
    expect(decode(pieces, 10_000)).toEqual([`a X <${content}>`, 'b NOOP']);
    const before = process.memoryUsage().arrayBuffers;
    expect(decode(one('a X {1000000000}\r\nfirst'), Number.MAX_SAFE_INTEGER)).toEqual([]);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000);
  });

  test('too many literals in one command are refused', () => {
    const result = decode(one(`a X${' {1+}\r\ny'.repeat(150)}\r\nb NOOP\r\n`));
    expect(result).toEqual(['refused: A command has more than 100 literals', 'b NOOP']);
  });

  test('a raw line can be taken for IDLE', () => {
    const decoder = new CommandDecoder();
    decoder.push(Buffer.from('DO'));
    expect(decoder.nextLine()).toBeUndefined();
    decoder.push(Buffer.from('NE\r\na NOOP\r\n'));
    expect(decoder.nextLine()?.toString()).toBe('DONE');
    expect(decoder.next()?.kind).toBe('command');
  });
});
