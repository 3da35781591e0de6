/**
 * CREATE, DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.4 to §6.3.8), with CREATE's USE (RFC 6154 §3).
 */
import { syntaxError } from '#protocol/imap/reader.ts';
import { type Command, no, ok } from './command.ts';
import { mailboxIdText } from './select.ts';

const specialUses = new Map(
  ['\\All', '\\Archive', '\\Drafts', '\\Flagged', '\\Junk', '\\Sent', '\\Trash'].map((use) => [use.toLowerCase(), use]),
);

/** RFC 9051 §6.3.4. A closing delimiter announces children and is not part of the name. */
export const create: Command = {
  async run(session, reader) {
    const given = reader.mailbox();
    let specialUse: string | undefined;
    let isUnknownUse = false;
    if (reader.take(' ')) {
      reader.list(() => {
        if (reader.keyword() !== 'USE') throw syntaxError('Unknown CREATE parameter');
        reader.space();
        for (const use of reader.flags()) {
          if (specialUse !== undefined || !specialUses.has(use.toLowerCase())) isUnknownUse = true;
          specialUse = specialUses.get(use.toLowerCase());
        }
      });
    }
    reader.end();
    // RFC 6154 §3: NO [USEATTR] when the use cannot be given; a mailbox has one use here.
    if (isUnknownUse) return no('USEATTR', 'The special use is not supported');
    const name = given.endsWith('/') ? given.slice(0, -1) : given;
    if (specialUse !== undefined && session.account.mailboxes().some((mailbox) => mailbox.specialUse === specialUse)) {
      return no('USEATTR', 'Another mailbox has this special use');
    }
    const mailbox = await session.account.createMailbox(name, specialUse);
    return ok('CREATE completed', `MAILBOXID (${mailboxIdText(mailbox.id)})`);
  },
};

/** RFC 9051 §6.3.5. */
export const remove: Command = {
  async run(session, reader) {
    const name = reader.mailbox();
    reader.end();
    const mailbox = session.account.mailbox(name);
    if (name === 'INBOX') return no('CANNOT', 'INBOX cannot be deleted');
    if (mailbox === undefined) return no('NONEXISTENT', 'No such mailbox');
    const wasSelected = session.selected?.id === mailbox.id;
    await session.account.deleteMailbox(name);
    if (wasSelected) {
      session.selected = undefined;
      await session.out.line('* OK [CLOSED] The selected mailbox was deleted');
    }
    return ok('DELETE completed');
  },
};

/** RFC 9051 §6.3.6. */
export const rename: Command = {
  async run(session, reader) {
    const from = reader.mailbox();
    reader.space();
    const given = reader.mailbox();
    reader.end();
    await session.account.renameMailbox(from, given.endsWith('/') ? given.slice(0, -1) : given);
    return ok('RENAME completed');
  },
};

function subscribing(subscribed: boolean): Command {
  return {
    async run(session, reader) {
      const name = reader.mailbox();
      reader.end();
      await session.account.subscribe(name, subscribed);
      return ok(`${subscribed ? '' : 'UN'}SUBSCRIBE completed`);
    },
  };
}

/** RFC 9051 §6.3.7: a name may be subscribed to that has no mailbox. */
export const subscribe: Command = subscribing(true);
/** RFC 9051 §6.3.8. */
export const unsubscribe: Command = subscribing(false);
