/**
 * SELECT, EXAMINE, CLOSE and UNSELECT (RFC 9051 §6.3.2, §6.3.3, §6.4.1, §6.4.2), with CONDSTORE's parameter (RFC 7162 §3.1.8).
 */
import { syntaxError } from '#protocol/imap/reader.ts';
import { type Command, no, ok, selectedOf } from './command.ts';
import { SelectedMailbox, systemFlags } from './selected.ts';

/** MAILBOXID (RFC 8474 §4.1): letters first, so that no client takes it for a number. */
export function mailboxIdText(id: number): string {
  return `M${id}`;
}

function opening(isReadOnly: boolean): Command {
  return {
    async run(session, reader) {
      const name = reader.mailbox();
      if (reader.take(' ')) {
        reader.list(() => {
          if (reader.keyword() !== 'CONDSTORE') throw syntaxError('Unknown SELECT parameter');
          session.isCondstore = true;
        });
      }
      reader.end();
      const { out } = session;
      // RFC 9051 §6.3.2: the mailbox that was selected is deselected even when the new one cannot be.
      if (session.selected !== undefined) await out.line('* OK [CLOSED] Previous mailbox is no longer selected');
      session.selected = undefined;
      const mailbox = session.account.mailbox(name);
      if (mailbox === undefined) return no('NONEXISTENT', 'No such mailbox');
      const selected = new SelectedMailbox(mailbox, isReadOnly);
      session.selected = selected;
      await out.line(`* FLAGS (${selected.flags.join(' ')})`);
      await out.line(`* ${selected.count} EXISTS`);
      await out.line('* 0 RECENT');
      if (selected.firstUnseen !== undefined) await out.line(`* OK [UNSEEN ${selected.firstUnseen}] First unseen message`);
      const permanent = isReadOnly ? '' : [...systemFlags, ...selected.flags.slice(systemFlags.length), '\\*'].join(' ');
      await out.line(`* OK [PERMANENTFLAGS (${permanent})] ${isReadOnly ? 'No flags can be changed' : 'Flags that can be changed'}`);
      await out.line(`* OK [UIDVALIDITY ${mailbox.uidValidity}] UIDs are valid`);
      await out.line(`* OK [UIDNEXT ${mailbox.uidNext}] Next UID`);
      await out.line(`* OK [HIGHESTMODSEQ ${mailbox.highestModseq}] Highest mod-sequence`);
      await out.line(`* OK [MAILBOXID (${mailboxIdText(mailbox.id)})] Mailbox id`);
      return isReadOnly ? ok('EXAMINE completed', 'READ-ONLY') : ok('SELECT completed', 'READ-WRITE');
    },
  };
}

/** RFC 9051 §6.3.2. */
export const select: Command = opening(false);
/** RFC 9051 §6.3.3. */
export const examine: Command = opening(true);

/** RFC 9051 §6.4.1: removes what is marked, without telling. */
export const close: Command = {
  inSelected: true,
  async run(session, reader) {
    reader.end();
    const selected = selectedOf(session);
    session.selected = undefined;
    if (!selected.isReadOnly && session.account.mailboxById(selected.id) !== undefined) await session.account.expunge(selected.id);
    return ok('CLOSE completed');
  },
};

/** RFC 9051 §6.4.2. */
export const unselect: Command = {
  inSelected: true,
  run(session, reader) {
    reader.end();
    session.selected = undefined;
    return ok('UNSELECT completed');
  },
};
