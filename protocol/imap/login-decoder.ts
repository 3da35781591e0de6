/**
 * Push decoder for what an IMAP client may send before it is logged in (RFC 9051 §4, §9): commands whose arguments are atoms, quoted
 * strings, literals and the parenthesised list of ID. Bytes go in by `push`, events come out of `next` until it says `undefined`, which
 * means that more bytes are needed. Bytes after the command that logs in are not looked at: `takeRest` hands them on unchanged.
 *
 * Limits: a line of `lineBytesMax` (literals not counted), literals of `literalBytesMax`, `argumentsMax` arguments. A line that ends in a
 * bare LF, or holds a NUL, is refused; the decoder goes on with the next line. Where going on would mean guessing where the next command
 * starts, the event is `fatal` and nothing more comes.
 */

/** Longest command line without its literals, octets: an access token fits. */
export const lineBytesMax = 12_288;
/** Longest literal before login, octets: the size that LITERAL- (RFC 7888 §5) allows. */
export const literalBytesMax = 4096;
/** Most arguments of one command; ID has up to 30 pairs (RFC 2971 §3.3). */
export const argumentsMax = 64;

/** What the decoder found. */
export type ImapLoginEvent =
  /** A whole command, its name in capitals. */
  | { readonly type: 'command'; readonly tag: string; readonly name: string; readonly arguments: readonly string[] }
  /** The client waits for `+` before it sends a literal (RFC 9051 §4.3). */
  | { readonly type: 'continue' }
  /** A line asked for by `expectLine`, without its end. */
  | { readonly type: 'line'; readonly text: string }
  /** The line was not understood; the tag when there was one. */
  | { readonly type: 'bad'; readonly tag: string | undefined; readonly reason: string }
  | { readonly type: 'fatal'; readonly reason: string };

const tagPattern = /^[\x21\x23\x24\x26\x27\x2c-\x5b\x5d-\x7a\x7c\x7e]{1,64}$/;
const literalAtEnd = /\{(\d{1,20})(\+?)\}$/;

const nothing: Buffer = Buffer.alloc(0);

/** See the header of this file. */
export class ImapLoginDecoder {
  /** Bytes that were pushed and not yet turned into events. */
  #pending: Buffer = nothing;
  /** Pieces of the command being read: text of lines, and literals between them. */
  #pieces: (string | { readonly literal: string })[] = [];
  #lineBytes = 0;
  #literalLeft: number | undefined;
  #wantsLine = false;
  #isBroken = false;
  /** Where the search for the line's end goes on, so that a line coming byte by byte is looked at once. */
  #searchedTo = 0;

  /** Takes bytes. */
  push(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
  }

  /** The next line is an answer within AUTHENTICATE and not a command. */
  expectLine(): void {
    this.#wantsLine = true;
  }

  /** What was pushed after the last event; the decoder is empty afterwards. */
  takeRest(): Buffer {
    const rest = this.#pending;
    this.#pending = nothing;
    this.#searchedTo = 0;
    return rest;
  }

  /** The next event, or `undefined` when more bytes are needed. */
  next(): ImapLoginEvent | undefined {
    if (this.#isBroken) return undefined;
    if (this.#literalLeft !== undefined) {
      if (this.#pending.length < this.#literalLeft) return undefined;
      const bytes = this.#take(this.#literalLeft);
      this.#literalLeft = undefined;
      this.#pieces.push({ literal: bytes.toString('utf8') });
    }
    const lineFeed = this.#pending.indexOf(0x0a, this.#searchedTo);
    if (lineFeed < 0) {
      this.#searchedTo = this.#pending.length;
      return this.#lineBytes + this.#pending.length > lineBytesMax ? this.#fatal('line too long') : undefined;
    }
    if (this.#lineBytes + lineFeed + 1 > lineBytesMax) return this.#fatal('line too long');
    const line = this.#take(lineFeed + 1);
    this.#lineBytes += line.length;
    if (line.length < 2 || line[line.length - 2] !== 0x0d) return this.#bad('lines end with CRLF');
    const text = line.toString('utf8', 0, line.length - 2);
    if (text.includes('\0')) return this.#bad('NUL is not allowed');
    if (this.#wantsLine) {
      this.#wantsLine = false;
      this.#reset();
      return { type: 'line', text };
    }
    return this.#takeLine(text);
  }

  #takeLine(text: string): ImapLoginEvent | undefined {
    const announced = literalAtEnd.exec(text);
    if (announced === null) {
      this.#pieces.push(text);
      return this.#command();
    }
    const size = Number(announced[1]);
    const isSynchronizing = announced[2] === '';
    this.#pieces.push(text.slice(0, announced.index));
    if (size > literalBytesMax) {
      // RFC 7888 §4: the octets of a non-synchronizing literal come anyway, so the only way out is to close.
      return isSynchronizing ? this.#bad('literal too large') : this.#fatal('literal too large');
    }
    if (this.#pieces.length > 2 * argumentsMax) return this.#fatal('too many literals');
    this.#literalLeft = size;
    return isSynchronizing ? { type: 'continue' } : this.next();
  }

  #command(): ImapLoginEvent {
    const pieces = this.#pieces;
    const first = pieces[0] as string;
    const [, tag = '', name = '', rest = ''] = /^([^ ]*) ?([^ ]*)(.*)$/s.exec(first) ?? [];
    if (!tagPattern.test(tag)) return this.#bad('a command starts with a tag');
    if (!/^[A-Za-z0-9.-]{1,32}$/.test(name)) return this.#bad('a command name was expected', tag);
    const found = parseArguments([rest, ...pieces.slice(1)]);
    if (found === undefined) return this.#bad('malformed arguments', tag);
    this.#reset();
    return { type: 'command', tag, name: name.toUpperCase(), arguments: found };
  }

  #take(count: number): Buffer {
    const taken = this.#pending.subarray(0, count);
    this.#pending = this.#pending.subarray(count);
    this.#searchedTo = 0;
    return taken;
  }

  #bad(reason: string, tag = this.#tagSoFar()): ImapLoginEvent {
    this.#wantsLine = false;
    this.#reset();
    return { type: 'bad', tag, reason };
  }

  #fatal(reason: string): ImapLoginEvent {
    this.#isBroken = true;
    this.#reset();
    this.#pending = nothing;
    return { type: 'fatal', reason };
  }

  #tagSoFar(): string | undefined {
    const first = this.#pieces[0];
    const tag = typeof first === 'string' ? (first.split(' ', 1)[0] ?? '') : '';
    return tagPattern.test(tag) ? tag : undefined;
  }

  #reset(): void {
    this.#pieces = [];
    this.#lineBytes = 0;
    this.#literalLeft = undefined;
  }
}

/**
 * Arguments out of line texts and the literals between them. Lists are flattened and NIL stays an atom, which is all that the commands before login need.
 * `undefined` when they are malformed.
 */
function parseArguments(pieces: readonly (string | { readonly literal: string })[]): string[] | undefined {
  const found: string[] = [];
  let depth = 0;
  // Each argument is set off by a space or a parenthesis.
  let isSetOff = false;
  for (const piece of pieces) {
    if (typeof piece !== 'string') {
      if (!isSetOff) return undefined;
      found.push(piece.literal);
      isSetOff = false;
      continue;
    }
    let at = 0;
    while (at < piece.length) {
      const character = piece[at] as string;
      if (character === ' ') {
        isSetOff = true;
        at += 1;
      } else if (character === '(') {
        if (!isSetOff || depth > 0) return undefined;
        depth += 1;
        at += 1;
      } else if (character === ')') {
        if (depth === 0) return undefined;
        depth -= 1;
        at += 1;
        isSetOff = false;
      } else {
        if (!isSetOff) return undefined;
        const argument = character === '"' ? readQuoted(piece, at) : readAtom(piece, at);
        if (argument === undefined) return undefined;
        found.push(argument.value);
        at = argument.end;
        isSetOff = false;
      }
    }
    if (found.length > argumentsMax) return undefined;
  }
  return depth === 0 ? found : undefined;
}

function readQuoted(text: string, start: number): { value: string; end: number } | undefined {
  let value = '';
  for (let at = start + 1; at < text.length; at += 1) {
    const character = text[at] as string;
    if (character === '"') return { value, end: at + 1 };
    if (character === '\\') {
      at += 1;
      const escaped = text[at];
      // RFC 9051 §9, QUOTED-CHAR: only these two may be escaped.
      if (escaped !== '"' && escaped !== '\\') return undefined;
      value += escaped;
    } else if (character === '\r') {
      return undefined;
    } else {
      value += character;
    }
  }
  return undefined;
}

function readAtom(text: string, start: number): { value: string; end: number } | undefined {
  // ASTRING-CHAR (RFC 9051 §9), and `=`, `+`, `/` of base64 are among it; `\` and `*` are let through for passwords sent bare.
  const match = /^[^\s(){}"%]+/.exec(text.slice(start, start + lineBytesMax));
  if (match === null) return undefined;
  return { value: match[0], end: start + match[0].length };
}
