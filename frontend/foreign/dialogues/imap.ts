/**
 * IMAP at a foreign server: ID if wanted (RFC 2971), STARTTLS if wanted, then LOGIN, or AUTHENTICATE PLAIN (RFC 9051 §6.2.2, RFC 4959) for names and
 * passwords that a quoted string cannot hold and for master users.
 *
 *   greeting ──► [T STARTTLS ──► TLS] ──► [I ID …] L LOGIN … ──► L OK ──► done
 *                                                                   └─ no capabilities in it ──► C CAPABILITY ──► done
 */
import {
  answerTo,
  type ForeignCredentials,
  type ForeignDialogue,
  type ForeignDialogueOptions,
  type ForeignStep,
  failed,
  read,
  saslOf,
} from './dialogue.ts';

/** Response codes of a tagged NO that say nothing about name and password (RFC 5530 §3, RFC 9051 §7.1). */
const passingCodes = /^\[(?:UNAVAILABLE|SERVERBUG|LIMIT|INUSE|CONTACTADMIN|OVERQUOTA)\b/i;
const settingCodes = /^\[(?:PRIVACYREQUIRED|CANNOT|CLIENTBUG)\b/i;

/** See the header of this file. */
export class ForeignImap implements ForeignDialogue {
  readonly opening: string;
  readonly #options: ForeignDialogueOptions;
  #state: 'greeting' | 'starttls' | 'login' | 'capability' = 'greeting';
  #capabilities: readonly string[] | undefined;
  #hasSent = false;
  readonly #usesSasl: boolean;

  constructor(options: ForeignDialogueOptions) {
    this.#options = options;
    this.#usesSasl = needsSasl(options.credentials);
    this.opening = options.early && !options.startTls ? this.#login() : '';
  }

  secured(): string {
    this.#state = 'login';
    return this.#login();
  }

  line(text: string): ForeignStep {
    if (this.#state === 'greeting') return this.#greeting(text);
    const capabilities = text.startsWith('* ') ? /^\* CAPABILITY (.*)$/i.exec(text) : null;
    if (capabilities !== null) this.#capabilities = words(capabilities[1] as string);
    if (text.startsWith('* ') && /^\* BYE\b/i.test(text)) return failed('NET_CLOSED', `the server said goodbye: ${text}`);
    if (this.#state === 'starttls') {
      if (/^T OK\b/i.test(text)) return { kind: 'secure' };
      return text.startsWith('T ') ? failed('FOREIGN_REFUSED', `STARTTLS was refused: ${text}`) : read;
    }
    if (this.#state === 'capability') {
      return text.startsWith('C ') ? { kind: 'done', capabilities: afterLogin(this.#capabilities ?? []) } : read;
    }
    if (text.startsWith('+') && this.#usesSasl) {
      // A server without SASL-IR asks for the message it has been sent already as part of the line.
      return { kind: 'send', bytes: `${answerTo(this.#options.credentials, text.slice(1))}\r\n` };
    }
    if (!text.startsWith('L ')) return read;
    return this.#loggedIn(text.slice(2));
  }

  #greeting(text: string): ForeignStep {
    if (/^\* BYE\b/i.test(text)) return failed('NET_CLOSED', `the server turned the connection away: ${text}`);
    if (!/^\* (?:OK|PREAUTH)\b/i.test(text)) return failed('FOREIGN_PROTOCOL', `"${text}" came where an IMAP greeting was expected`);
    if (this.#options.startTls) {
      this.#state = 'starttls';
      return { kind: 'send', bytes: 'T STARTTLS\r\n' };
    }
    this.#state = 'login';
    return this.#hasSent ? read : { kind: 'send', bytes: this.#login() };
  }

  #loggedIn(answer: string): ForeignStep {
    if (/^OK\b/i.test(answer)) {
      const inAnswer = /^OK \[CAPABILITY ([^\]]*)\]/i.exec(answer);
      if (inAnswer !== null) return { kind: 'done', capabilities: afterLogin(words(inAnswer[1] as string)) };
      if (this.#capabilities !== undefined) return { kind: 'done', capabilities: afterLogin(this.#capabilities) };
      this.#state = 'capability';
      return { kind: 'send', bytes: 'C CAPABILITY\r\n' };
    }
    const text = answer.replace(/^(?:NO|BAD) ?/i, '');
    if (passingCodes.test(text)) return failed('FOREIGN_UNAVAILABLE', `the login was put off: ${answer}`);
    if (/^BAD\b/i.test(answer) || settingCodes.test(text)) return failed('FOREIGN_REFUSED', `the login was not taken: ${answer}`);
    return failed('AUTH_FAILED', `the server refused name or password: ${answer}`);
  }

  #login(): string {
    this.#hasSent = true;
    const { credentials, client } = this.#options;
    const id =
      client === undefined
        ? ''
        : `I ID ("x-originating-ip" "${client.address}" "x-originating-port" "${client.port}" "x-connected-ip" "${client.localAddress}" "x-connected-port" "${client.localPort}" "x-session-id" "${client.sessionId}")\r\n`;
    const { authenticationId, password } = credentials;
    if (!this.#usesSasl) return `${id}L LOGIN ${quoted(authenticationId)} ${quoted(password)}\r\n`;
    const { mechanism, message } = saslOf(credentials);
    return `${id}L AUTHENTICATE ${mechanism} ${message}\r\n`;
  }
}

// RFC 9051 §9: a quoted string holds neither line ends nor NUL, and before ENABLE UTF8 no octets above 127.
function needsSasl({ authenticationId, authorizationId, password, token }: ForeignCredentials): boolean {
  return token !== undefined || authorizationId !== '' || !/^[\x20-\x7e]*$/.test(authenticationId + password);
}

function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

function words(text: string): string[] {
  return text.split(' ').filter((word) => word !== '');
}

/** What concerns the time before login is the frontend's own. */
function afterLogin(capabilities: readonly string[]): readonly string[] {
  return capabilities.filter((word) => !/^(?:STARTTLS|LOGINDISABLED|SASL-IR|AUTH=.*)$/i.test(word));
}
