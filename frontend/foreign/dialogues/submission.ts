/**
 * Submission at a foreign server, to have a name and password judged (RFC 4954), and the opening of its LMTP service up to the end of
 * STARTTLS (RFC 3207): EHLO or LHLO, STARTTLS if wanted, XCLIENT if wanted, AUTH PLAIN.
 */
import { parseReplyLine } from '#protocol/smtp/reply.ts';
import { answerTo, type ForeignDialogue, type ForeignDialogueOptions, type ForeignStep, failed, read, saslOf } from './dialogue.ts';

/** See the header of this file. */
export class ForeignSubmission implements ForeignDialogue {
  readonly opening = '';
  readonly #options: ForeignDialogueOptions;
  readonly #hello: string;
  readonly #stopsAfterTls: boolean;
  #state: 'greeting' | 'hello' | 'starttls' | 'secure-hello' | 'xclient' | 'last-hello' | 'auth' = 'greeting';
  readonly #offers = new Set<string>();

  /** @param hello the first command with its argument, e.g. `EHLO front1.eu.isp.example`; LHLO stops once TLS stands */
  constructor(options: ForeignDialogueOptions, hello: string) {
    this.#options = options;
    this.#hello = hello;
    this.#stopsAfterTls = hello.startsWith('LHLO');
  }

  secured(): string {
    this.#offers.clear();
    this.#state = 'secure-hello';
    return `${this.#hello}\r\n`;
  }

  line(text: string): ForeignStep {
    const reply = parseReplyLine(text);
    if (reply === undefined) return failed('FOREIGN_PROTOCOL', `"${text}" came where an SMTP reply was expected`);
    if (this.#state === 'hello' || this.#state === 'secure-hello') this.#offers.add((reply.text.split(' ')[0] ?? '').toUpperCase());
    if (!reply.isLast) return read;
    const isOk = reply.code >= 200 && reply.code < 300;
    switch (this.#state) {
      case 'greeting':
        if (!isOk) return failed('NET_CLOSED', `the server turned the connection away: ${text}`);
        this.#state = 'hello';
        return { kind: 'send', bytes: `${this.#hello}\r\n` };
      case 'hello':
        if (!isOk) return failed('FOREIGN_REFUSED', `${this.#hello} was refused: ${text}`);
        if (!this.#options.startTls) return this.#authenticate();
        this.#state = 'starttls';
        return { kind: 'send', bytes: 'STARTTLS\r\n' };
      case 'starttls':
        return isOk ? { kind: 'secure' } : failed('FOREIGN_REFUSED', `STARTTLS was refused: ${text}`);
      case 'secure-hello':
        if (!isOk) return failed('FOREIGN_REFUSED', `${this.#hello} was refused: ${text}`);
        return this.#stopsAfterTls ? { kind: 'done', capabilities: [...this.#offers] } : this.#authenticate();
      case 'xclient':
        // The session begins anew, with 220 (the server's XCLIENT page); one that refuses goes on where it was.
        this.#state = 'last-hello';
        return { kind: 'send', bytes: `${this.#hello}\r\n` };
      case 'last-hello':
        this.#state = 'auth';
        return { kind: 'send', bytes: this.#auth() };
      case 'auth':
        if (reply.code === 334) return { kind: 'send', bytes: `${answerTo(this.#options.credentials, reply.text)}\r\n` };
        return this.#judged(reply.code, text);
    }
  }

  #authenticate(): ForeignStep {
    const { client } = this.#options;
    if (client !== undefined && this.#offers.has('XCLIENT')) {
      this.#state = 'xclient';
      return { kind: 'send', bytes: `XCLIENT ADDR=${client.address} PORT=${client.port}\r\n` };
    }
    this.#state = 'auth';
    return { kind: 'send', bytes: this.#auth() };
  }

  #auth(): string {
    const { mechanism, message } = saslOf(this.#options.credentials);
    return `AUTH ${mechanism} ${message}\r\n`;
  }

  #judged(code: number, text: string): ForeignStep {
    if (code === 235) return { kind: 'done', capabilities: [] };
    if (code === 535 || code === 534) return failed('AUTH_FAILED', `the server refused name or password: ${text}`);
    return failed(code < 500 ? 'FOREIGN_UNAVAILABLE' : 'FOREIGN_REFUSED', `AUTH was not taken: ${text}`);
  }
}
