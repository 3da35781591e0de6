/**
 * Push decoder for a POP3 client's lines (RFC 1939 §3) before it is logged in. `takeRest` hands on what follows the login unchanged.
 *
 * A line may have `lineBytesMax` octets: RFC 2449 §4 allows 255 for commands, and RFC 5034 §4 leaves the length of AUTH's answers to the
 * mechanism. A line that ends in a bare LF, or holds a NUL, is refused and the decoder goes on; an endless one is `fatal`.
 */

/** Longest line with its end, octets. */
export const lineBytesMax = 12_288;

/** What the decoder found. */
export type Pop3LoginEvent =
  | { readonly type: 'line'; readonly text: string }
  | { readonly type: 'bad'; readonly reason: string }
  | { readonly type: 'fatal'; readonly reason: string };

const nothing: Buffer = Buffer.alloc(0);

/** See the header of this file. */
export class Pop3LoginDecoder {
  #pending: Buffer = nothing;
  #searchedTo = 0;
  #isBroken = false;

  /** Takes bytes. */
  push(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
  }

  /** What was pushed after the last event; the decoder is empty afterwards. */
  takeRest(): Buffer {
    const rest = this.#pending;
    this.#pending = nothing;
    this.#searchedTo = 0;
    return rest;
  }

  /** The next event, or `undefined` when more bytes are needed. */
  next(): Pop3LoginEvent | undefined {
    if (this.#isBroken) return undefined;
    const lineFeed = this.#pending.indexOf(0x0a, this.#searchedTo);
    const length = lineFeed < 0 ? this.#pending.length : lineFeed + 1;
    if (length > lineBytesMax) {
      this.#isBroken = true;
      this.#pending = nothing;
      return { type: 'fatal', reason: 'line too long' };
    }
    if (lineFeed < 0) {
      this.#searchedTo = length;
      return undefined;
    }
    const line = this.#pending.subarray(0, length);
    this.#pending = this.#pending.subarray(length);
    this.#searchedTo = 0;
    if (length < 2 || line[length - 2] !== 0x0d) return { type: 'bad', reason: 'lines end with CRLF' };
    const text = line.toString('utf8', 0, length - 2);
    return text.includes('\0') ? { type: 'bad', reason: 'NUL is not allowed' } : { type: 'line', text };
  }
}
