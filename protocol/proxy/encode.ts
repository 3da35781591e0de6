/**
 * The PROXY header, as a proxy writes it before everything else on a connection: version 1 is a line of text, version 2 is binary (HAProxy's
 * "The PROXY protocol", §2.1 and §2.2).
 */

/** Whose connection it is that is being passed on. */
export interface ProxiedConnection {
  readonly sourceAddress: string;
  readonly sourcePort: number;
  readonly destinationAddress: string;
  readonly destinationPort: number;
}

const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');

/** The header. Addresses of different families, or none, are passed on as unknown (version 1) or local (version 2). */
export function encodeProxyHeader(version: 1 | 2, connection: ProxiedConnection): Buffer {
  const { sourceAddress, sourcePort, destinationAddress, destinationPort } = connection;
  const family = familyOf(sourceAddress);
  const isKnown = family !== 0 && family === familyOf(destinationAddress);
  if (version === 1) {
    const line = isKnown ? `TCP${family} ${sourceAddress} ${destinationAddress} ${sourcePort} ${destinationPort}` : 'UNKNOWN';
    return Buffer.from(`PROXY ${line}\r\n`);
  }
  if (!isKnown) return Buffer.concat([signature, Buffer.from([0x20, 0x00, 0, 0])]);
  const addresses = Buffer.concat([addressBytes(sourceAddress), addressBytes(destinationAddress), Buffer.alloc(4)]);
  addresses.writeUInt16BE(sourcePort, addresses.length - 4);
  addresses.writeUInt16BE(destinationPort, addresses.length - 2);
  const head = Buffer.from([0x21, family === 4 ? 0x11 : 0x21, 0, addresses.length]);
  return Buffer.concat([signature, head, addresses]);
}

/** Of an address as the system gives it. */
function familyOf(address: string): 0 | 4 | 6 {
  if (address.includes(':')) return 6;
  return /^\d{1,3}(?:\.\d{1,3}){3}$/.test(address) ? 4 : 0;
}

/** 4 or 16 octets of an address that is one. */
function addressBytes(text: string): Buffer {
  if (familyOf(text) === 4) return Buffer.from(text.split('.').map(Number));
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  const plain =
    dotted === null
      ? text
      : `${dotted[1]}${addressBytes(dotted[2] as string)
          .toString('hex')
          .replace(/^(.{4})/, '$1:')}`;
  const [before = '', after] = plain.split('%')[0]?.split('::') ?? [];
  const groups = (part: string | undefined): number[] =>
    part === undefined || part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16));
  const head = groups(before);
  const tail = groups(after);
  const all = after === undefined ? head : [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => 0), ...tail];
  const bytes = Buffer.alloc(16);
  for (const [index, group] of all.entries()) bytes.writeUInt16BE(group, 2 * index);
  return bytes;
}
