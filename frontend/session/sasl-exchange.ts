/**
 * The server's side of a SASL exchange (RFC 4422), whatever protocol carries it: PLAIN, LOGIN, SCRAM-SHA-256 and -PLUS, OAUTHBEARER, XOAUTH2. It
 * is fed the client's messages in base64 and says what to do next; who performs that is the dialogue.
 *
 *   begin/answer ─► ask: send a challenge, feed the answer
 *                ─► salt: find out what the account's SCRAM exchange begins with, then `salted`
 *                ─► log-in: have it judged, then `succeeded` or `failed`
 *                ─► broken: the exchange is over, and nobody was judged
 *   succeeded/failed ─► over, or a challenge more (SCRAM's signature, the reason why a token was refused)
 */

import type { PlatformError } from '#common/errors/platform-error.ts';
import type { TlsFacts } from '#common/network/network.ts';
import type { Random } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { bearerRefusal, parseOauthBearer, parseXoauth2 } from '#protocol/sasl/bearer.ts';
import { decodeSaslBase64, loginPrompts, parsePlain } from '#protocol/sasl/plain.ts';
import { authMessage, parseClientFinal, parseClientFirst, type ScramClientFirst, serverFirst } from '#protocol/sasl/scram.ts';
import { type Credentials, passwordOf, type SaslSettings } from './credentials.ts';

/** What to do next. */
export type SaslStep =
  /** Base64, perhaps empty. */
  | { readonly kind: 'ask'; readonly challenge: string }
  | { readonly kind: 'salt'; readonly loginName: string }
  | { readonly kind: 'log-in'; readonly loginName: string; readonly credentials: Credentials }
  /** `text` is for the client. */
  | { readonly kind: 'broken'; readonly why: 'malformed' | 'not-permitted'; readonly text: string }
  /** `outcome` is told to the client; with `ok`, `data` (base64) goes with it where the protocol has room for that. */
  | { readonly kind: 'over'; readonly ok: boolean; readonly data?: string };

/** What an exchange is made of. */
export interface SaslExchangeOptions {
  readonly settings: SaslSettings;
  readonly tls: TlsFacts | undefined;
  readonly random: Random;
  /** The protocol can send data with a success (RFC 4422 §3.6): ManageSieve. The others send a challenge, which the client answers with nothing. */
  readonly hasFinalData: boolean;
}

/** RFC 9266 §2. */
const bindingName = 'tls-exporter';
const nonceBytes = 18;

type State =
  | { readonly at: 'first' }
  | { readonly at: 'login-password'; readonly user: string }
  | { readonly at: 'salt'; readonly first: ScramClientFirst }
  | { readonly at: 'scram-final'; readonly first: ScramClientFirst; readonly server: string; readonly nonce: string }
  | { readonly at: 'judging' }
  | { readonly at: 'last-word'; readonly ok: boolean };

/** See the header of this file. */
export class SaslExchange {
  readonly #mechanism: string;
  readonly #options: SaslExchangeOptions;
  #state: State = { at: 'first' };

  /** @param mechanism one of those that `mechanismsOf` names for the connection */
  constructor(mechanism: string, options: SaslExchangeOptions) {
    this.#mechanism = mechanism;
    this.#options = options;
  }

  /** `initial`: the response that came with the command, if one did. */
  begin(initial: string | undefined): SaslStep {
    if (initial !== undefined) return this.answer(initial);
    return { kind: 'ask', challenge: this.#mechanism === 'LOGIN' ? loginPrompts.user : '' };
  }

  /** The client's next message. */
  answer(text: string): SaslStep {
    const state = this.#state;
    // RFC 9051 §6.2.2, RFC 5034 §4, RFC 4954 §4: a lone `*` cancels. After a refusal there is nothing left to cancel.
    if (state.at === 'last-word') return state.ok && text !== '' && text !== '=' ? broken('Cancelled') : { kind: 'over', ok: state.ok };
    const message = text === '*' ? undefined : decodeSaslBase64(text);
    if (message === undefined) return broken(text === '*' ? 'Cancelled' : 'Not base64');
    if (state.at === 'login-password') return this.#judge(state.user, passwordOf(message));
    if (state.at === 'scram-final') return this.#scramFinal(state, message);
    return this.#first(message);
  }

  /** The salt that was asked for. */
  salted({ salt, iterations }: { readonly salt: string; readonly iterations: number }): SaslStep {
    const state = this.#state;
    if (state.at !== 'salt') return broken('Not expected');
    const ownNonce = this.#options.random.bytes(nonceBytes).toString('base64');
    const server = serverFirst(state.first.nonce, ownNonce, salt, iterations);
    this.#state = { at: 'scram-final', first: state.first, server, nonce: `${state.first.nonce}${ownNonce}` };
    return ask(server);
  }

  /** The login was right. */
  succeeded(serverSignature: string | undefined): SaslStep {
    if (serverSignature === undefined) return { kind: 'over', ok: true };
    const final = `v=${serverSignature}`;
    if (this.#options.hasFinalData) return { kind: 'over', ok: true, data: Buffer.from(final).toString('base64') };
    this.#state = { at: 'last-word', ok: true };
    return ask(final);
  }

  /** The login was refused. */
  failed(error: PlatformError): SaslStep {
    const isToken = this.#mechanism === 'OAUTHBEARER' || this.#mechanism === 'XOAUTH2';
    // What is temporary says nothing of the token, and a client that heard so might throw it away.
    if (!isToken || (error.kind !== 'auth' && error.kind !== 'not-found')) return { kind: 'over', ok: false };
    this.#state = { at: 'last-word', ok: false };
    return ask(bearerRefusal(this.#mechanism as 'OAUTHBEARER' | 'XOAUTH2', this.#options.settings.tokens?.hints ?? {}));
  }

  #first(message: string): SaslStep {
    switch (this.#mechanism) {
      case 'PLAIN': {
        const plain = parsePlain(message);
        if (plain === undefined) return broken('Malformed PLAIN message');
        // RFC 4616 §2: acting for somebody else is a right that nobody has here.
        if (plain.authorizationId !== '' && plain.authorizationId !== plain.authenticationId) return notPermitted();
        return this.#judge(plain.authenticationId, passwordOf(plain.password));
      }
      case 'LOGIN':
        this.#state = { at: 'login-password', user: message };
        return { kind: 'ask', challenge: loginPrompts.password };
      case 'OAUTHBEARER':
      case 'XOAUTH2': {
        const mechanism = this.#mechanism;
        const bearer = mechanism === 'OAUTHBEARER' ? parseOauthBearer(message) : parseXoauth2(message);
        if (bearer === undefined) return broken(`Malformed ${mechanism} message`);
        return this.#judge(bearer.name, { kind: 'token', mechanism, token: new Secret(bearer.token) });
      }
      default:
        return this.#scramFirst(message);
    }
  }

  #scramFirst(message: string): SaslStep {
    const first = parseClientFirst(message);
    if (first === undefined) return broken('Malformed SCRAM message');
    const { binding } = first;
    const isBound = typeof binding === 'object';
    if (isBound !== this.#mechanism.endsWith('-PLUS') || (isBound && binding.name !== bindingName)) {
      return broken('Channel binding not as the mechanism has it');
    }
    // RFC 5802 §6: a client that would bind and was told that we cannot has been lied to.
    if (binding === 'y' && this.#options.tls?.channelBinding !== undefined) return broken('Channel binding is offered here');
    if (first.authorizationId !== '' && first.authorizationId !== first.name) return notPermitted();
    this.#state = { at: 'salt', first };
    return { kind: 'salt', loginName: first.name };
  }

  #scramFinal(state: Extract<State, { at: 'scram-final' }>, message: string): SaslStep {
    const final = parseClientFinal(message);
    if (final === undefined || final.nonce !== state.nonce) return broken('Malformed SCRAM message');
    const { gs2Header, binding, bare, name } = state.first;
    const data = typeof binding === 'object' ? this.#options.tls?.channelBinding?.() : Buffer.alloc(0);
    if (data === undefined || !final.channelBinding.equals(Buffer.concat([Buffer.from(gs2Header), data]))) {
      return broken('Channel binding does not match');
    }
    const message3 = authMessage(bare, state.server, final.withoutProof);
    return this.#judge(name, { kind: 'scram', authMessage: message3, proof: new Secret(final.proof) });
  }

  #judge(loginName: string, credentials: Credentials): SaslStep {
    this.#state = { at: 'judging' };
    return { kind: 'log-in', loginName, credentials };
  }
}

function ask(text: string): SaslStep {
  return { kind: 'ask', challenge: Buffer.from(text).toString('base64') };
}

function broken(text: string): SaslStep {
  return { kind: 'broken', why: 'malformed', text };
}

function notPermitted(): SaslStep {
  return { kind: 'broken', why: 'not-permitted', text: 'Not permitted' };
}
