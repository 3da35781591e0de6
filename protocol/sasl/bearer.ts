/**
 * The client's messages of OAUTHBEARER (RFC 7628 §3.1) and of XOAUTH2, which mail clients spoke before there was a standard, and what a server says
 * when a token is refused. The token itself is somebody else's to judge.
 */

/** Who a client says it is, and the token that is to prove it. */
export interface BearerMessage {
  /** Empty where the client leaves it to the token. */
  readonly name: string;
  readonly token: string;
}

/** A lone 0x01, which ends each field and is also the client's answer to a refusal. */
const fieldEnd = '\x01';
/** RFC 6750 §2.1: b64token, after the scheme's name (which has no case) and one space or more. */
const bearerPattern = /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i;

/** Takes a decoded OAUTHBEARER message apart; `undefined` when it is not one. */
export function parseOauthBearer(message: string): BearerMessage | undefined {
  const end = message.indexOf(fieldEnd);
  // gs2-header (RFC 5801 §4): no channel binding is defined for this mechanism, so `p=` is not for it.
  const header = end < 0 ? null : /^[ny],(?:a=((?:[^,=]|=2C|=3D)+))?,$/.exec(message.slice(0, end));
  if (header === null) return undefined;
  const token = tokenOf(message.slice(end));
  return token === undefined ? undefined : { name: decodeSaslName(header[1] ?? ''), token };
}

/** Takes a decoded XOAUTH2 message apart: `user=name ^A auth=Bearer token ^A ^A`; `undefined` when it is not one. */
export function parseXoauth2(message: string): BearerMessage | undefined {
  const end = message.indexOf(fieldEnd);
  if (end < 0 || !message.startsWith('user=')) return undefined;
  const token = tokenOf(message.slice(end));
  return token === undefined ? undefined : { name: message.slice('user='.length, end), token };
}

/** Fields between separators, from the separator before the first to the two at the end. */
function tokenOf(text: string): string | undefined {
  if (!text.endsWith(`${fieldEnd}${fieldEnd}`)) return undefined;
  const found: string[] = [];
  for (const field of text.slice(1, -2).split(fieldEnd)) {
    // RFC 7628 §3.1: keys are letters; what is not known is passed over.
    const pair = /^([A-Za-z]+)=(.*)$/s.exec(field);
    if (pair === null) return undefined;
    if ((pair[1] as string).toLowerCase() === 'auth') found.push(pair[2] as string);
  }
  if (found.length !== 1) return undefined;
  return bearerPattern.exec(found[0] as string)?.[1];
}

/** A name as GS2 and SCRAM write it: `=2C` is a comma, `=3D` an equals sign (RFC 5801 §4, RFC 5802 §5.1). */
export function decodeSaslName(text: string): string {
  return text.replaceAll('=2C', ',').replaceAll('=3D', '=');
}

/** The same, written. */
export function encodeSaslName(text: string): string {
  return text.replaceAll('=', '=3D').replaceAll(',', '=2C');
}

/** Where a client gets a token, if there is something to say about it. */
export interface BearerHints {
  readonly scope?: string | undefined;
  /** URL of the issuer's OpenID configuration. */
  readonly configuration?: string | undefined;
}

/** What is said of a refused token, before the client's last word: RFC 7628 §3.2.2, or what XOAUTH2's clients expect. Not yet base64. */
export function bearerRefusal(mechanism: 'OAUTHBEARER' | 'XOAUTH2', hints: BearerHints): string {
  const scope = hints.scope === undefined ? {} : { scope: hints.scope };
  if (mechanism === 'XOAUTH2') return JSON.stringify({ status: '401', schemes: 'bearer', ...scope });
  const configuration = hints.configuration === undefined ? {} : { 'openid-configuration': hints.configuration };
  return JSON.stringify({ status: 'invalid_token', ...scope, ...configuration });
}

/** The client's first message, for whoever passes a token on. Not yet base64. */
export function bearerMessage(mechanism: 'OAUTHBEARER' | 'XOAUTH2', message: BearerMessage): string {
  const auth = `auth=Bearer ${message.token}`;
  return mechanism === 'XOAUTH2'
    ? `user=${message.name}${fieldEnd}${auth}${fieldEnd}${fieldEnd}`
    : `n,a=${encodeSaslName(message.name)},${fieldEnd}${auth}${fieldEnd}${fieldEnd}`;
}
