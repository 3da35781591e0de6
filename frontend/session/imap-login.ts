/**
 * The IMAP dialogue until login (RFC 9051 §3.1, §6.1, §6.2): what a client may do before it is somebody. Everything after the tagged OK
 * is the member's.
 */

import type { PlatformError } from '#common/errors/platform-error.ts';
import { imapReplies } from '#common/errors/wire.ts';
import { ImapLoginDecoder, type ImapLoginEvent } from '#protocol/imap/login-decoder.ts';
import { decodeSaslBase64, loginPrompts, parsePlain } from '#protocol/sasl/plain.ts';
import { LoginDialogue } from './login-dialogue.ts';

interface Exchange {
  readonly tag: string;
  readonly mechanism: 'PLAIN' | 'LOGIN';
  /** LOGIN: the name, once it is known. */
  user: string | undefined;
}

/** See the header of this file. */
export class ImapLogin extends LoginDialogue {
  readonly protocol = 'imap';
  #decoder = new ImapLoginDecoder();
  #exchange: Exchange | undefined;

  protected override greet(): void {
    this.write(`* OK [CAPABILITY ${this.#capabilities()}] IMAP server ready\r\n`);
  }

  protected override push(chunk: Buffer): void {
    this.#decoder.push(chunk);
  }

  protected override takeRest(): Buffer {
    return this.#decoder.takeRest();
  }

  protected override reset(): void {
    this.#decoder = new ImapLoginDecoder();
    this.#exchange = undefined;
  }

  protected override farewell(why: 'timeout' | 'limit' | 'unavailable' | 'protocol', text: string): string {
    return why === 'unavailable' ? `* BYE [UNAVAILABLE] ${text}\r\n` : `* BYE ${text}\r\n`;
  }

  protected override advance(): boolean {
    const event = this.#decoder.next();
    if (event === undefined) return false;
    switch (event.type) {
      case 'continue':
        this.write('+ Ready for the literal\r\n');
        return true;
      case 'line':
        this.#answer(event.text);
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
    const tag = this.#exchange?.tag ?? event.tag;
    this.#exchange = undefined;
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
    } else if (mechanism !== 'PLAIN' && mechanism !== 'LOGIN') {
      this.write(`${tag} NO [CANNOT] Unknown mechanism\r\n`);
    } else if (this.#mayLogIn(tag)) {
      this.#exchange = { tag, mechanism, user: undefined };
      const initial = given[1];
      // RFC 4959 §3: the response may come with the command.
      if (initial !== undefined) this.#answer(initial);
      else this.#ask(mechanism === 'PLAIN' ? '' : loginPrompts.user);
    }
  }

  #ask(challenge: string): void {
    this.#decoder.expectLine();
    this.write(`+ ${challenge}\r\n`);
  }

  /** The client's next message in AUTHENTICATE. */
  #answer(text: string): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    this.#exchange = undefined;
    const { tag, mechanism } = exchange;
    // RFC 9051 §6.2.2: a lone `*` cancels.
    const message = text === '*' ? undefined : decodeSaslBase64(text);
    if (message === undefined) {
      this.write(`${tag} BAD ${text === '*' ? 'Cancelled' : 'Not base64'}\r\n`);
      return;
    }
    if (mechanism === 'LOGIN') {
      if (exchange.user !== undefined) {
        this.#logIn(tag, exchange.user, message);
      } else {
        this.#exchange = { ...exchange, user: message };
        this.#ask(loginPrompts.password);
      }
      return;
    }
    const plain = parsePlain(message);
    if (plain === undefined) this.write(`${tag} BAD Malformed PLAIN message\r\n`);
    else if (plain.authorizationId !== '' && plain.authorizationId !== plain.authenticationId) {
      // RFC 4616 §2: acting for somebody else is a right that nobody has here.
      this.write(`${tag} NO [AUTHORIZATIONFAILED] Not permitted\r\n`);
    } else this.#logIn(tag, plain.authenticationId, plain.password);
  }

  #mayLogIn(tag: string): boolean {
    // RFC 5530 §3
    if (!this.mayLogIn) this.write(`${tag} NO [PRIVACYREQUIRED] TLS is needed first\r\n`);
    return this.mayLogIn;
  }

  #logIn(tag: string, name: string, password: string): void {
    this.login(name, password, {
      welcome: (capabilities) => `${tag} OK [CAPABILITY ${memberCapabilities(capabilities)}] Logged in\r\n`,
      refusal: (error) => `${tag} ${refusalOf(error)}\r\n`,
    });
  }

  #capabilities(): string {
    const words = ['IMAP4rev1', 'LITERAL+', 'SASL-IR', 'ID'];
    if (this.maySecure) words.push('STARTTLS');
    if (this.mayLogIn) words.push('AUTH=PLAIN', 'AUTH=LOGIN');
    // RFC 9051 §6.2.3
    else words.push('LOGINDISABLED');
    return words.join(' ');
  }
}

/** RFC 9051 §7.2.2: the list names the protocol itself; a member may leave that to us. */
function memberCapabilities(capabilities: readonly string[]): string {
  return (capabilities.some((word) => /^IMAP4rev1$/i.test(word)) ? capabilities : ['IMAP4rev1', ...capabilities]).join(' ');
}

/** Before login an unknown account and a wrong password are one thing. */
function refusalOf(error: PlatformError): string {
  const { status, code, text } = imapReplies[error.kind === 'not-found' ? 'auth' : error.kind];
  return `${status} [${code}] ${text}`;
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
