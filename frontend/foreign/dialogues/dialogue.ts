/**
 * The client's side of a login at a foreign server, one line at a time. A dialogue is fed the server's lines and says what to do next; it
 * knows no sockets, so a test feeds it text. Each protocol has one, beside this file.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { bearerMessage } from '#protocol/sasl/bearer.ts';

/** Whom to log in, and as whom. */
export interface ForeignCredentials {
  /** Name whose password is sent: the account's, or the master user's. */
  readonly authenticationId: string;
  readonly password: string;
  /** Set when the two names differ and the server is told so by SASL. */
  readonly authorizationId: string;
  /** Passed on instead of a password. */
  readonly token?: { readonly mechanism: 'OAUTHBEARER' | 'XOAUTH2'; readonly value: string };
}

/** The client, as the server is told of it; `undefined` tells it nothing. */
export interface ForwardedClient {
  readonly address: string;
  readonly port: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly sessionId: string;
}

/** What a dialogue is made of. */
export interface ForeignDialogueOptions {
  readonly credentials: ForeignCredentials;
  /** TLS is to be started on command. */
  readonly startTls: boolean;
  /** Send the login before the greeting has come. Not together with `startTls`. */
  readonly early: boolean;
  /** Told by a command of the protocol; the PROXY header is not the dialogue's. */
  readonly client: ForwardedClient | undefined;
}

/** What to do after a line. */
export type ForeignStep =
  | { readonly kind: 'read' }
  | { readonly kind: 'send'; readonly bytes: string }
  /** Begin the TLS handshake; `secured` gives what follows it. */
  | { readonly kind: 'secure' }
  /** Logged in. `capabilities`: what the server offers now, if its protocol says so. */
  | { readonly kind: 'done'; readonly capabilities: readonly string[] }
  | { readonly kind: 'failed'; readonly error: PlatformError };

/** See the header of this file. */
export interface ForeignDialogue {
  /** Sent as soon as the connection stands; empty when the server is to speak first. */
  readonly opening: string;
  /** Takes a line, without its end. */
  line(text: string): ForeignStep;
  /** Sent once TLS stands. */
  secured(): string;
}

/** Longest message of an error. */
const messageMax = 300;

/** Go on reading. */
export const read: ForeignStep = { kind: 'read' };

/** The login came to nothing. `AUTH_FAILED` is said of name and password alone; everything else is temporary. */
export function failed(
  code: 'AUTH_FAILED' | 'NET_CLOSED' | 'FOREIGN_REFUSED' | 'FOREIGN_PROTOCOL' | 'FOREIGN_UNAVAILABLE',
  message: string,
): ForeignStep {
  return { kind: 'failed', error: new PlatformError(code, message) };
}

/** The mechanism, and its first message in base64: PLAIN (RFC 4616), or the one that the client's token came by. */
export function saslOf(credentials: ForeignCredentials): { readonly mechanism: string; readonly message: string } {
  const { authorizationId, authenticationId, password, token } = credentials;
  if (token === undefined) return { mechanism: 'PLAIN', message: base64(`${authorizationId}\0${authenticationId}\0${password}`) };
  return { mechanism: token.mechanism, message: base64(bearerMessage(token.mechanism, { name: authenticationId, token: token.value })) };
}

/** What to say to a challenge: to an empty one the message, which the server has not taken with the command; to a token's refusal the last word. */
export function answerTo(credentials: ForeignCredentials, challenge: string): string {
  if (challenge.trim() === '') return saslOf(credentials).message;
  // RFC 7628 §3.2.3: a lone 0x01.
  return credentials.token?.mechanism === 'OAUTHBEARER' ? 'AQ==' : credentials.token === undefined ? '*' : '';
}

/** An error that quotes the server, fit for the log: a server may say anything, also what it has just been told. */
export function withoutSecrets(error: PlatformError, credentials: ForeignCredentials): PlatformError {
  const { password, token } = credentials;
  const secrets = [password, password.replace(/["\\]/g, '\\$&'), token?.value ?? '', saslOf(credentials).message];
  const message = secrets.reduce((text, secret) => (secret === '' ? text : text.replaceAll(secret, '***')), error.message);
  if (message === error.message && message.length <= messageMax) return error;
  return new PlatformError(error.code, message.length > messageMax ? `${message.slice(0, messageMax)}…` : message);
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}
