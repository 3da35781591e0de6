/** Addresses as the system has them (`struct sockaddr_in`, `sockaddr_in6`) and as we say them. */
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { linux } from './system-calls.ts';

/** Room for either kind. */
export const socketAddressBytes = 28;

/** An IP address with a port; IPv4-mapped addresses are shown as the IPv4 ones that they are. */
export interface IpEndpoint {
  readonly address: string;
  readonly port: number;
}

/** Those that are connected to over and over. */
const encoded = new Map<string, Buffer>();
const encodedMax = 1_024;

/** Octets of an address, not to be written to; `undefined` when it is no literal IP address. */
export function encodeSocketAddress(address: string, port: number): Buffer | undefined {
  const name = `${address} ${port}`;
  const known = encoded.get(name);
  if (known !== undefined) return known;
  const bytes = encode(address, port);
  // Interfaces come and go.
  if (bytes !== undefined && !address.includes('%')) {
    if (encoded.size >= encodedMax) encoded.clear();
    encoded.set(name, bytes);
  }
  return bytes;
}

function encode(address: string, port: number): Buffer | undefined {
  const [host = '', zone] = address.split('%', 2) as [string, string?];
  switch (isIP(host)) {
    case 4: {
      const bytes = Buffer.alloc(16);
      bytes.writeUInt16LE(linux.familyInet, 0);
      bytes.writeUInt16BE(port, 2);
      bytes.set(host.split('.').map(Number), 4);
      return bytes;
    }
    case 6: {
      const bytes = Buffer.alloc(socketAddressBytes);
      bytes.writeUInt16LE(linux.familyInet6, 0);
      bytes.writeUInt16BE(port, 2);
      bytes.set(ipv6Bytes(host), 8);
      if (zone !== undefined) {
        const scope = scopeOf(zone);
        if (scope === undefined) return undefined;
        bytes.writeUInt32LE(scope, 24);
      }
      return bytes;
    }
    default:
      return undefined;
  }
}

/** Number of the interface that a zone names. */
function scopeOf(zone: string): number | undefined {
  if (/^\d{1,9}$/.test(zone)) return Number(zone);
  // Those of addresses that are not bound to the link are 0.
  const scopes = networkInterfaces()[zone]?.flatMap((address) => (address.family === 'IPv6' ? [address.scopeid] : [])) ?? [];
  return scopes.find((scope) => scope !== 0) ?? scopes[0];
}

/** What the system wrote there. */
export function decodeSocketAddress(bytes: Buffer): IpEndpoint {
  const family = bytes.readUInt16LE(0);
  const port = bytes.readUInt16BE(2);
  if (family === linux.familyInet) return { address: ipv4At(bytes, 4), port };
  if (family !== linux.familyInet6) return { address: '', port: 0 };
  const isMapped =
    bytes.readUInt32LE(8) === 0 && bytes.readUInt32LE(12) === 0 && bytes.readUInt16LE(16) === 0 && bytes.readUInt16LE(18) === 0xffff;
  return { address: isMapped ? ipv4At(bytes, 20) : ipv6At(bytes, 8), port };
}

function ipv4At(bytes: Buffer, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
}

/** In the form of RFC 5952. */
function ipv6At(bytes: Buffer, at: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(at + 2 * i));
  let [longestAt, longest] = [-1, 1];
  for (let i = 0; i < 8; i += 1) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length += 1;
    if (length > longest) [longestAt, longest] = [i, length];
  }
  const text = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  return longestAt < 0 ? text(0, 8) : `${text(0, longestAt)}::${text(longestAt + longest, 8)}`;
}

function ipv6Bytes(host: string): number[] {
  // An IPv4 address may stand at the end.
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(host);
  const plain =
    dotted === null
      ? host
      : `${dotted[1]}${((Number(dotted[2]) << 8) | Number(dotted[3])).toString(16)}:${((Number(dotted[4]) << 8) | Number(dotted[5])).toString(16)}`;
  const [before = '', after] = plain.split('::', 2) as [string, string?];
  const groupsOf = (part: string): number[] => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  const first = groupsOf(before);
  const last = after === undefined ? [] : groupsOf(after);
  const groups = [...first, ...Array.from({ length: 8 - first.length - last.length }, () => 0), ...last];
  return groups.flatMap((group) => [group >> 8, group & 0xff]);
}
