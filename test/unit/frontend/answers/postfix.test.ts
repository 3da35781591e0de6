import { describe, expect, it } from 'vitest';
import type { Destination } from '#frontend/answers/destinations.ts';
import { parseSocketmap, parseTcpTable } from '#frontend/answers/postfix.ts';

const host: Destination = { kind: 'server', isFrontend: false, host: '192.0.2.11', port: 24, tls: 'none', account: 'alice@isp.example' };
const frontend: Destination = { ...host, isFrontend: true, host: '2001:db8::1', port: 25 };
const temporary: Destination = { kind: 'temporary', reason: 'no directory answers, 100 % sure' };

describe.each([
  ['tcp_table', parseTcpTable, 'get alice%40isp.example\n', 'alice@isp.example'],
  ['tcp_table with CRLF', parseTcpTable, 'get alice@isp.example\r\n', 'alice@isp.example'],
  ['tcp_table beyond ASCII', parseTcpTable, 'get j%C3%BCrgen@isp.example\n', 'jürgen@isp.example'],
  ['socketmap', parseSocketmap, '27:transport alice@isp.example,', 'alice@isp.example'],
] as const)('a %s request', (_, parse, text, key) => {
  it('is taken once it is whole, and leaves the next one', () => {
    const bytes = Buffer.from(text);
    for (let cut = 0; cut < bytes.length; cut += 1) expect(parse(bytes.subarray(0, cut)), `${cut} octets`).toBeUndefined();
    const request = parse(Buffer.concat([bytes, bytes]));
    expect(request).toMatchObject({ key, next: bytes.length });
  });
});

it.each([
  [parseTcpTable, 'put a b\n'],
  [parseTcpTable, 'get a b\n'],
  [parseTcpTable, 'get \n'],
  [parseSocketmap, '99999:x'],
  [parseSocketmap, 'x:transport a,'],
  [parseSocketmap, '123456789'],
  [parseSocketmap, '11:transport a;'],
  [parseSocketmap, '1:a,'],
])('%o takes %j for malformed', (parse, text) => {
  expect(parse(Buffer.from(text))).toBe('malformed');
});

it.each([
  [
    parseTcpTable,
    'get a\n',
    [
      '200 lmtp:inet:[192.0.2.11]:24\n',
      '200 smtp:[ipv6:2001:db8::1]:25\n',
      '500 no%20such%20account\n',
      '400 no%20directory%20answers,%20100%20%25%20sure\n',
    ],
  ],
  [
    parseSocketmap,
    '3:a b,',
    ['28:OK lmtp:inet:[192.0.2.11]:24,', '29:OK smtp:[ipv6:2001:db8::1]:25,', '9:NOTFOUND ,', '37:TEMP no directory answers, 100 % sure,'],
  ],
] as const)('%o answers', (parse, text, answers) => {
  const request = parse(Buffer.from(text));
  if (request === undefined || request === 'malformed') throw new Error('it was not taken');
  expect([host, frontend, { kind: 'unknown' } as const, temporary].map((destination) => request.answer(destination))).toEqual(answers);
});
