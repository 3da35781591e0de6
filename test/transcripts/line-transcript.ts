/**
 * Runs transcripts of protocols that speak in lines: POP3, LMTP, SMTP.
 *
 *   C: STAT            is sent with CRLF
 *   C+: a\r\nb         is sent as it stands, `\r\n` and `\n` written out
 *   S: +OK <*>         must come next; `<*>` stands for any text within the line
 *   S: ...             skips lines until the next `S:` line matches
 *   S: (closed)        the server closes the connection
 *   X: what            something that happens elsewhere, done by the test
 *
 * Anything else is a sentence for the reader.
 */
import { expect } from 'vitest';
import type { Connection } from '#common/network/network.ts';

/** The client's end of a dialogue in lines. */
export class LineClient {
  readonly connection: Connection;
  isClosed = false;
  #received = '';
  #wake: (() => void) | undefined;

  constructor(connection: Connection) {
    this.connection = connection;
    connection.handle({
      data: (chunk) => {
        this.#received += chunk.toString('latin1');
        this.#wake?.();
      },
      end: () => {
        this.isClosed = true;
        connection.end();
        this.#wake?.();
      },
      close: () => {
        this.isClosed = true;
        this.#wake?.();
      },
    });
  }

  send(text: string): void {
    this.connection.write(Buffer.from(text, 'utf8'));
  }

  /** The next line without its line end; `undefined` once the server has closed. */
  async line(): Promise<string | undefined> {
    for (;;) {
      const end = this.#received.indexOf('\r\n');
      if (end >= 0) {
        const line = this.#received.slice(0, end);
        this.#received = this.#received.slice(end + 2);
        return line;
      }
      if (this.isClosed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Sends a line and gives back the last line of the reply (`250-` lines are passed over). */
  async command(text: string): Promise<string> {
    this.send(`${text}\r\n`);
    return await this.reply();
  }

  /** The last line of the next SMTP reply. */
  async reply(): Promise<string> {
    for (;;) {
      const line = await this.line();
      if (line === undefined) return '(closed)';
      if (line[3] !== '-') return line;
    }
  }

  /** What came and was not read. */
  get unread(): string {
    return this.#received;
  }
}

/** Plays a transcript; `elsewhere` performs its `X:` lines. */
export async function playTranscript(text: string, client: LineClient, elsewhere: (action: string) => Promise<void>): Promise<void> {
  let isSkipping = false;
  for (const [index, line] of text.split('\n').entries()) {
    const where = `line ${index + 1}: ${line}`;
    if (line.startsWith('C: ')) client.send(`${line.slice(3)}\r\n`);
    else if (line.startsWith('C+: ')) client.send(line.slice(4).replaceAll('\\r', '\r').replaceAll('\\n', '\n'));
    else if (line.startsWith('X: ')) await elsewhere(line.slice(3));
    else if (line === 'S: ...') isSkipping = true;
    else if (line === 'S: (closed)') expect(await client.line(), where).toBeUndefined();
    else if (line.startsWith('S: ') || line === 'S:') {
      const expected = line.slice(3);
      let got = await client.line();
      while (isSkipping && got !== undefined && !matches(expected, got)) got = await client.line();
      isSkipping = false;
      if (got === undefined || !matches(expected, got)) expect(got, where).toBe(expected);
    }
  }
  expect(client.unread, 'nothing else came').toBe('');
  client.connection.destroy();
}

function matches(expected: string, got: string): boolean {
  const pieces = expected.split('<*>').map((piece) => piece.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`^${pieces.join('.*')}$`, 's').test(got);
}
