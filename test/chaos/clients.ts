/**
 * Mail clients on real connections: senders over SMTP, and one reader an account that looks, marks, moves and removes over IMAP. All that is
 * acknowledged goes into the account's history.
 */
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { sendMessage } from '#test/e2e/ledger.ts';
import { type AccountHistory, type FinalMailbox, textOf } from '#test/sim/history.ts';
import { look, step, type Talk } from '#test/sim/imap-acts.ts';
import type { Chance } from '#test/sim/world.ts';
import { password, ports } from './installation.ts';

const answerMaxMs = 20_000;

/** Counts of what clients did, for the end. */
export interface Counts {
  sent: number;
  acknowledged: number;
  sessions: number;
  changes: number;
}

/** An account with its history. */
export interface ChaosAccount {
  readonly name: string;
  readonly history: AccountHistory;
}

/** A dialogue over TLS. */
class ImapTalk implements Talk {
  readonly #socket: TLSSocket;
  #text = '';
  #isClosed = false;
  #changed: () => void = () => {};

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.setTimeout(answerMaxMs, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('latin1');
      this.#changed();
    });
    socket.on('close', () => {
      this.#isClosed = true;
      this.#changed();
    });
  }

  async ask(text: string, pattern: RegExp): Promise<string | undefined> {
    this.#text = '';
    if (this.#isClosed) return undefined;
    if (text !== '') this.#socket.write(text);
    while (!pattern.test(this.#text)) {
      if (this.#isClosed) return undefined;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
    return this.#text;
  }

  close(): void {
    this.#socket.destroy();
  }
}

async function logIn(address: string, name: string): Promise<ImapTalk | undefined> {
  const talk = new ImapTalk(connectTls({ host: address, port: ports.imaps, rejectUnauthorized: false }));
  const greeting = await talk.ask('', /^\* OK .*\r\n$/m);
  const answer = greeting === undefined ? undefined : await talk.ask(`a LOGIN ${name} ${password}\r\n`, /^a [A-Z]+ .*\r\n$/m);
  if (answer !== undefined && /^a OK /m.test(answer)) return talk;
  talk.close();
  return undefined;
}

/** Sends one message after the other until `isOver`. Each is tried once: one without an answer may or may not arrive. */
export async function sendOn(
  accounts: readonly ChaosAccount[],
  frontends: readonly string[],
  chance: Chance,
  tag: string,
  counts: Counts,
  isOver: () => boolean,
) {
  for (let number = 1; !isOver(); number += 1) {
    const { name, history } = chance.pick(accounts);
    const sent = history.send(`${tag}-${number}`);
    counts.sent += 1;
    const text = textOf(sent.id, chance.is(0.05) ? 4_000 : chance.below(40));
    const reply = await sendMessage(`${chance.pick(frontends)}:${ports.smtp}`, name, text);
    if (reply.startsWith('250')) {
      sent.isAcknowledged = true;
      counts.acknowledged += 1;
    } else if (reply.startsWith('5')) history.violations.push(`I11: ${sent.id} was refused for good: ${reply}`);
    await new Promise((resolve) => setTimeout(resolve, 20 + chance.below(60)));
  }
}

/** Sessions of one account, one after the other, until `isOver`. */
export async function readOn(
  { name, history }: ChaosAccount,
  frontends: readonly string[],
  chance: Chance,
  counts: Counts,
  isOver: () => boolean,
) {
  const acting = { history, chance, nowMs: () => performance.now() };
  while (!isOver()) {
    const talk = await logIn(chance.pick(frontends), name);
    if (talk !== undefined) {
      counts.sessions += 1;
      const view = await look(acting, talk, 'INBOX');
      for (let steps = 2 + chance.below(6); view !== undefined && steps > 0 && !isOver(); steps -= 1) {
        if (!(await step(acting, talk, view))) break;
        counts.changes += 1;
      }
      if (chance.is(0.3)) await look(acting, talk, 'Archive');
      talk.close();
    }
    await new Promise((resolve) => setTimeout(resolve, 50 + chance.below(200)));
  }
}

/** Whether a client can log in and select its inbox now. */
export async function canRead(name: string, address: string): Promise<boolean> {
  const talk = await logIn(address, name);
  const selected = await talk?.ask('s EXAMINE INBOX\r\n', /^s [A-Z]+ .*\r\n$/m);
  talk?.close();
  return selected !== undefined && /^s OK /m.test(selected);
}

/** All mailboxes of an account, as a client sees them; `undefined` when it cannot be read now. */
export async function readAll(name: string, address: string): Promise<FinalMailbox[] | undefined> {
  const talk = await logIn(address, name);
  if (talk === undefined) return undefined;
  try {
    const listed = await talk.ask('b LIST "" "*"\r\n', /^b [A-Z]+ .*\r\n$/m);
    if (listed === undefined || !/^b OK /m.test(listed)) return undefined;
    const all: FinalMailbox[] = [];
    for (const [, mailbox] of listed.matchAll(/^\* LIST \([^)]*\) "[^"]*" "?([^"\r\n]+)"?\r$/gm)) {
      const found = await readMailbox(talk, mailbox as string);
      if (found === undefined) return undefined;
      all.push(found);
    }
    return all;
  } finally {
    talk.close();
  }
}

async function readMailbox(talk: ImapTalk, mailbox: string): Promise<FinalMailbox | undefined> {
  const selected = await talk.ask(`s EXAMINE "${mailbox}"\r\n`, /^s [A-Z]+ .*\r\n$/m);
  if (selected === undefined || !/^s OK /m.test(selected)) return undefined;
  const number = (pattern: RegExp): number => Number(pattern.exec(selected)?.[1] ?? Number.NaN);
  const fetched = await talk.ask('f UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (X-Sim-Id)])\r\n', /^f [A-Z]+ .*\r\n$/m);
  if (fetched === undefined || !/^f OK /m.test(fetched)) return undefined;
  const messages = [...fetched.matchAll(/\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\)[\s\S]*?X-Sim-Id: (\S+)/g)].map(
    ([, uid, flags, id]) => ({
      uid: Number(uid),
      id: id as string,
      flags: (flags as string).split(' ').filter((flag) => flag !== ''),
    }),
  );
  return {
    mailbox,
    uidValidity: number(/UIDVALIDITY (\d+)/),
    uidNext: number(/UIDNEXT (\d+)/),
    highestModseq: number(/HIGHESTMODSEQ (\d+)/),
    messages,
  };
}
