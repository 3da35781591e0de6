/**
 * Reads one command by its grammar (RFC 9051 §9). There is no general tokeniser, because there is no general token: `*` is an atom to
 * nobody, a wildcard to LIST and a number to FETCH. Each command's grammar calls what it expects next; anything else is `PROTO_SYNTAX`
 * with a sentence that the client may be told.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { CommandPiece } from './decoder.ts';
import { type SequenceSet, star } from './sequence-set.ts';
import { decodeMailboxName } from './utf7.ts';

/** Depth of parentheses in any argument. */
export const nestingMax = 64;
/** Mailbox name, octets decoded. */
export const mailboxNameBytesMax = 1024;

const space = 32;

/** A syntax error with the sentence for the client. */
export function syntaxError(text: string): PlatformError {
  return new PlatformError('PROTO_SYNTAX', text);
}

/** A cursor over the pieces of a command. */
export class CommandReader {
  readonly #pieces: readonly CommandPiece[];
  #piece = 0;
  #at = 0;

  constructor(pieces: readonly CommandPiece[]) {
    this.#pieces = pieces;
    this.#skipEmpty();
  }

  /** Everything was read. */
  get isAtEnd(): boolean {
    return this.#piece >= this.#pieces.length;
  }

  /** The next octet is this character (a literal is none). */
  nextIs(c: string): boolean {
    return this.#peek() === c.charCodeAt(0);
  }

  /** The next thing is a literal. */
  get isAtLiteral(): boolean {
    return this.#pieces[this.#piece]?.kind === 'literal';
  }

  /** Takes the character if it is next. */
  take(c: string): boolean {
    if (!this.nextIs(c)) return false;
    this.#advance(1);
    return true;
  }

  /** Takes the character or fails. */
  expect(c: string): void {
    if (!this.take(c)) throw syntaxError(c === ' ' ? 'Expected a space' : `Expected "${c}"`);
  }

  space(): void {
    this.expect(' ');
  }

  /** Nothing may follow. A trailing space is forgiven: real clients send one. */
  end(): void {
    while (this.take(' '));
    if (!this.isAtEnd) throw syntaxError('Unexpected characters at the end of the command');
  }

  /** tag: like an atom without `+`. */
  tag(): string {
    const tag = this.#while((byte) => isAstringByte(byte) && byte < 128 && byte !== 43);
    if (tag === '') throw syntaxError('Expected a tag');
    return tag;
  }

  /** An atom in capitals, for names of commands, items and keys. */
  keyword(): string {
    const text = this.#while((byte) => isAtomByte(byte) && byte !== 91);
    if (text === '') throw syntaxError('Expected a word');
    return text.toUpperCase();
  }

  /** Like `keyword` but taken only when it is the next word. */
  takeKeyword(word: string): boolean {
    const [piece, at] = [this.#piece, this.#at];
    if (!this.isAtEnd && !this.isAtLiteral && this.#while((byte) => isAtomByte(byte) && byte !== 91).toUpperCase() === word) return true;
    [this.#piece, this.#at] = [piece, at];
    return false;
  }

  atom(): string {
    const text = this.#while(isAtomByte);
    if (text === '') throw syntaxError('Expected an atom');
    return text;
  }

  /** number: at most 2^32 - 1. */
  number(): number {
    const value = this.number64();
    if (value > 4_294_967_295) throw syntaxError('A number is too large');
    return value;
  }

  /** number64 (RFC 9051 §9), kept within what a double holds exactly. */
  number64(): number {
    const digits = this.#while((byte) => byte >= 48 && byte <= 57);
    if (digits === '') throw syntaxError('Expected a number');
    const value = Number(digits);
    if (!Number.isSafeInteger(value)) throw syntaxError('A number is too large');
    return value;
  }

  nonZeroNumber(): number {
    const value = this.number();
    if (value === 0) throw syntaxError('A number must not be zero');
    return value;
  }

  /** string: quoted or literal. */
  string(): Buffer {
    const piece = this.#pieces[this.#piece];
    if (piece?.kind === 'literal') {
      this.#advance(piece.bytes.length);
      if (piece.bytes.length === 0) this.#nextPiece();
      return piece.bytes;
    }
    if (!this.nextIs('"')) throw syntaxError('Expected a string');
    return this.#quoted();
  }

  astring(): Buffer {
    if (this.isAtLiteral || this.nextIs('"')) return this.string();
    const text = this.#while(isAstringByte);
    if (text === '') throw syntaxError('Expected a string');
    return Buffer.from(text, 'latin1');
  }

  /** nstring: `null` for NIL. */
  nstring(): Buffer | null {
    if (this.isAtLiteral || this.nextIs('"')) return this.string();
    if (this.takeKeyword('NIL')) return null;
    throw syntaxError('Expected a string or NIL');
  }

  /** mailbox: decoded, INBOX in capitals. */
  mailbox(): string {
    return mailboxNameFrom(this.astring());
  }

  /** list-mailbox: an astring in which the wildcards are ordinary. */
  listMailbox(): string {
    if (this.isAtLiteral || this.nextIs('"')) return decodedName(this.string());
    const text = this.#while((byte) => isAstringByte(byte) || byte === 37 || byte === 42);
    if (text === '') throw syntaxError('Expected a mailbox pattern');
    return decodedName(Buffer.from(text, 'latin1'));
  }

  /** sequence-set. */
  sequenceSet(): SequenceSet {
    const ranges: [number, number][] = [];
    do {
      const from = this.#seqNumber();
      ranges.push([from, this.take(':') ? this.#seqNumber() : from]);
    } while (this.take(','));
    return ranges;
  }

  /** flag: system flags with their backslash, keywords as written. */
  flag(): string {
    if (this.take('\\')) return `\\${this.#atomOf('Expected a flag')}`;
    return this.#atomOf('Expected a flag');
  }

  /** flag-list, or bare flags for STORE when `mayBeBare`. */
  flags(mayBeBare = false): string[] {
    const out: string[] = [];
    if (!this.nextIs('(')) {
      if (!mayBeBare) throw syntaxError('Expected a list of flags');
      do out.push(this.flag());
      while (this.take(' '));
      return out;
    }
    this.list(() => out.push(this.flag()));
    return out;
  }

  /** A parenthesised list, items separated by spaces; may be empty. */
  list(item: () => void): void {
    this.expect('(');
    if (this.take(')')) return;
    for (;;) {
      item();
      while (this.take(' ')) if (this.nextIs(')')) break;
      if (this.take(')')) return;
      if (this.isAtEnd) throw syntaxError('A list is not closed');
    }
  }

  /** Characters up to any of the stops, for date-times and the like; never crosses a literal. */
  until(stops: string): string {
    return this.#while((byte) => !stops.includes(String.fromCharCode(byte)));
  }

  #atomOf(message: string): string {
    const text = this.#while(isAtomByte);
    if (text === '') throw syntaxError(message);
    return text;
  }

  #seqNumber(): number {
    return this.take('*') ? star : this.nonZeroNumber();
  }

  #quoted(): Buffer {
    const bytes = this.#text();
    const out: number[] = [];
    let at = this.#at + 1;
    for (; at < bytes.length && bytes[at] !== 34; at += 1) {
      if (bytes[at] === 92) {
        at += 1;
        if (bytes[at] !== 34 && bytes[at] !== 92) throw syntaxError('Only a quote or a backslash may follow a backslash');
      }
      out.push(bytes[at] as number);
    }
    if (at >= bytes.length) throw syntaxError('A quoted string is not closed');
    this.#advance(at + 1 - this.#at);
    return Buffer.from(out);
  }

  #peek(): number {
    const piece = this.#pieces[this.#piece];
    return piece?.kind === 'text' ? (piece.bytes[this.#at] ?? -1) : -1;
  }

  #text(): Buffer {
    return (this.#pieces[this.#piece] as CommandPiece).bytes;
  }

  #while(accept: (byte: number) => boolean): string {
    const piece = this.#pieces[this.#piece];
    if (piece?.kind !== 'text') return '';
    let at = this.#at;
    while (at < piece.bytes.length && accept(piece.bytes[at] as number)) at += 1;
    const text = piece.bytes.toString('latin1', this.#at, at);
    this.#advance(at - this.#at);
    return text;
  }

  #advance(count: number): void {
    this.#at += count;
    const piece = this.#pieces[this.#piece];
    if (piece !== undefined && count > 0 && this.#at >= piece.bytes.length) this.#nextPiece();
  }

  #nextPiece(): void {
    this.#piece += 1;
    this.#at = 0;
    this.#skipEmpty();
  }

  #skipEmpty(): void {
    for (let piece = this.#pieces[this.#piece]; piece?.kind === 'text' && piece.bytes.length === 0; piece = this.#pieces[this.#piece]) {
      this.#piece += 1;
      this.#at = 0;
    }
  }
}

/** A mailbox name from its bytes, as commands take it. */
function mailboxNameFrom(bytes: Buffer): string {
  const name = decodedName(bytes);
  // RFC 9051 §5.1: INBOX in any case is the same mailbox; so are its children's first level.
  const isInbox = name.length >= 5 && name.slice(0, 5).toUpperCase() === 'INBOX' && (name.length === 5 || name[5] === '/');
  return isInbox ? `INBOX${name.slice(5)}` : name;
}

function decodedName(bytes: Buffer): string {
  const name = decodeMailboxName(bytes);
  if (name === undefined) throw syntaxError('A mailbox name is not valid modified UTF-7');
  if (Buffer.byteLength(name) > mailboxNameBytesMax) throw syntaxError(`A mailbox name is longer than ${mailboxNameBytesMax} octets`);
  return name;
}

/** ATOM-CHAR: printable ASCII without `( ) { % * " \ ]`. */
function isAtomByte(byte: number): boolean {
  return (
    byte > space &&
    byte < 127 &&
    byte !== 40 &&
    byte !== 41 &&
    byte !== 123 &&
    byte !== 37 &&
    byte !== 42 &&
    byte !== 34 &&
    byte !== 92 &&
    byte !== 93
  );
}

/** ASTRING-CHAR: also `]`, and octets above ASCII, because clients send raw UTF-8 names. */
function isAstringByte(byte: number): boolean {
  return isAtomByte(byte) || byte === 93 || byte >= 128;
}
