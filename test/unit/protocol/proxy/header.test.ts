import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { headerBytesMax, ProxyDecoder, type ProxyResult } from '#protocol/proxy/header.ts';

const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');

function whole(bytes: Buffer | string): ProxyResult {
  return new ProxyDecoder().push(Buffer.from(bytes as string, 'latin1'));
}

function version2(command: number, family: number, body: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(body.length);
  return Buffer.concat([signature, Buffer.from([0x20 | command, family]), length, body]);
}

function tlv(type: number, value: Buffer | string): Buffer {
  const bytes = Buffer.from(value as string);
  const head = Buffer.alloc(3);
  head[0] = type;
  head.writeUInt16BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

const ipv4Body = Buffer.from([192, 0, 2, 1, 198, 51, 100, 7, 0xdb, 0x04, 0x00, 0x8f]);
const ipv4Client = { sourceAddress: '192.0.2.1', destinationAddress: '198.51.100.7', sourcePort: 56_068, destinationPort: 143 };

describe('a PROXY header of version 1', () => {
  it.each([
    ['PROXY TCP4 192.0.2.1 198.51.100.7 56068 143\r\n', ipv4Client],
    [
      'PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n',
      { sourceAddress: '2001:db8::1', destinationAddress: '2001:db8::2', sourcePort: 1, destinationPort: 65_535 },
    ],
    ['PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c633:6407 56068 143\r\n', ipv4Client],
    ['PROXY TCP6 2001:DB8:0:0:0:0:00:1 0:0:0:0:0:ffff:198.51.100.7 56068 143\r\n', { ...ipv4Client, sourceAddress: '2001:db8::1' }],
    ['PROXY UNKNOWN\r\n', undefined],
    ['PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n', undefined],
  ])('%j', (line, client) => {
    expect(whole(`${line}a1 NOOP\r\n`)).toEqual({ kind: 'header', header: { client, tls: undefined }, rest: Buffer.from('a1 NOOP\r\n') });
  });

  it.each([
    'a1 LOGIN alice x\r\n',
    'PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.7 1 2 3\r\n',
    'PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n',
    'PROXY TCP6 ::zz ::1 1 2\r\n',
    'PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n',
    `PROXY TCP4 ${'1'.repeat(200)}`,
  ])('%j is refused', (line) => {
    expect(whole(line).kind).toBe('bad');
  });
});

describe('a PROXY header of version 2', () => {
  it('gives addresses of both families', () => {
    expect(whole(Buffer.concat([version2(1, 0x11, ipv4Body), Buffer.from('x')]))).toMatchObject({
      header: { client: ipv4Client },
      rest: Buffer.from('x'),
    });
    const ipv6 = Buffer.alloc(36);
    ipv6.set([0x20, 0x01, 0x0d, 0xb8], 0);
    ipv6[15] = 1;
    ipv6.set([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2], 16);
    expect(whole(version2(1, 0x21, ipv6))).toMatchObject({
      header: { client: { sourceAddress: '2001:db8::1', destinationAddress: '2001:db8:0:1::2' } },
    });
  });

  it('gives the TLS facts, and the client’s name only when its certificate was verified', () => {
    const ssl = (verified: number): Buffer =>
      tlv(
        0x20,
        Buffer.concat([
          Buffer.from([0x07, 0, 0, 0, verified]),
          tlv(0x21, 'TLSv1.3'),
          tlv(0x23, 'TLS_AES_128_GCM_SHA256'),
          tlv(0x22, 'alice'),
        ]),
      );
    const of = (verified: number) => whole(version2(1, 0x11, Buffer.concat([ipv4Body, tlv(0x02, 'mail.isp.example'), ssl(verified)])));
    expect(of(0)).toMatchObject({
      header: { tls: { protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', serverName: 'mail.isp.example', commonName: 'alice' } },
    });
    expect(of(1)).toMatchObject({ header: { tls: { commonName: undefined } } });
  });

  it('is the load balancer’s own when it says LOCAL, and says nothing of other families', () => {
    for (const header of [version2(0, 0x11, ipv4Body), version2(1, 0x31, Buffer.alloc(216)), version2(1, 0x00, Buffer.alloc(0))]) {
      expect(whole(header)).toMatchObject({ kind: 'header', header: { client: undefined } });
    }
  });

  it('is checked against its CRC', () => {
    const header = version2(1, 0x11, Buffer.concat([ipv4Body, tlv(0x03, Buffer.alloc(4))]));
    const right = Buffer.from(header);
    right.writeUInt32BE(crc32c(header), header.length - 4);
    expect(whole(right).kind).toBe('header');
    right[20] = 9;
    expect(whole(right)).toMatchObject({ kind: 'bad', reason: expect.stringContaining('CRC') });
  });

  it.each<[string, Buffer]>([
    ['of another version', Buffer.concat([signature, Buffer.from([0x31, 0x11, 0, 0])])],
    ['too short for its addresses', version2(1, 0x11, ipv4Body.subarray(0, 8))],
    ['with a TLV that runs over its end', version2(1, 0x11, Buffer.concat([ipv4Body, Buffer.from([1, 0, 9, 0])]))],
    ['longer than is taken', version2(1, 0x11, Buffer.alloc(headerBytesMax))],
    ['with an unknown command', version2(5, 0x11, ipv4Body)],
  ])('%s is refused', (_what, bytes) => {
    expect(whole(bytes).kind).toBe('bad');
  });

  it('is the same however its bytes are split, and nothing hostile makes it throw or wait beyond its limit', () => {
    const header = version2(1, 0x11, Buffer.concat([ipv4Body, tlv(0x02, 'mail.isp.example')]));
    fc.assert(
      fc.property(fc.array(fc.nat(header.length), { maxLength: 6 }), (cuts) => {
        const decoder = new ProxyDecoder();
        const at = [0, ...cuts.sort((a, b) => a - b), header.length];
        const results = at.slice(1).map((end, i) => decoder.push(header.subarray(at[i], end)));
        expect(results.findLast(({ kind }) => kind !== 'more')).toMatchObject({ kind: 'header', header: { client: ipv4Client } });
      }),
    );
    fc.assert(
      fc.property(fc.boolean(), fc.uint8Array({ maxLength: 200 }), (isSigned, bytes) => {
        whole(Buffer.concat([isSigned ? signature : Buffer.alloc(0), Buffer.from(bytes)]));
      }),
    );
    expect(whole(Buffer.concat([signature, Buffer.from([0x21, 0x11, 0xff, 0xff])])).kind).toBe('bad');
  });
});

/** Bit by bit, as RFC 9260 Appendix A describes it. */
function crc32c(bytes: Buffer): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit += 1) {
      const isSet = ((crc ^ (byte >>> bit)) & 1) === 1;
      crc = (crc >>> 1) ^ (isSet ? 0x82f6_3b78 : 0);
    }
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
