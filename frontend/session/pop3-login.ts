/**
 * The POP3 dialogue until login: the AUTHORIZATION state (RFC 1939 §4, §7), CAPA (RFC 2449), STLS (RFC 2595 §4) and AUTH (RFC 5034).
 * Everything after the positive answer is the member's. There is no APOP: it needs passwords in clear on the server.
 */
import type { PlatformError } from '#common/errors/platform-error.ts';
import { pop3Replies } from '#common/errors/wire.ts';
import { Pop3LoginDecoder } from '#protocol/pop3/login-decoder.ts';
import { mechanismsOf, passwordOf } from './credentials.ts';
import type { LoginResult } from './open-session.ts';
import { SaslDialogue } from './sasl-dialogue.ts';

/** See the header of this file. */
export class Pop3Login extends SaslDialogue {
  readonly protocol = 'pop3';
  protected readonly hasFinalData = false;
  /** Until the dialogue is over. */
  #decoder: Pop3LoginDecoder | undefined = new Pop3LoginDecoder();
  /** Name given by USER. */
  #user: string | undefined;

  protected override greet(): void {
    this.write('+OK POP3 server ready\r\n');
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
    this.#decoder = new Pop3LoginDecoder();
    this.#user = undefined;
    this.breakOff();
  }

  protected override farewell(why: 'timeout' | 'limit' | 'unavailable' | 'protocol', text: string): string {
    // RFC 3206 §4: SYS/TEMP says that nothing is wrong with the client's name or password.
    return why === 'protocol' ? `-ERR ${text}\r\n` : `-ERR [SYS/TEMP] ${text}\r\n`;
  }

  protected override advance(): boolean {
    const event = this.#decoder?.next();
    if (event === undefined) return false;
    if (event.type === 'fatal') this.finish('-ERR Line too long\r\n', 'protocol-error');
    else if (event.type === 'bad') {
      this.breakOff();
      if (this.countCommand('bad-command'))
        this.write(`-ERR ${event.reason === 'NUL is not allowed' ? event.reason : 'Lines end with CRLF'}\r\n`);
    } else if (this.isExchanging) this.answer(event.text);
    else this.#command(event.text);
    return true;
  }

  #command(line: string): void {
    const space = line.indexOf(' ');
    const name = (space < 0 ? line : line.slice(0, space)).toUpperCase();
    // PASS takes the rest of the line as it is: a password may hold spaces (RFC 1939 §7).
    const argument = space < 0 ? '' : line.slice(space + 1);
    if (!this.countCommand(/^[A-Z]{3,8}$/.test(name) ? name.toLowerCase() : 'bad-command')) return;
    switch (name) {
      case 'CAPA': // RFC 2449 §5
        this.write(['+OK', ...this.#capabilities(), '.', ''].join('\r\n'));
        return;
      case 'QUIT':
        this.finish('+OK Goodbye\r\n', 'logged-out');
        return;
      case 'STLS': // RFC 2595 §4
        if (this.connection.tls !== undefined) this.write('-ERR TLS is active already\r\n');
        else if (!this.maySecure) this.write('-ERR TLS is not offered here\r\n');
        else this.startTls('+OK Begin TLS\r\n');
        return;
      case 'USER': // RFC 1939 §7: the answer is the same for every name
        if (!this.#mayLogIn()) return;
        if (argument === '') this.write('-ERR USER takes a name\r\n');
        else {
          this.#user = argument;
          this.write('+OK\r\n');
        }
        return;
      case 'PASS': {
        const user = this.#user;
        this.#user = undefined;
        if (!this.#mayLogIn()) return;
        if (user === undefined) this.write('-ERR USER comes first\r\n');
        else this.#logIn(user, argument);
        return;
      }
      case 'AUTH':
        this.#authenticate(argument);
        return;
      default:
        this.write('-ERR Unknown command, or not before login\r\n');
    }
  }

  #authenticate(argument: string): void {
    if (argument === '') {
      // Before RFC 5034 clients asked for the list of mechanisms like this, and some still do.
      this.write(['+OK', ...this.mechanisms, '.', ''].join('\r\n'));
      return;
    }
    const [mechanism, initial, ...more] = argument.split(' ');
    const name = mechanism?.toUpperCase();
    if (name === undefined || !mechanismsOf(this.options.sasl ?? {}, this.connection.tls).includes(name)) {
      this.write('-ERR Unknown mechanism\r\n');
    } else if (more.length > 0) this.write('-ERR AUTH takes a mechanism and at most one response\r\n');
    else if (this.#mayLogIn()) {
      // RFC 5034 §4: the response may come with the command.
      this.authenticate(name, initial, {
        welcome: () => '+OK Logged in\r\n',
        refusal: refusalOf,
        broken: (why, text) => `-ERR ${why === 'malformed' ? '' : '[AUTH] '}${text}\r\n`,
      });
    }
  }

  protected override ask(challenge: string): void {
    this.write(`+ ${challenge}\r\n`);
  }

  #mayLogIn(): boolean {
    if (!this.mayLogIn) this.write('-ERR TLS is needed first\r\n');
    return this.mayLogIn;
  }

  #logIn(name: string, password: string): void {
    const words = (result: LoginResult): string => (result.ok ? '+OK Logged in\r\n' : refusalOf(result.error));
    this.login(name, passwordOf(password), { judged: words, settled: words });
  }

  #capabilities(): string[] {
    // RFC 2449 §6; TOP and UIDL are the member's and always there. PIPELINING: what follows the login is handed on to the member.
    const words = ['TOP', 'UIDL', 'RESP-CODES', 'AUTH-RESP-CODE', 'PIPELINING'];
    if (this.maySecure) words.push('STLS');
    if (this.mayLogIn) words.push('USER', `SASL ${this.mechanisms.join(' ')}`);
    return words;
  }
}

function refusalOf(error: PlatformError): string {
  const { code, text } = pop3Replies[error.kind];
  return `-ERR ${code === undefined ? '' : `[${code}] `}${text}\r\n`;
}
