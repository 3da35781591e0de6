import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseAddresses } from '#protocol/mime/address.ts';
import { type MimePart, scanMessage } from '#protocol/mime/part.ts';
import { readSection } from '#protocol/mime/section.ts';
import { normaliseLineEnds, readSummary, summarise } from '#protocol/mime/summary.ts';
import { decodeHeaderText, textParts } from '#protocol/mime/text.ts';

const crlf = (text: string): Buffer => Buffer.from(text.replaceAll('\n', '\r\n'), 'latin1');
const at = (part: MimePart, ...path: number[]): MimePart => path.reduce((p, n) => p.children[n] as MimePart, part);
const section = (raw: Buffer, path: number[], what: Parameters<typeof readSection>[2]['what'] = 'all', fields: string[] = []) =>
  readSection(raw, scanMessage(raw), { path, what, fields })?.toString('latin1');

const nested = crlf(`From: "Ann B." <ann@isp.example>
To: Friends: bob@isp.example, Cy <cy@isp.example>;, dan@isp.example (Dan)
Subject: =?utf-8?q?Caf=C3=A9?=
 folded
Content-Type: multipart/mixed; boundary="out"

preamble
--out
Content-Type: text/plain; charset=utf-8

first
--outer is not a delimiter
--out
Content-Type: message/rfc822
Content-Description: inner

Subject: inner
From: x@y.example
Content-Type: multipart/alternative; boundary=out2

--out2
Content-Type: text/plain

plain
--out2
Content-Type: text/html
Content-Transfer-Encoding: quoted-printable

<p>caf=C3=A9=
 au lait</p>
--out2--
--out
Content-Type: image/png; name="a b.png"
Content-Transfer-Encoding: BASE64
Content-Disposition: attachment; filename="a b.png"

AAAA
--out--
epilogue
`);

describe('the structure of a message', () => {
  test('is found with outer boundaries ending inner parts, and look-alike lines left alone', () => {
    const root = scanMessage(nested);
    expect(root.kind).toBe('multipart');
    expect(root.children.map((part) => `${part.type}/${part.subtype}`)).toEqual(['text/plain', 'message/rfc822', 'image/png']);
    expect(nested.toString('latin1', at(root, 0).bodyStart, at(root, 0).end)).toBe('first\r\n--outer is not a delimiter');
    const inner = at(root, 1, 0);
    expect(inner.envelope?.subject).toBe('inner');
    expect(inner.children.map((part) => part.subtype)).toEqual(['plain', 'html']);
    expect(at(root, 2).encoding).toBe('base64');
    expect(at(root, 2).disposition).toEqual({ value: 'attachment', params: [['filename', 'a b.png']] });
  });

  test('is the same after a round through the record', () => {
    expect(readSummary(summarise(nested))).toEqual(scanMessage(nested));
  });

  test('a record of another version or a damaged one is reported as unreadable', () => {
    const record = summarise(nested);
    expect(readSummary(Buffer.concat([Buffer.from([9]), record.subarray(1)]))).toBeUndefined();
    expect(readSummary(record.subarray(0, 40))).toBeUndefined();
    expect(readSummary(Buffer.alloc(0))).toBeUndefined();
  });

  test('a multipart whose last delimiter is missing keeps its last part', () => {
    const raw = crlf('Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo');
    expect(scanMessage(raw).children.map((part) => raw.toString('latin1', part.bodyStart, part.end))).toEqual(['one', 'two']);
  });

  test('a multipart without any delimiter shows one empty part, because the grammar has none without parts', () => {
    const root = scanMessage(crlf('Content-Type: multipart/mixed; boundary=b\n\nnothing here\n'));
    expect(root.children).toHaveLength(1);
    expect(at(root, 0)).toMatchObject({ type: 'text', subtype: 'plain', lines: 0 });
  });

  test('nesting beyond the limit is one opaque leaf and costs no stack', () => {
    const levels = 5000;
    let text = '';
    for (let i = 0; i < levels; i += 1) text += `Content-Type: multipart/mixed; boundary=b${i}\n\n--b${i}\n`;
    let part = scanMessage(crlf(text));
    let depth = 0;
    while (part.children[0] !== undefined) {
      part = part.children[0];
      depth += 1;
    }
    expect(depth).toBe(50);
    expect(`${part.type}/${part.subtype}`).toBe('application/octet-stream');
  });

  test('ten thousand parts are cut at the limit', () => {
    const raw = crlf(`Content-Type: multipart/mixed; boundary=b\n\n${'--b\n\nx\n'.repeat(10_000)}--b--\n`);
    expect(scanMessage(raw).children.length).toBeLessThanOrEqual(1000);
  });

  const megabytes = 8;
  test.each([
    ['a boundary that is everywhere', `Content-Type: multipart/mixed; boundary=-\n\n${'-'.repeat(megabytes << 20)}`],
    ['lines that only begin like a delimiter', `Content-Type: multipart/mixed; boundary=b\n\n${'--bx\n'.repeat((megabytes << 20) / 5)}`],
    [
      'boundaries that begin each other, level in level',
      `${Array.from({ length: 60 }, (_, i) => `Content-Type: multipart/mixed; boundary=${'b'.repeat(i + 1)}\n\n--${'b'.repeat(i + 1)}\n`).join('')}${`--${'b'.repeat(70)}\n`.repeat((megabytes << 20) / 73)}`,
    ],
    ['a header of short lines', 'a\n'.repeat(megabytes << 19)],
    ['one field folded without end', `a:\n${' \n'.repeat(megabytes << 19)}`],
    ['messages within messages', `${'Content-Type: message/rfc822\n\n'.repeat(60)}${'x\n'.repeat(megabytes << 19)}`],
    ['encoded words that never end', `Subject: ${'=?a?q?x '.repeat(8000)}\n\n`],
  ])('%s: eight megabytes made to be slow are answered in bounded time', (_name, text) => {
    const raw = Buffer.from(text, 'latin1');
    const started = performance.now();
    const root = scanMessage(raw);
    decodeHeaderText(root.envelope?.subject ?? '');
    // The bound leaves room for a busy machine; what was quadratic took many times this.
    expect(performance.now() - started).toBeLessThan(1500);
  });

  test('a header with too many lines still ends at its empty line', () => {
    const raw = crlf(`${'x: y\n'.repeat(30_000)}\nbody`);
    const root = scanMessage(raw);
    expect(raw.toString('latin1', root.bodyStart, root.end)).toBe('body');
  });

  test('any bytes are some message, and every range lies within them', () => {
    const pieces = fc.constantFrom(
      '--b',
      '--b--',
      '\r\n',
      '\n',
      'Content-Type: multipart/mixed; boundary=b',
      ':',
      'Content-Type: message/rfc822',
      ' ',
      '"',
      '(',
      'x',
      'From: a <b@c>',
      '\r',
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 60 }), (words) => {
        const raw = Buffer.from(words.join(''), 'latin1');
        const check = (part: MimePart): void => {
          expect(part.headerStart).toBeLessThanOrEqual(part.bodyStart);
          expect(part.bodyStart).toBeLessThanOrEqual(part.end);
          expect(part.end).toBeLessThanOrEqual(raw.length);
          for (const child of part.children) {
            expect(child.headerStart).toBeGreaterThanOrEqual(part.bodyStart);
            expect(child.end).toBeLessThanOrEqual(part.end);
            check(child);
          }
        };
        check(scanMessage(raw));
        expect(readSummary(summarise(raw))).toEqual(scanMessage(raw));
      }),
    );
  });
});

describe('sections', () => {
  test.each([
    [[1], 'first\r\n--outer is not a delimiter'],
    [[2, 1], 'plain'],
    [[3], 'AAAA'],
    [[4], undefined],
    [[1, 1], undefined],
  ] as const)('part %j is its body', (path, expected) => {
    expect(section(nested, [...path])).toBe(expected);
  });

  test('HEADER and TEXT of a part are those of the message inside it', () => {
    expect(section(nested, [2], 'header')).toMatch(/^Subject: inner\r\n[\s\S]*\r\n\r\n$/);
    expect(section(nested, [2], 'text')).toMatch(/^--out2\r\n[\s\S]*--out2--$/);
    expect(section(nested, [1], 'header')).toBeUndefined();
    expect(section(nested, [3], 'mime')).toMatch(/^Content-Type: image\/png/);
  });

  test('part 1 of a plain message is its text', () => {
    const raw = crlf('Subject: s\n\nbody\n');
    expect(section(raw, [1])).toBe('body\r\n');
    expect(section(raw, [1, 1])).toBeUndefined();
    expect(section(raw, [2])).toBeUndefined();
  });

  test('HEADER.FIELDS keeps folded fields whole and ends with the empty line', () => {
    expect(section(nested, [], 'header.fields', ['SUBJECT', 'x-none'])).toBe('Subject: =?utf-8?q?Caf=C3=A9?=\r\n folded\r\n\r\n');
    expect(section(nested, [2], 'header.fields.not', ['Content-Type'])).toBe('Subject: inner\r\nFrom: x@y.example\r\n\r\n');
  });
});

describe('address lists', () => {
  test.each([
    ['a@b', [[null, null, 'a', 'b']]],
    [
      '"Doe, J." <a@b>, c@d',
      [
        ['Doe, J.', null, 'a', 'b'],
        [null, null, 'c', 'd'],
      ],
    ],
    ['a@b (Old Style)', [['Old Style', null, 'a', 'b']]],
    ['<@relay,@two:a@b>', [[null, '@relay,@two', 'a', 'b']]],
    [
      'Group: a@b, c@d;',
      [
        [null, null, 'Group', null],
        [null, null, 'a', 'b'],
        [null, null, 'c', 'd'],
        [null, null, null, null],
      ],
    ],
    [
      'undisclosed-recipients:;',
      [
        [null, null, 'undisclosed-recipients', null],
        [null, null, null, null],
      ],
    ],
    ['=?utf-8?B?w6k=?= <e@f>', [['=?utf-8?B?w6k=?=', null, 'e', 'f']]],
    ['nobody', [[null, null, 'nobody', '']]],
    ['a@[127.0.0.1]', [[null, null, 'a', '[127.0.0.1]']]],
    [', ,', []],
    ['"unclosed <a@b>', [[null, null, 'unclosed <a@b>', '']]],
  ])('%s', (text, expected) => {
    expect(parseAddresses(text)).toEqual(expected);
  });
});

describe('text for searching', () => {
  test('encoded words are decoded, and the space between two of them dropped', () => {
    expect(decodeHeaderText('=?utf-8?q?Caf=C3=A9?= =?iso-8859-1?B?6Q==?= end =? =?x')).toBe('Caféé end =? =?x');
  });

  test('transfer encodings and charsets of the parts are undone', () => {
    expect([...textParts(nested, scanMessage(nested))].join('|')).toContain('<p>café au lait</p>');
  });
});

describe('line ends', () => {
  test('bare CR and bare LF become CRLF and a clean message is not copied', () => {
    expect(normaliseLineEnds(Buffer.from('a\nb\rc\r\nd\r\r\n\n')).toString()).toBe('a\r\nb\r\nc\r\nd\r\n\r\n\r\n');
    const clean = Buffer.from('a\r\nb\r\n');
    expect(normaliseLineEnds(clean)).toBe(clean);
  });
});
