/**
 * The grammar of Sieve (RFC 5228 §8): from a script's text to commands, tests and arguments. What they mean is compile.ts's.
 *
 * Limits: a script has `scriptBytesMax` octets, blocks and tests nest `nestingMax` deep (RFC 5228 §2.10.5 asks for 15).
 */

/** Longest script, octets. */
export const scriptBytesMax = 65_536;
const nestingMax = 32;

/** A script that is not taken, and where; the text is for its author. */
export class SieveError extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.line = line;
  }
}

/** An argument of a command or test. */
export type SieveArgument =
  | { readonly kind: 'tag'; readonly name: string; readonly line: number }
  | { readonly kind: 'number'; readonly value: number; readonly line: number }
  | { readonly kind: 'strings'; readonly values: readonly string[]; readonly isList: boolean; readonly line: number };

/** A test, or a command without its block. */
export interface SieveTest {
  /** Lower case. */
  readonly name: string;
  readonly arguments: readonly SieveArgument[];
  readonly tests: readonly SieveTest[];
  readonly line: number;
}

/** A command. */
export interface SieveCommand extends SieveTest {
  readonly block: readonly SieveCommand[] | undefined;
}

interface Token {
  readonly kind: 'identifier' | 'tag' | 'number' | 'string' | 'mark' | 'end';
  readonly text: string;
  readonly line: number;
}

/** Parses a script. Throws `SieveError`. */
export function parseScript(text: string): SieveCommand[] {
  if (Buffer.byteLength(text) > scriptBytesMax) throw new SieveError(1, `the script has more than ${scriptBytesMax} octets`);
  const parser = new Parser(text);
  const commands = parser.commands(0);
  parser.expectEnd();
  return commands;
}

class Parser {
  readonly #text: string;
  #at = 0;
  #line = 1;
  #next: Token;

  constructor(text: string) {
    this.#text = text;
    this.#next = this.#read();
  }

  commands(depth: number): SieveCommand[] {
    const found: SieveCommand[] = [];
    while (this.#next.kind === 'identifier') {
      const head = this.#headed(depth);
      if (this.#isMark('{')) {
        if (depth >= nestingMax) throw new SieveError(this.#next.line, `blocks nest more than ${nestingMax} deep`);
        this.#take();
        const block = this.commands(depth + 1);
        this.#demand('}');
        found.push({ ...head, block });
      } else {
        this.#demand(';');
        found.push({ ...head, block: undefined });
      }
    }
    return found;
  }

  expectEnd(): void {
    if (this.#next.kind !== 'end') throw new SieveError(this.#next.line, `a command was expected, and ${shown(this.#next)} came`);
  }

  /** A name with its arguments and tests. */
  #headed(depth: number): SieveTest {
    if (depth > nestingMax) throw new SieveError(this.#next.line, `tests nest more than ${nestingMax} deep`);
    const { text, line } = this.#take();
    const found: SieveArgument[] = [];
    for (;;) {
      const argument = this.#argument();
      if (argument === undefined) break;
      found.push(argument);
    }
    const tests: SieveTest[] = [];
    if (this.#next.kind === 'identifier') tests.push(this.#headed(depth + 1));
    else if (this.#isMark('(')) {
      do {
        this.#take();
        if (this.#kind() !== 'identifier') throw new SieveError(this.#next.line, `a test was expected, and ${shown(this.#next)} came`);
        tests.push(this.#headed(depth + 1));
      } while (this.#isMark(','));
      this.#demand(')');
    }
    return { name: text.toLowerCase(), arguments: found, tests, line };
  }

  #argument(): SieveArgument | undefined {
    const { kind, text, line } = this.#next;
    if (kind === 'tag') {
      this.#take();
      return { kind: 'tag', name: text.toLowerCase(), line };
    }
    if (kind === 'number') {
      this.#take();
      return { kind: 'number', value: numberOf(text, line), line };
    }
    if (kind === 'string') {
      this.#take();
      return { kind: 'strings', values: [text], isList: false, line };
    }
    if (!this.#isMark('[')) return undefined;
    const values: string[] = [];
    do {
      this.#take();
      if (this.#kind() !== 'string') throw new SieveError(this.#next.line, `a string was expected, and ${shown(this.#next)} came`);
      values.push(this.#take().text);
    } while (this.#isMark(','));
    this.#demand(']');
    return { kind: 'strings', values, isList: true, line };
  }

  #kind(): Token['kind'] {
    return this.#next.kind;
  }

  #isMark(mark: string): boolean {
    return this.#next.kind === 'mark' && this.#next.text === mark;
  }

  #demand(mark: string): void {
    if (!this.#isMark(mark)) throw new SieveError(this.#next.line, `"${mark}" was expected, and ${shown(this.#next)} came`);
    this.#take();
  }

  #take(): Token {
    const taken = this.#next;
    this.#next = this.#read();
    return taken;
  }

  #read(): Token {
    this.#skipBlank();
    const line = this.#line;
    if (this.#at >= this.#text.length) return { kind: 'end', text: '', line };
    const rest = this.#text.slice(this.#at, this.#at + 300);
    // RFC 5228 §2.4.2: a multi-line string ends with a line that is a dot.
    const multiLine = /^text:[ \t]*(?:#[^\r\n]*)?\r?\n/i.exec(rest);
    if (multiLine !== null) return this.#multiLine(multiLine[0], line);
    const character = this.#text[this.#at] as string;
    if (character === '"') return this.#quoted(line);
    const word = /^:?[A-Za-z_][A-Za-z0-9_]*/.exec(rest) ?? /^\d+[KMGkmg]?/.exec(rest);
    if (word !== null) {
      this.#at += word[0].length;
      if (character === ':') return { kind: 'tag', text: word[0].slice(1), line };
      return { kind: /^\d/.test(character) ? 'number' : 'identifier', text: word[0], line };
    }
    if (!'[](){},;'.includes(character)) throw new SieveError(line, `the character ${JSON.stringify(character)} does not belong here`);
    this.#at += 1;
    return { kind: 'mark', text: character, line };
  }

  #skipBlank(): void {
    for (;;) {
      const character = this.#text[this.#at];
      if (character === '\n') this.#line += 1;
      if (character === ' ' || character === '\t' || character === '\r' || character === '\n') this.#at += 1;
      else if (character === '#') this.#at = this.#endOf('\n', this.#at, this.#text.length);
      else if (character === '/' && this.#text[this.#at + 1] === '*') {
        const end = this.#text.indexOf('*/', this.#at + 2);
        if (end < 0) throw new SieveError(this.#line, 'a comment has no end');
        this.#advance(end + 2);
      } else return;
    }
  }

  #quoted(line: number): Token {
    let text = '';
    for (let at = this.#at + 1; at < this.#text.length; at += 1) {
      const character = this.#text[at] as string;
      if (character === '"') {
        this.#advance(at + 1);
        return { kind: 'string', text, line };
      }
      // RFC 5228 §2.4.2: a backslash before anything stands for that.
      if (character === '\\') at += 1;
      text += this.#text[at] ?? '';
    }
    throw new SieveError(line, 'a string has no end');
  }

  #multiLine(opening: string, line: number): Token {
    const start = this.#at + opening.length;
    const end = /(?:^|\n)\.\r?(?:\n|$)/.exec(this.#text.slice(start));
    if (end === null) throw new SieveError(line, 'a multi-line string has no line that is a dot');
    const raw = this.#text.slice(start, start + end.index + (end[0].startsWith('\n') ? 1 : 0));
    this.#advance(start + end.index + end[0].length);
    return { kind: 'string', text: raw.replace(/^\.\./gm, '.'), line };
  }

  #endOf(mark: string, from: number, otherwise: number): number {
    const found = this.#text.indexOf(mark, from);
    return found < 0 ? otherwise : found;
  }

  #advance(to: number): void {
    for (let at = this.#text.indexOf('\n', this.#at); at >= 0 && at < to; at = this.#text.indexOf('\n', at + 1)) this.#line += 1;
    this.#at = to;
  }
}

/** RFC 5228 §2.4.1: K, M and G stand for powers of 1024; numbers below 2^31 must be known. */
function numberOf(text: string, line: number): number {
  const factor = { K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[text.slice(-1).toUpperCase()] ?? 1;
  const value = Number.parseInt(text, 10) * factor;
  if (value > 2 ** 53) throw new SieveError(line, `the number ${text} is too large`);
  return value;
}

function shown(token: Token): string {
  return token.kind === 'end' ? 'the end of the script' : JSON.stringify(token.text.slice(0, 40));
}
