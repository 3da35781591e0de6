/**
 * SASL PLAIN (RFC 4616) and the older LOGIN exchange, as far as a server needs them: the client's messages, decoded.
 */

/** Longest client message accepted, octets after base64: with the command before it, RFC 4954 §4 gives a line 12,288. */
export const saslMessageBytesMax = 9000;

/** What PLAIN carries; the password is what the client sent, unprepared. */
export interface PlainMessage {
  readonly authorizationId: string;
  readonly authenticationId: string;
  readonly password: string;
}

/** Decodes a base64 client message, strictly (RFC 4648 §4): `undefined` when it is malformed, too long or not UTF-8. */
export function decodeSaslBase64(text: string): string | undefined {
  // RFC 4422 §4 and RFC 4959 §3: a lone `=` is an empty initial response.
  if (text === '=' || text === '') return '';
  if (text.length % 4 !== 0 || text.length > Math.ceil(saslMessageBytesMax / 3) * 4 || !/^[A-Za-z0-9+/]+={0,2}$/.test(text))
    return undefined;
  const bytes = Buffer.from(text, 'base64');
  const decoded = bytes.toString('utf8');
  return Buffer.compare(Buffer.from(decoded), bytes) === 0 ? decoded : undefined;
}

/** Takes a decoded PLAIN message apart: `[authzid] NUL authcid NUL passwd` (RFC 4616 §2); `undefined` when it is not one. */
export function parsePlain(message: string): PlainMessage | undefined {
  const parts = message.split('\0');
  if (parts.length !== 3) return undefined;
  const [authorizationId, authenticationId, password] = parts as [string, string, string];
  if (authenticationId === '' || password === '') return undefined;
  return { authorizationId, authenticationId, password };
}

/** Prompts of the LOGIN exchange, base64 of `Username:` and `Password:`. */
export const loginPrompts = { user: 'VXNlcm5hbWU6', password: 'UGFzc3dvcmQ6' } as const;
