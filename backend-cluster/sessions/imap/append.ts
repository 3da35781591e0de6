/**
 * APPEND (RFC 9051 §6.3.12) with several messages in one commit (RFC 3502), APPENDUID (RFC 4315 §3) and APPENDLIMIT (RFC 7889).
 *
 * `refusalOf` is asked when the client announces a message: what cannot be stored is refused before it is sent.
 */
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { parseAppendItems } from '#protocol/imap/append-grammar.ts';
import type { CommandPiece } from '#protocol/imap/decoder.ts';
import { CommandReader } from '#protocol/imap/reader.ts';
import { formatNumbers } from '#protocol/imap/sequence-set.ts';
import { normaliseLineEnds, summarise } from '#protocol/mime/summary.ts';
import { appendBytesMax } from './capabilities.ts';
import { type Command, no, ok, type TaggedReply } from './command.ts';
import { storableFlags } from './store.ts';

/** RFC 9051 §6.3.12. */
export const append: Command = {
  async run(session, reader) {
    const name = reader.mailbox();
    const items = parseAppendItems(reader);
    const mailbox = session.account.mailbox(name);
    if (mailbox === undefined) return no('TRYCREATE', 'No such mailbox');
    // RFC 3502 §6.3.11: an empty literal is how a client gives up.
    if (items.some((item) => item.raw.length === 0)) return no(undefined, 'APPEND was cancelled by an empty message');
    const messages = items.map((item) => {
      const raw = normaliseLineEnds(item.raw);
      return {
        raw,
        summary: summarise(raw),
        flags: storableFlags(item.flags),
        internalDateMs: item.internalDateMs ?? session.clock.nowMs(),
      };
    });
    const stored = await session.account.append(mailbox.id, messages);
    return ok('APPEND completed', `APPENDUID ${mailbox.uidValidity} ${formatNumbers(stored.map((message) => message.uid))}`);
  },
};

/**
 * Whether a message that an APPEND announces must be refused, and how. `undefined`: let it come. `pieces` is the command so far.
 * `isMessage` false: the literal is the mailbox name, which has the limits of any argument.
 */
export function refusalOf(
  account: OpenAccount,
  pieces: readonly CommandPiece[],
  sizeBytes: number,
): { readonly isMessage: boolean; readonly reply: TaggedReply | undefined } {
  const reader = new CommandReader(pieces);
  reader.tag();
  reader.space();
  reader.keyword();
  reader.space();
  if (reader.isAtEnd) return { isMessage: false, reply: undefined };
  const name = reader.mailbox();
  const already = pieces.reduce((sum, piece) => sum + (piece.kind === 'literal' ? piece.bytes.length : 0), 0);
  // RFC 7889 §4: TOOBIG, said before the message is sent.
  if (already + sizeBytes > appendBytesMax) return { isMessage: true, reply: no('TOOBIG', 'The message is too large') };
  if (account.mailbox(name) === undefined) return { isMessage: true, reply: no('TRYCREATE', 'No such mailbox') };
  const { usedBytes, limitBytes } = account.quota();
  const isOver = limitBytes !== undefined && usedBytes + already + sizeBytes > limitBytes;
  return { isMessage: true, reply: isOver ? no('OVERQUOTA', 'Quota exceeded') : undefined };
}
