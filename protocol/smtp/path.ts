/**
 * Paths and parameters of MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 for UTF-8), with their limits. Source routes are accepted and
 * dropped (RFC 5321 §3.6.1). What is deliverable here is decided elsewhere: a parsed address is only well-formed.
 */

/** Longest path with its angle brackets, octets (RFC 5321 §4.5.3.1.3). */
export const pathBytesMax = 256;
/** Longest local part (RFC 5321 §4.5.3.1.1) and domain (§4.5.3.1.2), octets. */
const localBytesMax = 64;
const domainBytesMax = 255;

/** A mailbox, or the null path of bounces. */
export interface SmtpPath {
  /** `local@domain` with the quotes of a quoted local part taken off where they are not needed; empty for the null path `<>`. */
  readonly address: string;
}

/** Parameters by their keyword in capitals. */
export type SmtpParameters = ReadonlyMap<string, string | undefined>;

/** A path with what follows it, or the sentence that says what is wrong. */
export type PathResult =
  | { readonly ok: true; readonly path: SmtpPath; readonly parameters: SmtpParameters }
  | { readonly ok: false; readonly problem: string };

/** Parses what follows `MAIL FROM:` or `RCPT TO:`. */
export function parsePathAndParameters(text: string, kind: 'reverse' | 'forward'): PathResult {
  const trimmed = text.replace(/^ +/, '');
  const end = pathEnd(trimmed);
  if (end === undefined) return wrong('Path must stand in angle brackets');
  if (Buffer.byteLength(trimmed.slice(0, end)) > pathBytesMax) return wrong('Path is too long');
  const address = withoutRoute(trimmed.slice(1, end - 1));
  if (address === '' && kind === 'forward') return wrong('Empty path');
  const problem = address === '' ? undefined : addressProblem(address);
  if (problem !== undefined) return wrong(problem);
  const parameters = parseParameters(trimmed.slice(end));
  return parameters === undefined ? wrong('Malformed parameters') : { ok: true, path: { address: unquoted(address) }, parameters };
}

/** What is wrong with an address in the syntax of RFC 5321 §4.1.2; `undefined` when nothing is. */
export function addressProblem(address: string): string | undefined {
  const at = address.lastIndexOf('@');
  if (at <= 0 || at === address.length - 1) return 'Address must be local@domain';
  const local = address.slice(0, at);
  const domain = address.slice(at + 1);
  if (Buffer.byteLength(local) > localBytesMax) return 'Local part is too long';
  if (Buffer.byteLength(domain) > domainBytesMax) return 'Domain is too long';
  if (!dotString.test(local) && !quotedString.test(local)) return 'Malformed local part';
  if (!domainName.test(domain) && !addressLiteral.test(domain)) return 'Malformed domain';
  return undefined;
}

// atext of RFC 5322 §3.2.3, and UTF8-non-ascii (RFC 6531 §3.3).
const dotString = /^[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\u{10ffff}]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\u{10ffff}]+)*$/u;
const quotedString = /^"(?:[\u0020\u0021\u0023-\u005b\u005d-\u007e\u0080-\u{10ffff}]|\\[\u0020-\u007e])*"$/u;
const domainName = /^[A-Za-z0-9_\u0080-\u{10ffff}](?:[A-Za-z0-9_.\-\u0080-\u{10ffff}]*[A-Za-z0-9_\u0080-\u{10ffff}])?\.?$/u;
const addressLiteral = /^\[[A-Za-z0-9:.-]{1,64}\]$/;

/** Index behind the closing bracket of a path that begins with `<`; brackets inside quotes do not count. */
function pathEnd(text: string): number | undefined {
  if (text[0] !== '<') return undefined;
  let isQuoted = false;
  for (let i = 1; i < text.length; i += 1) {
    const char = text[i];
    if (isQuoted && char === '\\') i += 1;
    else if (char === '"') isQuoted = !isQuoted;
    else if (char === '>' && !isQuoted) return i + 1;
  }
  return undefined;
}

/** `@a,@b:local@domain` without its route. */
function withoutRoute(path: string): string {
  if (path[0] !== '@') return path;
  const colon = path.indexOf(':');
  return colon < 0 ? path : path.slice(colon + 1);
}

/** `"a.b"@c` is `a.b@c` (RFC 5321 §4.1.2: quoted only where needed). */
function unquoted(address: string): string {
  if (address[0] !== '"') return address;
  const at = address.lastIndexOf('@');
  const bare = address.slice(1, at - 1).replace(/\\(.)/g, '$1');
  return dotString.test(bare) ? bare + address.slice(at) : address;
}

const keyword = /^[A-Za-z0-9][A-Za-z0-9-]*$/;
const value = /^[\u0021-\u003c\u003e-\u007e]+$/;

/** ` KEY=value KEY`; each keyword once. `undefined` when malformed. */
function parseParameters(text: string): SmtpParameters | undefined {
  const parameters = new Map<string, string | undefined>();
  if (text !== '' && text[0] !== ' ') return undefined;
  for (const word of text.split(' ').filter((part) => part !== '')) {
    const equals = word.indexOf('=');
    const key = (equals < 0 ? word : word.slice(0, equals)).toUpperCase();
    const given = equals < 0 ? undefined : word.slice(equals + 1);
    if (!keyword.test(key) || parameters.has(key) || (given !== undefined && !value.test(given))) return undefined;
    parameters.set(key, given);
  }
  return parameters;
}

function wrong(problem: string): PathResult {
  return { ok: false, problem };
}
