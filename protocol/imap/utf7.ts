/**
 * Modified UTF-7 of mailbox names (RFC 3501 §5.1.3): printable ASCII as it is, `&` as `&-`, all else as base64 of UTF-16 with `,` for `/`
 * between `&` and `-`.
 */
import { normalized } from '#common/unicode.ts';

/** A mailbox name as it goes to the client. */
export function encodeMailboxName(name: string): string {
  let out = '';
  let at = 0;
  while (at < name.length) {
    const code = name.charCodeAt(at);
    if (isPrintable(code)) {
      out += code === 38 ? '&-' : name[at];
      at += 1;
      continue;
    }
    const start = at;
    while (at < name.length && !isPrintable(name.charCodeAt(at))) at += 1;
    const units = Buffer.from(name.slice(start, at), 'utf16le').swap16();
    out += `&${units.toString('base64').replaceAll('=', '').replaceAll('/', ',')}-`;
  }
  return out;
}

/**
 * The name a client meant. `undefined` when the encoding is broken. Clients that send plain UTF-8 are understood as well; a name that is
 * not canonically encoded is decoded to the name it means.
 */
export function decodeMailboxName(bytes: Buffer): string | undefined {
  const text = bytes.toString('utf8');
  if (text.includes('\uFFFD')) return undefined;
  let out = '';
  let at = 0;
  while (at < text.length) {
    const c = text[at] as string;
    if (c !== '&') {
      out += c;
      at += 1;
      continue;
    }
    const end = text.indexOf('-', at + 1);
    if (end < 0) return undefined;
    const payload = text.slice(at + 1, end);
    if (payload === '') out += '&';
    else {
      const decoded = decodeBase64Utf16(payload);
      if (decoded === undefined) return undefined;
      out += decoded;
    }
    at = end + 1;
  }
  return out.isWellFormed() ? normalized(out, 'NFC') : undefined;
}

function decodeBase64Utf16(payload: string): string | undefined {
  for (const c of payload) if (!base64Characters.has(c)) return undefined;
  const bytes = Buffer.from(payload.replaceAll(',', '/'), 'base64');
  if (bytes.length === 0 || bytes.length % 2 !== 0) return undefined;
  return bytes.swap16().toString('utf16le');
}

const base64Characters = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,');

function isPrintable(code: number): boolean {
  return code >= 0x20 && code <= 0x7e;
}
