/**
 * The mailbox that a session has selected, as its client knows it.
 *
 * Sequence numbers are places in `uids`, and they change only when the client is told (RFC 9051 §2.3.1.2). So this keeps its own list and
 * catches up with the mailbox in `collect`, by mod-sequence: what came, what changed, what is gone. UIDs that are gone stay in the list
 * until an EXPUNGE for them may be sent.
 *
 * `\Recent` is not given to any message: the store cannot tell whether another session was told first, and RFC 9051 has dropped the flag.
 * `RECENT` is always 0.
 */
import type { Mailbox, MessageInfo } from '#backend-cluster/mailboxes/open-account.ts';
import { resolveSet, type SequenceSet, star } from '#protocol/imap/sequence-set.ts';

/** A message as a command addresses it. */
export interface Addressed {
  readonly sequence: number;
  readonly uid: number;
}

/** What the client has to be told, in the order it has to be told. */
export interface Updates {
  /** Keywords were seen for the first time: all flags now. */
  readonly flags: readonly string[] | undefined;
  /** Sequence numbers, highest first, each valid when its line is sent. */
  readonly expunged: readonly number[];
  readonly exists: number | undefined;
  readonly changed: readonly { readonly sequence: number; readonly info: MessageInfo }[];
}

/** `SelectedMailbox` as it is sent to another member. */
export interface SelectedImage {
  readonly id: number;
  readonly uidValidity: number;
  readonly isReadOnly: boolean;
  /** First UID and how many follow each other, ascending. */
  readonly uids: readonly (readonly [from: number, count: number])[];
  readonly gone: readonly number[];
  readonly modseq: number;
  readonly reported: readonly (readonly [uid: number, modseq: number])[];
  readonly keywords: readonly string[];
}

/** Flags every mailbox has. */
export const systemFlags: readonly string[] = ['\\Answered', '\\Flagged', '\\Deleted', '\\Seen', '\\Draft'];

/** See the header of this file. */
export class SelectedMailbox {
  readonly id: number;
  readonly isReadOnly: boolean;
  #uids: number[];
  #modseq: number;
  #gone = new Set<number>();
  /** Mod-sequence of changes this session made itself and has answered already. */
  #reported = new Map<number, number>();
  #keywords = new Map<string, string>();
  readonly firstUnseen: number | undefined;

  constructor(mailbox: Mailbox, isReadOnly: boolean) {
    this.id = mailbox.id;
    this.isReadOnly = isReadOnly;
    this.#modseq = mailbox.highestModseq;
    this.#uids = Array.from(mailbox.uids());
    let firstUnseen: number | undefined;
    this.#uids.forEach((uid, index) => {
      const info = mailbox.message(uid);
      if (info === undefined) return;
      this.#learnKeywords(info);
      if (firstUnseen === undefined && !info.flags.includes('\\Seen')) firstUnseen = index + 1;
    });
    this.firstUnseen = firstUnseen;
  }

  /** The client's view, for another member to go on with. */
  image(uidValidity: number): SelectedImage {
    return {
      id: this.id,
      uidValidity,
      isReadOnly: this.isReadOnly,
      uids: rangesOf(this.#uids),
      gone: [...this.#gone],
      modseq: this.#modseq,
      reported: [...this.#reported],
      keywords: [...this.#keywords.values()],
    };
  }

  /** The view that another member gave; what has happened since is told by the next `collect`. */
  static restore(mailbox: Mailbox, image: SelectedImage): SelectedMailbox {
    const selected = new SelectedMailbox(mailbox, image.isReadOnly);
    selected.#uids = image.uids.flatMap(([from, count]) => Array.from({ length: count }, (_, i) => from + i));
    selected.#gone = new Set(image.gone);
    selected.#modseq = image.modseq;
    selected.#reported = new Map(image.reported);
    selected.#keywords = new Map(image.keywords.map((keyword) => [keyword.toLowerCase(), keyword]));
    return selected;
  }

  get count(): number {
    return this.#uids.length;
  }

  /** System flags and the keywords in use. */
  get flags(): readonly string[] {
    return [...systemFlags, ...this.#keywords.values()];
  }

  /** Messages of a set, ascending. Numbers that do not exist are passed over (RFC 9051 §6.4.9 for UIDs). */
  select(set: SequenceSet, isUid: boolean): Addressed[] {
    const highest = isUid ? (this.#uids.at(-1) ?? 0) : this.#uids.length;
    const ranges = resolveSet(set, highest);
    const out: Addressed[] = [];
    for (const [from, to] of ranges) {
      let index = isUid ? this.#firstAtOrAfter(from) : from - 1;
      for (; index >= 0 && index < this.#uids.length; index += 1) {
        const uid = this.#uids[index] as number;
        if ((isUid ? uid : index + 1) > to) break;
        out.push({ sequence: index + 1, uid });
      }
    }
    return out;
  }

  /** Whether every sequence number of the set exists. `1:*` of an empty mailbox is forgiven: clients ask it without looking first. */
  hasAll(set: SequenceSet): boolean {
    const count = this.#uids.length;
    if (count === 0 && set.every(([from, to]) => from === star || to === star)) return true;
    return resolveSet(set, count).every(([from, to]) => from >= 1 && to <= count);
  }

  /** The highest sequence number and UID that the client knows of. */
  highest(isUid: boolean): number {
    return isUid ? (this.#uids.at(-1) ?? 0) : this.#uids.length;
  }

  /** All messages the client knows of. */
  all(): Addressed[] {
    return this.#uids.map((uid, index) => ({ sequence: index + 1, uid }));
  }

  /** Place of a UID, or 0. */
  sequenceOf(uid: number): number {
    const index = this.#firstAtOrAfter(uid);
    return this.#uids[index] === uid ? index + 1 : 0;
  }

  /** The client was told of this state of the message by the command itself. */
  noteReported(info: MessageInfo): void {
    this.#reported.set(info.uid, info.modseq);
  }

  /** Takes in keywords; true when there was a new one. */
  learn(info: MessageInfo): boolean {
    return this.#learnKeywords(info);
  }

  /** Catches up with the mailbox and says what the client must hear. */
  collect(mailbox: Mailbox, mayExpunge: boolean): Updates {
    let exists: number | undefined;
    let hasNewKeyword = false;
    const changed: MessageInfo[] = [];
    if (mailbox.highestModseq > this.#modseq) {
      const since = mailbox.changesSince(this.#modseq);
      const lastKnown = this.#uids.at(-1) ?? 0;
      if (since.isComplete) {
        for (const uid of since.vanished) if (this.sequenceOf(uid) > 0) this.#gone.add(uid);
        const added: number[] = [];
        for (const info of since.changed) {
          hasNewKeyword = this.#learnKeywords(info) || hasNewKeyword;
          if (info.uid > lastKnown) added.push(info.uid);
          else if (this.#reported.get(info.uid) !== info.modseq) changed.push(info);
        }
        added.sort((a, b) => a - b);
        for (const uid of added) this.#uids.push(uid);
      } else {
        hasNewKeyword = this.#compareAll(mailbox, lastKnown, changed);
      }
      if ((this.#uids.at(-1) ?? 0) > lastKnown) exists = this.#uids.length;
      this.#modseq = mailbox.highestModseq;
      this.#reported.clear();
    }
    const expunged = mayExpunge ? this.#takeGone() : [];
    // RFC 9051 §7.4.1: EXISTS after expunges counts what is left.
    if (exists !== undefined) exists = this.#uids.length;
    changed.sort((a, b) => a.uid - b.uid);
    return {
      flags: hasNewKeyword ? this.flags : undefined,
      expunged,
      exists,
      changed: changed.map((info) => ({ sequence: this.sequenceOf(info.uid), info })).filter((change) => change.sequence > 0),
    };
  }

  /** Too much has happened to be told change by change: the lists are compared. */
  #compareAll(mailbox: Mailbox, lastKnown: number, changed: MessageInfo[]): boolean {
    const now = mailbox.uids();
    const present = new Set(now);
    for (const uid of this.#uids) if (!present.has(uid)) this.#gone.add(uid);
    let hasNewKeyword = false;
    for (const uid of now) {
      const info = mailbox.message(uid);
      if (info === undefined) continue;
      hasNewKeyword = this.#learnKeywords(info) || hasNewKeyword;
      if (uid > lastKnown) this.#uids.push(uid);
      else if (info.modseq > this.#modseq && this.#reported.get(uid) !== info.modseq) changed.push(info);
    }
    return hasNewKeyword;
  }

  #takeGone(): number[] {
    if (this.#gone.size === 0) return [];
    const expunged: number[] = [];
    this.#uids = this.#uids.filter((uid, index) => {
      if (!this.#gone.has(uid)) return true;
      expunged.push(index + 1);
      return false;
    });
    this.#gone.clear();
    return expunged.reverse();
  }

  #learnKeywords(info: MessageInfo): boolean {
    let isNew = false;
    for (const flag of info.flags) {
      if (flag.startsWith('\\') || this.#keywords.has(flag.toLowerCase())) continue;
      this.#keywords.set(flag.toLowerCase(), flag);
      isNew = true;
    }
    return isNew;
  }

  #firstAtOrAfter(uid: number): number {
    let low = 0;
    let high = this.#uids.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#uids[middle] as number) < uid) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function rangesOf(uids: readonly number[]): [from: number, count: number][] {
  const ranges: [number, number][] = [];
  for (const uid of uids) {
    const last = ranges.at(-1);
    if (last !== undefined && last[0] + last[1] === uid) last[1] += 1;
    else ranges.push([uid, 1]);
  }
  return ranges;
}
