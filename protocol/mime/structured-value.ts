/**
 * Structured header values (RFC 2045 §5.1, RFC 2183 §2): a value, then `; name=value` parameters, with quoted strings and comments.
 * RFC 2231 continuations and charsets (`name*0*=`) are left as they are: IMAP hands them to the client raw.
 *
 * Written as one pass over the characters. What is malformed is read as far as it makes sense, never refused: it is somebody's mail.
 */

/** `text/plain; charset=utf-8` as its parts; names and the value in lower case, parameter values as written. */
export interface StructuredValue {
  readonly value: string;
  readonly params: readonly (readonly [name: string, value: string])[];
}

/** Parameters kept of one field. */
export const parametersMax = 100;

/** Reads a value with parameters. */
export function parseStructured(text: string): StructuredValue {
  let at = skipSpace(text, 0);
  const head = readUntil(text, at, ';');
  at = head.at;
  const params: [string, string][] = [];
  while (at < text.length && params.length < parametersMax) {
    at = skipSpace(text, at + 1);
    const name = readUntil(text, at, '=;');
    at = name.at;
    if (text[at] !== '=') continue;
    const value = readUntil(text, skipSpace(text, at + 1), ';');
    at = value.at;
    if (name.text !== '') params.push([name.text.toLowerCase(), value.text]);
  }
  return { value: head.text.toLowerCase(), params };
}

/** The value of a parameter. */
export function parameter(value: StructuredValue, name: string): string | undefined {
  return value.params.find(([candidate]) => candidate === name)?.[1];
}

/** Skips white space and comments, which may be nested and escaped. */
export function skipSpace(text: string, from: number): number {
  let at = from;
  for (;;) {
    while (text[at] === ' ' || text[at] === '\t') at += 1;
    if (text[at] !== '(') return at;
    at = skipComment(text, at);
  }
}

/** From an opening parenthesis to after the closing one, or the end. */
export function skipComment(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at += 1) {
    const c = text[at];
    if (c === '\\') at += 1;
    else if (c === '(') depth += 1;
    else if (c === ')') {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  return text.length;
}

/** From an opening quote: the text inside with escapes undone, and the place after the closing quote. */
export function readQuoted(text: string, from: number): { readonly text: string; readonly at: number } {
  let out = '';
  let at = from + 1;
  let plainFrom = at;
  for (; at < text.length && text[at] !== '"'; at += 1) {
    if (text[at] !== '\\') continue;
    out += text.slice(plainFrom, at);
    plainFrom = at + 1;
    at += 1;
  }
  return { text: out + text.slice(plainFrom, Math.min(at, text.length)), at: Math.min(at + 1, text.length) };
}

function readUntil(text: string, from: number, stops: string): { readonly text: string; readonly at: number } {
  let out = '';
  let at = from;
  while (at < text.length && !stops.includes(text[at] as string)) {
    if (text[at] === '"') {
      const quoted = readQuoted(text, at);
      out += quoted.text;
      at = quoted.at;
    } else if (text[at] === '(') {
      at = skipComment(text, at);
    } else {
      out += text[at];
      at += 1;
    }
  }
  return { text: out.trim(), at };
}
