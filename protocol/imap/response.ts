/**
 * Builds one response line as buffers (RFC 9051 §7): text gathered into as few buffers as possible, big literals put in without copying.
 * Strings are chosen as the grammar allows: quoted when they are short printable ASCII, literal otherwise.
 */
import { encodeMailboxName } from './utf7.ts';

/** Longest string that is quoted; longer ones are literals. */
const quotedBytesMax = 1000;

/** Gathers one response. */
export class ResponseWriter {
  #parts: Buffer[] = [];
  #text = '';

  /** Adds text as it is: one character per octet. */
  text(text: string): this {
    this.#text += text;
    return this;
  }

  /** string: quoted or literal. Takes octets, or text with one character per octet. */
  string(value: string | Buffer): this {
    const text = typeof value === 'string' ? value : value.length <= quotedBytesMax ? value.toString('latin1') : undefined;
    if (text !== undefined && text.length <= quotedBytesMax && isQuotable(text)) {
      return this.text(text.includes('"') || text.includes('\\') ? `"${text.replace(/["\\]/g, '\\$&')}"` : `"${text}"`);
    }
    return this.literal(typeof value === 'string' ? Buffer.from(value, 'latin1') : value);
  }

  /** nstring. */
  nstring(value: string | Buffer | null | undefined): this {
    return value === null || value === undefined ? this.text('NIL') : this.string(value);
  }

  /** literal. */
  literal(bytes: Buffer): this {
    this.text(`{${bytes.length}}\r\n`);
    this.#flush();
    this.#parts.push(bytes);
    return this;
  }

  /** mailbox, in modified UTF-7; an atom where it can be one. */
  mailbox(name: string): this {
    const encoded = encodeMailboxName(name);
    return isAtom(encoded) ? this.text(encoded) : this.string(encoded);
  }

  /** Ends the line and hands it out. */
  finish(): Buffer[] {
    this.text('\r\n');
    this.#flush();
    return this.#parts;
  }

  #flush(): void {
    if (this.#text !== '') this.#parts.push(Buffer.from(this.#text, 'latin1'));
    this.#text = '';
  }
}

/** A date-time (RFC 9051 §9), in UTC: the store keeps moments, not zones. */
export function formatDateTime(ms: number): string {
  const d = new Date(ms);
  const two = (n: number): string => String(n).padStart(2, '0');
  const day = String(d.getUTCDate()).padStart(2, ' ');
  const year = String(Math.max(0, Math.min(9999, d.getUTCFullYear()))).padStart(4, '0');
  const time = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
  return `"${day}-${monthNames[d.getUTCMonth()]}-${year} ${time} +0000"`;
}

/** Months as IMAP writes them. */
export const monthNames = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'] as const;

function isQuotable(text: string): boolean {
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code < 0x20 || code > 0x7e) return false;
  }
  return true;
}

// Only letters, digits and a few marks: any client reads those as an atom. NIL would be read as no string.
function isAtom(text: string): boolean {
  return /^[A-Za-z0-9./_-]{1,200}$/.test(text) && text.toUpperCase() !== 'NIL';
}
