/**
 * Mailbox files of other programs: mbox (RFC 4155; the `From ` line begins a message, `>From ` in a text is unquoted as mboxrd does), and the
 * names of Maildir and Maildir++.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** A message of an mbox file. */
export interface MboxMessage {
  readonly raw: Buffer;
  readonly flags: readonly string[];
  /** From the `From ` line; `undefined` when it has no date that can be read. */
  readonly dateMs: number | undefined;
}

/** Octets of one message. */
const messageBytesMax = 100 * 1024 * 1024;

/** Takes an mbox file apart as it comes in. */
export class MboxDecoder {
  #rest: Buffer = Buffer.alloc(0);
  #lines: Buffer[] = [];
  #bytes = 0;
  #dateMs: number | undefined;
  #isIn = false;
  #wasEmpty = true;

  push(chunk: Buffer): MboxMessage[] {
    const messages: MboxMessage[] = [];
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, start)) {
      this.#line(bytes.subarray(start, end + 1), messages);
      start = end + 1;
    }
    this.#rest = bytes.subarray(start);
    if (this.#rest.length > messageBytesMax)
      throw new PlatformError('PROTO_TOO_LONG', `a line of the mbox file has more than ${messageBytesMax} octets`);
    return messages;
  }

  /** The last message. */
  end(): MboxMessage[] {
    const messages: MboxMessage[] = [];
    if (this.#rest.length > 0) this.#line(this.#rest, messages);
    this.#rest = Buffer.alloc(0);
    this.#finish(messages);
    return messages;
  }

  #line(line: Buffer, messages: MboxMessage[]): void {
    const isEmpty = isEmptyLine(line);
    if (this.#wasEmpty && line.toString('latin1', 0, 5) === 'From ') {
      this.#finish(messages);
      this.#isIn = true;
      this.#dateMs = dateOf(line.toString('latin1'));
      this.#wasEmpty = false;
      return;
    }
    if (!this.#isIn) {
      if (isEmpty) return;
      throw new PlatformError('PROTO_SYNTAX', 'the file is no mbox: it does not begin with a "From " line');
    }
    const text = /^>+From /.test(line.toString('latin1', 0, 64)) ? line.subarray(1) : line;
    this.#lines.push(text);
    this.#bytes += text.length;
    if (this.#bytes > messageBytesMax)
      throw new PlatformError('PROTO_TOO_LONG', `a message of the mbox file has more than ${messageBytesMax} octets`);
    this.#wasEmpty = isEmpty;
  }

  #finish(messages: MboxMessage[]): void {
    if (this.#isIn) {
      // The empty line before the next `From ` belongs to the file, not to the message.
      const last = this.#lines.at(-1);
      if (this.#lines.length > 1 && last !== undefined && isEmptyLine(last)) this.#lines.pop();
      const raw = Buffer.concat(this.#lines);
      messages.push({ raw, flags: flagsOf(raw), dateMs: this.#dateMs });
    }
    this.#lines = [];
    this.#bytes = 0;
    this.#isIn = false;
  }
}

function isEmptyLine(line: Buffer): boolean {
  return line.at(-1) === 0x0a && (line.length === 1 || (line.length === 2 && line[0] === 0x0d));
}

/** `From sender Thu Nov 24 18:22:48 1986`, in UTC (RFC 4155 appendix A). */
function dateOf(line: string): number | undefined {
  const found = /(\w{3}) +(\w{3}) +(\d{1,2}) +(\d\d:\d\d(?::\d\d)?) +(?:[A-Z]{3,4} +)?(\d{4})/.exec(line);
  const ms = found === null ? Number.NaN : Date.parse(`${found[3]} ${found[2]} ${found[5]} ${found[4]} UTC`);
  return Number.isNaN(ms) ? undefined : ms;
}

/** `Status` and `X-Status`, as mail programs write them into mbox files. */
function flagsOf(raw: Buffer): string[] {
  const head = raw.toString('latin1', 0, Math.min(raw.length, 65_536)).split(/\r?\n\r?\n/)[0] ?? '';
  const letters = [...head.matchAll(/^(?:X-)?Status: *([A-Z]*)/gim)].map(([, text]) => text?.toUpperCase() ?? '').join('');
  const names: Readonly<Record<string, string>> = { R: '\\Seen', A: '\\Answered', F: '\\Flagged', D: '\\Deleted', T: '\\Draft' };
  return Object.entries(names).flatMap(([letter, flag]) => (letters.includes(letter) ? [flag] : []));
}

/** Flags in the name of a file of a Maildir: `1700000000.M1P1.host:2,FS`. */
export function maildirFlags(fileName: string): string[] {
  const letters = /[:;!]2,([A-Za-z]*)$/.exec(fileName)?.[1] ?? '';
  const names: Readonly<Record<string, string>> = {
    S: '\\Seen',
    R: '\\Answered',
    F: '\\Flagged',
    T: '\\Deleted',
    D: '\\Draft',
    P: '$Forwarded',
  };
  return Object.entries(names).flatMap(([letter, flag]) => (letters.includes(letter) ? [flag] : []));
}

/** Mailbox of a folder of Maildir++: `.Sent.2024` is `Sent/2024`, in modified UTF-7 (RFC 3501 §5.1.3); `undefined` for other directories. */
export function maildirFolder(directoryName: string): string | undefined {
  if (!/^\.[^.]/.test(directoryName)) return undefined;
  return directoryName.slice(1).split('.').map(fromModifiedUtf7).join('/');
}

function fromModifiedUtf7(name: string): string {
  return name.replace(/&([^-]*)-/g, (_, encoded: string) =>
    encoded === '' ? '&' : Buffer.from(encoded.replaceAll(',', '/'), 'base64').swap16().toString('utf16le'),
  );
}
