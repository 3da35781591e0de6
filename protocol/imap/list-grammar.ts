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

/**
 * Matches a name against a LIST pattern: `*` matches anything, `%` anything but the hierarchy delimiter. It keeps the set of places in
 * the name that the pattern can have reached, so the work is bounded by pattern times name and no pattern can blow up.
 */
export function matchesPattern(pattern: string, name: string, delimiter: string): boolean {
  let reachable = new Set<number>([0]);
  for (const c of collapse(pattern)) {
    const next = new Set<number>();
    for (const at of reachable) {
      if (c === '*' || c === '%') {
        for (let to = at; to <= name.length; to += 1) {
          next.add(to);
          if (next.size > name.length) break;
          if (to < name.length && c === '%' && name[to] === delimiter) break;
          // Another starting point further on covers the rest.
          if (to > at && reachable.has(to)) break;
        }
      } else if (name[at] === c) next.add(at + 1);
    }
    reachable = next;
    if (reachable.size === 0) return false;
  }
  return reachable.has(name.length);
}

function collapse(pattern: string): string {
  return pattern.replace(/\*+/g, '*').replace(/%+/g, '%');
}
