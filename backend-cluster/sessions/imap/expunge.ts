/**
 * EXPUNGE (RFC 9051 §6.4.3) and UID EXPUNGE (RFC 4315 §2.1). The untagged responses are the session's updates after the command.
 */
import { type Command, no, ok, selectedOf } from './command.ts';

/** RFC 9051 §6.4.3; as `UID EXPUNGE` only what is in the set. */
export const expunge: Command = {
  inSelected: true,
  async run(session, reader, call) {
    const set = call.isUid ? reader.sequenceSet() : undefined;
    reader.end();
    const selected = selectedOf(session);
    if (selected.isReadOnly) return no('NOPERM', 'The mailbox is open read-only');
    if (set === undefined) await session.account.expunge(selected.id);
    else {
      const uids = selected.select(set, true).map(({ uid }) => uid);
      if (uids.length > 0) await session.account.expunge(selected.id, uids);
    }
    return ok(`${call.isUid ? 'UID ' : ''}EXPUNGE completed`);
  },
};
