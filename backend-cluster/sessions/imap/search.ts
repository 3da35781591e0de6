/**
 * SEARCH and UID SEARCH (RFC 9051 §6.4.4, RFC 3501 §7.2.5), with ESEARCH (RFC 4731) and MODSEQ (RFC 7162 §3.1.5).
 */
import { parseSearch, type SearchKey, type SearchRequest } from '#protocol/imap/search-grammar.ts';
import { formatNumbers } from '#protocol/imap/sequence-set.ts';
import { type Command, no, ok, selectedOf } from './command.ts';
import { MessageContent } from './message-content.ts';
import { nextTurn } from './output.ts';
import { Pace } from './pace.ts';
import { compileSearch } from './search-match.ts';
import { SearchedText } from './searched-text.ts';

/** Messages looked at before other sessions have their turn. */
const messagesPerTurn = 2000;

interface Found {
  readonly number: number;
  readonly modseq: number;
}

/** RFC 9051 §6.4.4. */
export const search: Command = {
  inSelected: true,
  holdsExpunge: true,
  async run(session, reader, call) {
    const request = parseSearch(reader);
    reader.end();
    const selected = selectedOf(session);
    const asksModseq = usesModseq(request.key);
    if (asksModseq) session.isCondstore = true;
    const pace = new Pace();
    const matches = compileSearch(request.key, { selected, nowMs: session.clock.nowMs() });
    const found: Found[] = [];
    let looked = 0;
    for (const { sequence, uid } of selected.all()) {
      const info = session.account.mailboxById(selected.id)?.message(uid);
      if (info === undefined) continue;
      const content = new MessageContent(session.account, selected.id, uid);
      const verdict = matches({ sequence, info, content, text: new SearchedText(content, pace) });
      if (verdict === true || (verdict !== false && (await verdict)))
        found.push({ number: call.isUid ? uid : sequence, modseq: info.modseq });
      looked += 1;
      if (looked % messagesPerTurn === 0) await nextTurn();
      if (session.out.isClosed) return no(undefined, 'The client has gone');
    }
    await session.out.line(answer(request, found, call.tag, call.isUid, asksModseq));
    return ok(`${call.isUid ? 'UID ' : ''}SEARCH completed`);
  },
};

function answer(request: SearchRequest, found: readonly Found[], tag: string, isUid: boolean, asksModseq: boolean): string {
  const numbers = found.map(({ number }) => number);
  const { returns } = request;
  if (returns === undefined) {
    return `* SEARCH${numbers.map((number) => ` ${number}`).join('')}${asksModseq && found.length > 0 ? ` (MODSEQ ${highestOf(found)})` : ''}`;
  }
  const items: string[] = [];
  const first = found[0];
  const last = found.at(-1);
  if (first !== undefined && last !== undefined) {
    if (returns.has('MIN')) items.push(`MIN ${first.number}`);
    if (returns.has('MAX')) items.push(`MAX ${last.number}`);
    if (returns.has('ALL')) items.push(`ALL ${formatNumbers(numbers)}`);
  }
  if (returns.has('COUNT')) items.push(`COUNT ${numbers.length}`);
  if (asksModseq && first !== undefined && last !== undefined) {
    // RFC 4731 §3.2: of what is returned, or of all that matched.
    const onlyEnds = !returns.has('ALL') && !returns.has('COUNT');
    const ends = [...(returns.has('MIN') ? [first] : []), ...(returns.has('MAX') ? [last] : [])];
    items.push(`MODSEQ ${highestOf(onlyEnds ? ends : found)}`);
  }
  return `* ESEARCH (TAG ${quoted(tag)})${isUid ? ' UID' : ''}${items.map((item) => ` ${item}`).join('')}`;
}

function highestOf(found: readonly Found[]): number {
  return found.reduce((highest, { modseq }) => Math.max(highest, modseq), 0);
}

function quoted(tag: string): string {
  return `"${tag.replace(/["\\]/g, '\\$&')}"`;
}

function usesModseq(key: SearchKey): boolean {
  if (key.kind === 'modseq') return true;
  if (key.kind === 'not') return usesModseq(key.key);
  return (key.kind === 'and' || key.kind === 'or') && key.keys.some(usesModseq);
}
