/**
 * FETCH and UID FETCH (RFC 9051 §6.4.5, §7.5.2), with MODSEQ and CHANGEDSINCE (RFC 7162) and EMAILID (RFC 8474).
 *
 * Fetching a section that is not a PEEK sets `\Seen`: one commit for up to `seenBatch` messages, before they are sent, so that a message is
 * never sent as seen and then found unseen. A message that cannot be read does not hide the others: they are sent, then the failure is told.
 */
import type { Mailbox, MessageInfo } from '#backend-cluster/mailboxes/open-account.ts';
import { asPlatformError, type PlatformError } from '#common/errors/platform-error.ts';
import { writeBodyStructure, writeEnvelope } from '#protocol/imap/body-structure.ts';
import { type FetchItem, parseFetch } from '#protocol/imap/fetch-grammar.ts';
import { formatDateTime, ResponseWriter } from '#protocol/imap/response.ts';
import { readSection } from '#protocol/mime/section.ts';
import { type Command, type ImapSession, no, ok, selectedOf } from './command.ts';
import { MessageContent } from './message-content.ts';
import type { Addressed } from './selected.ts';

/** Messages whose `\Seen` is set in one commit. */
const seenBatch = 100;

/** RFC 9051 §6.4.5. */
export const fetch: Command = {
  inSelected: true,
  holdsExpunge: true,
  async run(session, reader, call) {
    const set = reader.sequenceSet();
    reader.space();
    const request = parseFetch(reader);
    const selected = selectedOf(session);
    if (!call.isUid && !selected.hasAll(set)) return { status: 'BAD', code: 'CLIENTBUG', text: 'There is no such message' };
    const items = [...request.items];
    if (request.changedSince !== undefined && !items.some((item) => item.kind === 'modseq')) items.push({ kind: 'modseq' });
    // RFC 7162 §3.1: both make the client one that knows mod-sequences.
    if (items.some((item) => item.kind === 'modseq')) session.isCondstore = true;
    if (call.isUid && !items.some((item) => item.kind === 'uid')) items.unshift({ kind: 'uid' });
    const marksSeen = !selected.isReadOnly && items.some((item) => item.kind === 'section' && !item.peek);

    const chosen = selected.select(set, call.isUid);
    const run = new FetchRun(session, items);
    for (let from = 0; from < chosen.length; from += seenBatch) {
      const batch = chosen.slice(from, from + seenBatch);
      const marked = marksSeen ? await markSeen(session, batch) : new Set<number>();
      for (const message of batch) await run.one(message, request.changedSince, marked.has(message.uid));
    }
    if (run.failure !== undefined) throw run.failure;
    // RFC 5530: told only where it was seen, and only after everything else was sent.
    return run.hasGone ? no('EXPUNGEISSUED', 'Some of the messages no longer exist') : ok(`${call.isUid ? 'UID ' : ''}FETCH completed`);
  },
};

async function markSeen(session: ImapSession, batch: readonly Addressed[]): Promise<ReadonlySet<number>> {
  const selected = selectedOf(session);
  const mailbox = session.account.mailboxById(selected.id);
  const unseen = batch.map(({ uid }) => uid).filter((uid) => mailbox?.message(uid)?.flags.includes('\\Seen') === false);
  if (unseen.length === 0) return new Set();
  let changed: readonly MessageInfo[];
  try {
    ({ changed } = await session.account.storeFlags(selected.id, unseen, 'add', ['\\Seen']));
  } catch (error) {
    // Mail can be read where nothing can be changed: on full storage, and in an account that is read-only.
    if (!['STORE_FULL', 'STORE_CORRUPT'].includes(asPlatformError(error).code)) throw error;
    return new Set();
  }
  for (const info of changed) selected.noteReported(info);
  return new Set(changed.map((info) => info.uid));
}

class FetchRun {
  readonly #session: ImapSession;
  readonly #items: readonly FetchItem[];
  readonly #mailboxId: number;
  /** The first message that could not be read. */
  failure: PlatformError | undefined;
  hasGone = false;

  constructor(session: ImapSession, items: readonly FetchItem[]) {
    this.#session = session;
    this.#items = items;
    this.#mailboxId = selectedOf(session).id;
  }

  async one(message: Addressed, changedSince: number | undefined, nowSeen: boolean): Promise<void> {
    const session = this.#session;
    const mailbox: Mailbox | undefined = session.account.mailboxById(this.#mailboxId);
    const info = mailbox?.message(message.uid);
    if (info === undefined) {
      this.hasGone = true;
      return;
    }
    if (changedSince !== undefined && info.modseq <= changedSince) return;
    let parts: Buffer[];
    try {
      parts = await this.#response(message.sequence, info, nowSeen);
    } catch (thrown) {
      const error = asPlatformError(thrown);
      if (!session.account.isOpen) throw error;
      if (mailbox?.message(message.uid) === undefined) this.hasGone = true;
      else this.failure ??= error;
      return;
    }
    await session.out.send(parts);
  }

  async #response(sequence: number, info: MessageInfo, nowSeen: boolean): Promise<Buffer[]> {
    const out = new ResponseWriter().text(`* ${sequence} FETCH (`);
    const content = this.#content(info.uid);
    let isFirst = true;
    for (const item of this.#items) {
      if (!isFirst) out.text(' ');
      isFirst = false;
      await this.#item(out, item, info, content);
    }
    if (nowSeen && !this.#items.some((item) => item.kind === 'flags')) out.text(` FLAGS (${info.flags.join(' ')})`);
    if (nowSeen && this.#session.isCondstore && !this.#items.some((item) => item.kind === 'modseq')) out.text(` MODSEQ (${info.modseq})`);
    this.#session.lastContent = content.isSmallEnoughToKeep ? content : undefined;
    return out.text(')').finish();
  }

  #content(uid: number): MessageContent {
    const last = this.#session.lastContent;
    if (last?.uid === uid && last.mailboxId === this.#mailboxId) return last;
    return new MessageContent(this.#session.account, this.#mailboxId, uid);
  }

  async #item(out: ResponseWriter, item: FetchItem, info: MessageInfo, content: MessageContent): Promise<void> {
    switch (item.kind) {
      case 'uid':
        out.text(`UID ${info.uid}`);
        return;
      case 'flags':
        out.text(`FLAGS (${info.flags.join(' ')})`);
        return;
      case 'internaldate':
        out.text(`INTERNALDATE ${formatDateTime(info.internalDateMs)}`);
        return;
      case 'size':
        out.text(`RFC822.SIZE ${info.sizeBytes}`);
        return;
      case 'modseq':
        out.text(`MODSEQ (${info.modseq})`);
        return;
      case 'emailid':
        out.text(`EMAILID (${info.emailId})`);
        return;
      case 'threadid':
        // RFC 8474 §5.3: NIL where threads are not kept.
        out.text('THREADID NIL');
        return;
      case 'envelope': {
        const { envelope } = await content.structure();
        out.text('ENVELOPE ');
        if (envelope !== null) writeEnvelope(out, envelope);
        return;
      }
      case 'body':
      case 'bodystructure':
        out.text(item.kind === 'body' ? 'BODY ' : 'BODYSTRUCTURE ');
        writeBodyStructure(out, await content.structure(), item.kind === 'bodystructure');
        return;
      case 'section': {
        const { section, partial } = item;
        const isAll = section.what === 'all' && section.path.length === 0;
        const raw = await content.raw();
        const bytes = isAll ? raw : readSection(raw, await content.structure(), section);
        out.text(`${item.label} `);
        if (bytes === undefined) out.text('NIL');
        // Always a literal: the grammar has quoted strings here too, and clients exist that read only literals as octets.
        else out.literal(partial === undefined ? bytes : bytes.subarray(partial.offset, partial.offset + partial.length));
      }
    }
  }
}
