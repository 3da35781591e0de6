/**
 * SASL in a dialogue before login: carries an exchange (sasl-exchange.ts) between the client and the opener. Each protocol says how a challenge, an
 * outcome and a mistake are written.
 */
import type { PlatformError } from '#common/errors/platform-error.ts';
import { mechanismsOf } from './credentials.ts';
import { LoginDialogue } from './login-dialogue.ts';
import { SaslExchange, type SaslStep } from './sasl-exchange.ts';

/** How a protocol words what becomes of an exchange. */
export interface SaslReplies {
  /** `data`: base64, with a success where the protocol has room for it. */
  welcome(capabilities: readonly string[], data: string | undefined): string;
  refusal(error: PlatformError): string;
  broken(why: 'malformed' | 'not-permitted', text: string): string;
}

/** See the header of this file. */
export abstract class SaslDialogue extends LoginDialogue {
  #exchange: { readonly sasl: SaslExchange; readonly replies: SaslReplies } | undefined;

  /** Whether the next line is the client's answer in an exchange. */
  protected get isExchanging(): boolean {
    return this.#exchange !== undefined;
  }

  /** Mechanisms that work on this connection as it is. */
  protected get mechanisms(): readonly string[] {
    return this.mayLogIn ? mechanismsOf(this.options.sasl ?? {}, this.connection.tls) : [];
  }

  protected abstract readonly hasFinalData: boolean;

  /** Writes a challenge (base64, perhaps empty); the client's answer then goes to `answer`. */
  protected abstract ask(challenge: string): void;

  /** Begins an exchange. `mechanism`: one of `mechanisms`. */
  protected authenticate(mechanism: string, initial: string | undefined, replies: SaslReplies): void {
    const { hasFinalData, connection } = this;
    const sasl = new SaslExchange(mechanism, {
      settings: this.options.sasl ?? {},
      tls: connection.tls,
      random: this.options.ports.random,
      hasFinalData,
    });
    this.#exchange = { sasl, replies };
    this.#perform(sasl.begin(initial));
  }

  /** The client's answer to a challenge. */
  protected answer(text: string): void {
    if (this.#exchange !== undefined) this.#perform(this.#exchange.sasl.answer(text));
  }

  /** Forgets the exchange; a login that waits for the client's last word goes with it. */
  protected breakOff(): void {
    this.#exchange = undefined;
    this.abandonLogin();
  }

  #perform(step: SaslStep): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    const { sasl, replies } = exchange;
    switch (step.kind) {
      case 'ask':
        this.ask(step.challenge);
        return;
      case 'broken':
        this.breakOff();
        this.write(replies.broken(step.why, step.text));
        return;
      case 'salt':
        this.scramSalt(step.loginName, (answer) => {
          if (answer.ok) return this.#perform(sasl.salted(answer));
          this.#exchange = undefined;
          this.write(replies.refusal(answer.error));
        });
        return;
      case 'log-in':
        this.login(step.loginName, step.credentials, {
          judged: (result) => {
            const after = result.ok ? sasl.succeeded(result.serverSignature) : sasl.failed(result.error);
            if (after.kind !== 'over') {
              this.#perform(after);
              return 'hold';
            }
            this.#exchange = undefined;
            return result.ok ? replies.welcome(result.capabilities, after.data) : replies.refusal(result.error);
          },
          settled: (result) => (result.ok ? replies.welcome(result.capabilities, undefined) : replies.refusal(result.error)),
        });
        return;
      case 'over':
        this.#exchange = undefined;
        this.settleLogin();
    }
  }
}
