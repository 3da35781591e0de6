/**
 * Flags as they may be stored: the system flags of RFC 9051 §2.3.2 in their usual spelling, and keywords. `\Recent` is no flag of a
 * message here: it belongs to sessions, and IMAP4rev2 does not have it.
 */

import type { FlagSets } from '#backend-cluster/storage/flag-sets.ts';
import { printable } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { flagSetsMax, flagsPerMessageMax, keywordBytesMax } from './limits.ts';
import type { FlagOperation } from './open-account.ts';

const systemFlags = new Map(['\\Answered', '\\Flagged', '\\Deleted', '\\Seen', '\\Draft'].map((flag) => [flag.toLowerCase(), flag]));

// An atom (RFC 9051 §9): no controls, spaces, parentheses, braces, wildcards, quotes, backslash or closing bracket.
const keywordPattern = /^[!#$&'+,\-./0-9:;<=>?@A-Z[^_`a-z|}~]+$/;

/** Flags ready to be stored: known spelling, none twice. `MBOX_LIMIT` or `PROTO_SYNTAX` when they may not be. */
export function parseFlags(flags: readonly string[]): string[] {
  const parsed = new Map<string, string>();
  for (const flag of flags) {
    const low = flag.toLowerCase();
    if (low === '\\recent' || parsed.has(low)) continue;
    const system = systemFlags.get(low);
    if (system === undefined) {
      if (flag.length > keywordBytesMax) throw new PlatformError('MBOX_LIMIT', `a keyword has more than ${keywordBytesMax} octets`);
      if (!keywordPattern.test(flag))
        throw new PlatformError('PROTO_SYNTAX', `"${printable(flag)}" is neither a system flag nor a keyword`);
    }
    parsed.set(low, system ?? flag);
  }
  return limited([...parsed.values()]);
}

/** What a message has after the operation. */
export function operateFlags(present: readonly string[], operation: FlagOperation, flags: readonly string[]): readonly string[] {
  if (operation === 'replace') return flags;
  const named = new Set(flags.map((flag) => flag.toLowerCase()));
  const others = present.filter((flag) => !named.has(flag.toLowerCase()));
  if (operation === 'remove') return others;
  // A flag that is there keeps the spelling it has.
  const there = new Set(present.map((flag) => flag.toLowerCase()));
  return limited([...present, ...flags.filter((flag) => !there.has(flag.toLowerCase()))]);
}

/** Number of a set, or `MBOX_LIMIT` when the account has too many different ones. */
export function internFlags(sets: FlagSets, flags: readonly string[]): number {
  const id = sets.intern(flags);
  if (id >= flagSetsMax) throw new PlatformError('MBOX_LIMIT', `the account has more than ${flagSetsMax} different combinations of flags`);
  return id;
}

function limited(flags: string[]): string[] {
  if (flags.length > flagsPerMessageMax)
    throw new PlatformError('MBOX_LIMIT', `a message would have more than ${flagsPerMessageMax} flags`);
  return flags;
}
