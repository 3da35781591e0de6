import { describe, expect, it } from 'vitest';
import { encodeProxyHeader } from '#protocol/proxy/encode.ts';
import { ProxyDecoder } from '#protocol/proxy/header.ts';

const between = (sourceAddress: string, destinationAddress: string) => ({
  sourceAddress,
  sourcePort: 4711,
  destinationAddress,
  destinationPort: 143,
});

describe.each([1, 2] as const)('a PROXY header of version %i', (version) => {
  it.each([
    ['192.0.2.1', '198.51.100.2'],
    ['2001:db8::1', '2001:db8:1:2:3:4:5:6'],
  ])('from %s to %s is read as it was written', (source, destination) => {
    const given = between(source, destination);
    const result = new ProxyDecoder().push(Buffer.concat([encodeProxyHeader(version, given), Buffer.from('a NOOP')]));
    expect(result).toMatchObject({ kind: 'header', header: { client: { sourcePort: 4711, destinationPort: 143 } } });
    expect(result.kind === 'header' && result.rest.toString()).toBe('a NOOP');
    if (result.kind === 'header')
      expect(encodeProxyHeader(version, result.header.client ?? between('', ''))).toEqual(encodeProxyHeader(version, given));
  });

  it.each([
    ['', '198.51.100.2'],
    ['192.0.2.1', '2001:db8::1'],
  ])('from "%s" to %s tells nobody’s address', (source, destination) => {
    const result = new ProxyDecoder().push(encodeProxyHeader(version, between(source, destination)));
    expect(result).toMatchObject({ kind: 'header', header: { client: undefined } });
  });
});

it('writes a short IPv6 address, with and without a dotted end, in full', () => {
  const bytes = (address: string) => encodeProxyHeader(2, between(address, '::1')).subarray(16, 32).toString('hex');
  expect(bytes('2001:db8::7')).toBe('20010db8000000000000000000000007');
  expect(bytes('fe80::1%eth0')).toBe('fe800000000000000000000000000001');
  expect(bytes('64:ff9b::192.0.2.33')).toBe('0064ff9b0000000000000000c0000221');
});
