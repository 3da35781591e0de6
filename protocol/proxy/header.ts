/**
 * The PROXY protocol, versions 1 and 2 (haproxy.org, "The PROXY protocol", 2020/03/05): a load balancer's first bytes on a connection, which say
 * who the client is. They come before TLS and before any greeting.
 *
 * A push decoder: bytes in, `more` until the header is whole, then the header with what came after it, or why there is none.
 */

/** The client, as the load balancer saw it. */
export interface ProxyHeader {
  /** `undefined`: the load balancer speaks for itself (a health check), or does not know. */
  readonly client:
    | { readonly sourceAddress: string; readonly sourcePort: number; readonly destinationAddress: string; readonly destinationPort: number }
    | undefined;
  /** TLS between client and load balancer; `undefined` when there was none. */
  readonly tls:
    | {
        readonly protocol: string;
        readonly cipher: string;
        readonly serverName: string | undefined;
        /** Common name of a client certificate that was verified. */
        readonly commonName: string | undefined;
      }
    | undefined;
}

/** What came of pushing bytes. */
export type ProxyResult =
  | { readonly kind: 'more' }
  | { readonly kind: 'header'; readonly header: ProxyHeader; readonly rest: Buffer }
  | { readonly kind: 'bad'; readonly reason: string };

const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
/** Longest line of version 1, with its CRLF (§2.1). */
const lineBytesMax = 107;
/** Longest version 2 header taken; load balancers send a few hundred bytes. */
export const headerBytesMax = 4096;
const types = { authority: 0x02, crc32c: 0x03, ssl: 0x20, sslVersion: 0x21, sslCommonName: 0x22, sslCipher: 0x23 } as const;
const bad = (reason: string): ProxyResult => ({ kind: 'bad', reason });
const nothingKnown: ProxyHeader = { client: undefined, tls: undefined };

/** See the header of this file. Good for one header. */
export class ProxyDecoder {
  #held: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): ProxyResult {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const held = this.#held;
    const begin = Math.min(held.length, signature.length);
    if (held.subarray(0, begin).equals(signature.subarray(0, begin))) return begin < signature.length ? { kind: 'more' } : version2(held);
    const text = held.subarray(0, 5).toString('latin1');
    return 'PROXY'.startsWith(text) ? version1(held) : bad('the connection does not begin with a PROXY header');
  }
}

/** §2.1: `PROXY TCP4 192.0.2.1 198.51.100.2 56324 143` and CRLF. */
function version1(held: Buffer): ProxyResult {
  const end = held.subarray(0, lineBytesMax).indexOf('\r\n');
  if (end < 0) return held.length < lineBytesMax ? { kind: 'more' } : bad('the PROXY line is too long');
  const line = held.subarray(0, end).toString('latin1');
  const rest = held.subarray(end + 2);
  const words = line.split(' ');
  if (words[1] === 'UNKNOWN') return { kind: 'header', header: nothingKnown, rest };
  const [, family, sourceAddress = '', destinationAddress = '', sourcePort = '', destinationPort = '', ...more] = words;
  const textOf = family === 'TCP4' ? ipv4Text : family === 'TCP6' ? ipv6Text : undefined;
  const [source, destination] = [textOf?.(sourceAddress), textOf?.(destinationAddress)];
  if (source === undefined || destination === undefined || more.length > 0) return bad('the PROXY line is malformed');
  if (!isPort(sourcePort) || !isPort(destinationPort)) return bad('the PROXY line has a malformed port');
  const client = {
    sourceAddress: source,
    destinationAddress: destination,
    sourcePort: Number(sourcePort),
    destinationPort: Number(destinationPort),
  };
  return { kind: 'header', header: { client, tls: undefined }, rest };
}

/** §2.2 */
function version2(held: Buffer): ProxyResult {
  if (held.length < 16) return { kind: 'more' };
  const versionAndCommand = held[12] as number;
  if (versionAndCommand >>> 4 !== 2) return bad(`the PROXY header has version ${versionAndCommand >>> 4}`);
  const length = 16 + held.readUInt16BE(14);
  if (length > headerBytesMax) return bad(`the PROXY header has ${length} bytes; at most ${headerBytesMax} are taken`);
  if (held.length < length) return { kind: 'more' };
  const rest = held.subarray(length);
  const command = versionAndCommand & 0x0f;
  // LOCAL: the load balancer's own connection; what follows is to be skipped.
  if (command === 0) return { kind: 'header', header: nothingKnown, rest };
  if (command !== 1) return bad(`the PROXY header has the unknown command ${command}`);
  const family = (held[13] as number) >>> 4;
  const addressBytes = family === 1 ? 4 : family === 2 ? 16 : 0;
  const header = held.subarray(0, length);
  if (length < 16 + 2 * addressBytes + (addressBytes === 0 ? 0 : 4)) return bad('the PROXY header is too short for its addresses');
  // Anything but TCP over IPv4 or IPv6 says nothing that we could use (§2.2: "the receiver should accept and use the real connection's").
  if (addressBytes === 0) return { kind: 'header', header: nothingKnown, rest };
  const at = 16;
  const tlvs = readTlvs(header.subarray(at + 2 * addressBytes + 4));
  if (tlvs === undefined) return bad('the PROXY header has a malformed TLV');
  const checksum = tlvs.find(({ type }) => type === types.crc32c)?.value;
  if (checksum !== undefined && (checksum.length !== 4 || !isChecksumRight(header, checksum)))
    return bad('the PROXY header’s CRC is wrong');
  return {
    kind: 'header',
    header: {
      client: {
        sourceAddress: addressText(header.subarray(at, at + addressBytes)),
        destinationAddress: addressText(header.subarray(at + addressBytes, at + 2 * addressBytes)),
        sourcePort: header.readUInt16BE(at + 2 * addressBytes),
        destinationPort: header.readUInt16BE(at + 2 * addressBytes + 2),
      },
      tls: tlsOf(tlvs),
    },
    rest,
  };
}

interface Tlv {
  readonly type: number;
  readonly value: Buffer;
}

function readTlvs(bytes: Buffer): readonly Tlv[] | undefined {
  const found: Tlv[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (at + 3 > bytes.length) return undefined;
    const end = at + 3 + bytes.readUInt16BE(at + 1);
    if (end > bytes.length) return undefined;
    found.push({ type: bytes[at] as number, value: bytes.subarray(at + 3, end) });
    at = end;
  }
  return found;
}

/** §2.2.5: one byte of flags, four of the verification's result (0: the client's certificate is good), then TLVs. */
function tlsOf(tlvs: readonly Tlv[]): ProxyHeader['tls'] {
  const ssl = tlvs.find(({ type }) => type === types.ssl)?.value;
  if (ssl === undefined || ssl.length < 5 || ((ssl[0] as number) & 0x01) === 0) return undefined;
  const inner = readTlvs(ssl.subarray(5)) ?? [];
  const text = (from: readonly Tlv[], type: number): string | undefined => from.find((tlv) => tlv.type === type)?.value.toString('utf8');
  const isVerified = ((ssl[0] as number) & 0x06) !== 0 && ssl.readUInt32BE(1) === 0;
  return {
    protocol: text(inner, types.sslVersion) ?? 'TLS',
    cipher: text(inner, types.sslCipher) ?? '',
    serverName: text(tlvs, types.authority),
    commonName: isVerified ? text(inner, types.sslCommonName) : undefined,
  };
}

/** CRC-32C (RFC 9260 Appendix A) over the whole header with the checksum's own value as zeros. */
function isChecksumRight(header: Buffer, checksum: Buffer): boolean {
  const at = checksum.byteOffset - header.byteOffset;
  let crc = 0xffff_ffff;
  for (let i = 0; i < header.length; i += 1) {
    crc ^= i >= at && i < at + 4 ? 0 : (header[i] as number);
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0x82f6_3b78 & -(crc & 1));
  }
  return (crc ^ 0xffff_ffff) >>> 0 === checksum.readUInt32BE(0);
}

function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  // RFC 4291 §2.5.5.2: an IPv4 client on a socket for both.
  if (bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xffff) return bytes.subarray(12).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16)).join(':');
  // RFC 5952 §4.2: the longest run of zero groups, the first of equals, becomes `::`.
  const runs = [...groups.matchAll(/(?<=^|:)0(?::0)+(?=:|$)/g)].sort((a, b) => b[0].length - a[0].length);
  const run = runs[0];
  if (run === undefined) return groups;
  return `${groups.slice(0, run.index).replace(/:$/, '')}::${groups.slice(run.index + run[0].length).replace(/^:/, '')}`;
}

function isPort(text: string): boolean {
  return /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535;
}

function ipv4Text(text: string): string | undefined {
  return /^(?:\d{1,3}\.){3}\d{1,3}$/.test(text) && text.split('.').every((part) => Number(part) <= 255) ? text : undefined;
}

/** The address as `addressText` has it: one client is one address, however the load balancer writes it. */
function ipv6Text(text: string): string | undefined {
  const host = `http://[${text}]/`;
  if (text.length > 45 || !/^[0-9a-f:.]+$/i.test(text) || !text.includes(':') || !URL.canParse(host)) return undefined;
  const written = new URL(host).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(written) ?? [];
  if (high === undefined || low === undefined) return written;
  const bits = Number.parseInt(high, 16) * 0x1_0000 + Number.parseInt(low, 16);
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 0xff).join('.');
}
