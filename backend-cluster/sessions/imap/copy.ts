/**
 * COPY and MOVE, by sequence number and by UID (RFC 9051 §6.4.7, §6.4.8), with COPYUID (RFC 4315 §3).
 */
import { formatNumbers } from '#protocol/imap/sequence-set.ts';
import { type Command, no, ok, selectedOf } from './command.ts';

function transferring(isMove: boolean): Command {
  return {
    inSelected: true,
    async run(session, reader, call) {
      const set = reader.sequenceSet();
      reader.space();
      const name = reader.mailbox();
      reader.end();
      const selected = selectedOf(session);
      if (!call.isUid && !selected.hasAll(set)) return { status: 'BAD', code: 'CLIENTBUG', text: 'There is no such message' };
      if (isMove && selected.isReadOnly) return no('NOPERM', 'The mailbox is open read-only');
      const target = session.account.mailbox(name);
      // RFC 9051 §6.4.7: the client may create it and try again.
      if (target === undefined) return no('TRYCREATE', 'No such mailbox');
      const command = `${call.isUid ? 'UID ' : ''}${isMove ? 'MOVE' : 'COPY'}`;
      const uids = selected.select(set, call.isUid).map(({ uid }) => uid);
      if (uids.length === 0) return ok(`${command} completed, there were no such messages`);
      const copied = isMove
        ? await session.account.move(selected.id, uids, target.id)
        : await session.account.copy(selected.id, uids, target.id);
      if (copied.length === 0) return no('EXPUNGEISSUED', 'The messages no longer exist');
      const from = formatNumbers(copied.map((pair) => pair.sourceUid));
      const to = formatNumbers(copied.map((pair) => pair.uid));
      const code = `COPYUID ${target.uidValidity} ${from} ${to}`;
      if (!isMove) return ok(`${command} completed`, code);
      // RFC 6851 §4.3: COPYUID goes out before the EXPUNGEs, which the session sends next.
      await session.out.line(`* OK [${code}] Moved`);
      return ok(`${command} completed`);
    },
  };
}

/** RFC 9051 §6.4.7. */
export const copy: Command = transferring(false);
/** RFC 9051 §6.4.8. */
export const move: Command = transferring(true);
