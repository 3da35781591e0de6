/**
 * What one account's clients were promised and saw, and whether the account keeps it (I3, I4, I5). An operation without an answer may or
 * may not have happened; both are allowed, twice is not.
 */
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { leaseMs } from './member-node.ts';

/** A lease by the slowest clock, and the way of a heartbeat. */
export const staleWithinMs = leaseMs / 0.8 + 500;

/** One message, by its delivery id. */
export interface Sent {
  readonly id: string;
  isAcknowledged: boolean;
  acknowledgedAtMs: number;
  removal: 'no' | 'asked' | 'done';
  move: 'no' | 'asked' | 'done';
  /** Keywords whose setting was acknowledged. Never taken away. */
  readonly keywords: Set<string>;
}

/** What a client saw of a mailbox. */
export interface Seen {
  readonly mailbox: string;
  readonly uidValidity: number;
  readonly uidNext: number;
  readonly highestModseq: number;
  readonly messages: readonly { readonly uid: number; readonly id: string }[];
}

/** A mailbox as it is in the end. */
export interface FinalMailbox extends Omit<Seen, 'messages'> {
  readonly messages: readonly { readonly uid: number; readonly id: string; readonly flags: readonly string[] }[];
}

/** See the header of this file. */
export class AccountHistory<Account extends { readonly name: string } = { readonly name: string }> {
  readonly record: Account;
  readonly sent = new Map<string, Sent>();
  readonly violations: string[] = [];
  readonly #uids = new Map<string, string>();
  readonly #highest = new Map<string, { uidValidity: number; uidNext: number; modseq: number }>();

  constructor(record: Account) {
    this.record = record;
  }

  get unacknowledged(): Sent[] {
    return [...this.sent.values()].filter((message) => !message.isAcknowledged);
  }

  /** The message that a client has met under this UID. */
  idAt(mailbox: string, uidValidity: number, uid: number): string | undefined {
    return this.#uids.get(`${mailbox} ${uidValidity} ${uid}`);
  }

  send(id: string): Sent {
    const message: Sent = {
      id,
      isAcknowledged: false,
      acknowledgedAtMs: Number.POSITIVE_INFINITY,
      removal: 'no',
      move: 'no',
      keywords: new Set(),
    };
    this.sent.set(id, message);
    return message;
  }

  /** A client's view; it may be old, but what it says was true once. */
  saw(seen: Seen): void {
    const { mailbox, uidValidity } = seen;
    for (const { uid, id } of seen.messages) {
      const key = `${mailbox} ${uidValidity} ${uid}`;
      const before = this.#uids.get(key);
      if (before !== undefined && before !== id) this.#broken(`I5: UID ${uid} of ${mailbox} was ${before} and is ${id}`);
      this.#uids.set(key, id);
    }
    const highest = this.#highest.get(mailbox);
    this.#highest.set(mailbox, {
      uidValidity,
      uidNext: Math.max(highest?.uidNext ?? 0, seen.uidNext),
      modseq: Math.max(highest?.modseq ?? 0, seen.highestModseq),
    });
  }

  /**
   * What a client that asked at `askedAtMs` was shown of the inbox: it holds all that was acknowledged for longer than stale reads may
   * last, unless a client has asked for its removal or move (I9).
   */
  checkFreshness(askedAtMs: number, ids: ReadonlySet<string>): void {
    for (const { id, acknowledgedAtMs, removal, move } of this.sent.values()) {
      if (acknowledgedAtMs > askedAtMs - staleWithinMs || removal !== 'no' || move !== 'no' || ids.has(id)) continue;
      this.#broken(`I9: ${id} was acknowledged ${Math.round(askedAtMs - acknowledgedAtMs)} ms before a client asked, and was not shown`);
    }
  }

  /** Compares the account, as it is in the end, with all of it. */
  check(mailboxes: readonly FinalMailbox[]): void {
    const found = new Map<string, { mailbox: string; flags: readonly string[] }[]>();
    for (const seen of mailboxes) {
      for (const { id, flags } of seen.messages) found.set(id, [...(found.get(id) ?? []), { mailbox: seen.mailbox, flags }]);
      this.#checkNumbers(seen);
    }
    for (const [id, places] of found) {
      if (!this.sent.has(id)) this.#broken(`I4: ${id} was never sent`);
      if (places.length > 1) this.#broken(`I4: ${id} is stored ${places.length} times: ${places.map(({ mailbox }) => mailbox).join(', ')}`);
    }
    for (const message of this.sent.values()) this.#checkMessage(message, found.get(message.id)?.[0]);
  }

  #checkNumbers(seen: Seen): void {
    const { mailbox: name, uidValidity, uidNext, highestModseq } = seen;
    const highest = this.#highest.get(name);
    if (highest !== undefined) {
      if (uidValidity !== highest.uidValidity) this.#broken(`I5: UIDVALIDITY of ${name} was ${highest.uidValidity} and is ${uidValidity}`);
      if (uidNext < highest.uidNext) this.#broken(`I5: UIDNEXT of ${name} went from ${highest.uidNext} back to ${uidNext}`);
      if (highestModseq < highest.modseq) this.#broken(`I5: MODSEQ of ${name} went from ${highest.modseq} back to ${highestModseq}`);
    }
    this.saw(seen);
  }

  #checkMessage(message: Sent, found: { mailbox: string; flags: readonly string[] } | undefined): void {
    const { id, isAcknowledged, removal, move, keywords } = message;
    if (found === undefined) {
      if (isAcknowledged && removal === 'no') this.#broken(`I3: ${id} was acknowledged and is lost`);
      return;
    }
    // A move without an answer may have come first: then what the client saw vanish had been moved.
    const mayHaveMoved = move === 'asked' && found.mailbox !== 'INBOX';
    if (removal === 'done' && !mayHaveMoved)
      this.#broken(`I5: ${id} was removed and is there again, in ${found.mailbox}, its move: ${move}`);
    if (found.mailbox === 'INBOX' ? move === 'done' : move === 'no') this.#broken(`I3: ${id} is in ${found.mailbox}, its move: ${move}`);
    for (const keyword of keywords) {
      if (!found.flags.includes(keyword)) this.#broken(`I3: ${id} was acknowledged to have ${keyword} and does not`);
    }
  }

  #broken(text: string): void {
    this.violations.push(`${text} (${this.record.name})`);
  }
}

/** The text of a message; `fill` makes it longer. */
export function textOf(id: string, fill: number): string {
  return `X-Sim-Id: ${id}\r\nSubject: simulated\r\n\r\n${'All is well. '.repeat(fill)}\r\n`;
}

/** All mailboxes of an open account. */
export async function mailboxesOf(account: OpenAccount): Promise<FinalMailbox[]> {
  const all: FinalMailbox[] = [];
  for (const mailbox of account.mailboxes()) {
    const messages: { uid: number; id: string; flags: readonly string[] }[] = [];
    for (const uid of mailbox.uids()) {
      messages.push({ uid, id: idOf(await account.readRaw(mailbox.id, uid)), flags: mailbox.message(uid)?.flags ?? [] });
    }
    const { name, uidValidity, uidNext, highestModseq } = mailbox;
    all.push({ mailbox: name, uidValidity, uidNext, highestModseq, messages });
  }
  return all;
}

function idOf(raw: Buffer): string {
  return /X-Sim-Id: (\S+)/.exec(raw.toString('latin1'))?.[1] ?? 'a message without id';
}
