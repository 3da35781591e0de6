/**
 * An open account as an archive (protocol/archive/format.ts). It is taken while the account is in use: the mailboxes and messages are those
 * of the moment in which each mailbox's turn comes; a message that is expunged meanwhile is left out.
 */
import { asPlatformError } from '#common/errors/platform-error.ts';
import { type ArchivedMailbox, type ArchivedMessage, ArchiveWriter, batchBytesMax, batchMessagesMax } from '#protocol/archive/format.ts';
import type { Mailbox, OpenAccount } from './open-account.ts';

/** Pieces of the archive, in order. Rejects as reading does: a message that is damaged ends the export, and the archive has no end. */
export async function* exportAccount(
  account: OpenAccount,
  about: { readonly id: string; readonly name: string; readonly nowMs: number },
): AsyncGenerator<Buffer> {
  const writer = new ArchiveWriter();
  const mailboxes = account.mailboxes();
  yield* writer.head(
    {
      id: about.id,
      account: about.name,
      createdAtMs: about.nowMs,
      mailboxes: mailboxes.map(archived),
      subscriptions: account.subscriptions(),
    },
    account.scripts(),
  );
  for (const mailbox of mailboxes) {
    let batch: ArchivedMessage[] = [];
    let bytes = 0;
    for (const uid of mailbox.uids()) {
      const message = await read(account, mailbox, uid);
      if (message === undefined) continue;
      batch.push(message);
      bytes += message.raw.length;
      if (batch.length < batchMessagesMax && bytes < batchBytesMax) continue;
      yield* writer.messages(mailbox.id, batch);
      batch = [];
      bytes = 0;
    }
    if (batch.length > 0) yield* writer.messages(mailbox.id, batch);
  }
  yield* writer.end();
}

function archived({ id, name, uidValidity, uidNext, highestModseq, specialUse }: Mailbox): ArchivedMailbox {
  return { number: id, name, uidValidity, uidNext, highestModseq, ...(specialUse === undefined ? {} : { specialUse }) };
}

async function read(account: OpenAccount, mailbox: Mailbox, uid: number): Promise<ArchivedMessage | undefined> {
  const info = mailbox.message(uid);
  if (info === undefined) return undefined;
  try {
    const raw = await account.readRaw(mailbox.id, uid);
    return { raw, uid, modseq: info.modseq, emailId: info.emailId, flags: info.flags, internalDateMs: info.internalDateMs };
  } catch (error) {
    if (asPlatformError(error).code === 'MBOX_NOT_FOUND') return undefined;
    throw error;
  }
}
