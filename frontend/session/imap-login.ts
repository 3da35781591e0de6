/**
 * The IMAP dialogue until login (RFC 9051 §3.1, §6.1, §6.2): what a client may do before it is somebody. Everything after the tagged OK
 * is the member's.
 */

import type { PlatformError } from '#common/errors/platform-error.ts';
import { imapReplies } from '#common/errors/wire.ts';
import { ImapLoginDecoder, type ImapLoginEvent } from '#protocol/imap/login-decoder.ts';
import { mechanismsOf, passwordOf } from './credentials.ts';
import type { LoginResult } from './open-session.ts';
import { SaslDialogue } from './sasl-dialogue.ts';

const byeOfLostMember = '* BYE [UNAVAILABLE] The mailbox is not available, connect again\r\n';

/** See the header of this file. */
export class ImapLogin extends SaslDialogue {
  readonly protocol = 'imap';
  protected readonly hasFinalData = false;
  /** Until the dialogue is over. */
  #decoder: ImapLoginDecoder | undefined = new ImapLoginDecoder();
  /** Tag of the exchange under way. */
  #tag: string | undefined;

  protected override greet(): void {
    this.write(`* OK [CAPABILITY ${this.#capabilities()}] IMAP server ready\r\n`);
  }

  protected override push(chunk: Buffer): void {
    this.#decoder?.push(chunk);
  }

  protected override takeRest(): Buffer | undefined {
    const rest = this.#decoder?.takeRest();
    this.#decoder = undefined;
    return rest;
  }

  protected override reset(): void {
    this.#decoder = new ImapLoginDecoder();
    this.breakOff();
  }

  protected override farewell(why: 'timeout' | 'limit' | 'unavailable' | 'protocol', text: string): string {
    return why === 'unavailable' ? `* BYE [UNAVAILABLE] ${text}\r\n` : `* BYE ${text}\r\n`;
  }

  override lastWords(piece: Buffer | undefined): string | undefined {
    return piece === undefined || isWholeLine(piece) ? byeOfLostMember : undefined;
  }

  protected override advance(): boolean {
    const event = this.#decoder?.next();
    if (event === undefined) return false;
    switch (event.type) {
      case 'continue':
        this.write('+ Ready for the literal\r\n');
        return true;
      case 'line':
        this.answer(event.text);
        return true;
      case 'bad':
        if (this.countCommand('bad-command')) this.write(this.#badReply(event));
        return true;
      case 'fatal':
        this.finish(this.farewell('protocol', capitalised(event.reason)), 'protocol-error');
        return true;
      case 'command':
        if (this.countCommand(event.name.toLowerCase())) this.#command(event.tag, event.name, event.arguments);
        return true;
    }
  }

  #badReply(event: Extract<ImapLoginEvent, { type: 'bad' }>): string {
    const tag = this.isExchanging ? this.#tag : event.tag;
    this.breakOff();
    const code = event.reason === 'literal too large' ? '[TOOBIG] ' : '';
    return `${tag ?? '*'} BAD ${code}${capitalised(event.reason)}\r\n`;
  }

  #command(tag: string, name: string, given: readonly string[]): void {
    switch (name) {
      case 'CAPABILITY': // RFC 9051 §6.1.1
        this.write(`* CAPABILITY ${this.#capabilities()}\r\n${tag} OK Done\r\n`);
        return;
      case 'NOOP': // RFC 9051 §6.1.2
        this.write(`${tag} OK Done\r\n`);
        return;
      case 'ID': // RFC 2971 §3.1: a server need not tell a stranger what it is
        this.write(`* ID NIL\r\n${tag} OK Done\r\n`);
        return;
      case 'LOGOUT': // RFC 9051 §6.1.3
        this.finish(`* BYE Goodbye\r\n${tag} OK Done\r\n`, 'logged-out');
        return;
      case 'STARTTLS': // RFC 9051 §6.2.1
        if (given.length > 0) this.write(`${tag} BAD STARTTLS takes no arguments\r\n`);
        else if (this.connection.tls !== undefined) this.write(`${tag} BAD TLS is active already\r\n`);
        else if (!this.maySecure) this.write(`${tag} NO [UNAVAILABLE] TLS is not offered here\r\n`);
        else this.startTls(`${tag} OK Begin TLS\r\n`);
        return;
      case 'LOGIN': // RFC 9051 §6.2.3
        if (given.length !== 2) this.write(`${tag} BAD LOGIN takes a name and a password\r\n`);
        else if (this.#mayLogIn(tag)) this.#logIn(tag, given[0] as string, given[1] as string);
        return;
      case 'AUTHENTICATE': // RFC 9051 §6.2.2
        this.#authenticate(tag, given);
        return;
      default:
        this.write(`${tag} BAD Unknown command, or not before login\r\n`);
    }
  }

  #authenticate(tag: string, given: readonly string[]): void {
    const mechanism = given[0]?.toUpperCase();
    if (mechanism === undefined || given.length > 2) {
      this.write(`${tag} BAD AUTHENTICATE takes a mechanism and at most one response\r\n`);
    } else if (!mechanismsOf(this.options.sasl ?? {}, this.connection.tls).includes(mechanism)) {
      this.write(`${tag} NO [CANNOT] Unknown mechanism\r\n`);
    } else if (this.#mayLogIn(tag)) {
      this.#tag = tag;
      // RFC 4959 §3: the response may come with the command.
      this.authenticate(mechanism, given[1], {
        welcome: (capabilities) => welcome(tag, capabilities),
        refusal: (error) => `${tag} ${refusalOf(error)}\r\n`,
        broken: (why, text) => (why === 'malformed' ? `${tag} BAD ${text}\r\n` : `${tag} NO [AUTHORIZATIONFAILED] ${text}\r\n`),
      });
    }
  }

  protected override ask(challenge: string): void {
    this.#decoder?.expectLine();
    this.write(`+ ${challenge}\r\n`);
  }

  #mayLogIn(tag: string): boolean {
    // RFC 5530 §3
    if (!this.mayLogIn) this.write(`${tag} NO [PRIVACYREQUIRED] TLS is needed first\r\n`);
    return this.mayLogIn;
  }

  #logIn(tag: string, name: string, password: string): void {
    const words = (result: LoginResult): string =>
      result.ok ? welcome(tag, result.capabilities) : `${tag} ${refusalOf(result.error)}\r\n`;
    this.login(name, passwordOf(password), { judged: words, settled: words });
  }

  #capabilities(): string {
    const words = this.maySecure ? 'IMAP4rev1 LITERAL+ SASL-IR ID STARTTLS' : 'IMAP4rev1 LITERAL+ SASL-IR ID';
    // RFC 9051 §6.2.3
    if (!this.mayLogIn) return `${words} LOGINDISABLED`;
    return `${words} AUTH=${this.mechanisms.join(' AUTH=')}`;
  }
}

function welcome(tag: string, capabilities: readonly string[]): string {
  return `${tag} OK [CAPABILITY ${memberCapabilities(capabilities)}] Logged in\r\n`;
}

/** RFC 9051 §7.2.2: the list names the protocol itself; a member may leave that to us. */
function memberCapabilities(capabilities: readonly string[]): string {
  const words = capabilities.join(' ');
  return capabilities.some((word) => word.toLowerCase() === 'imap4rev1') ? words : `IMAP4rev1 ${words}`;
}

/** Before login an unknown account and a wrong password are one thing. */
function refusalOf(error: PlatformError): string {
  const { status, code, text } = imapReplies[error.kind === 'not-found' ? 'auth' : error.kind];
  return `${status} [${code}] ${text}`;
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Longest line that is looked at. */
const lineBytesMax = 512;

/**
 * Whether what a member sent ends with a line of the protocol. A line of a message in a literal could look like one only on purpose, and
 * all it would get is a BYE in a literal whose end never comes.
 */
function isWholeLine(piece: Buffer): boolean {
  const last = piece.length - 1;
  if (piece[last] !== 0x0a) return false;
  const first = Math.max(0, piece.length - lineBytesMax);
  let from = last;
  while (from > first && piece[from - 1] !== 0x0a) from -= 1;
  const line = piece.toString('latin1', from);
  return /^(\+ |\* (\d+ (EXISTS|RECENT|EXPUNGE|FETCH \()|OK|VANISHED|STATUS|LIST|FLAGS)|[^ "(){%*\\]{1,100} (OK|NO|BAD) ).*(?<!\})\r\n$/.test(
    line,
  );
}
