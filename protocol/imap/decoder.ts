/**
 * Bytes of an IMAP client in, whole commands out (RFC 9051 §4 and §9).
 *
 *   push(bytes) ──► buffer ──► next(): command | literal announced | refused | nothing yet
 *
 * The decoder is pulled: the session asks for the next command when it is done with the last one, so commands keep their order and a
 * literal is invited only when its turn has come. When the client announces a literal, `next()` says so and the session must answer with
 * `acceptLiteral()` or `refuseLiteral()` before going on: a message that will not be stored is refused before it is sent.
 *
 * Limits: a command's text outside literals, and its literals for all commands but APPEND, `lineBytesMax`; announced literals of APPEND
 * as the session decides; `literalsMax` literals in a command. What passes a limit is thrown away up to the end of the command and
 * reported as `refused`, so that the dialogue stays in step.
 */

/** Part of a command: text as it stood on the line, or the content of a literal. */
export type CommandPiece =
  | { readonly kind: 'text'; readonly bytes: Buffer }
  | { readonly kind: 'literal'; readonly bytes: Buffer; readonly isBinary: boolean };

/** A literal that the client announced and the session must decide on. */
export interface LiteralAnnounced {
  readonly kind: 'literal';
  /** The command so far, the announcement left out. */
  readonly pieces: readonly CommandPiece[];
  readonly sizeBytes: number;
  /** The client waits for `+` (`{n}`); otherwise the bytes are already on their way (`{n+}`, RFC 7888). */
  readonly waits: boolean;
  readonly isBinary: boolean;
}

/** What `next()` found. */
export type DecoderEvent =
  | { readonly kind: 'command'; readonly pieces: readonly CommandPiece[] }
  | LiteralAnnounced
  /** A command was thrown away; `pieces` is how it began. */
  | { readonly kind: 'refused'; readonly pieces: readonly CommandPiece[]; readonly why: string };

/** Octets of a command's literals. */
export function literalBytesOf(pieces: readonly CommandPiece[]): number {
  return pieces.reduce((sum, piece) => sum + (piece.kind === 'literal' ? piece.bytes.length : 0), 0);
}

/** Text of one command outside literals, octets; also all its literals together, unless the session accepts more. */
export const lineBytesMax = 65_536;
/** Literals in one command. */
export const literalsMax = 100;
/** An unasked-for literal (`{n+}`) beyond this is not read to its end: the session ends the connection. */
export const skippedLiteralBytesMax = 128 * 1024 * 1024;

const lf = 10;
const cr = 13;
/** Of a command that is thrown away: how much of its beginning is kept, for its tag. */
const refusedHeadBytes = 1024;
/** Of a line that is thrown away: how much of its end is kept, for `{n+}`. */
const lineTailBytes = 32;

const emptyBuffer = Buffer.alloc(0);

type Phase = 'line' | 'decision' | 'literal' | 'skip-literal' | 'skip-line';

/** See the header of this file. */
export class CommandDecoder {
  #buffer = emptyBuffer;
  #start = 0;
  #end = 0;
  /** Up to here the buffer has no line end. */
  #scanned = 0;
  #phase: Phase = 'line';
  #pieces: CommandPiece[] = [];
  #textBytes = 0;
  #literals = 0;
  #announced: LiteralAnnounced | undefined;
  #literalLeft = 0;
  /** What has come of the literal; it grows with it, so that announcing much costs nothing and one octet at a time costs no more. */
  #literal = emptyBuffer;
  #literalBytes = 0;
  #refusedWhy: string | undefined;

  /** Bytes taken in and not yet handed out as a command. */
  get heldBytes(): number {
    return this.#end - this.#start;
  }

  /** Bytes of literals of the command that is coming in. */
  get literalBytes(): number {
    return this.#literalBytes + literalBytesOf(this.#pieces);
  }

  /** Takes bytes from the client. */
  push(bytes: Buffer): void {
    let rest = bytes;
    // A literal's bytes go straight to it, not through the line buffer.
    if (this.heldBytes === 0 && (this.#phase === 'literal' || this.#phase === 'skip-literal') && this.#literalLeft > 0) {
      const take = Math.min(rest.length, this.#literalLeft);
      this.#takeLiteral(rest.subarray(0, take));
      rest = rest.subarray(take);
    }
    if (rest.length === 0) return;
    if (this.#end + rest.length > this.#buffer.length) this.#makeRoom(rest.length);
    rest.copy(this.#buffer, this.#end);
    this.#end += rest.length;
  }

  /** The next thing the client said, or `undefined` when more bytes are needed. */
  next(): DecoderEvent | undefined {
    for (;;) {
      if (this.#phase === 'decision') return this.#announced;
      if (this.#phase === 'literal' || this.#phase === 'skip-literal') {
        const take = Math.min(this.#literalLeft, this.heldBytes);
        if (take > 0) this.#takeLiteral(this.#consume(take));
        if (this.#literalLeft > 0) return undefined;
        this.#endLiteral();
        continue;
      }
      const line = this.#takeLine();
      if (line === undefined) return undefined;
      const event = this.#endLine(line);
      if (event !== undefined) return event;
    }
  }

  /** One line as it is, for IDLE's DONE; `undefined` when it is not complete, and what it has so far is not too long. */
  nextLine(): Buffer | undefined {
    const line = this.#takeLine();
    if (line !== undefined) this.#reset();
    return line;
  }

  /** Takes out the beginning of a line that has come so far; `undefined` in the middle of a command that has literals. */
  takeBeginning(): Buffer | undefined {
    if (this.#phase !== 'line' || this.#pieces.length > 0) return undefined;
    return Buffer.from(this.#consume(this.heldBytes));
  }

  /** Lets the announced literal come. */
  acceptLiteral(): void {
    if (this.#announced === undefined) throw new Error('no literal was announced');
    this.#literalLeft = this.#announced.sizeBytes;
    this.#phase = 'literal';
  }

  /** The announced literal is not wanted: a client that waits will not send it, one that does not is read over. */
  refuseLiteral(): void {
    const announced = this.#announced;
    if (announced === undefined) throw new Error('no literal was announced');
    if (announced.waits) {
      this.#reset();
      return;
    }
    this.#refusedWhy = undefined;
    this.#literalLeft = announced.sizeBytes;
    this.#phase = 'skip-literal';
  }

  #takeLiteral(bytes: Buffer): void {
    this.#literalLeft -= bytes.length;
    if (this.#phase === 'skip-literal') return;
    const total = this.#literalBytes + bytes.length;
    if (total > this.#literal.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(total + this.#literalLeft, Math.max(4096, 2 * total)));
      this.#literal.copy(grown, 0, 0, this.#literalBytes);
      this.#literal = grown;
    }
    bytes.copy(this.#literal, this.#literalBytes);
    this.#literalBytes = total;
  }

  #endLiteral(): void {
    if (this.#phase === 'skip-literal') {
      this.#phase = 'skip-line';
      return;
    }
    this.#pieces.push({ kind: 'literal', bytes: this.#literal, isBinary: this.#announced?.isBinary ?? false });
    this.#literal = emptyBuffer;
    this.#literalBytes = 0;
    this.#announced = undefined;
    this.#phase = 'line';
  }

  /** A line without its line end, consumed. Of a line that is too long only the end comes back, and its command is to be skipped. */
  #takeLine(): Buffer | undefined {
    const at = this.#buffer.subarray(0, this.#end).indexOf(lf, Math.max(this.#scanned, this.#start));
    const lineEnd = at < 0 ? this.#end : at > this.#start && this.#buffer[at - 1] === cr ? at - 1 : at;
    if (this.#phase === 'line' && lineEnd - this.#start + this.#textBytes > lineBytesMax) {
      if (this.#pieces.length === 0) {
        const head = this.#buffer.subarray(this.#start, this.#start + refusedHeadBytes);
        this.#pieces.push({ kind: 'text', bytes: Buffer.from(head) });
      }
      this.#refusedWhy = `A command line is longer than ${lineBytesMax} octets`;
      this.#phase = 'skip-line';
    }
    if (at < 0) {
      this.#scanned = this.#end;
      // Of a line that is skipped its end is kept: it may announce a literal that is on its way.
      if (this.#phase === 'skip-line' && this.heldBytes > lineTailBytes) this.#consume(this.heldBytes - lineTailBytes);
      return undefined;
    }
    const from = this.#phase === 'skip-line' ? Math.max(this.#start, lineEnd - lineTailBytes) : this.#start;
    const line = Buffer.from(this.#buffer.subarray(from, lineEnd));
    this.#consume(at + 1 - this.#start);
    return line;
  }

  #endLine(line: Buffer): DecoderEvent | undefined {
    const announcement = readAnnouncement(line);
    if (this.#phase === 'skip-line') {
      if (announcement !== undefined && !announcement.waits) {
        this.#literalLeft = announcement.sizeBytes;
        this.#phase = 'skip-literal';
        return undefined;
      }
      const why = this.#refusedWhy;
      const pieces = this.#pieces;
      this.#reset();
      // No reason: the session refused the literal itself and has answered.
      return why === undefined ? undefined : { kind: 'refused', pieces, why };
    }
    this.#textBytes += line.length;
    if (announcement === undefined) {
      this.#pieces.push({ kind: 'text', bytes: line });
      const pieces = this.#pieces;
      this.#reset();
      return { kind: 'command', pieces };
    }
    this.#pieces.push({ kind: 'text', bytes: line.subarray(0, announcement.at) });
    this.#literals += 1;
    this.#announced = { kind: 'literal', pieces: this.#pieces, ...announcement };
    if (this.#literals > literalsMax) {
      this.#refusedWhy = `A command has more than ${literalsMax} literals`;
      const pieces = this.#pieces;
      const why = this.#refusedWhy;
      if (!announcement.waits) {
        this.#literalLeft = announcement.sizeBytes;
        this.#phase = 'skip-literal';
        return undefined;
      }
      this.#reset();
      return { kind: 'refused', pieces, why };
    }
    this.#phase = 'decision';
    return this.#announced;
  }

  #reset(): void {
    this.#phase = 'line';
    this.#pieces = [];
    this.#textBytes = 0;
    this.#literals = 0;
    this.#announced = undefined;
    this.#literalLeft = 0;
    this.#literal = emptyBuffer;
    this.#literalBytes = 0;
    this.#refusedWhy = undefined;
  }

  #consume(count: number): Buffer {
    const bytes = this.#buffer.subarray(this.#start, this.#start + count);
    this.#start += count;
    this.#scanned = this.#start;
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
      this.#scanned = 0;
      // An idle connection keeps no buffer; the bytes handed out stay valid until the caller has copied them.
      this.#buffer = emptyBuffer;
    }
    return bytes;
  }

  #makeRoom(needed: number): void {
    const held = this.heldBytes;
    const next = held + needed <= this.#buffer.length / 2 ? this.#buffer : Buffer.allocUnsafe(Math.max(512, 2 * (held + needed)));
    this.#buffer.copy(next, 0, this.#start, this.#end);
    this.#scanned -= this.#start;
    this.#buffer = next;
    this.#start = 0;
    this.#end = held;
  }
}

/** `{n}`, `{n+}`, `~{n}` at the end of a line (RFC 9051 §9 literal, literal8). */
function readAnnouncement(
  line: Buffer,
): { readonly at: number; readonly sizeBytes: number; readonly waits: boolean; readonly isBinary: boolean } | undefined {
  let at = line.length - 1;
  if (line[at] !== 125) return undefined;
  at -= 1;
  const isPlus = line[at] === 43;
  if (isPlus) at -= 1;
  const digitsEnd = at + 1;
  while (at >= 0 && (line[at] as number) >= 48 && (line[at] as number) <= 57) at -= 1;
  const digits = digitsEnd - (at + 1);
  if (digits === 0 || digits > 15 || line[at] !== 123) return undefined;
  const sizeBytes = Number(line.toString('latin1', at + 1, digitsEnd));
  const isBinary = line[at - 1] === 126;
  return { at: isBinary ? at - 1 : at, sizeBytes, waits: !isPlus, isBinary };
}
