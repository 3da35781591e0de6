/**
 * What a client shows to be somebody, on its way from a dialogue to whoever judges it, and what this frontend offers to take.
 */

import type { TlsFacts } from '#common/network/network.ts';
import type { TokenVerifier } from '#common/oauth/token-verifier.ts';
import { Secret } from '#common/secret.ts';
import type { LinkLogin } from '#protocol/link/messages.ts';
import type { BearerHints } from '#protocol/sasl/bearer.ts';

/** See the header of this file. */
export type Credentials =
  | { readonly kind: 'password'; readonly password: Secret<string> }
  | { readonly kind: 'token'; readonly mechanism: 'OAUTHBEARER' | 'XOAUTH2'; readonly token: Secret<string> }
  /** A finished SCRAM exchange. */
  | { readonly kind: 'scram'; readonly authMessage: string; readonly proof: Secret<string> };

/** A password. */
export function passwordOf(password: string): Credentials {
  return { kind: 'password', password: new Secret(password) };
}

/** The same for a member. `name`: the account's, as the client gave it. */
export function linkLoginOf(name: string, credentials: Credentials): LinkLogin {
  switch (credentials.kind) {
    case 'password':
      return { mechanism: 'PLAIN', authorizationId: '', authenticationId: name, password: credentials.password.reveal() };
    case 'token':
      return { mechanism: 'BEARER', authenticationId: name, token: credentials.token.reveal() };
    case 'scram':
      return {
        mechanism: 'SCRAM-SHA-256',
        authenticationId: name,
        authMessage: credentials.authMessage,
        proof: credentials.proof.reveal(),
      };
  }
}

/** What a frontend takes beside passwords. */
export interface SaslSettings {
  /** Access tokens; missing where none are taken. */
  readonly tokens?: { readonly verifier: TokenVerifier; readonly hints: BearerHints } | undefined;
  /** SCRAM; missing where it is not offered. */
  readonly scram?: { readonly secret: Secret<string>; readonly iterations: number } | undefined;
}

/** Mechanisms that can work on a connection on which passwords may be sent. */
export function mechanismsOf(settings: SaslSettings, tls: TlsFacts | undefined): readonly string[] {
  const found = ['PLAIN', 'LOGIN'];
  if (settings.scram !== undefined) found.push('SCRAM-SHA-256');
  if (settings.scram !== undefined && tls?.channelBinding !== undefined) found.push('SCRAM-SHA-256-PLUS');
  if (settings.tokens !== undefined) found.push('OAUTHBEARER', 'XOAUTH2');
  return found;
}
