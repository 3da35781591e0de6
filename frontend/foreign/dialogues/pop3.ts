/**
 * POP3 at a foreign server: XCLIENT if wanted, STLS if wanted (RFC 2595 §4), then USER and PASS in one piece (RFC 2449 §6.6), or AUTH PLAIN (RFC 5034) for
 * master users and for passwords that no line can hold.
 */
import { answerTo, type ForeignDialogue, type ForeignDialogueOptions, type ForeignStep, failed, read, saslOf } from './dialogue.ts';

/** Response codes that say nothing about name and password (RFC 2449 §8.1, RFC 3206 §4). */
const passingCodes = /^-ERR \[(?:SYS\/|IN-USE|LOGIN-DELAY)/i;

type Awaited = 'greeting' | 'stls' | 'xclient' | 'user' | 'pass' | 'auth';

/** See the header of this file. */
export class ForeignPop3 implements ForeignDialogue {
  readonly opening: string;
  readonly #options: ForeignDialogueOptions;
  /** Answers to come, in order. */
  readonly #awaited: Awaited[] = ['greeting'];

  constructor(options: ForeignDialogueOptions) {
    this.#options = options;
    this.opening = options.early && !options.startTls ? this.#login() : '';
  }

  secured(): string {
    return this.#login();
  }

  line(text: string): ForeignStep {
    const awaited = this.#awaited.shift();
    const isOk = /^\+OK\b/i.test(text);
    switch (awaited) {
      case 'greeting':
        if (!isOk)
          return failed(/^-ERR\b/i.test(text) ? 'NET_CLOSED' : 'FOREIGN_PROTOCOL', `"${text}" came where a POP3 greeting was expected`);
        if (this.#options.startTls) {
          this.#awaited.push('stls');
          return { kind: 'send', bytes: 'STLS\r\n' };
        }
        return this.#awaited.length > 0 ? read : { kind: 'send', bytes: this.#login() };
      case 'stls':
        return isOk ? { kind: 'secure' } : failed('FOREIGN_REFUSED', `STLS was refused: ${text}`);
      case 'xclient':
        // A server that does not trust us says so, and serves all the same.
        return read;
      case 'user':
        // Some servers refuse an unknown name here; the PASS that is on its way is then refused as well.
        return read;
      case 'auth':
        if (text.startsWith('+ ') || text === '+') {
          this.#awaited.push('auth');
          return { kind: 'send', bytes: `${answerTo(this.#options.credentials, text.slice(1))}\r\n` };
        }
        return this.#loggedIn(text, isOk);
      default:
        return this.#loggedIn(text, isOk);
    }
  }

  #loggedIn(text: string, isOk: boolean): ForeignStep {
    if (isOk) return { kind: 'done', capabilities: [] };
    if (passingCodes.test(text)) return failed('FOREIGN_UNAVAILABLE', `the login was put off: ${text}`);
    return failed('AUTH_FAILED', `the server refused name or password: ${text}`);
  }

  #login(): string {
    const { credentials, client } = this.#options;
    const lines: string[] = [];
    if (client !== undefined) {
      lines.push(`XCLIENT ADDR=${client.address} PORT=${client.port} SESSION=${client.sessionId}`);
      this.#awaited.push('xclient');
    }
    const { authenticationId, authorizationId, password, token } = credentials;
    if (token !== undefined || authorizationId !== '' || /[\r\n\0]/.test(authenticationId + password) || /\s/.test(authenticationId)) {
      const { mechanism, message } = saslOf(credentials);
      lines.push(`AUTH ${mechanism} ${message}`);
      this.#awaited.push('auth');
    } else {
      lines.push(`USER ${authenticationId}`, `PASS ${password}`);
      this.#awaited.push('user', 'pass');
    }
    return `${lines.join('\r\n')}\r\n`;
  }
}
