/**
 * Readable text of headers and bodies, for SEARCH: encoded words (RFC 2047), transfer encodings (RFC 2045 §6) and charsets undone.
 * What cannot be decoded is taken as it is: a search that finds too little in a broken message is better than one that fails.
 */
import type { MimePart } from './part.ts';

/** Octets of one text part that are decoded for a search. */
export const searchedPartBytesMax = 4 * 1024 * 1024;

/** Longest payload of an encoded word that is decoded, characters. */
const encodedWordMax = 2000;

/** A header value (one character per octet) as text. */
export function decodeHeaderText(value: string): string {
  // Eight-bit values without encoded words are UTF-8 in practice (RFC 6532).
  const text = decodeBytes(Buffer.from(value, 'latin1'), 'utf-8');
  if (!text.includes('=?')) return text;
  let out = '';
  let at = 0;
  let previousWasWord = false;
  for (;;) {
    const start = text.indexOf('=?', at);
    if (start < 0) return out + text.slice(at);
    const word = encodedWordAt(text, start);
    const between = text.slice(at, start);
    if (word === undefined) {
      out += `${between}=?`;
      at = start + 2;
      previousWasWord = false;
      continue;
    }
    // RFC 2047 §6.2: white space between two encoded words is not shown.
    if (!previousWasWord || between.trim() !== '') out += between;
    out += word.text;
    at = word.end;
    previousWasWord = true;
  }
}

function encodedWordAt(text: string, start: number): { readonly text: string; readonly end: number } | undefined {
  const q1 = text.indexOf('?', start + 2);
  if (q1 < 0 || q1 - start > 80) return undefined;
  const encoding = text[q1 + 1]?.toLowerCase();
  if (text[q1 + 2] !== '?' || (encoding !== 'q' && encoding !== 'b')) return undefined;
  // RFC 2047 §2 allows 75 characters; longer ones are seen, and a limit keeps a header full of beginnings cheap.
  const within = text.slice(q1 + 3, q1 + 3 + encodedWordMax);
  const length = within.indexOf('?=');
  if (length < 0) return undefined;
  const payload = within.slice(0, length);
  const end = q1 + 3 + length;
  const charset = text.slice(start + 2, q1).split('*')[0] as string;
  const bytes =
    encoding === 'b' ? Buffer.from(payload, 'base64') : decodeQuotedPrintable(Buffer.from(payload.replaceAll('_', ' '), 'latin1'));
  return { text: decodeBytes(bytes, charset), end: end + 2 };
}

/** The text of every text part of a message, one after another. */
export function* textParts(raw: Buffer, part: MimePart): Generator<string> {
  for (const child of part.children) yield* textParts(raw, child);
  if (part.kind !== 'leaf' || part.type !== 'text') return;
  const body = raw.subarray(part.bodyStart, Math.min(part.end, part.bodyStart + searchedPartBytesMax));
  const charset = part.params.find(([name]) => name === 'charset')?.[1] ?? 'utf-8';
  yield decodeBytes(decodeTransfer(body, part.encoding), charset);
}

/** Undoes a Content-Transfer-Encoding. */
function decodeTransfer(body: Buffer, encoding: string): Buffer {
  if (encoding === 'base64') return Buffer.from(body.toString('latin1'), 'base64');
  return encoding === 'quoted-printable' ? decodeQuotedPrintable(body) : body;
}

function decodeQuotedPrintable(body: Buffer): Buffer {
  const out = Buffer.allocUnsafe(body.length);
  let write = 0;
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at] as number;
    if (byte !== 61) {
      out[write] = byte;
      write += 1;
      continue;
    }
    if (body[at + 1] === 10) at += 1;
    else if (body[at + 1] === 13 && body[at + 2] === 10) at += 2;
    else {
      const high = hexDigit(body[at + 1]);
      const low = hexDigit(body[at + 2]);
      out[write] = high < 0 || low < 0 ? byte : high * 16 + low;
      write += 1;
      if (high >= 0 && low >= 0) at += 2;
    }
  }
  return out.subarray(0, write);
}

function hexDigit(byte: number | undefined): number {
  if (byte === undefined) return -1;
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

function decodeBytes(bytes: Buffer, charset: string): string {
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    // An unknown charset: ASCII is still searchable.
    return bytes.toString('latin1');
  }
}
