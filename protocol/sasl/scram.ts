/**
 * SCRAM (RFC 5802) with SHA-256 (RFC 7677) and, over TLS 1.3, bound to the connection by tls-exporter (RFC 9266): messages taken apart and
 * written. Who keeps the exchange is a frontend (session/sasl-exchange.ts), who has the keys is a member (common/passwords/scram-keys.ts).
 *
 *   C: n,,n=user,r=CLIENT                  client-first; what follows `n,,` is its bare part
 *   S: r=CLIENT+SERVER,s=salt,i=4096       server-first
 *   C: c=biws,r=CLIENT+SERVER,p=proof      client-final; all before `,p=` is its part without proof
 *   S: v=signature                         server-final
 */
import { decodeSaslName } from './bearer.ts';

/** The client's first message. */
export interface ScramClientFirst {
  /** `n`: the client has no channel binding; `y`: it has, and thinks that the server has not; else the name of the binding it uses. */
  readonly binding: 'n' | 'y' | { readonly name: string };
  readonly gs2Header: string;
  readonly authorizationId: string;
  readonly name: string;
  readonly nonce: string;
  readonly bare: string;
}

/** Takes the client's first message apart; `undefined` when it is malformed, or asks for an extension that is not known (RFC 5802 §5.1, `m=`). */
export function parseClientFirst(message: string): ScramClientFirst | undefined {
  const parts =
    /^((?:([ny])|p=([A-Za-z0-9.-]+)),(?:a=((?:[^,=]|=2C|=3D)+))?,)(n=((?:[^,=]|=2C|=3D)+),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?)$/s.exec(
      message,
    );
  if (parts === null) return undefined;
  const [, gs2Header, flag, binding, authorizationId = '', bare, name, nonce] = parts;
  return {
    binding: binding === undefined ? (flag as 'n' | 'y') : { name: binding },
    gs2Header: gs2Header as string,
    authorizationId: decodeSaslName(authorizationId),
    name: decodeSaslName(name as string),
    nonce: nonce as string,
    bare: bare as string,
  };
}

/** The server's first message; `serverNonce` is of this exchange alone. */
export function serverFirst(clientNonce: string, serverNonce: string, salt: string, iterations: number): string {
  return `r=${clientNonce}${serverNonce},s=${salt},i=${iterations}`;
}

/** The client's final message. */
export interface ScramClientFinal {
  /** GS2 header and channel binding data, as the client saw them. */
  readonly channelBinding: Buffer;
  readonly nonce: string;
  /** Base64. */
  readonly proof: string;
  readonly withoutProof: string;
}

/** Takes the client's final message apart; `undefined` when it is malformed. */
export function parseClientFinal(message: string): ScramClientFinal | undefined {
  const base64 = '(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?';
  const parts = new RegExp(`^(c=(${base64}),r=([\\x21-\\x2b\\x2d-\\x7e]+)(?:,.*?)?),p=(${base64})$`, 's').exec(message);
  if (parts === null) return undefined;
  const [, withoutProof, binding, nonce, proof] = parts;
  return {
    channelBinding: Buffer.from(binding as string, 'base64'),
    nonce: nonce as string,
    proof: proof as string,
    withoutProof: withoutProof as string,
  };
}

/** RFC 5802 §3: both first messages without the GS2 header, and the final one without its proof. */
export function authMessage(clientFirstBare: string, first: string, finalWithoutProof: string): string {
  return `${clientFirstBare},${first},${finalWithoutProof}`;
}
