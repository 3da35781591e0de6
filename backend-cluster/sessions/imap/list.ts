/**
 * LIST with its extensions and LSUB (RFC 9051 §6.3.9, RFC 3501 §6.3.9, RFC 5258, RFC 5819, RFC 6154).
 *
 * A name is listed when it is a mailbox, or a level above one that is not a mailbox itself (its mailbox was deleted and the children
 * stayed), or, among subscriptions, a name without a mailbox.
 */
import type { Mailbox, OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { compilePattern, type ListRequest, limitWildcards, matchesPattern, parseList } from '#protocol/imap/list-grammar.ts';
import { ResponseWriter } from '#protocol/imap/response.ts';
import { type Command, ok } from './command.ts';
import { Pace } from './pace.ts';
import { statusResponse } from './status.ts';

const delimiter = '/';

interface Listed {
  readonly name: string;
  readonly attributes: readonly string[];
  readonly mailbox: Mailbox | undefined;
  /** RECURSIVEMATCH: listed for the sake of a subscribed child (RFC 5258 §3.5). */
  readonly childInfo: boolean;
}

/** RFC 9051 §6.3.9. */
export const list: Command = {
  async run(session, reader) {
    const request = parseList(reader);
    const { out } = session;
    if (!request.isExtended && request.patterns[0] === '') {
      // RFC 9051 §6.3.9: an empty name asks for the delimiter.
      await out.line(`* LIST (\\Noselect) "${delimiter}" ""`);
      return ok('LIST completed');
    }
    for (const listed of await listedNames(session.account, request)) {
      const line = new ResponseWriter().text(`* LIST (${listed.attributes.join(' ')}) "${delimiter}" `).mailbox(listed.name);
      if (listed.childInfo) line.text(' ("CHILDINFO" ("SUBSCRIBED"))');
      await out.send(line.finish());
      if (request.returnStatus !== undefined && listed.mailbox !== undefined) {
        await out.send(statusResponse(listed.mailbox, request.returnStatus));
      }
    }
    return ok('LIST completed');
  },
};

/** RFC 3501 §6.3.9. With `%`, a name above a subscribed one is listed as `\Noselect`. */
export const lsub: Command = {
  async run(session, reader) {
    const reference = reader.mailbox();
    reader.space();
    const pattern = fullPattern(reference, reader.listMailbox());
    reader.end();
    limitWildcards([pattern]);
    const compiled = compilePattern(pattern);
    const pace = new Pace();
    const subscribed = new Set(session.account.subscriptions());
    const names = pattern.includes('%') ? withParents(subscribed) : subscribed;
    for (const name of ordered(names)) {
      await pace.spend(compiled.length * name.length);
      if (!matchesPattern(compiled, name, delimiter)) continue;
      const attribute = subscribed.has(name) ? '' : '\\Noselect';
      await session.out.send(new ResponseWriter().text(`* LSUB (${attribute}) "${delimiter}" `).mailbox(name).finish());
    }
    return ok('LSUB completed');
  },
};

async function listedNames(account: OpenAccount, request: ListRequest): Promise<Listed[]> {
  const mailboxes = new Map(account.mailboxes().map((mailbox) => [mailbox.name, mailbox]));
  const subscribed = new Set(account.subscriptions());
  const existing = withParents(mailboxes.keys());
  const parents = parentsOf(mailboxes.keys());
  const candidates = request.selectSubscribed ? (request.recursiveMatch ? withParents(subscribed) : subscribed) : existing;
  const patterns = request.patterns.map((pattern) => compilePattern(fullPattern(request.reference, pattern)));
  const parts = patterns.reduce((sum, pattern) => sum + pattern.length, 0);
  const pace = new Pace();
  const withSubscribedChild = request.recursiveMatch ? parentsOf(subscribed) : new Set<string>();
  const out: Listed[] = [];
  for (const name of ordered(candidates)) {
    await pace.spend(parts * name.length);
    if (!patterns.some((pattern) => matchesPattern(pattern, name, delimiter))) continue;
    const mailbox = mailboxes.get(name);
    if (request.selectSpecialUse && mailbox?.specialUse === undefined) continue;
    const childInfo = withSubscribedChild.has(name);
    const attributes: string[] = [];
    if (mailbox === undefined) attributes.push(request.isExtended ? '\\NonExistent' : '\\Noselect');
    attributes.push(parents.has(name) ? '\\HasChildren' : '\\HasNoChildren');
    if (mailbox?.specialUse !== undefined) attributes.push(mailbox.specialUse);
    if (request.returnSubscribed && subscribed.has(name)) attributes.push('\\Subscribed');
    out.push({ name, attributes, mailbox, childInfo });
  }
  return out;
}

function fullPattern(reference: string, pattern: string): string {
  const full = reference + pattern;
  // INBOX is compared without regard to case (RFC 9051 §5.1).
  const isInbox = full.slice(0, 5).toUpperCase() === 'INBOX' && (full.length === 5 || '/%*'.includes(full[5] as string));
  return isInbox ? `INBOX${full.slice(5)}` : full;
}

function parentsOf(names: Iterable<string>): Set<string> {
  const parents = new Set<string>();
  for (const name of names) {
    for (let at = name.lastIndexOf(delimiter); at > 0; at = name.lastIndexOf(delimiter, at - 1)) parents.add(name.slice(0, at));
  }
  return parents;
}

function withParents(names: Iterable<string>): Set<string> {
  const own = [...names];
  return new Set([...own, ...parentsOf(own)]);
}

function ordered(names: Iterable<string>): string[] {
  const rank = (name: string): string => (name === 'INBOX' ? '' : name);
  return [...names].sort((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0));
}
