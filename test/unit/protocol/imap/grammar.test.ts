import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { writeBodyStructure, writeEnvelope } from '#protocol/imap/body-structure.ts';
import { parseDateTime, sentDay } from '#protocol/imap/dates.ts';
import { CommandDecoder } from '#protocol/imap/decoder.ts';
import { parseFetch } from '#protocol/imap/fetch-grammar.ts';
import { compilePattern, matchesPattern, parseList } from '#protocol/imap/list-grammar.ts';
import { CommandReader } from '#protocol/imap/reader.ts';
import { formatDateTime, ResponseWriter } from '#protocol/imap/response.ts';
import { parseSearch } from '#protocol/imap/search-grammar.ts';
import { contains, formatNumbers, resolveSet } from '#protocol/imap/sequence-set.ts';
import { decodeMailboxName, encodeMailboxName } from '#protocol/imap/utf7.ts';
import { type MimePart, scanMessage } from '#protocol/mime/part.ts';

const reader = (text: string): CommandReader => new CommandReader([{ kind: 'text', bytes: Buffer.from(text, 'latin1') }]);

describe('sequence sets', () => {
  test.each([
    ['1', 9, [[1, 1]]],
    ['*', 9, [[9, 9]]],
    ['*:3', 9, [[3, 9]]],
    [
      '1,*',
      9,
      [
        [1, 1],
        [9, 9],
      ],
    ],
    [
      '5:2,4:7,9',
      9,
      [
        [2, 7],
        [9, 9],
      ],
    ],
    ['3:*', 2, [[2, 3]]],
    ['1:4294967295', 9, [[1, 4294967295]]],
    ['1,2,3', 9, [[1, 3]]],
  ])('%s with %d as the highest', (text, highest, expected) => {
    expect(resolveSet(reader(text).sequenceSet(), highest)).toEqual(expected);
  });

  test.each(['0', '1:', ':1', ',1', '1,', 'a', '1:0', '4294967296', ''])('%j is none', (text) => {
    expect(() => {
      const at = reader(text);
      at.sequenceSet();
      at.end();
    }).toThrow();
  });

  test('numbers come out as the shortest set, and in it again', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (numbers) => {
        const ascending = numbers.toSorted((a, b) => a - b);
        const ranges = resolveSet(reader(formatNumbers(ascending)).sequenceSet(), 60);
        for (let n = 1; n <= 60; n += 1) expect(contains(ranges, n)).toBe(ascending.includes(n));
      }),
    );
  });
});

describe('modified UTF-7', () => {
  test.each([
    ['INBOX', 'INBOX'],
    ['Entwürfe', 'Entw&APw-rfe'],
    ['A & B', 'A &- B'],
    ['台北/日本語', '&U,BTFw-/&ZeVnLIqe-'],
    ['☺!', '&Jjo-!'],
  ])('%s is %s on the wire', (name, wire) => {
    expect(encodeMailboxName(name)).toBe(wire);
    expect(decodeMailboxName(Buffer.from(wire))).toBe(name);
  });

  test.each(['&', '&AP', '&A-', '&AP_8-', '&2D0-'])('%s is refused', (wire) => {
    expect(decodeMailboxName(Buffer.from(wire))).toBeUndefined();
  });

  test('every name comes back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const name = text.normalize('NFC');
        expect(decodeMailboxName(Buffer.from(encodeMailboxName(name)))).toBe(name);
      }),
    );
  });
});

describe('LIST patterns', () => {
  test.each([
    ['*', 'a/b/c', true],
    ['%', 'a/b', false],
    ['%/b', 'a/b', true],
    ['a/%', 'a/b/c', false],
    ['a*c', 'a/b/c', true],
    ['%b%', 'abc', true],
    ['', 'a', false],
    ['a%', 'a', true],
    ['*/%', 'a/b/c', true],
    ['%*', 'a/b', true],
    ['a%%b', 'a/b', false],
    ['%/%', 'a/b/c', false],
    ['*b', 'abab', true],
    ['aa*aa', 'aaa', false],
    ['*', '', true],
    ['%', '', true],
  ] as const)('%s and %s: %s', (pattern, name, expected) => {
    expect(matchesPattern(compilePattern(pattern), name, '/')).toBe(expected);
  });

  test('patterns made to blow up against long names are answered at once', () => {
    const started = performance.now();
    const names = Array.from({ length: 40 }, (_, i) => `${'a'.repeat(1000)}${i}`);
    for (const text of [`${'*a'.repeat(50)}z`, `${'%a'.repeat(50)}z`, `${'*a%'.repeat(33)}x`]) {
      const pattern = compilePattern(text);
      for (const name of names) expect(matchesPattern(pattern, name, '/')).toBe(false);
    }
    expect(performance.now() - started).toBeLessThan(1500);
  });

  test('more wildcards than anybody needs are refused, over all patterns together', () => {
    expect(() => parseList(reader(`"" "${'%a'.repeat(101)}"`))).toThrow(/more than 100 wildcards/);
    expect(() => parseList(reader(`"" (${'%a*b '.repeat(51).trim()})`))).toThrow(/more than 100 wildcards/);
    expect(parseList(reader('"" "***%%%a"')).patterns).toHaveLength(1);
  });
});

describe('FETCH items', () => {
  test.each([
    ['BODY[]', 'BODY[]'],
    ['BODY.PEEK[1.2.MIME]<5.10>', 'BODY[1.2.MIME]<5>'],
    ['body[header.fields (From "X Y")]', 'BODY[HEADER.FIELDS (From "X Y")]'],
    ['BODY[2.HEADER.FIELDS.NOT (to)]', 'BODY[2.HEADER.FIELDS.NOT (to)]'],
    ['RFC822.TEXT', 'RFC822.TEXT'],
  ])('%s is answered as %s', (text, label) => {
    expect(parseFetch(reader(text)).items[0]).toMatchObject({ kind: 'section', label });
  });

  test.each([
    '',
    '()',
    '(ALL)',
    'BODY[',
    'BODY[]<0>',
    'BODY[]<0.0>',
    'BODY[1..2]',
    'BODY[TEXT.1]',
    'FLAGS FLAGS',
    'BODY.PEEK',
    'FLAGS (UNKNOWN 1)',
  ])('%j is refused', (text) => expect(() => parseFetch(reader(text))).toThrow());
});

test('any text after SEARCH is a program or a syntax error, never anything else', () => {
  const word = fc.constantFrom(
    'ALL',
    'NOT',
    'OR',
    '(',
    ')',
    ' ',
    '1:*',
    'UID',
    'FROM',
    '"x"',
    'SINCE',
    '1-Feb-2026',
    'RETURN',
    'CHARSET',
    '*',
    '\\',
    '{',
    'MODSEQ',
    '7',
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 25 }), (words) => {
      try {
        parseSearch(reader(words.join('')));
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTO_SYNTAX' });
      }
    }),
  );
  expect(() => parseSearch(reader(`${'('.repeat(200)}ALL${')'.repeat(200)}`))).toThrow('nested deeper');
  expect(() => parseSearch(reader(`${'NOT '.repeat(200)}ALL`))).toThrow('nested deeper');
});

describe('dates', () => {
  test('a date-time is read in its zone and written in UTC', () => {
    expect(formatDateTime(parseDateTime(' 7-Jul-1996 02:44:25 -0730'))).toBe('" 7-Jul-1996 10:14:25 +0000"');
    expect(() => parseDateTime('17-Jul-1996 25:44:25 -0700')).toThrow();
  });

  test.each([
    ['Fri, 2 Jan 2026 23:59:59 -1200', Date.UTC(2026, 0, 2)],
    ['2 Jan 26 00:00', Date.UTC(2026, 0, 2)],
    ['Fri, 2 January 99', Date.UTC(1999, 0, 2)],
    ['31 Feb 2026', undefined],
    ['yesterday', undefined],
  ])('%s', (text, day) => expect(sentDay(text)).toBe(day));
});

describe('responses', () => {
  const written = (write: (out: ResponseWriter) => void): string => {
    const out = new ResponseWriter();
    write(out);
    return Buffer.concat(out.finish()).toString('latin1').slice(0, -2);
  };
  const structure = (text: string, isExtended = false): string =>
    written((out) => writeBodyStructure(out, scanMessage(Buffer.from(text.replaceAll('\n', '\r\n'), 'latin1')), isExtended));

  test('strings are quoted where they can be', () => {
    expect(written((out) => out.string('a"b\\'))).toBe('"a\\"b\\\\"');
    expect(written((out) => out.string('é'))).toBe('{1}\r\né');
    expect(written((out) => out.mailbox('NIL').text(' ').mailbox('a b').text(' ').mailbox('x/y'))).toBe('"NIL" "a b" x/y');
  });

  test('a message inside a message has its envelope and structure', () => {
    expect(structure('Content-Type: message/rfc822\n\nSubject: in\n\nx\n')).toBe(
      '("message" "rfc822" NIL NIL NIL "7bit" 18 (NIL "in" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" NIL NIL NIL "7bit" 3 1) 3)',
    );
  });

  test.each([
    ['Content-Type: text\n\nx', '("text" "plain" NIL NIL NIL "7bit" 1 0)'],
    ['Content-Type: multipart/mixed\n\nx\n', '("text" "plain" NIL NIL NIL "7bit" 3 1)'],
    ['Content-Type: multipart/mixed; boundary=b\n\nx\n', '(("text" "plain" NIL NIL NIL "7bit" 0 0) "mixed")'],
    [
      'Content-Type: TEXT/HTML; charset="utf-8"; format=flowed (c)\n\n',
      '("text" "html" ("charset" "utf-8" "format" "flowed") NIL NIL "7bit" 0 0)',
    ],
    ["Content-Type: a/b; name*0*=utf-8''x; name*1=y\n\n", '("a" "b" ("name*0*" "utf-8\'\'x" "name*1" "y") NIL NIL "7bit" 0)'],
    [
      'Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: d\n\nx\n--b--\n',
      /^\(\("message" "rfc822" NIL NIL NIL "7bit" \d+ \(NIL "d" .*\) "digest"\)$/,
    ],
  ] as const)('BODY of %j', (text, expected) => {
    if (typeof expected === 'string') expect(structure(text)).toBe(expected);
    else expect(structure(text)).toMatch(expected);
  });

  test('extension data: several languages, a disposition without parameters', () => {
    expect(structure('Content-Language: en, de\nContent-Disposition: inline\nContent-Location: here\nContent-MD5: abc\n\n', true)).toBe(
      '("text" "plain" NIL NIL NIL "7bit" 0 0 "abc" ("inline" NIL) ("en" "de") "here")',
    );
  });

  test('every structure of any message is one balanced list that a client can read', () => {
    const piece = fc.constantFrom(
      '--b',
      '--b--',
      '\n',
      '\n',
      'Content-Type: multipart/mixed; boundary=b',
      'Content-Type: message/rfc822',
      'Content-Type: text/html; name="(\\"',
      'To: "a',
      'From: x:a@b;',
      '\u00e9',
      '(',
      'Content-Disposition: x; y="\u0007"',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (words) => {
        const root: MimePart = scanMessage(Buffer.from(words.join('').replaceAll('\n', '\r\n'), 'latin1'));
        const text = written((out) => {
          writeBodyStructure(out, root, true);
          if (root.envelope !== null) writeEnvelope(out, root.envelope);
        });
        // Read back with the command decoder and reader: the grammar of strings is the same in both directions.
        const decoder = new CommandDecoder();
        decoder.push(Buffer.from(`${text.replace(/\{(\d+)\}\r\n/g, '{$1+}\r\n')}\r\n`, 'latin1'));
        let event = decoder.next();
        while (event?.kind === 'literal') {
          decoder.acceptLiteral();
          event = decoder.next();
        }
        if (event?.kind !== 'command') throw new Error('the response is not one whole line');
        const back = new CommandReader(event.pieces);
        const item = (): void => {
          if (back.nextIs('(')) {
            back.expect('(');
            while (!back.take(')')) {
              item();
              back.take(' ');
            }
          } else if (back.isAtLiteral || back.nextIs('"')) back.string();
          else back.keyword();
        };
        item();
        item();
        expect(back.isAtEnd).toBe(true);
      }),
    );
  });
});
