/**
 * What FETCH may ask for (RFC 9051 §6.4.5, §9 fetch-att; RFC 7162 §3.1.4 for its modifiers; RFC 8474 for the ids).
 */
import type { Section } from '#protocol/mime/section.ts';
import { type CommandReader, syntaxError } from './reader.ts';

/** One data item. */
export type FetchItem =
  | {
      readonly kind: 'uid' | 'flags' | 'internaldate' | 'size' | 'envelope' | 'body' | 'bodystructure' | 'modseq' | 'emailid' | 'threadid';
    }
  | {
      readonly kind: 'section';
      readonly section: Section;
      /** Does not set `\Seen`. */
      readonly peek: boolean;
      readonly partial: { readonly offset: number; readonly length: number } | undefined;
      /** As it is named in the answer. */
      readonly label: string;
    };

/** FETCH after its sequence set. */
export interface FetchRequest {
  readonly items: readonly FetchItem[];
  readonly changedSince: number | undefined;
}

/** Data items in one FETCH. */
export const fetchItemsMax = 200;

const simple: Record<string, Exclude<FetchItem['kind'], 'section'>> = {
  UID: 'uid',
  FLAGS: 'flags',
  INTERNALDATE: 'internaldate',
  'RFC822.SIZE': 'size',
  ENVELOPE: 'envelope',
  BODYSTRUCTURE: 'bodystructure',
  MODSEQ: 'modseq',
  EMAILID: 'emailid',
  THREADID: 'threadid',
};

const fast: readonly FetchItem[] = [{ kind: 'flags' }, { kind: 'internaldate' }, { kind: 'size' }];
const macros: Record<string, readonly FetchItem[]> = {
  FAST: fast,
  ALL: [...fast, { kind: 'envelope' }],
  FULL: [...fast, { kind: 'envelope' }, { kind: 'body' }],
};

/** Reads what follows `FETCH set `. */
export function parseFetch(reader: CommandReader): FetchRequest {
  const items: FetchItem[] = [];
  if (reader.nextIs('(')) {
    reader.list(() => items.push(parseItem(reader, reader.keyword())));
  } else {
    const word = reader.keyword();
    const macro = macros[word];
    if (macro === undefined) items.push(parseItem(reader, word));
    else items.push(...macro);
  }
  if (items.length === 0) throw syntaxError('FETCH asks for nothing');
  if (items.length > fetchItemsMax) throw syntaxError(`FETCH asks for more than ${fetchItemsMax} items`);
  let changedSince: number | undefined;
  if (reader.take(' ') && !reader.isAtEnd) {
    reader.list(() => {
      const modifier = reader.keyword();
      if (modifier !== 'CHANGEDSINCE') throw syntaxError('Unknown FETCH modifier');
      reader.space();
      changedSince = reader.number64();
    });
  }
  reader.end();
  return { items, changedSince };
}

function parseItem(reader: CommandReader, word: string): FetchItem {
  const kind = simple[word];
  if (kind !== undefined) return { kind };
  switch (word) {
    case 'BODY':
      return reader.nextIs('[') ? parseSection(reader, false) : { kind: 'body' };
    case 'BODY.PEEK':
      return parseSection(reader, true);
    case 'RFC822':
      return whole('RFC822', 'all', false);
    case 'RFC822.HEADER':
      return whole('RFC822.HEADER', 'header', true);
    case 'RFC822.TEXT':
      return whole('RFC822.TEXT', 'text', false);
    default:
      throw syntaxError('Unknown FETCH item');
  }
}

function whole(label: string, what: Section['what'], peek: boolean): FetchItem {
  return { kind: 'section', section: { path: [], what, fields: [] }, peek, partial: undefined, label };
}

function parseSection(reader: CommandReader, peek: boolean): FetchItem {
  reader.expect('[');
  const path: number[] = [];
  let what: Section['what'] = 'all';
  const fields: string[] = [];
  let text = '';
  while (!reader.nextIs(']')) {
    if (isDigitNext(reader)) {
      path.push(reader.nonZeroNumber());
      text = path.join('.');
      if (path.length > 100) throw syntaxError('A section is too deep');
      if (!reader.take('.')) break;
      if (!isDigitNext(reader)) text += '.';
      continue;
    }
    const word = reader.keyword();
    what = specifier(word, path.length);
    text += word;
    if (what === 'header.fields' || what === 'header.fields.not') {
      reader.space();
      reader.list(() => fields.push(reader.astring().toString('latin1')));
      if (fields.length === 0) throw syntaxError('HEADER.FIELDS names no field');
      text += ` (${fields.map(quoteField).join(' ')})`;
    }
    break;
  }
  if (text.endsWith('.')) throw syntaxError('A section ends with a dot');
  reader.expect(']');
  let partial: { offset: number; length: number } | undefined;
  if (reader.take('<')) {
    const offset = reader.number();
    reader.expect('.');
    partial = { offset, length: reader.nonZeroNumber() };
    reader.expect('>');
  }
  const label = `BODY[${text}]${partial === undefined ? '' : `<${partial.offset}>`}`;
  return { kind: 'section', section: { path, what, fields }, peek, partial, label };
}

function specifier(word: string, depth: number): Section['what'] {
  switch (word) {
    case 'HEADER':
      return 'header';
    case 'TEXT':
      return 'text';
    case 'HEADER.FIELDS':
      return 'header.fields';
    case 'HEADER.FIELDS.NOT':
      return 'header.fields.not';
    case 'MIME':
      // RFC 9051 §6.4.5.1: MIME must be preceded by a part number.
      if (depth > 0) return 'mime';
      throw syntaxError('MIME needs a part number');
    default:
      throw syntaxError('Unknown section');
  }
}

function quoteField(name: string): string {
  return /^[!#$&'*+.0-9A-Z^_`a-z|~-]+$/.test(name) ? name : `"${name.replace(/["\\\r\n]/g, '')}"`;
}

function isDigitNext(reader: CommandReader): boolean {
  for (let digit = 0; digit <= 9; digit += 1) if (reader.nextIs(String(digit))) return true;
  return false;
}
