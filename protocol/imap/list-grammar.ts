/**
 * LIST and its extensions (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154), and the items of STATUS (RFC 9051 §6.3.11), which both share.
 */
import { type CommandReader, syntaxError } from './reader.ts';

/** STATUS items that are known. */
export const statusItems = [
  'MESSAGES',
  'RECENT',
  'UIDNEXT',
  'UIDVALIDITY',
  'UNSEEN',
  'DELETED',
  'SIZE',
  'HIGHESTMODSEQ',
  'MAILBOXID',
  'APPENDLIMIT',
] as const;
export type StatusItem = (typeof statusItems)[number];

/** A LIST command. */
export interface ListRequest {
  readonly reference: string;
  readonly patterns: readonly string[];
  readonly selectSubscribed: boolean;
  readonly selectSpecialUse: boolean;
  readonly recursiveMatch: boolean;
  readonly returnSubscribed: boolean;
  readonly returnChildren: boolean;
  readonly returnSpecialUse: boolean;
  readonly returnStatus: readonly StatusItem[] | undefined;
  /** Any extended syntax was used. */
  readonly isExtended: boolean;
}

/** Patterns in one LIST. */
export const listPatternsMax = 100;

/** Reads what follows `LIST `. */
export function parseList(reader: CommandReader): ListRequest {
  const select = new Set<string>();
  let isExtended = false;
  if (reader.nextIs('(')) {
    isExtended = true;
    reader.list(() => select.add(known(reader.keyword(), ['SUBSCRIBED', 'REMOTE', 'RECURSIVEMATCH', 'SPECIAL-USE'], 'selection')));
    // RFC 5258 §3.1: RECURSIVEMATCH modifies another option and means nothing alone.
    if (select.has('RECURSIVEMATCH') && !select.has('SUBSCRIBED') && !select.has('SPECIAL-USE')) {
      throw syntaxError('RECURSIVEMATCH needs another selection option');
    }
    reader.space();
  }
  const reference = reader.mailbox();
  reader.space();
  const patterns: string[] = [];
  if (reader.nextIs('(')) {
    isExtended = true;
    reader.list(() => patterns.push(reader.listMailbox()));
  } else patterns.push(reader.listMailbox());
  if (patterns.length > listPatternsMax) throw syntaxError(`LIST has more than ${listPatternsMax} patterns`);
  limitWildcards(patterns);
  const returns = new Set<string>();
  let returnStatus: readonly StatusItem[] | undefined;
  if (reader.take(' ') && !reader.isAtEnd) {
    isExtended = true;
    if (!reader.takeKeyword('RETURN')) throw syntaxError('Expected RETURN');
    reader.space();
    reader.list(() => {
      const option = known(reader.keyword(), ['SUBSCRIBED', 'CHILDREN', 'SPECIAL-USE', 'STATUS'], 'return');
      returns.add(option);
      if (option === 'STATUS') {
        reader.space();
        returnStatus = parseStatusItems(reader);
      }
    });
  }
  reader.end();
  return {
    reference,
    patterns,
    selectSubscribed: select.has('SUBSCRIBED'),
    selectSpecialUse: select.has('SPECIAL-USE'),
    recursiveMatch: select.has('RECURSIVEMATCH'),
    returnSubscribed: returns.has('SUBSCRIBED') || select.has('SUBSCRIBED'),
    returnChildren: returns.has('CHILDREN'),
    returnSpecialUse: returns.has('SPECIAL-USE') || select.has('SPECIAL-USE'),
    returnStatus,
    isExtended,
  };
}

/** `(MESSAGES UNSEEN)`. */
export function parseStatusItems(reader: CommandReader): readonly StatusItem[] {
  const items: StatusItem[] = [];
  reader.list(() => items.push(known(reader.keyword(), statusItems, 'STATUS') as StatusItem));
  if (items.length === 0) throw syntaxError('STATUS asks for nothing');
  return [...new Set(items)];
}

function known(word: string, words: readonly string[], what: string): string {
  if (!words.includes(word)) throw syntaxError(`Unknown ${what} ${what === 'STATUS' ? 'item' : 'option'}`);
  return word;
}

/** Wildcards in the patterns of one command; runs of them count as one. */
export const listWildcardsMax = 100;

/** Refuses patterns with more wildcards than anybody needs: each costs a pass over every name. */
export function limitWildcards(patterns: readonly string[]): void {
  const count = patterns.reduce((sum, pattern) => sum + (pattern.match(/[*%]+/g)?.length ?? 0), 0);
  if (count > listWildcardsMax) throw syntaxError(`LIST has more than ${listWildcardsMax} wildcards`);
}

/** A pattern taken apart: `*`, `%`, or text that stands for itself. */
export type ListPattern = readonly string[];

/** Takes a pattern apart. Next to a `*` a `%` says nothing. */
export function compilePattern(pattern: string): ListPattern {
  return pattern
    .replace(/[*%]*\*[*%]*/g, '*')
    .replace(/%+/g, '%')
    .split(/([*%])/)
    .filter((part) => part !== '');
}

/**
 * Matches a name against a LIST pattern: `*` matches anything, `%` anything but the hierarchy delimiter. It keeps which places of the
 * name the pattern can have reached, so the work is at most its parts times the name and no pattern can blow up.
 */
export function matchesPattern(pattern: ListPattern, name: string, delimiter: string): boolean {
  if (pattern.length === 1 && pattern[0] === '*') return true;
  let reached = new Uint8Array(name.length + 1);
  reached[0] = 1;
  for (const part of pattern) {
    if (part === '*') reached.fill(1, reached.indexOf(1));
    else if (part === '%') reachWithinLevel(reached, name, delimiter);
    else {
      const next = new Uint8Array(name.length + 1);
      for (let at = name.indexOf(part); at >= 0; at = name.indexOf(part, at + 1)) next[at + part.length] = reached[at] as number;
      reached = next;
    }
    if (!reached.includes(1)) return false;
  }
  return reached[name.length] === 1;
}

function reachWithinLevel(reached: Uint8Array, name: string, delimiter: string): void {
  let isOpen = false;
  for (let at = 0; at < reached.length; at += 1) {
    isOpen ||= reached[at] === 1;
    if (isOpen) reached[at] = 1;
    if (name[at] === delimiter) isOpen = false;
  }
}
