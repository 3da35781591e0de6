/**
 * Reads definitions in the form of RFC 4512 §4.1: `( 2.5.4.3 NAME ( 'cn' 'commonName' ) SUP name )`.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** A definition: its OID, and per keyword the words that followed it (none for flags such as SINGLE-VALUE). */
export interface Definition {
  readonly oid: string;
  readonly names: readonly string[];
  readonly fields: ReadonlyMap<string, readonly string[]>;
  /** As given. */
  readonly text: string;
}

// Keywords without an operand; every other keyword takes one word or a parenthesised list.
const flags = new Set(['SINGLE-VALUE', 'COLLECTIVE', 'NO-USER-MODIFICATION', 'OBSOLETE', 'ABSTRACT', 'STRUCTURAL', 'AUXILIARY']);
const token = /\s*(?:(\()|(\))|\$|'((?:[^'\\]|\\[0-9A-Fa-f]{2})*)'|([^\s()$']+))/y;

/** Parses one definition or throws `CONFIG_INVALID` with the place. */
export function parseDefinition(text: string): Definition {
  const words = tokenize(text);
  if (words[0] !== '(' || words.at(-1) !== ')') throw invalid(text, 'it must stand in parentheses');
  const oid = words[1]?.replace(/^=/, '') ?? '';
  if (!/^[0-9]+(\.[0-9]+)+$/.test(oid)) throw invalid(text, `"${oid}" is not an OID`);
  const fields = new Map<string, readonly string[]>();
  let at = 2;
  while (at < words.length - 1) {
    const keyword = words[at] as string;
    at += 1;
    if (!/^[A-Z][A-Z0-9_-]*$/.test(keyword)) throw invalid(text, `a keyword was expected where "${keyword}" stands`);
    if (fields.has(keyword)) throw invalid(text, `${keyword} is given twice`);
    if (flags.has(keyword)) {
      fields.set(keyword, []);
    } else if (words[at] === '(') {
      const end = words.indexOf(')', at);
      fields.set(keyword, words.slice(at + 1, end).map(unquote));
      at = end + 1;
    } else {
      if (at >= words.length - 1) throw invalid(text, `${keyword} needs a value`);
      fields.set(keyword, [unquote(words[at] as string)]);
      at += 1;
    }
  }
  return { oid, names: fields.get('NAME') ?? [], fields, text };
}

// A quoted word keeps a leading "=", so that NAME '(' or a value spelt like a keyword cannot be mistaken.
function tokenize(text: string): string[] {
  const words: string[] = [];
  token.lastIndex = 0;
  while (token.lastIndex < text.trimEnd().length) {
    const found = token.exec(text);
    if (found === null) throw invalid(text, `character ${token.lastIndex} cannot be read`);
    if (found[1] !== undefined) words.push('(');
    else if (found[2] !== undefined) words.push(')');
    else if (found[3] !== undefined) words.push(`=${found[3]}`);
    else if (found[4] !== undefined) words.push(found[4]);
  }
  return words;
}

function unquote(word: string): string {
  return word.startsWith('=') ? word.slice(1) : word;
}

function invalid(text: string, why: string): PlatformError {
  return new PlatformError('CONFIG_INVALID', `schema definition "${text.slice(0, 80)}" is malformed: ${why}`);
}
