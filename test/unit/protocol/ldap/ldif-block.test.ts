import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LdifReader } from '#protocol/ldap/ldif.ts';
import { readLdifBlock } from '#protocol/ldap/ldif-block.ts';

/** What comes of a text, in one shape for both readers. */
interface Read {
  readonly records: { line: number; dn: string; change: string; attributes: [string, string[]][] }[];
  readonly mistakes: number[];
}

function collector(): { read: Read; handlers: Parameters<typeof readLdifBlock>[1] } {
  const read: Read = { records: [], mistakes: [] };
  return {
    read,
    handlers: {
      onRecord: (record) => {
        const attributes = 'attributes' in record ? record.attributes : [];
        read.records.push({
          line: record.line,
          dn: record.dn,
          change: record.change,
          attributes: attributes.map(({ type, values }) => [type, values.map((value) => value.toString('latin1'))]),
        });
      },
      onMistake: (mistake) => read.mistakes.push(mistake.line),
    },
  };
}

function byBlock(text: string): Read {
  const { read, handlers } = collector();
  readLdifBlock(Buffer.from(text), handlers);
  return read;
}

function byLine(text: string): Read {
  const { read, handlers } = collector();
  const reader = new LdifReader(handlers);
  reader.push(Buffer.from(text));
  reader.end();
  return read;
}

// Few types and values, so that records are often as the one before them, nearly as it, or have a type twice.
const type = fc.constantFrom('cn', 'CN', 'sn', 'mail', 'mailQuota', 'objectClass', 'cn;lang-en', 'changetype', 'c', 'a b');
const value = fc.constantFrom('x', 'y', 'xy', 'x y', ' x', 'x ', '', '  ', 'é', ': eA==', ':eA==', '< file:///x', '1234', 'User 17');
const separator = fc.constantFrom(': ', ': ', ': ', ':', ':  ', '');
const line = fc.tuple(type, separator, value).map((parts) => parts.join(''));
const plainLine = fc
  .tuple(fc.constantFrom('cn', 'sn', 'mail', 'uid'), fc.constantFrom('x', 'y', 'longer'))
  .map((parts) => parts.join(': '));
const odd = fc.constantFrom('# a comment', ' folded', '-', 'no colon');
const record = fc
  .tuple(
    fc.constantFrom('dn: cn=x,o=mail', 'dn: cn=y,o=mail', 'dn:  cn=x', 'dn: ', 'dn:: Y249eA==', 'version: 1'),
    fc.array(fc.oneof({ weight: 8, arbitrary: plainLine }, { weight: 3, arbitrary: line }, { weight: 1, arbitrary: odd }), {
      maxLength: 7,
    }),
  )
  .map(([dn, lines]) => [dn, ...lines]);

describe('the reader of whole blocks of LDIF', () => {
  test('reads what the reader of single lines reads, whatever follows upon what', () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 6 }), fc.constantFrom('\n', '\r\n'), fc.boolean(), (records, end, isRepeated) => {
        const some = isRepeated ? records.flatMap((one) => [one, one]) : records;
        const text = some.map((one) => `${one.join(end)}${end}${end}`).join('');
        expect(byBlock(text)).toEqual(byLine(text));
      }),
      { numRuns: 2000, seed: 20_261_128 },
    );
  });

  test('gives the same string and the same view for what stands as in the record before', () => {
    const attributes: (readonly { type: string; values: readonly Buffer[] }[])[] = [];
    const text = ['one', 'two', 'six'].map((name) => `dn: cn=${name}\ncn: ${name}\nsn: same\nsn: ${name}\n\n`).join('');
    readLdifBlock(Buffer.from(text), {
      onRecord: (one) => attributes.push('attributes' in one ? one.attributes : []),
      onMistake: ({ detail }) => expect.unreachable(detail),
    });
    const [first, second, third] = attributes;
    expect(second?.[1]?.values[0]).toBe(first?.[1]?.values[0]);
    expect(third?.[1]?.values[0]).toBe(first?.[1]?.values[0]);
    expect(attributes.map((one) => one.map(({ values }) => values.map(String)))).toEqual(
      ['one', 'two', 'six'].map((name) => [[name], ['same', name]]),
    );
  });
});
