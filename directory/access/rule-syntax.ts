/**
 * The text of access rules, written as OpenLDAP's are:
 *
 *   to WHAT by WHO RIGHT by WHO RIGHT …
 *
 *   WHAT   *   dn.base="DN"  dn.one=  dn.subtree=  dn.children=   filter=(…)   attrs=a,b,@class,entry,children
 *   WHO    *   anonymous  users  self   dn.base="DN" …   group="DN"  group/CLASS/ATTRIBUTE="DN"   rights=CLASS
 *          peername.ip=PREFIX   ssf=N   tls_ssf=N          several of these in one clause must all hold
 *   RIGHT  none disclose auth compare search read write manage, or letters: =wx; or `break`: go on with the next rule
 *
 * Here words become a tree and mistakes get their place; names are looked up in rules.ts.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { levels, privilegeLetters } from './privileges.ts';

/** How much of the tree a name stands for. */
export type NameScope = 'base' | 'one' | 'subtree' | 'children';

/** What a rule is about; all parts must hold. */
export interface WhatText {
  readonly dn: { readonly scope: NameScope; readonly dn: string } | undefined;
  readonly filter: string | undefined;
  readonly attributes: readonly string[] | undefined;
}

/** One condition on who asks. */
export type WhoText =
  | { readonly kind: 'all' | 'anonymous' | 'users' | 'self' }
  | { readonly kind: 'dn'; readonly scope: NameScope; readonly dn: string }
  | { readonly kind: 'group'; readonly dn: string; readonly objectClass: string | undefined; readonly attribute: string | undefined }
  | { readonly kind: 'rights'; readonly rights: string }
  | { readonly kind: 'peer'; readonly prefix: string }
  | { readonly kind: 'ssf' | 'tlsSsf'; readonly atLeast: number };

/** One `by` of a rule. */
export interface ClauseText {
  readonly text: string;
  /** All must hold. */
  readonly who: readonly WhoText[];
  /** Privilege bits, or `break`. */
  readonly grant: number | 'break';
}

/** A rule, taken apart. */
export interface RuleText {
  readonly text: string;
  readonly what: WhatText;
  readonly clauses: readonly ClauseText[];
}

/** Longest rule, characters, and clauses of one. */
export const ruleTextMax = 16_384;
const clausesMax = 256;

/** Service classes that `rights=` takes; `service` is any of them. */
export const rightsClasses = ['admin', 'replicator', 'cluster', 'provisioner', 'frontend', 'service'] as const;

/** Takes a rule apart or throws `CONFIG_INVALID` with the place. */
export function parseRule(text: string): RuleText {
  if (text.length > ruleTextMax)
    throw new PlatformError('CONFIG_INVALID', `an access rule has ${text.length} characters; at most ${ruleTextMax}`);
  const words = split(text);
  if (words[0]?.text === 'access') words.shift();
  const reader = new Words(text, words);
  reader.expect('to');
  const what = readWhat(reader);
  const clauses: ClauseText[] = [];
  while (reader.peek() !== undefined) {
    reader.expect('by');
    clauses.push(readClause(reader));
    if (clauses.length > clausesMax) reader.fail(`more than ${clausesMax} clauses in one rule`);
  }
  if (clauses.length === 0) reader.fail('"by" is missing: a rule says who may do what');
  return { text: text.trim().replace(/\s+/g, ' '), what, clauses };
}

interface Word {
  readonly text: string;
  readonly at: number;
}

class Words {
  readonly #text: string;
  readonly #words: readonly Word[];
  #next = 0;

  constructor(text: string, words: readonly Word[]) {
    this.#text = text;
    this.#words = words;
  }

  peek(): string | undefined {
    return this.#words[this.#next]?.text;
  }

  take(): string {
    const word = this.peek();
    if (word === undefined) this.fail('the rule ends too early');
    this.#next += 1;
    return word as string;
  }

  expect(keyword: string): void {
    if (this.peek() !== keyword)
      this.fail(`"${keyword}" was expected${this.peek() === undefined ? ' at the end' : ` where "${this.peek()}" stands`}`);
    this.#next += 1;
  }

  /** Where the next clause begins, for its text. */
  get at(): number {
    return this.#words[this.#next]?.at ?? this.#text.length;
  }

  slice(from: number): string {
    return this.#text.slice(from, this.at).trim().replace(/\s+/g, ' ');
  }

  /** A mistake in the word taken last, or at the end. */
  fail(why: string): never {
    const word = this.#words[Math.min(this.#next, this.#words.length - 1)];
    const column = (word?.at ?? 0) + 1;
    throw new PlatformError('CONFIG_INVALID', `access rule "${shortened(this.#text)}", column ${column}: ${why}`);
  }
}

function shortened(text: string): string {
  const line = text.trim().replace(/\s+/g, ' ');
  return line.length > 100 ? `${line.slice(0, 100)}…` : line;
}

// Words end at white space that is neither within quotes nor within parentheses. Quotes go; \" within them is a quote.
function split(text: string): Word[] {
  const words: Word[] = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at] as string)) {
      at += 1;
      continue;
    }
    const start = at;
    let word = '';
    let quoted = false;
    let depth = 0;
    for (; at < text.length; at += 1) {
      const character = text[at] as string;
      if (quoted && character === '\\' && text[at + 1] === '"') {
        word += '"';
        at += 1;
      } else if (character === '"') {
        quoted = !quoted;
      } else if (!quoted && depth === 0 && /\s/.test(character)) {
        break;
      } else {
        if (!quoted && character === '(') depth += 1;
        if (!quoted && character === ')') depth -= 1;
        word += character;
      }
    }
    if (quoted || depth !== 0) {
      const what = quoted ? 'a quote is not closed' : 'parentheses do not match';
      throw new PlatformError('CONFIG_INVALID', `access rule "${shortened(text)}", column ${start + 1}: ${what}`);
    }
    words.push({ text: word, at: start });
  }
  return words;
}

const nameScopes: Readonly<Record<string, NameScope>> = {
  'dn.base': 'base',
  'dn.exact': 'base',
  'dn.one': 'one',
  'dn.subtree': 'subtree',
  'dn.sub': 'subtree',
  'dn.children': 'children',
};

function keyAndValue(word: string): { key: string; value: string } {
  const end = word.indexOf('=');
  return end < 0 ? { key: word, value: '' } : { key: word.slice(0, end), value: word.slice(end + 1) };
}

function readWhat(reader: Words): WhatText {
  let dn: WhatText['dn'];
  let filter: string | undefined;
  let attributes: string[] | undefined;
  let words = 0;
  while (reader.peek() !== undefined && reader.peek() !== 'by') {
    const word = reader.peek() as string;
    const { key, value } = keyAndValue(word);
    const once = (known: unknown): void => {
      if (known !== undefined) reader.fail(`${key} is given twice`);
    };
    if (word === '*') {
      if (words > 0) reader.fail('"*" stands alone: it is everything');
    } else if (nameScopes[key] !== undefined) {
      once(dn);
      dn = { scope: nameScopes[key], dn: value };
    } else if (key === 'filter') {
      once(filter);
      filter = value;
    } else if (key === 'attrs' || key === 'attr') {
      once(attributes);
      attributes = value.split(',').filter((name) => name !== '');
      if (attributes.length === 0) reader.fail('attrs= names no attribute');
    } else {
      const hint = key === 'dn' ? '; write dn.base=, dn.one=, dn.subtree= or dn.children=' : '';
      reader.fail(`"${word}" is none of *, dn.SCOPE=, filter=, attrs=${hint}`);
    }
    words += 1;
    reader.take();
  }
  if (words === 0) reader.fail('what the rule is about is missing after "to": *, dn.SCOPE=, filter= or attrs=');
  return { dn, filter, attributes };
}

function readClause(reader: Words): ClauseText {
  const from = reader.at;
  const who: WhoText[] = [];
  for (;;) {
    const word = reader.peek();
    if (word === undefined || word === 'by')
      reader.fail('a right is missing: none, disclose, auth, compare, search, read, write, manage, =LETTERS or break');
    const grant = grantOf(word as string, reader);
    if (grant !== undefined) {
      reader.take();
      if (who.length === 0) reader.fail('who is missing after "by"');
      if (reader.peek() === 'stop') reader.take();
      return { text: `by ${reader.slice(from)}`, who, grant };
    }
    who.push(readWho(word as string, reader));
    reader.take();
  }
}

function grantOf(word: string, reader: Words): number | 'break' | undefined {
  if (word === 'break') return 'break';
  if (Object.hasOwn(levels, word)) return levels[word];
  if (!word.startsWith('=') || word.length === 1) return undefined;
  let bits = 0;
  for (const letter of word.slice(1)) {
    const bit = Object.hasOwn(privilegeLetters, letter) ? privilegeLetters[letter] : undefined;
    if (bit === undefined) reader.fail(`"${letter}" is no privilege; letters are d x c s r a z w m 0`);
    bits |= bit as number;
  }
  return bits;
}

const groupPattern = /^group(?:\/([^/.]+))?(?:\/([^/.]+))?(?:\.(?:exact|base))?$/;

function readWho(word: string, reader: Words): WhoText {
  if (word === '*') return { kind: 'all' };
  if (word === 'anonymous' || word === 'users' || word === 'self') return { kind: word };
  const { key, value } = keyAndValue(word);
  const scope = nameScopes[key];
  if (scope !== undefined) return { kind: 'dn', scope, dn: value };
  const group = groupPattern.exec(key);
  if (group !== null && word.includes('=')) return { kind: 'group', dn: value, objectClass: group[1], attribute: group[2] };
  if (key === 'rights') {
    if (!rightsClasses.some((one) => one === value)) reader.fail(`rights="${value}" is none of ${rightsClasses.join(', ')}`);
    return { kind: 'rights', rights: value };
  }
  if (key === 'peername.ip' || key === 'peername.ipv6') return { kind: 'peer', prefix: value };
  if (key === 'ssf' || key === 'tls_ssf') {
    if (!/^\d{1,4}$/.test(value)) reader.fail(`${key}="${value}" is no number of bits`);
    return { kind: key === 'ssf' ? 'ssf' : 'tlsSsf', atLeast: Number(value) };
  }
  return reader.fail(
    `"${word}" is none of *, anonymous, users, self, dn.SCOPE=, group=, rights=, peername.ip=, ssf=, tls_ssf=, and no right`,
  );
}
