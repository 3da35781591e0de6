/**
 * POP3 after login (RFC 1939, RFC 2449, RFC 3206): the transaction and update states.
 *
 *   frontend logs in ─► TRANSACTION ── QUIT ──► UPDATE: deletions committed ─► +OK, or -ERR when they were not
 *                           ├── lost line, idle too long, bye ──► nothing is deleted
 *                           └── the account moves ──► at rest between two commands; another member goes on with the same numbers and marks
 *
 * Commands are read one at a time, which serves pipelining clients (RFC 2449 §6.6); their answers go out in order. A message is written in
 * chunks and each waits until the connection has room.
 */

import { asPlatformError, type PlatformError } from '#common/errors/platform-error.ts';
import { pop3Replies } from '#common/errors/wire.ts';
import { LineChannel } from '#common/network/line-channel.ts';
import type { Connection } from '#common/network/network.ts';
import { type Pop3Command, parsePop3Command, pop3CommandBytesMax } from '#protocol/pop3/commands.ts';
import { topOf } from '#protocol/pop3/top.ts';
import { dotStuffed } from '#protocol/smtp/dot-stuffing.ts';
import { stateBytesMax } from '../handovers.ts';
import type { RunningSession, SessionContext, SessionServer } from '../session.ts';
import { Maildrop, type MaildropImage, type MaildropMessage } from './maildrop.ts';

/** CAPA after login (RFC 2449 §5); the frontend adds what concerns login while there is none. */
export const pop3Capabilities: readonly string[] = [
  'TOP',
  'UIDL',
  'RESP-CODES',
  'AUTH-RESP-CODE',
  'PIPELINING',
  'EXPIRE NEVER',
  'IMPLEMENTATION Archipelago',
];

/** Autologout: at least ten minutes (RFC 1939 §3). */
const idleMaxMs = 10 * 60_000;
/** A client that takes nothing for so long is given up. */
const stalledMaxMs = 5 * 60_000;
/** Lines that are no command before the session is ended. */
const badCommandsMax = 10;
/** Piece of a message that is written before waiting for room. */
const chunkBytes = 64 * 1024;

/** A session at rest, for another member to go on with. */
interface Pop3State {
  readonly maildrop: MaildropImage;
  /** The beginning of a line that has come, each octet as a character. */
  readonly held: string;
}

/** Serves one POP3 session. */
export const servePop3: SessionServer = (connection, context, ended) => new Pop3Session(connection, context, ended);

class Pop3Session implements RunningSession {
  readonly #channel: LineChannel;
  readonly #context: SessionContext;
  readonly #stopWatching: () => void;
  #commands = 0;
  #badCommands = 0;
  /** Inside a multi-line answer nothing else may be written. */
  #isInAnswer = false;
  #outcome: string | undefined;
  /** Set once the session is to go on at another member. */
  #moving: PromiseWithResolvers<object | undefined> | undefined;
  /** It has come to rest and says nothing more. */
  #isAtRest = false;

  constructor(connection: Connection, context: SessionContext, ended: () => void) {
    this.#channel = new LineChannel(connection, context.clock);
    this.#context = context;
    this.#stopWatching = context.account.onChange((change) => {
      if (change.closed) this.bye('Temporarily unavailable, log in again');
    });
    this.#channel.onClose((error) => {
      this.#outcome ??= error === undefined ? 'closed by client' : 'connection lost';
      this.#stopWatching();
      this.#moving?.resolve(undefined);
      ended();
    });
    void this.#run();
  }

  moveAway(): Promise<object | undefined> {
    this.#moving ??= Promise.withResolvers();
    return this.#moving.promise;
  }

  bye(text: string): void {
    if (this.#isAtRest) return;
    this.#outcome ??= 'ended by server';
    if (this.#isInAnswer) {
      // A line of ours in the midst of a message would become part of it.
      this.#channel.destroy();
      return;
    }
    this.#channel.write(`-ERR [SYS/TEMP] ${text}\r\n`);
    this.#channel.end();
  }

  summary(): { readonly commands: number; readonly outcome: string } {
    return { commands: this.#commands, outcome: this.#outcome ?? 'open' };
  }

  async #run(): Promise<void> {
    try {
      const resumed = this.#context.resume as Pop3State | undefined;
      const { account } = this.#context;
      const maildrop = resumed === undefined ? Maildrop.open(account) : Maildrop.restore(account, resumed.maildrop);
      if (maildrop === undefined) return this.#close('INBOX replaced', '-ERR [SYS/TEMP] The mailbox was replaced, connect again');
      if (resumed !== undefined) this.#channel.unread(Buffer.from(resumed.held, 'latin1'));
      while (this.#outcome === undefined) await this.#next(maildrop);
    } catch (thrown) {
      const error = asPlatformError(thrown);
      this.#context.log.error({ errCode: error.code, err: error }, `POP3 session failed: ${error.message}`);
      this.#close('failed', `-ERR ${codeAndText(error)}`);
    }
  }

  async #next(maildrop: Maildrop): Promise<void> {
    const result = await this.#channel.readLine({ bytesMax: pop3CommandBytesMax, timeoutMs: idleMaxMs, strict: false });
    if (this.#outcome !== undefined) return;
    if (result.kind === 'ended') return this.#moving === undefined ? this.#close('closed by client') : this.#rest(maildrop);
    // RFC 1939 §3: autologout closes without removing anything and without an answer; RFC 2449 allows a response code, so one is given.
    if (result.kind === 'timeout') return this.#close('idle too long', '-ERR [SYS/TEMP] Idle too long');
    if (result.kind === 'too-long') return this.#close('line too long', '-ERR Command line too long');
    this.#commands += 1;
    const parsed = parsePop3Command(result.line);
    if (!parsed.ok) {
      this.#badCommands += 1;
      if (this.#badCommands >= badCommandsMax) return this.#close('too many bad commands', '-ERR Too many bad commands');
      this.#channel.write(`-ERR ${parsed.problem}\r\n`);
      return;
    }
    try {
      await this.#perform(parsed.command, maildrop);
    } catch (thrown) {
      this.#failed(asPlatformError(thrown));
    }
  }

  /** Comes to rest. What is too large to be sent ends; nothing is deleted then. */
  #rest(maildrop: Maildrop): void {
    const state: Pop3State = { maildrop: maildrop.image(), held: this.#channel.takeRest().toString('latin1') };
    if (JSON.stringify(state).length > stateBytesMax) {
      this.#close('cannot be moved', '-ERR [SYS/TEMP] The mailbox is served elsewhere now, connect again');
      this.#moving?.resolve(undefined);
      return;
    }
    this.#isAtRest = true;
    this.#outcome = 'moved to another member';
    this.#stopWatching();
    this.#moving?.resolve(state);
  }

  async #perform(command: Pop3Command, maildrop: Maildrop): Promise<void> {
    switch (command.verb) {
      case 'STAT': {
        const present = maildrop.present();
        return this.#line(`+OK ${present.length} ${totalBytes(present)}`);
      }
      case 'LIST':
        return await this.#listing(maildrop, command.message, (message) => `${message.sizeBytes}`);
      case 'UIDL':
        return await this.#listing(maildrop, command.message, (message) => message.uniqueId);
      case 'RETR':
        return await this.#text(maildrop, command.message, (raw) => raw);
      case 'TOP':
        return await this.#text(maildrop, command.message, (raw) => topOf(raw, command.lines));
      case 'DELE': {
        const message = maildrop.find(command.message);
        if (message === undefined) return this.#noSuchMessage();
        maildrop.mark(message);
        return this.#line(`+OK Message ${message.number} will be deleted`);
      }
      case 'NOOP':
        return this.#line('+OK');
      case 'RSET': {
        maildrop.unmarkAll();
        const present = maildrop.present();
        return this.#line(`+OK ${present.length} messages (${totalBytes(present)} octets)`);
      }
      case 'CAPA':
        return await this.#lines('+OK Capability list follows', pop3Capabilities);
      case 'QUIT':
        return await this.#quit(maildrop);
    }
  }

  async #quit(maildrop: Maildrop): Promise<void> {
    const count = maildrop.markedCount;
    try {
      await maildrop.commit();
    } catch (thrown) {
      // RFC 1939 §6: the client must learn that messages are still there.
      const error = asPlatformError(thrown);
      this.#context.log.warn({ errCode: error.code, messages: count }, `POP3 deletions were not committed: ${error.message}`);
      return this.#close('deletions failed', `-ERR [SYS/TEMP] Deleted messages were not removed`);
    }
    this.#close('quit', count === 0 ? '+OK Bye' : `+OK ${count} messages deleted, bye`);
  }

  /** LIST and UIDL: one message, or all that have no mark. */
  async #listing(maildrop: Maildrop, number: number | undefined, show: (message: MaildropMessage) => string): Promise<void> {
    if (number === undefined) {
      const present = maildrop.present();
      return await this.#lines(
        `+OK ${present.length} messages`,
        present.map((message) => `${message.number} ${show(message)}`),
      );
    }
    const message = maildrop.find(number);
    if (message === undefined) return this.#noSuchMessage();
    this.#line(`+OK ${message.number} ${show(message)}`);
  }

  async #text(maildrop: Maildrop, number: number, part: (raw: Buffer) => Buffer): Promise<void> {
    const message = maildrop.find(number);
    if (message === undefined) return this.#noSuchMessage();
    const raw = await maildrop.read(message);
    if (this.#outcome !== undefined) return;
    if (raw === undefined) return this.#line('-ERR The message was removed by another session');
    await this.#multiLine(`+OK ${message.sizeBytes} octets`, dotStuffed(part(raw)));
  }

  async #lines(first: string, lines: readonly string[]): Promise<void> {
    const body = lines.map((line) => `${line}\r\n`).join('');
    await this.#multiLine(first, [Buffer.from(`${body}.\r\n`)]);
  }

  async #multiLine(first: string, parts: readonly Buffer[]): Promise<void> {
    this.#isInAnswer = true;
    try {
      for (const chunk of chunked(Buffer.from(`${first}\r\n`), parts)) {
        if (await this.#channel.writeAndWait(chunk, stalledMaxMs)) continue;
        this.#outcome ??= 'client reads nothing';
        this.#channel.destroy();
        return;
      }
    } finally {
      this.#isInAnswer = false;
    }
  }

  #line(text: string): void {
    this.#channel.write(`${text}\r\n`);
  }

  #noSuchMessage(): void {
    this.#line('-ERR No such message');
  }

  #failed(error: PlatformError): void {
    this.#context.log.warn({ errCode: error.code }, `POP3 command failed: ${error.message}`);
    if (this.#context.account.isOpen) this.#line(`-ERR ${codeAndText(error)}`);
    else this.#close('account closed', '-ERR [SYS/TEMP] Temporarily unavailable, log in again');
  }

  #close(outcome: string, lastLine?: string): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    if (lastLine !== undefined) this.#line(lastLine);
    this.#channel.end();
  }
}

function totalBytes(messages: readonly MaildropMessage[]): number {
  return messages.reduce((sum, message) => sum + message.sizeBytes, 0);
}

/** After login a missing object is no failed authentication, so `not-found` gets no response code. */
function codeAndText(error: PlatformError): string {
  if (error.kind === 'not-found' || error.kind === 'auth') return 'No such message';
  const reply = pop3Replies[error.kind];
  return reply.code === undefined ? reply.text : `[${reply.code}] ${reply.text}`;
}

/** Joins small pieces and cuts large ones, so that each write is about `chunkBytes`. */
function* chunked(first: Buffer, parts: readonly Buffer[]): Generator<Buffer> {
  let pending: Buffer[] = [first];
  let pendingBytes = first.length;
  for (const part of parts) {
    for (let at = 0; at < part.length; at += chunkBytes) {
      const piece = part.subarray(at, at + chunkBytes);
      pending.push(piece);
      pendingBytes += piece.length;
      if (pendingBytes < chunkBytes) continue;
      yield Buffer.concat(pending);
      pending = [];
      pendingBytes = 0;
    }
  }
  if (pendingBytes > 0) yield Buffer.concat(pending);
}
