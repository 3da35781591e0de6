/**
 * Search filters: the tree (RFC 4511 §4.5.1.7) and its text form (RFC 4515). On the wire: filter-ber.ts.
 */
import { printable } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';

/** A filter. `and` and `or` without members are absolute true and false (RFC 4526). Values are what is meant, never escaped text. */
export type Filter =
  | { readonly kind: 'and' | 'or'; readonly filters: readonly Filter[] }
  | { readonly kind: 'not'; readonly filter: Filter }
  | { readonly kind: 'equal' | 'greaterOrEqual' | 'lessOrEqual' | 'approx'; readonly attribute: string; readonly value: Buffer }
  | {
      readonly kind: 'substrings';
      readonly attribute: string;
      readonly initial: Buffer | undefined;
      readonly any: readonly Buffer[];
      readonly final: Buffer | undefined;
    }
  | { readonly kind: 'present'; readonly attribute: string }
  | {
      readonly kind: 'extensible';
      readonly rule: string | undefined;
      readonly attribute: string | undefined;
      readonly value: Buffer;
      readonly dnAttributes: boolean;
    };

/** Deepest nesting of `and`, `or` and `not` that is accepted, from the wire and from text. */
export const filterDepthMax = 32;

/** Most parts (tests and substrings) of one filter, from the wire and from text. */
export const filterNodesMax = 4096;

/** The attribute has this value. */
export function equal(attribute: string, value: string | Buffer): Filter {
  return { kind: 'equal', attribute, value: typeof value === 'string' ? Buffer.from(value) : value };
}

/** The attribute has some value. */
export function present(attribute: string): Filter {
  return { kind: 'present', attribute };
}

/** All of these are true. */
export function and(...filters: readonly Filter[]): Filter {
  return { kind: 'and', filters };
}

/** One of these is true. */
export function or(...filters: readonly Filter[]): Filter {
  return { kind: 'or', filters };
}

/** Outcome of `parseFilter`; `position` counts UTF-16 units from 0. */
export type FilterOutcome =
  | { readonly outcome: 'filter'; readonly filter: Filter }
  | { readonly outcome: 'malformed'; readonly detail: string; readonly position: number };

class FilterSyntax extends Error {
  readonly position: number;
  constructor(detail: string, position: number) {
    super(detail);
    this.position = position;
  }
}

/** Parses the text form. */
export function parseFilter(text: string): FilterOutcome {
  try {
    return { outcome: 'filter', filter: new FilterText(text).whole() };
  } catch (error) {
    if (error instanceof FilterSyntax) return { outcome: 'malformed', detail: error.message, position: error.position };
    throw error;
  }
}

/** Parses the text form or throws `PROTO_SYNTAX`, saying where. */
export function filterFromText(text: string): Filter {
  const parsed = parseFilter(text);
  if (parsed.outcome === 'filter') return parsed.filter;
  throw new PlatformError('PROTO_SYNTAX', `"${printable(text)}" is no LDAP filter: ${parsed.detail} at position ${parsed.position}`);
}

const descriptionPattern = /^(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)(?:;[A-Za-z0-9-]+)*$/;

class FilterText {
  readonly #text: string;
  #at = 0;
  #nodes = 0;

  constructor(text: string) {
    this.#text = text;
  }

  whole(): Filter {
    const filter = this.#filter(0);
    if (this.#at < this.#text.length) this.#fail('text after the closing parenthesis');
    return filter;
  }

  #filter(depth: number): Filter {
    if (depth > filterDepthMax) this.#fail(`nested deeper than ${filterDepthMax}`);
    this.#nodes += 1;
    if (this.#nodes > filterNodesMax) this.#fail(`more than ${filterNodesMax} parts`);
    this.#expect('(');
    const char = this.#text[this.#at];
    let filter: Filter;
    if (char === '&' || char === '|') {
      this.#at += 1;
      const filters: Filter[] = [];
      while (this.#text[this.#at] === '(') filters.push(this.#filter(depth + 1));
      filter = { kind: char === '&' ? 'and' : 'or', filters };
    } else if (char === '!') {
      this.#at += 1;
      filter = { kind: 'not', filter: this.#filter(depth + 1) };
    } else {
      filter = this.#item();
    }
    this.#expect(')');
    return filter;
  }

  #item(): Filter {
    const start = this.#at;
    const equals = this.#text.indexOf('=', start);
    const close = this.#text.indexOf(')', start);
    if (equals < 0 || close < equals) this.#fail('no "=" in a test');
    let nameEnd = equals;
    const before = this.#text[equals - 1] ?? '';
    if ('~<>:'.includes(before) && equals > start) nameEnd -= 1;
    const name = this.#text.slice(start, nameEnd);
    this.#at = equals + 1;
    if (before === ':' && equals > start) return this.#extensible(name, start);
    if (!descriptionPattern.test(name)) this.#fail('not an attribute description', start);
    if (before === '~' || before === '<' || before === '>') {
      const kind = before === '~' ? 'approx' : before === '<' ? 'lessOrEqual' : 'greaterOrEqual';
      return { kind, attribute: name, value: this.#value(false) };
    }
    return this.#equalityOrSubstrings(name);
  }

  #equalityOrSubstrings(attribute: string): Filter {
    const parts: Buffer[] = [this.#value(true)];
    while (this.#text[this.#at] === '*') {
      this.#at += 1;
      parts.push(this.#value(true));
      if (parts.length > filterNodesMax) this.#fail(`more than ${filterNodesMax} parts`);
    }
    const first = parts[0] as Buffer;
    if (parts.length === 1) return { kind: 'equal', attribute, value: first };
    const last = parts[parts.length - 1] as Buffer;
    const any = parts.slice(1, -1);
    if (any.length === 0 && first.length === 0 && last.length === 0) return { kind: 'present', attribute };
    if (any.some((part) => part.length === 0)) this.#fail('two asterisks in a row');
    return {
      kind: 'substrings',
      attribute,
      initial: first.length === 0 ? undefined : first,
      any,
      final: last.length === 0 ? undefined : last,
    };
  }

  // RFC 4515 §3: [attr] [":dn"] [":" rule] ":=" value, with attribute or rule or both.
  #extensible(head: string, start: number): Filter {
    const parts = head.split(':');
    const attribute = parts.shift() ?? '';
    const dnAttributes = parts[0]?.toLowerCase() === 'dn';
    if (dnAttributes) parts.shift();
    const rule = parts.shift();
    if (parts.length > 0 || (attribute === '' && rule === undefined)) this.#fail('not an extensible match', start);
    if (attribute !== '' && !descriptionPattern.test(attribute)) this.#fail('not an attribute description', start);
    if (rule !== undefined && !descriptionPattern.test(rule)) this.#fail('not a matching rule', start);
    return { kind: 'extensible', rule, attribute: attribute === '' ? undefined : attribute, value: this.#value(false), dnAttributes };
  }

  // Up to `)`, or `*` where that has a meaning; every other character may stand for itself (RFC 4515 §3, valueencoding).
  #value(endsAtAsterisk: boolean): Buffer {
    const parts: Buffer[] = [];
    let plain = this.#at;
    const flush = (): void => {
      if (this.#at > plain) parts.push(Buffer.from(this.#text.slice(plain, this.#at)));
    };
    for (; this.#at < this.#text.length; this.#at += 1) {
      const char = this.#text[this.#at];
      if (char === ')' || (char === '*' && endsAtAsterisk)) break;
      if (char === '(' || char === '\u0000' || char === '*') this.#fail(`"${char === '\u0000' ? 'NUL' : char}" must be escaped`);
      if (char === '\\') {
        const pair = this.#text.slice(this.#at + 1, this.#at + 3);
        if (!/^[0-9a-fA-F]{2}$/.test(pair)) this.#fail('"\\" without two hex digits');
        flush();
        parts.push(Buffer.from(pair, 'hex'));
        this.#at += 2;
        plain = this.#at + 1;
      }
    }
    flush();
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  }

  #expect(char: string): void {
    if (this.#text[this.#at] !== char) this.#fail(`expected "${char}"`);
    this.#at += 1;
  }

  #fail(detail: string, position = this.#at): never {
    throw new FilterSyntax(detail, position);
  }
}

const signs = { equal: '=', approx: '~=', greaterOrEqual: '>=', lessOrEqual: '<=' } as const;

/** The text form; octets that are no plain text are escaped. */
export function formatFilter(filter: Filter): string {
  switch (filter.kind) {
    case 'and':
    case 'or':
      return `(${filter.kind === 'and' ? '&' : '|'}${filter.filters.map(formatFilter).join('')})`;
    case 'not':
      return `(!${formatFilter(filter.filter)})`;
    case 'present':
      return `(${filter.attribute}=*)`;
    case 'substrings': {
      const middle = filter.any.map((part) => `${escapeFilterValue(part)}*`).join('');
      return `(${filter.attribute}=${escapeFilterValue(filter.initial)}*${middle}${escapeFilterValue(filter.final)})`;
    }
    case 'extensible': {
      const rule = filter.rule === undefined ? '' : `:${filter.rule}`;
      return `(${filter.attribute ?? ''}${filter.dnAttributes ? ':dn' : ''}${rule}:=${escapeFilterValue(filter.value)})`;
    }
    default:
      return `(${filter.attribute}${signs[filter.kind]}${escapeFilterValue(filter.value)})`;
  }
}

/** A value as it stands in a filter's text. */
export function escapeFilterValue(value: Buffer | string | undefined): string {
  if (value === undefined) return '';
  let text = '';
  for (const octet of typeof value === 'string' ? Buffer.from(value) : value) {
    const plain = octet >= 0x20 && octet < 0x7f && octet !== 0x28 && octet !== 0x29 && octet !== 0x2a && octet !== 0x5c;
    text += plain ? String.fromCharCode(octet) : `\\${octet.toString(16).padStart(2, '0')}`;
  }
  return text;
}
