/**
 * Lists of addresses and ranges, as configurations have them: `192.0.2.1`, `10.0.0.0/24`, `2001:db8::/32`.
 */
import { BlockList, isIP } from 'node:net';

/** Whether an entry is an address or a range. */
export function isAddressOrRange(text: string): boolean {
  const [address = '', bits, rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest !== undefined) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}

/** How narrow an entry is: leading bits that are given, of 128; an IPv4 address counts as one of 128 bits. */
export function rangeBits(entry: string): number {
  const [address = '', bits] = entry.split('/');
  if (bits === undefined) return 128;
  return Number(bits) + (isIP(address) === 4 ? 96 : 0);
}

/** Makes the test for a list, whose entries `isAddressOrRange` takes; an empty list holds nobody. */
export function addressList(entries: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const entry of entries) {
    const [address = '', bits] = entry.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  return (address) => {
    const version = entries.length === 0 ? 0 : isIP(address);
    return version !== 0 && list.check(address, version === 6 ? 'ipv6' : 'ipv4');
  };
}
