/**
 * Whom limits and counts are kept for. One subscriber holds a whole IPv6 /64 (RFC 6177 §2) and can come from a new address every time, so
 * what is counted there is the prefix; an IPv4 address counts as itself.
 */

/** The wider prefix, for limits that many addresses of one owner must not get round: IPv4 /24, IPv6 /48. */
export function clientPrefix(address: string): string {
  if (!address.includes(':')) return `${address.slice(0, address.lastIndexOf('.'))}.0/24`;
  return `${clientGroup(address).split(':').slice(0, 3).join(':')}::/48`;
}

/** The address itself, or its /64 prefix as `2001:db8:1:2::/64`. */
export function clientGroup(address: string): string {
  if (!address.includes(':')) return address;
  const [head = '', tail] = (address.split('%', 1)[0] as string).toLowerCase().split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array<string>(zeros).fill('0'), ...after].slice(0, 4);
  return `${groups.map((group) => group.replace(/^0+(?=.)/, '')).join(':')}::/64`;
}
