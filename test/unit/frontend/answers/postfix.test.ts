import { describe, expect, it } from 'vitest';
import type { Connection, Network } from '#common/network/network.ts';
import type { Destination, Destinations } from '#frontend/answers/destinations.ts';
import { parseSocketmap, parseTcpTable, startPostfixTable } from '#frontend/answers/postfix.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { connectionPair } from '#test/fakes/memory-connection.ts';

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

it('answers nobody further who does not read, and looks nothing up for one who has gone', async () => {
  let accept: (connection: Connection) => void = () => {};
  const network: Network = {
    connect: () => Promise.reject(new Error('not here')),
    listen: async (_options, accepted) => {
      accept = accepted;
      return { address: '127.0.0.1', port: 1, close: async () => {} };
    },
  };
  let asked = 0;
  const destinations = {
    find: async () => {
      asked += 1;
      return host;
    },
  } as unknown as Destinations;
  const listener: FrontendListener = { protocol: 'tcp-table', tls: 'none', address: '127.0.0.1', port: 0, allowPlaintextLogin: false };
  await startPostfixTable(listener, { network, clock: new FakeClock() }, destinations);
  const [near, far] = connectionPair();
  let read = '';
  near.handle({
    data: (chunk) => {
      read += chunk.toString();
      if (read.length > 100_000) near.pause();
    },
    close: () => {},
  });
  accept(far);
  near.pause();
  near.write('get a\n'.repeat(10_000));
  await expect.poll(() => near.pendingBytes).toBeGreaterThan(65_535);
  await settle();
  const before = asked;
  expect(before).toBeLessThan(3_000);
  near.resume();
  await expect.poll(() => read.length).toBeGreaterThan(100_000);
  expect(asked).toBeGreaterThan(before);
  expect(read).toMatch(/^(?:200 lmtp:inet:\[192\.0\.2\.11\]:24\n)+$/);
  near.destroy();
  await expect.poll(() => far.isClosed).toBe(true);
  await settle();
  const after = asked;
  await settle();
  expect([asked, asked < 10_000]).toEqual([after, true]);
});
