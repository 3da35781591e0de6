/**
 * The transparency of SMTP (RFC 5321 §4.5.2), which POP3 shares (RFC 1939 §3): a line that begins with a dot is sent with one dot more,
 * and a line that is only a dot ends the text.
 *
 * The end is CRLF.CRLF and nothing else. Readers that take LF.LF, CR.CR or mixtures for it let a sender hide a second message in the
 * first (CVE-2023-51764 and its kin), so `DotDecoder` knows one form and treats all others as text.
 */

const dot = 0x2e;
const cr = 0x0d;
const lf = 0x0a;

/**
 * `text` as it goes over the wire, in pieces that share its memory, with the final dot line. Text that does not end with CRLF gets one,
 * since the dot must stand on a line of its own.
 */
export function dotStuffed(text: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  let from = 0;
  if (text[0] === dot) parts.push(oneDot);
  for (let at = text.indexOf(crlfDot); at >= 0; at = text.indexOf(crlfDot, at + 3)) {
    parts.push(text.subarray(from, at + 3));
    from = at + 2;
  }
  if (from < text.length) parts.push(text.subarray(from));
  const endsLine = text.length >= 2 && text[text.length - 1] === lf && text[text.length - 2] === cr;
  parts.push(endsLine || text.length === 0 ? dotLine : crlfDotLine);
  return parts;
}

const oneDot = Buffer.from('.');
const crlfDot = Buffer.from('\r\n.');
const dotLine = Buffer.from('.\r\n');
const crlfDotLine = Buffer.from('\r\n.\r\n');

/** What `DotDecoder.push` found. */
export type DotResult =
  | { readonly kind: 'needs-more' }
  /** The text is complete; `rest` is what came after its end. */
  | { readonly kind: 'done'; readonly rest: Buffer };

/** Takes the dots out again. Text beyond `bytesMax` is counted and dropped, so that the dialogue can go on after its end. */
export class DotDecoder {
  readonly #bytesMax: number;
  #parts: Buffer[] = [];
  /** Octets of the text so far, also those dropped. */
  #bytes = 0;
  /** The last bytes of the chunk before, which may be the beginning of an end mark; at the start, the CRLF of the DATA command. */
  #tail: Buffer = crlf;
  #isStart = true;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get isTooBig(): boolean {
    return this.#bytes > this.#bytesMax;
  }

  /** The text; empty when it was too big. */
  text(): Buffer {
    if (this.isTooBig) return Buffer.alloc(0);
    return this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
  }

  push(chunk: Buffer): DotResult {
    const bytes = Buffer.concat([this.#tail, chunk]);
    // The CRLF before the text belongs to the command: it takes part in finding `CRLF .` and is never text.
    let from = this.#isStart ? 2 : 0;
    let at = bytes.indexOf(crlfDot);
    while (at >= 0) {
      const next = bytes[at + 3];
      if (next === undefined || (next === cr && bytes[at + 4] === undefined)) break;
      if (next === cr && bytes[at + 4] === lf) {
        this.#add(bytes.subarray(from, Math.max(from, at + 2)));
        return { kind: 'done', rest: bytes.subarray(at + 5) };
      }
      this.#add(bytes.subarray(from, Math.max(from, at + 2)));
      from = at + 3;
      this.#isStart = false;
      at = bytes.indexOf(crlfDot, at + 3);
    }
    // Up to four bytes are kept back: CR LF . CR may be the first four of the end mark.
    const keepFrom = Math.max(from, at >= 0 ? at : bytes.length - suffixOfMark(bytes));
    if (this.#isStart && keepFrom <= 2) {
      this.#tail = bytes;
      return { kind: 'needs-more' };
    }
    this.#isStart = false;
    this.#add(bytes.subarray(from, keepFrom));
    this.#tail = bytes.subarray(keepFrom);
    return { kind: 'needs-more' };
  }

  #add(part: Buffer): void {
    if (part.length === 0) return;
    this.#bytes += part.length;
    if (this.isTooBig) this.#parts = [];
    else this.#parts.push(part);
  }
}

const crlf = Buffer.from('\r\n');

/** How many bytes at the end may begin a `CRLF .`: 0, 1 or 2. */
function suffixOfMark(bytes: Buffer): number {
  const last = bytes[bytes.length - 1];
  if (last === cr) return 1;
  return last === lf && bytes[bytes.length - 2] === cr ? 2 : 0;
}
