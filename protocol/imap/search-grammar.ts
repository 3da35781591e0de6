/**
 * SEARCH programs (RFC 9051 §6.4.4, RFC 3501 §6.4.4 for OLD, NEW and RECENT; RFC 4731 for RETURN; RFC 5032 for OLDER and YOUNGER;
 * RFC 7162 §3.1.5 for MODSEQ; RFC 8474 §4.3 for EMAILID).
 */

import { PlatformError } from '#common/errors/platform-error.ts';
import { normalized } from '#common/unicode.ts';
import { parseDate } from './dates.ts';
import { type CommandReader, nestingMax, syntaxError } from './reader.ts';
import type { SequenceSet } from './sequence-set.ts';

/** One condition. Texts are lower case: all text is compared without regard to case. */
export type SearchKey =
  | { readonly kind: 'all' | 'none' }
  | { readonly kind: 'and' | 'or'; readonly keys: readonly SearchKey[] }
  | { readonly kind: 'not'; readonly key: SearchKey }
  | { readonly kind: 'flag'; readonly flag: string; readonly isSet: boolean }
  | { readonly kind: 'sequence' | 'uid'; readonly set: SequenceSet }
  | { readonly kind: 'larger' | 'smaller'; readonly bytes: number }
  | { readonly kind: 'internal' | 'sent'; readonly test: 'before' | 'on' | 'since'; readonly day: number }
  | { readonly kind: 'older' | 'younger'; readonly seconds: number }
  | { readonly kind: 'header'; readonly name: string; readonly text: string }
  | { readonly kind: 'body' | 'text'; readonly text: string }
  | { readonly kind: 'modseq'; readonly value: number }
  | { readonly kind: 'emailid'; readonly id: string };

/** What ESEARCH is to return. */
export type SearchReturn = 'MIN' | 'MAX' | 'ALL' | 'COUNT';

/** A whole program. `returns` undefined: the old `* SEARCH` answer. */
export interface SearchRequest {
  readonly returns: ReadonlySet<SearchReturn> | undefined;
  readonly key: SearchKey;
}

/** Conditions in one program. */
export const searchKeysMax = 1000;

/** A charset that is not known: the answer is `NO [BADCHARSET ...]` (RFC 9051 §6.4.4). */
export class BadCharset extends PlatformError {
  constructor() {
    super('PROTO_SYNTAX', 'SEARCH in a charset other than UTF-8 or US-ASCII');
  }
}

const flagKeys: Record<string, readonly [string, boolean]> = {
  ANSWERED: ['\\Answered', true],
  DELETED: ['\\Deleted', true],
  DRAFT: ['\\Draft', true],
  FLAGGED: ['\\Flagged', true],
  SEEN: ['\\Seen', true],
  UNANSWERED: ['\\Answered', false],
  UNDELETED: ['\\Deleted', false],
  UNDRAFT: ['\\Draft', false],
  UNFLAGGED: ['\\Flagged', false],
  UNSEEN: ['\\Seen', false],
};
const headerKeys = new Set(['BCC', 'CC', 'FROM', 'SUBJECT', 'TO']);

/** Reads what follows `SEARCH `. */
export function parseSearch(reader: CommandReader): SearchRequest {
  let returns: Set<SearchReturn> | undefined;
  if (reader.takeKeyword('RETURN')) {
    reader.space();
    const chosen = new Set<SearchReturn>();
    reader.list(() => {
      const word = reader.keyword();
      if (word !== 'MIN' && word !== 'MAX' && word !== 'ALL' && word !== 'COUNT') throw syntaxError('Unknown SEARCH return option');
      chosen.add(word);
    });
    // RFC 4731 §3.1: an empty list means ALL.
    if (chosen.size === 0) chosen.add('ALL');
    returns = chosen;
    reader.space();
  }
  if (reader.takeKeyword('CHARSET')) {
    reader.space();
    const charset = reader.astring().toString('latin1').toUpperCase();
    if (charset !== 'UTF-8' && charset !== 'US-ASCII' && charset !== 'UTF8') throw new BadCharset();
    reader.space();
  }
  const key = new KeyParser(reader).keys(() => reader.isAtEnd, 0);
  return { returns, key };
}

class KeyParser {
  readonly #reader: CommandReader;
  #count = 0;

  constructor(reader: CommandReader) {
    this.#reader = reader;
  }

  /** Keys until the end: all must hold. */
  keys(isEnd: () => boolean, depth: number): SearchKey {
    const keys: SearchKey[] = [];
    do {
      if (isEnd() && keys.length > 0) break;
      keys.push(this.#key(depth));
    } while (this.#reader.take(' '));
    if (!isEnd()) throw syntaxError('Unexpected characters after a SEARCH key');
    return keys.length === 1 ? (keys[0] as SearchKey) : { kind: 'and', keys };
  }

  #key(depth: number): SearchKey {
    const reader = this.#reader;
    this.#count += 1;
    if (this.#count > searchKeysMax) throw syntaxError(`SEARCH has more than ${searchKeysMax} keys`);
    if (depth > nestingMax) throw syntaxError(`SEARCH is nested deeper than ${nestingMax} levels`);
    if (reader.take('(')) {
      const key = this.keys(() => reader.nextIs(')'), depth + 1);
      reader.expect(')');
      return key;
    }
    if (reader.nextIs('*') || '0123456789'.split('').some((digit) => reader.nextIs(digit))) {
      return { kind: 'sequence', set: reader.sequenceSet() };
    }
    const word = reader.keyword();
    const flag = flagKeys[word];
    if (flag !== undefined) return { kind: 'flag', flag: flag[0], isSet: flag[1] };
    if (headerKeys.has(word)) return { kind: 'header', name: word.toLowerCase(), text: this.#text() };
    switch (word) {
      case 'ALL':
      // No message is ever reported as recent here, so every message is old.
      case 'OLD':
        return { kind: 'all' };
      case 'RECENT':
      case 'NEW':
        return { kind: 'none' };
      case 'NOT':
        reader.space();
        return { kind: 'not', key: this.#key(depth + 1) };
      case 'OR': {
        reader.space();
        const first = this.#key(depth + 1);
        reader.space();
        return { kind: 'or', keys: [first, this.#key(depth + 1)] };
      }
      case 'UID':
        reader.space();
        return { kind: 'uid', set: reader.sequenceSet() };
      case 'KEYWORD':
      case 'UNKEYWORD':
        reader.space();
        return { kind: 'flag', flag: reader.flag(), isSet: word === 'KEYWORD' };
      case 'LARGER':
      case 'SMALLER':
        reader.space();
        return { kind: word === 'LARGER' ? 'larger' : 'smaller', bytes: reader.number64() };
      case 'BEFORE':
      case 'ON':
      case 'SINCE':
        return { kind: 'internal', test: word.toLowerCase() as 'before' | 'on' | 'since', day: this.#date() };
      case 'SENTBEFORE':
      case 'SENTON':
      case 'SENTSINCE':
        return { kind: 'sent', test: word.slice(4).toLowerCase() as 'before' | 'on' | 'since', day: this.#date() };
      case 'OLDER':
      case 'YOUNGER':
        reader.space();
        return { kind: word === 'OLDER' ? 'older' : 'younger', seconds: reader.nonZeroNumber() };
      case 'HEADER': {
        reader.space();
        const name = reader.astring().toString('latin1').toLowerCase();
        return { kind: 'header', name, text: this.#text() };
      }
      case 'BODY':
      case 'TEXT':
        return { kind: word === 'BODY' ? 'body' : 'text', text: this.#text() };
      case 'MODSEQ':
        return { kind: 'modseq', value: this.#modseq() };
      case 'EMAILID':
        reader.space();
        return { kind: 'emailid', id: reader.astring().toString('latin1') };
      default:
        throw syntaxError('Unknown SEARCH key');
    }
  }

  #text(): string {
    this.#reader.space();
    return normalized(this.#reader.astring().toString('utf8'), 'NFC').toLowerCase();
  }

  #date(): number {
    this.#reader.space();
    return parseDate(this.#reader.nextIs('"') ? this.#reader.string().toString('latin1') : this.#reader.atom());
  }

  // RFC 7162 §3.1.5: an entry name may stand before the value; all flags share one mod-sequence here.
  #modseq(): number {
    const reader = this.#reader;
    reader.space();
    if (reader.nextIs('"')) {
      reader.string();
      reader.space();
      const type = reader.keyword();
      if (type !== 'ALL' && type !== 'SHARED' && type !== 'PRIV') throw syntaxError('Unknown MODSEQ entry type');
      reader.space();
    }
    return reader.number64();
  }
}
