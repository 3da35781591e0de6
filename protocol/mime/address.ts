/**
 * Address lists of From, To and the like, in the shape that IMAP's ENVELOPE wants them (RFC 9051 §7.5.2): display name, source route,
 * local part, domain; groups as a start marker (host NIL), their members, and an end marker (all NIL). Encoded words stay encoded.
 */
import { readQuoted, skipComment } from './structured-value.ts';

/** `[name, route, mailbox, host]`; a group starts with host `null`, and ends with mailbox and host `null`. */
export type EnvelopeAddress = readonly [name: string | null, route: string | null, mailbox: string | null, host: string | null];

/** Addresses kept of one field; the rest is dropped from the envelope (the header itself still has them). */
export const addressesMax = 1000;

const special = '<>,;:@';

interface Token {
  readonly kind: 'word' | 'quoted' | 'comment' | 'special' | 'domain-literal';
  readonly text: string;
  /** White space stood before it. */
  readonly spaced: boolean;
}

/** Reads an address list; what is malformed is read as well as it can be. */
export function parseAddresses(value: string): EnvelopeAddress[] {
  const tokens = tokenise(value);
  const out: EnvelopeAddress[] = [];
  let inGroup = false;
  let from = 0;
  let inAngle = false;
  for (let at = 0; at <= tokens.length && out.length < addressesMax; at += 1) {
    const token = tokens[at];
    const mark = token?.kind === 'special' ? token.text : undefined;
    if (mark === '<') inAngle = true;
    if (mark === '>') inAngle = false;
    if (token !== undefined && (inAngle || (mark !== ',' && mark !== ';' && mark !== ':'))) continue;
    if (mark === ':' && !inGroup) {
      out.push([null, null, phrase(tokens.slice(from, at)), null]);
      inGroup = true;
    } else {
      const address = addressFrom(tokens.slice(from, at));
      if (address !== undefined) out.push(address);
      if ((mark === ';' || token === undefined) && inGroup) {
        out.push([null, null, null, null]);
        inGroup = false;
      }
    }
    from = at + 1;
  }
  if (inGroup) out.push([null, null, null, null]);
  return out;
}

function tokenise(text: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let spaced = false;
  while (at < text.length) {
    const c = text[at] as string;
    if (c === ' ' || c === '\t') {
      spaced = true;
      at += 1;
      continue;
    }
    if (c === '"') {
      const quoted = readQuoted(text, at);
      tokens.push({ kind: 'quoted', text: quoted.text, spaced });
      at = quoted.at;
    } else if (c === '(') {
      const end = skipComment(text, at);
      tokens.push({ kind: 'comment', text: text.slice(at + 1, end - 1).replaceAll('\\', ''), spaced });
      at = end;
    } else if (c === '[') {
      const close = text.indexOf(']', at);
      const end = close < 0 ? text.length : close + 1;
      tokens.push({ kind: 'domain-literal', text: text.slice(at, end), spaced });
      at = end;
    } else if (special.includes(c)) {
      tokens.push({ kind: 'special', text: c, spaced });
      at += 1;
    } else {
      const start = at;
      while (at < text.length && !` \t"([${special}`.includes(text[at] as string)) at += 1;
      tokens.push({ kind: 'word', text: text.slice(start, at), spaced });
    }
    spaced = false;
  }
  return tokens;
}

function addressFrom(tokens: readonly Token[]): EnvelopeAddress | undefined {
  const open = tokens.findIndex((token) => token.kind === 'special' && token.text === '<');
  if (open < 0) {
    const spec = tokens.filter((token) => token.kind !== 'comment');
    if (spec.length === 0) return undefined;
    const comment = tokens.find((token) => token.kind === 'comment');
    // The old form `user@host (Name)` (RFC 822 §6.1): the comment is the name.
    return [comment === undefined || comment.text === '' ? null : comment.text, null, ...mailboxAndHost(spec)];
  }
  const close = tokens.findIndex((token, index) => index > open && token.kind === 'special' && token.text === '>');
  let inside = tokens.slice(open + 1, close < 0 ? tokens.length : close).filter((token) => token.kind !== 'comment');
  let route: string | null = null;
  const colon = inside.findIndex((token) => token.kind === 'special' && token.text === ':');
  if (colon >= 0) {
    route = joined(inside.slice(0, colon));
    inside = inside.slice(colon + 1);
  }
  const name = phrase(tokens.slice(0, open));
  return [name === '' ? null : name, route, ...mailboxAndHost(inside)];
}

// Host `null` would say "group" to the client: an address without a domain gets an empty one.
function mailboxAndHost(tokens: readonly Token[]): [string, string] {
  const at = tokens.findLastIndex((token) => token.kind === 'special' && token.text === '@');
  return at < 0 ? [joined(tokens), ''] : [joined(tokens.slice(0, at)), joined(tokens.slice(at + 1))];
}

function joined(tokens: readonly Token[]): string {
  return tokens.map((token) => token.text).join('');
}

function phrase(tokens: readonly Token[]): string {
  let out = '';
  for (const token of tokens) {
    if (token.kind === 'comment') continue;
    out += (out !== '' && token.spaced ? ' ' : '') + token.text;
  }
  return out;
}
