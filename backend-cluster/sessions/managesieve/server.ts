/**
 * ManageSieve after login (RFC 5804): the account's scripts, listed, checked, stored and chosen.
 *
 * A script is checked as a whole before it is stored: what is stored runs, and what the SIEVE capability names is what runs (protocol/sieve/compile.ts).
 * Commands are read one at a time, and their answers go out in order.
 */
import { checkScript, checkScriptSize } from '#backend-cluster/mailboxes/script-changes.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { sieveReplies } from '#common/errors/wire.ts';
import { LineChannel } from '#common/network/line-channel.ts';
import type { Connection } from '#common/network/network.ts';
import { SieveLineDecoder, type SieveToken } from '#protocol/managesieve/decoder.ts';
import { sieveAnswer, sieveString } from '#protocol/managesieve/response.ts';
import { sieveExtensions } from '#protocol/sieve/compile.ts';
import { scriptBytesMax } from '#protocol/sieve/parse.ts';
import type { RunningSession, SessionContext, SessionServer } from '../session.ts';

/** Autologout: at least 30 minutes (RFC 5804 §1.2). */
const idleMaxMs = 30 * 60_000;
/** A client that takes nothing for so long is given up. */
const stalledMaxMs = 5 * 60_000;
/** Lines that are no command before the session is ended. */
const badCommandsMax = 10;
/** A script that is too large is read all the same up to here, so that its client hears why it is not taken. */
const limits = { lineBytesMax: 8_192, literalBytesMax: 4 * scriptBytesMax };

/** Serves one ManageSieve session. */
export const serveManageSieve: SessionServer = (connection, context, ended) => new SieveSession(connection, context, ended);

class SieveSession implements RunningSession {
  readonly #channel: LineChannel;
  readonly #context: SessionContext;
  readonly #decoder = new SieveLineDecoder(limits);
  readonly #stopWatching: () => void;
  #commands = 0;
  #badCommands = 0;
  #outcome: string | undefined;

  constructor(connection: Connection, context: SessionContext, ended: () => void) {
    this.#channel = new LineChannel(connection, context.clock);
    this.#context = context;
    this.#stopWatching = context.account.onChange((change) => {
      if (change.closed) this.bye('Temporarily unavailable, log in again');
    });
    this.#channel.onClose((error) => {
      this.#outcome ??= error === undefined ? 'closed by client' : 'connection lost';
      this.#stopWatching();
      ended();
    });
    void this.#run();
  }

  bye(text: string): void {
    this.#end('ended by server', sieveAnswer('BYE', text, 'TRYLATER'));
  }

  summary(): { readonly commands: number; readonly outcome: string } {
    return { commands: this.#commands, outcome: this.#outcome ?? 'open' };
  }

  #end(outcome: string, lastWords: string): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    this.#channel.write(lastWords);
    this.#channel.end();
  }

  async #run(): Promise<void> {
    try {
      while (this.#outcome === undefined) await this.#next();
    } catch (thrown) {
      const error = asPlatformError(thrown);
      this.#context.log.error({ errCode: error.code, err: error }, `ManageSieve session failed: ${error.message}`);
      this.#end('failed', refusalOf(error, 'BYE'));
    }
  }

  async #next(): Promise<void> {
    const event = this.#decoder.next();
    if (event === undefined) {
      const chunk = await this.#channel.readChunk(idleMaxMs);
      if (chunk !== undefined) this.#decoder.push(chunk);
      else if (this.#channel.hasEnded) {
        this.#outcome ??= 'closed by client';
        this.#channel.end();
      } else this.#end('idle too long', sieveAnswer('BYE', 'Idle too long'));
      return;
    }
    this.#commands += 1;
    if (event.type === 'fatal') return this.#end('protocol error', sieveAnswer('BYE', 'Too long'));
    if (event.type === 'bad') return this.#bad(event.reason);
    let answer: string;
    try {
      answer = await this.#answer(event.tokens);
    } catch (thrown) {
      const error = asPlatformError(thrown);
      if (error.kind === 'bug' || error.kind === 'unavailable') {
        this.#context.log.warn({ errCode: error.code, err: error }, `command refused: ${error.message}`);
      }
      answer = refusalOf(error, 'NO');
    }
    if (this.#outcome === undefined && !(await this.#channel.writeAndWait(answer, stalledMaxMs))) this.#channel.destroy();
  }

  #bad(text: string): void {
    this.#badCommands += 1;
    if (this.#badCommands >= badCommandsMax) this.#end('too many bad commands', sieveAnswer('BYE', 'Too many bad commands'));
    else this.#channel.write(sieveAnswer('NO', text));
  }

  /** The whole answer to a command. */
  async #answer(tokens: readonly SieveToken[]): Promise<string> {
    const [first, ...given] = tokens;
    const { account } = this.#context;
    await this.#context.refresh();
    switch (first?.kind === 'atom' ? first.text.toUpperCase() : '') {
      case 'CAPABILITY': // RFC 5804 §2.4
        return `${this.#capabilities()}${done}`;
      case 'NOOP': // RFC 5804 §2.13
        return given.length === 0 ? done : sieveAnswer('OK', 'Done', `TAG ${sieveString(strings(given, 1)[0])}`);
      case 'LOGOUT': // RFC 5804 §2.3
        this.#end('logged out', sieveAnswer('OK', 'Goodbye'));
        return '';
      case 'LISTSCRIPTS': {
        // RFC 5804 §2.7
        const { texts, active } = account.scripts();
        const names = [...texts.keys()].sort();
        return `${names.map((name) => `${sieveString(name)}${name === active ? ' ACTIVE' : ''}\r\n`).join('')}${done}`;
      }
      case 'GETSCRIPT': {
        // RFC 5804 §2.9
        const [name] = strings(given, 1);
        const text = account.scripts().texts.get(name);
        if (text === undefined) throw new PlatformError('SCRIPT_NOT_FOUND', 'no such script');
        return `{${Buffer.byteLength(text)}}\r\n${text}\r\n${done}`;
      }
      case 'HAVESPACE': {
        // RFC 5804 §2.5
        const [name, size, ...more] = given;
        if (name?.kind !== 'string' || size?.kind !== 'number' || more.length > 0) throw syntax('HAVESPACE takes a name and a size');
        checkScriptSize(Number(size.text));
        account.checkScriptRoom(name.text, Number(size.text));
        return done;
      }
      case 'CHECKSCRIPT': // RFC 5804 §2.12
        checkScript(strings(given, 1)[0]);
        return done;
      case 'PUTSCRIPT': {
        // RFC 5804 §2.6
        const [name, text] = strings(given, 2);
        checkScript(text);
        await account.putScript(name, text);
        return done;
      }
      case 'SETACTIVE': // RFC 5804 §2.8
        await account.activateScript(strings(given, 1)[0]);
        return done;
      case 'DELETESCRIPT': // RFC 5804 §2.10
        await account.deleteScript(strings(given, 1)[0]);
        return done;
      case 'RENAMESCRIPT': {
        // RFC 5804 §2.11
        const [from, to] = strings(given, 2);
        await account.renameScript(from, to);
        return done;
      }
      case 'AUTHENTICATE':
      case 'STARTTLS':
        return sieveAnswer('NO', 'Not after login');
      default:
        throw syntax('Unknown command');
    }
  }

  #capabilities(): string {
    return [
      ['IMPLEMENTATION', 'Archipelago'],
      ['SIEVE', sieveExtensions.join(' ')],
      ['SASL', ''],
      // RFC 5804 §1.7: `redirect` does not run here.
      ['MAXREDIRECTS', '0'],
      ['OWNER', this.#context.accountName()],
      ['VERSION', '1.0'],
    ]
      .map(([name, value]) => `${sieveString(name as string)} ${sieveString(value as string)}\r\n`)
      .join('');
  }
}

const done = sieveAnswer('OK', 'Done');

function strings(given: readonly SieveToken[], count: 1): [string];
function strings(given: readonly SieveToken[], count: 2): [string, string];
function strings(given: readonly SieveToken[], count: number): string[] {
  if (given.length !== count || given.some(({ kind }) => kind !== 'string')) {
    throw syntax(count === 1 ? 'The command takes one string' : `The command takes ${count} strings`);
  }
  return given.map(({ text }) => text);
}

function syntax(text: string): PlatformError {
  return new PlatformError('PROTO_SYNTAX', text);
}

function refusalOf(error: PlatformError, verdict: 'NO' | 'BYE'): string {
  const { code, text } = sieveReplies[error.kind];
  // What is wrong with a script or a command is for its author; other messages are the operator's.
  if (error.code === 'SCRIPT_INVALID' || error.code === 'PROTO_SYNTAX') return sieveAnswer(verdict, error.message);
  if (error.code === 'SCRIPT_ACTIVE') return sieveAnswer(verdict, 'The script is active', 'ACTIVE');
  const which = typeof error.fields.quota === 'string' ? `QUOTA/${error.fields.quota}` : code;
  return sieveAnswer(verdict, error.kind === 'limit' ? 'There is no room for the script' : text, which);
}
