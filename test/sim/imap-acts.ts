/**
 * What a mail client does in an IMAP session, told to the account's history: looks, marks, moves, removes. The same for the simulator's
 * channels and for real connections.
 */
import type { AccountHistory } from './history.ts';
import type { Chance } from './world.ts';

/** A dialogue: sends, and gives back what came up to the pattern; `undefined` when the connection ended before. */
export interface Talk {
  ask(text: string, pattern: RegExp): Promise<string | undefined>;
}

/** Who acts. */
export interface Acting {
  readonly history: AccountHistory;
  readonly chance: Chance;
  nowMs(): number;
}

/** What a client knows of a mailbox. */
export interface View {
  readonly messages: { readonly uid: number; readonly id: string }[];
}

/**
 * What a mailbox holds. Headers are asked for only of messages that this account's clients have not met under their UID, and of a few of
 * the others by chance, as mail clients do.
 */
export async function look({ history, chance, nowMs }: Acting, dialogue: Talk, mailbox: string): Promise<View | undefined> {
  const askedAtMs = nowMs();
  const selected = await dialogue.ask(`s SELECT ${mailbox}\r\n`, /^s [A-Z]+ .*\r\n$/m);
  const number = (pattern: RegExp): number => Number(pattern.exec(selected ?? '')?.[1] ?? Number.NaN);
  if (selected === undefined || !/^s OK /m.test(selected)) return undefined;
  const listed = await dialogue.ask('l UID FETCH 1:* (UID FLAGS)\r\n', /^l [A-Z]+ .*\r\n$/m);
  if (listed === undefined || !/^l OK /m.test(listed)) return undefined;
  const uidValidity = number(/UIDVALIDITY (\d+)/);
  const messages: { uid: number; id: string }[] = [];
  const unknown: string[] = [];
  for (const [, uid] of listed.matchAll(/\* \d+ FETCH \(UID (\d+) /g)) {
    const id = history.idAt(mailbox, uidValidity, Number(uid));
    if (id === undefined || chance.is(0.03)) unknown.push(uid as string);
    else messages.push({ uid: Number(uid), id });
  }
  if (unknown.length > 0) {
    const asked = `f UID FETCH ${unknown.join(',')} (UID BODY.PEEK[HEADER.FIELDS (X-Sim-Id)])\r\n`;
    const fetched = await dialogue.ask(asked, /^f [A-Z]+ .*\r\n$/m);
    if (fetched === undefined || !/^f OK /m.test(fetched)) return undefined;
    for (const [, uid, id] of fetched.matchAll(/\* \d+ FETCH \(UID (\d+) [\s\S]*?X-Sim-Id: (\S+)/g)) {
      messages.push({ uid: Number(uid), id: id as string });
    }
  }
  if (mailbox === 'INBOX') history.checkFreshness(askedAtMs, new Set(messages.map(({ id }) => id)));
  history.saw({ mailbox, uidValidity, uidNext: number(/UIDNEXT (\d+)/), highestModseq: number(/HIGHESTMODSEQ (\d+)/), messages });
  return { messages };
}

/** One change of one message; false when the session is over. */
export async function step(parts: Acting, dialogue: Talk, view: View): Promise<boolean> {
  const { chance, history } = parts;
  const [message] = view.messages.length === 0 ? [] : view.messages.splice(chance.below(view.messages.length), 1);
  const sent = message === undefined ? undefined : history.sent.get(message.id);
  if (message === undefined || sent === undefined) return (await dialogue.ask('n NOOP\r\n', /^n [A-Z]+ .*\r\n$/m)) !== undefined;
  const { uid } = message;
  const done = (answer: string | undefined, tag: string): boolean => answer !== undefined && new RegExp(`^${tag} OK `, 'm').test(answer);
  const what = chance.below(10);
  if (what < 5) {
    const keyword = `k${chance.below(6)}`;
    const answer = await dialogue.ask(`k UID STORE ${uid} +FLAGS (${keyword})\r\n`, /^k [A-Z]+ .*\r\n$/m);
    // UIDs that are gone are passed over: only a FETCH response says that the message has it.
    if (done(answer, 'k') && answer?.includes(`UID ${uid}`) === true) sent.keywords.add(keyword);
    return answer !== undefined;
  }
  if (what < 8) {
    if (sent.move === 'no') sent.move = 'asked';
    const answer = await dialogue.ask(`m UID MOVE ${uid} Archive\r\n`, /^m [A-Z]+ .*\r\n$/m);
    const target = /\[COPYUID (\d+) \d+ (\d+)\]/.exec(answer ?? '');
    if (target !== null) {
      const [uidValidity, moved] = [Number(target[1]), Number(target[2])];
      if (done(answer, 'm')) sent.move = 'done';
      history.saw({ mailbox: 'Archive', uidValidity, uidNext: moved + 1, highestModseq: 0, messages: [{ uid: moved, id: message.id }] });
    }
    return answer !== undefined;
  }
  sent.removal = 'asked';
  const marked = await dialogue.ask(`d UID STORE ${uid} +FLAGS (\\Deleted)\r\n`, /^d [A-Z]+ .*\r\n$/m);
  // Without this line it was gone before, and what vanishes next was not removed by this client.
  if (!done(marked, 'd') || marked?.includes(`UID ${uid}`) !== true) return marked !== undefined;
  const answer = await dialogue.ask(`x UID EXPUNGE ${uid}\r\n`, /^x [A-Z]+ .*\r\n$/m);
  if (done(answer, 'x') && /\* \d+ EXPUNGE/.test(answer ?? '')) sent.removal = 'done';
  return answer !== undefined;
}
