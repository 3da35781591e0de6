/**
 * Ranges of IP addresses: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`, and with a mask as `192.0.2.0%255.255.255.0`.
 */
import { BlockList, isIP } from 'node:net';

/** A range that addresses can be held against. */
export interface AddressPrefix {
  /** As it was given. */
  readonly text: string;
  /** Whether an address is in it. An IPv4 address that came by an IPv6 socket (`::ffff:192.0.2.7`) counts as what it is; no address is in none. */
  holds(address: string): boolean;
}

/** Parses a range; `undefined` when it is none. */
export function parseAddressPrefix(text: string): AddressPrefix | undefined {
  const parts = /^([0-9A-Fa-f.:]+)(?:\/(\d{1,3})|%([\d.]+))?$/.exec(text);
  const address = parts?.[1] ?? '';
  const version = isIP(address);
  if (version === 0) return undefined;
  const most = version === 6 ? 128 : 32;
  const bits = parts?.[2] !== undefined ? Number(parts[2]) : parts?.[3] !== undefined ? bitsOfMask(parts[3]) : most;
  if (bits === undefined || bits > most) return undefined;
  const list = new BlockList();
  list.addSubnet(address, bits, version === 6 ? 'ipv6' : 'ipv4');
  return {
    text,
    holds(given) {
      const plain = given.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
      const kind = isIP(plain);
      return kind !== 0 && list.check(plain, kind === 6 ? 'ipv6' : 'ipv4');
    },
  };
}

function bitsOfMask(mask: string): number | undefined {
  if (isIP(mask) !== 4) return undefined;
  const bits = mask
    .split('.')
    .map((part) => Number(part).toString(2).padStart(8, '0'))
    .join('');
  return /^1*0*$/.test(bits) ? bits.replaceAll('0', '').length : undefined;
}
