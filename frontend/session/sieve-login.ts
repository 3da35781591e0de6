/**
 * The ManageSieve dialogue until login (RFC 5804 §1.7, §2): capabilities, STARTTLS and AUTHENTICATE. Everything after the OK is the server's that has the
 * account's scripts.
 *
 * Which extensions of Sieve there are depends on that server, and nobody is logged in yet: the greeting names what the listener's configuration says, and
 * without it none. Clients ask again once they are in.
 */
import type { PlatformError } from '#common/errors/platform-error.ts';
import { sieveReplies } from '#common/errors/wire.ts';
import { loginLimits, SieveLineDecoder, type SieveToken } from '#protocol/managesieve/decoder.ts';
import { sieveAnswer, sieveString } from '#protocol/managesieve/response.ts';
import { mechanismsOf } from './credentials.ts';
import { SaslDialogue } from './sasl-dialogue.ts';

/** See the header of this file. */
export class SieveLogin extends SaslDialogue {
  readonly protocol = 'managesieve';
  protected readonly hasFinalData = true;
  /** Until the dialogue is over. */
  #decoder: SieveLineDecoder | undefined = new SieveLineDecoder(loginLimits);

  protected override greet(): void {
    this.write(`${this.#capabilities()}${sieveAnswer('OK', 'ManageSieve server ready')}`);
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
    this.#decoder = new SieveLineDecoder(loginLimits);
    this.breakOff();
  }

  /** RFC 5804 §2.2: after the handshake the server says its capabilities again. */
  protected override secured(): void {
    this.write(`${this.#capabilities()}${sieveAnswer('OK', 'TLS is active')}`);
  }

  protected override farewell(why: 'timeout' | 'limit' | 'unavailable' | 'protocol', text: string): string {
    // RFC 5804 §1.3: TRYLATER is for what passes.
    return sieveAnswer('BYE', text, why === 'protocol' ? undefined : 'TRYLATER');
  }

  protected override advance(): boolean {
    const event = this.#decoder?.next();
    if (event === undefined) return false;
    if (event.type === 'fatal') this.finish(this.farewell('protocol', capitalised(event.reason)), 'protocol-error');
    else if (event.type === 'bad') {
      this.breakOff();
      if (this.countCommand('bad-command')) this.write(sieveAnswer('NO', capitalised(event.reason)));
    } else if (this.isExchanging) {
      const [answer, ...more] = event.tokens;
      // RFC 5804 §2.1: an answer is a string; `"*"` cancels.
      this.answer(answer?.kind === 'string' && more.length === 0 ? answer.text : '*');
    } else this.#command(event.tokens);
    return true;
  }

  #command(tokens: readonly SieveToken[]): void {
    const [first, ...given] = tokens;
    const name = first?.kind === 'atom' ? first.text.toUpperCase() : '';
    if (!this.countCommand(/^[A-Z]{3,14}$/.test(name) ? name.toLowerCase() : 'bad-command')) return;
    switch (name) {
      case 'CAPABILITY': // RFC 5804 §2.4
        this.write(`${this.#capabilities()}${sieveAnswer('OK', 'Done')}`);
        return;
      case 'NOOP': {
        // RFC 5804 §2.13: what came with it goes back in a code
        const tag = given[0]?.kind === 'string' ? `TAG ${sieveString(given[0].text)}` : undefined;
        this.write(sieveAnswer('OK', 'Done', tag));
        return;
      }
      case 'LOGOUT': // RFC 5804 §2.3
        this.finish(sieveAnswer('OK', 'Goodbye'), 'logged-out');
        return;
      case 'STARTTLS': // RFC 5804 §2.2
        if (given.length > 0) this.write(sieveAnswer('NO', 'STARTTLS takes no arguments'));
        else if (this.connection.tls !== undefined) this.write(sieveAnswer('NO', 'TLS is active already'));
        else if (!this.maySecure) this.write(sieveAnswer('NO', 'TLS is not offered here'));
        else this.startTls(sieveAnswer('OK', 'Begin TLS'));
        return;
      case 'AUTHENTICATE': // RFC 5804 §2.1
        this.#authenticate(given);
        return;
      default:
        this.write(sieveAnswer('NO', 'Unknown command, or not before login'));
    }
  }

  #authenticate(given: readonly SieveToken[]): void {
    const [mechanism, initial] = given;
    if (mechanism?.kind !== 'string' || given.length > 2 || (initial !== undefined && initial.kind !== 'string')) {
      this.write(sieveAnswer('NO', 'AUTHENTICATE takes a mechanism and at most one response, both strings'));
    } else if (!mechanismsOf(this.options.sasl ?? {}, this.connection.tls).includes(mechanism.text.toUpperCase())) {
      this.write(sieveAnswer('NO', 'Unknown mechanism'));
    } else if (!this.mayLogIn) this.write(sieveAnswer('NO', 'TLS is needed first', 'ENCRYPT-NEEDED'));
    else {
      this.authenticate(mechanism.text.toUpperCase(), initial?.text, {
        welcome: (_capabilities, data) => sieveAnswer('OK', 'Logged in', data === undefined ? undefined : `SASL ${sieveString(data)}`),
        refusal: refusalOf,
        broken: (_why, text) => sieveAnswer('NO', text),
      });
    }
  }

  protected override ask(challenge: string): void {
    this.write(`${sieveString(challenge)}\r\n`);
  }

  #capabilities(): string {
    const lines = [
      ['IMPLEMENTATION', 'Archipelago'],
      ['SASL', this.mechanisms.join(' ')],
      ['SIEVE', this.options.listener.sieveExtensions ?? ''],
      ['VERSION', '1.0'],
    ].map(([name, value]) => `${sieveString(name as string)} ${sieveString(value as string)}\r\n`);
    return `${lines.join('')}${this.maySecure ? '"STARTTLS"\r\n' : ''}`;
  }
}

/** Before login an unknown account and a wrong password are one thing. */
function refusalOf(error: PlatformError): string {
  const { code, text } = sieveReplies[error.kind === 'not-found' ? 'auth' : error.kind];
  // A limit before login is not one of the account's.
  return sieveAnswer('NO', text, error.kind === 'limit' ? 'TRYLATER' : code);
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
