/**
 * STATUS (RFC 9051 §6.3.11), also as LIST-STATUS returns it (RFC 5819).
 */
import type { Mailbox } from '#backend-cluster/mailboxes/open-account.ts';
import { parseStatusItems, type StatusItem } from '#protocol/imap/list-grammar.ts';
import { ResponseWriter } from '#protocol/imap/response.ts';
import { appendBytesMax } from './capabilities.ts';
import { type Command, no, ok } from './command.ts';
import { mailboxIdText } from './select.ts';

/** RFC 9051 §6.3.11. */
export const status: Command = {
  async run(session, reader) {
    const name = reader.mailbox();
    reader.space();
    const items = parseStatusItems(reader);
    reader.end();
    const mailbox = session.account.mailbox(name);
    if (mailbox === undefined) return no('NONEXISTENT', 'No such mailbox');
    // RFC 7162 §3.1: asking for HIGHESTMODSEQ makes the client one that knows mod-sequences.
    if (items.includes('HIGHESTMODSEQ')) session.isCondstore = true;
    await session.out.send(statusResponse(mailbox, items));
    return ok('STATUS completed');
  },
};

/** One STATUS response. */
export function statusResponse(mailbox: Mailbox, items: readonly StatusItem[]): Buffer[] {
  const values = items.map((item) => `${item} ${statusValue(mailbox, item)}`).join(' ');
  return new ResponseWriter().text('* STATUS ').mailbox(mailbox.name).text(` (${values})`).finish();
}

function statusValue(mailbox: Mailbox, item: StatusItem): string | number {
  switch (item) {
    case 'MESSAGES':
      return mailbox.messageCount;
    case 'RECENT':
      return 0;
    case 'UIDNEXT':
      return mailbox.uidNext;
    case 'UIDVALIDITY':
      return mailbox.uidValidity;
    case 'UNSEEN':
      return mailbox.unseenCount;
    case 'DELETED':
      return countDeleted(mailbox);
    case 'SIZE':
      return mailbox.sizeBytes;
    case 'HIGHESTMODSEQ':
      return mailbox.highestModseq;
    case 'MAILBOXID':
      return `(${mailboxIdText(mailbox.id)})`;
    case 'APPENDLIMIT':
      return appendBytesMax;
  }
}

function countDeleted(mailbox: Mailbox): number {
  let count = 0;
  for (const uid of mailbox.uids()) if (mailbox.message(uid)?.flags.includes('\\Deleted')) count += 1;
  return count;
}
