/**
 * Push decoder for a ManageSieve client (RFC 5804 §4): lines of atoms, numbers and strings, each string quoted or a literal `{n+}`. Bytes go in by
 * `push`, events come out of `next` until it says `undefined`, which means that more bytes are needed. Bytes after the last line are not looked
 * at: `takeRest` hands them on unchanged.
 *
 * Limits are given: `lineBytesMax` (literals not counted), `literalBytesMax` for all literals of a line together, `tokensMax`. A line
 * that is malformed is `bad` and the decoder goes on; where going on would mean guessing where the next line starts, the event is `fatal`.
 */

/** Most tokens of one line; no command has more than four. */
const tokensMax = 16;

/** A part of a line. */
export interface SieveToken {
  readonly kind: 'atom' | 'number' | 'string';
  readonly text: string;
}

/** What the decoder found. */
export type SieveLineEvent =
  | { readonly type: 'line'; readonly tokens: readonly SieveToken[] }
  | { readonly type: 'bad'; readonly reason: string }
  | { readonly type: 'fatal'; readonly reason: string };

/** Bounds of one decoder, octets. */
export interface SieveDecoderLimits {
  readonly lineBytesMax: number;
  readonly literalBytesMax: number;
}

/** Strings of a script beyond this many quoted octets come as literals (RFC 5804 §4 asks for 1,024); a SASL message may be longer. */
export const loginLimits: SieveDecoderLimits = { lineBytesMax: 12_288, literalBytesMax: 12_288 };

const literalAtEnd = /\{(\d{1,10})(\+?)\}$/;

/** See the header of this file. */
export class SieveLineDecoder {
  readonly #limits: SieveDecoderLimits;
  /** Chunks that were pushed and not yet taken; joined only when enough is there. */
  #chunks: Buffer[] = [];
  #bytes = 0;
  #pieces: (string | { readonly literal: string })[] = [];
  #lineBytes = 0;
  #literalBytes = 0;
  #literalLeft: number | undefined;
  #searchedTo = 0;
  #isBroken = false;

  constructor(limits: SieveDecoderLimits) {
    this.#limits = limits;
  }

  /** Takes bytes. */
  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** What was pushed after the last event; the decoder is empty afterwards. */
  takeRest(): Buffer {
    const rest = this.#joined();
    this.#chunks = [];
    this.#bytes = 0;
    this.#searchedTo = 0;
    return rest;
  }

  /** The next event, or `undefined` when more bytes are needed. */
  next(): SieveLineEvent | undefined {
    for (;;) {
      if (this.#isBroken) return undefined;
      if (this.#literalLeft !== undefined) {
        if (this.#bytes < this.#literalLeft) return undefined;
        const text = this.#take(this.#literalLeft).toString('utf8');
        this.#literalLeft = undefined;
        this.#pieces.push({ literal: text });
      }
      const pending = this.#joined();
      const lineFeed = pending.indexOf(0x0a, this.#searchedTo);
      if (this.#lineBytes + (lineFeed < 0 ? pending.length : lineFeed + 1) > this.#limits.lineBytesMax) return this.#fatal('line too long');
      if (lineFeed < 0) {
        this.#searchedTo = pending.length;
        return undefined;
      }
      const line = this.#take(lineFeed + 1);
      this.#lineBytes += line.length;
      if (line.length < 2 || line[line.length - 2] !== 0x0d) return this.#bad('lines end with CRLF');
      const text = line.toString('utf8', 0, line.length - 2);
      const announced = literalAtEnd.exec(text);
      if (announced === null) {
        this.#pieces.push(text);
        return this.#line();
      }
      this.#pieces.push(text.slice(0, announced.index));
      this.#literalBytes += Number(announced[1]);
      if (this.#literalBytes > this.#limits.literalBytesMax) return this.#fatal('string too long');
      if (this.#pieces.length > 2 * tokensMax) return this.#fatal('too many strings');
      this.#literalLeft = Number(announced[1]);
    }
  }

  #line(): SieveLineEvent {
    const tokens = tokensOf(this.#pieces);
    if (tokens === undefined) return this.#bad('malformed command');
    this.#reset();
    return { type: 'line', tokens };
  }

  #joined(): Buffer {
    if (this.#chunks.length === 0) return Buffer.alloc(0);
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] as Buffer;
  }

  #take(count: number): Buffer {
    const whole = this.#joined();
    this.#chunks = count < whole.length ? [whole.subarray(count)] : [];
    this.#bytes -= count;
    this.#searchedTo = 0;
    return whole.subarray(0, count);
  }

  #bad(reason: string): SieveLineEvent {
    this.#reset();
    return { type: 'bad', reason };
  }

  #fatal(reason: string): SieveLineEvent {
    this.#isBroken = true;
    this.#reset();
    this.takeRest();
    return { type: 'fatal', reason };
  }

  #reset(): void {
    this.#pieces = [];
    this.#lineBytes = 0;
    this.#literalBytes = 0;
    this.#literalLeft = undefined;
  }
}

/** `undefined` when they are malformed: each token is set off from the one before it by a space. */
function tokensOf(pieces: readonly (string | { readonly literal: string })[]): SieveToken[] | undefined {
  const found: SieveToken[] = [];
  let isSetOff = true;
  for (const piece of pieces) {
    if (typeof piece !== 'string') {
      if (!isSetOff) return undefined;
      found.push({ kind: 'string', text: piece.literal });
      isSetOff = false;
      continue;
    }
    let at = 0;
    while (at < piece.length) {
      if (piece[at] === ' ') {
        isSetOff = true;
        at += 1;
        continue;
      }
      const rest = piece.slice(at);
      // RFC 5804 §4: in a quoted string only `"` and `\` are escaped.
      const quoted = /^"((?:[^"\\]|\\["\\])*)"/.exec(rest);
      const match = quoted ?? /^[^\s"{}()\\]+/.exec(rest);
      if (match === null || !isSetOff) return undefined;
      const text = quoted === null ? match[0] : (quoted[1] as string).replace(/\\(["\\])/g, '$1');
      found.push({ kind: quoted !== null ? 'string' : /^\d+$/.test(text) ? 'number' : 'atom', text });
      at += match[0].length;
      isSetOff = false;
    }
    if (found.length > tokensMax) return undefined;
  }
  return found;
}
