/**
 * ManageSieve at a foreign server (RFC 5804): its capabilities up to OK, STARTTLS if wanted, XCLIENT if wanted, AUTHENTICATE PLAIN.
 */
import { answerTo, type ForeignDialogue, type ForeignDialogueOptions, type ForeignStep, failed, read, saslOf } from './dialogue.ts';

/** See the header of this file. */
export class ForeignSieve implements ForeignDialogue {
  readonly opening = '';
  readonly #options: ForeignDialogueOptions;
  #state: 'greeting' | 'starttls' | 'secure-greeting' | 'xclient' | 'login' = 'greeting';

  constructor(options: ForeignDialogueOptions) {
    this.#options = options;
  }

  secured(): string {
    // RFC 5804 §2.2: the server says its capabilities again by itself.
    this.#state = 'secure-greeting';
    return '';
  }

  line(text: string): ForeignStep {
    const verdict = /^(OK|NO|BYE)\b/i.exec(text)?.[1]?.toUpperCase();
    if (verdict === undefined) {
      // A challenge (RFC 5804 §2.1), as a quoted string or a literal: why a token is refused.
      if (this.#state !== 'login' || !/^(?:"|\{)/.test(text)) return read;
      return { kind: 'send', bytes: `"${answerTo(this.#options.credentials, text.replaceAll('"', ''))}"\r\n` };
    }
    if (verdict === 'BYE') return failed('NET_CLOSED', `the server said goodbye: ${text}`);
    switch (this.#state) {
      case 'greeting':
        if (verdict !== 'OK') return failed('FOREIGN_PROTOCOL', `"${text}" came where a ManageSieve greeting was expected`);
        if (!this.#options.startTls) return this.#login();
        this.#state = 'starttls';
        return { kind: 'send', bytes: 'STARTTLS\r\n' };
      case 'starttls':
        return verdict === 'OK' ? { kind: 'secure' } : failed('FOREIGN_REFUSED', `STARTTLS was refused: ${text}`);
      case 'secure-greeting':
        return this.#login();
      case 'xclient':
        // Whatever was said to it: a server that does not trust us serves all the same.
        this.#state = 'login';
        return { kind: 'send', bytes: this.#authenticate() };
      case 'login':
        if (verdict === 'OK') return { kind: 'done', capabilities: [] };
        return /^NO \(TRYLATER\b/i.test(text)
          ? failed('FOREIGN_UNAVAILABLE', `the login was put off: ${text}`)
          : failed('AUTH_FAILED', `the server refused name or password: ${text}`);
    }
  }

  #login(): ForeignStep {
    const { client } = this.#options;
    this.#state = client === undefined ? 'login' : 'xclient';
    if (client === undefined) return { kind: 'send', bytes: this.#authenticate() };
    return { kind: 'send', bytes: `XCLIENT ADDR=${client.address} PORT=${client.port} SESSION=${client.sessionId}\r\n` };
  }

  #authenticate(): string {
    const { mechanism, message } = saslOf(this.#options.credentials);
    return `AUTHENTICATE "${mechanism}" "${message}"\r\n`;
  }
}
