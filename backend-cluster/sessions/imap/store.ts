/**
 * STORE and UID STORE (RFC 9051 §6.4.6), with UNCHANGEDSINCE (RFC 7162 §3.1.3).
 */
import type { FlagOperation } from '#backend-cluster/mailboxes/open-account.ts';
import { type CommandReader, syntaxError } from '#protocol/imap/reader.ts';
import { formatNumbers } from '#protocol/imap/sequence-set.ts';
import { type Command, type ImapSession, no, ok, selectedOf } from './command.ts';
import { systemFlags } from './selected.ts';

/** Flags in one command, and octets of one keyword. */
export const flagsMax = 100;
export const keywordBytesMax = 255;

/** RFC 9051 §6.4.6. */
export const store: Command = {
  inSelected: true,
  holdsExpunge: true,
  async run(session, reader, call) {
    const set = reader.sequenceSet();
    reader.space();
    const unchangedSince = parseModifier(reader);
    if (unchangedSince !== undefined) session.isCondstore = true;
    const { operation, isSilent } = parseItem(reader);
    reader.space();
    const flags = storableFlags(reader.flags(true));
    reader.end();
    const selected = selectedOf(session);
    if (selected.isReadOnly) return no('NOPERM', 'The mailbox is open read-only');
    if (!call.isUid && !selected.hasAll(set)) return { status: 'BAD', code: 'CLIENTBUG', text: 'There is no such message' };
    const chosen = selected.select(set, call.isUid);
    const uids = chosen.map(({ uid }) => uid);
    const name = `${call.isUid ? 'UID ' : ''}STORE`;
    if (uids.length === 0) return ok(`${name} completed`);
    const { changed, modified } = await session.account.storeFlags(selected.id, uids, operation, flags, unchangedSince);
    let hasNewKeyword = false;
    for (const info of changed) {
      selected.noteReported(info);
      hasNewKeyword = selected.learn(info) || hasNewKeyword;
    }
    if (hasNewKeyword) await session.out.line(`* FLAGS (${selected.flags.join(' ')})`);
    const passedOver = new Set(modified);
    const answered = isSilent ? changed.map(({ uid }) => uid) : uids.filter((uid) => !passedOver.has(uid));
    if (!isSilent || session.isCondstore) await sendStates(session, answered, isSilent, call.isUid);
    if (modified.length === 0) return ok(`${name} completed`);
    // RFC 7162 §3.1.3: what was not changed, in the numbers that the client used.
    const numbers = modified.map((uid) => (call.isUid ? uid : selected.sequenceOf(uid))).sort((a, b) => a - b);
    return ok(`${name} completed, some messages were changed meanwhile`, `MODIFIED ${formatNumbers(numbers)}`);
  },
};

async function sendStates(session: ImapSession, uids: readonly number[], isSilent: boolean, isUid: boolean): Promise<void> {
  const selected = selectedOf(session);
  const mailbox = session.account.mailboxById(selected.id);
  for (const uid of uids) {
    const info = mailbox?.message(uid);
    const sequence = selected.sequenceOf(uid);
    if (info === undefined || sequence === 0) continue;
    const items = isUid ? [`UID ${uid}`] : [];
    if (!isSilent) items.push(`FLAGS (${info.flags.join(' ')})`);
    if (session.isCondstore) items.push(`MODSEQ (${info.modseq})`);
    await session.out.line(`* ${sequence} FETCH (${items.join(' ')})`);
  }
}

function parseModifier(reader: CommandReader): number | undefined {
  let unchangedSince: number | undefined;
  if (!reader.nextIs('(')) return undefined;
  reader.list(() => {
    if (reader.keyword() !== 'UNCHANGEDSINCE') throw syntaxError('Unknown STORE modifier');
    reader.space();
    unchangedSince = reader.number64();
  });
  reader.space();
  return unchangedSince;
}

function parseItem(reader: CommandReader): { readonly operation: FlagOperation; readonly isSilent: boolean } {
  const operation = reader.take('+') ? 'add' : reader.take('-') ? 'remove' : 'replace';
  const word = reader.keyword();
  if (word !== 'FLAGS' && word !== 'FLAGS.SILENT') throw syntaxError('Expected FLAGS or FLAGS.SILENT');
  return { operation, isSilent: word === 'FLAGS.SILENT' };
}

/** Flags that can be stored: system flags in their usual spelling, keywords as they are. `\Recent` cannot be (RFC 3501 §2.3.2). */
export function storableFlags(flags: readonly string[]): string[] {
  if (flags.length > flagsMax) throw syntaxError(`More than ${flagsMax} flags`);
  const out = new Map<string, string>();
  for (const flag of flags) {
    const system = systemFlags.find((candidate) => candidate.toLowerCase() === flag.toLowerCase());
    if (system === undefined && flag.startsWith('\\')) throw syntaxError('Unknown system flag');
    if (flag.length > keywordBytesMax) throw syntaxError(`A keyword is longer than ${keywordBytesMax} octets`);
    out.set(flag.toLowerCase(), system ?? flag);
  }
  return [...out.values()];
}
