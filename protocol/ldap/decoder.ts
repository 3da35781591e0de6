/**
 * Finds whole LDAP messages in a stream: push bytes, then take messages until it needs more. Nothing is taken on trust from a length:
 * memory grows with the bytes that came, at most by doubling, and a message above the limit is refused at its first octets.
 *
 *   decoder.push(chunk);
 *   for (let next = decoder.next(); next.outcome !== 'needs-more'; next = decoder.next()) …
 *
 * The one who pushes holds the peer back: what is pushed and not taken stays in memory (`bufferedBytes`).
 */
import { BerError, berTags, lengthContentStart, lengthIncomplete, readLength } from '#protocol/ldap/ber.ts';
import type { LdapMessage } from '#protocol/ldap/messages.ts';
import { parseMessage } from '#protocol/ldap/parse.ts';

/** What `next` gives. After `too-big` and `malformed` the stream cannot go on: every further call gives the same. */
export type Decoded =
  | { readonly outcome: 'message'; readonly message: LdapMessage; readonly bytes: number }
  | { readonly outcome: 'needs-more' }
  /** A message whose operation is not taken; those behind it are. See `ParseOutcome`. */
  | { readonly outcome: 'over-limit'; readonly detail: string; readonly id: number }
  | { readonly outcome: 'too-big'; readonly detail: string }
  | { readonly outcome: 'malformed'; readonly detail: string; readonly id: number | undefined };

const needsMore: Decoded = { outcome: 'needs-more' };

/** See the header of this file. */
export class LdapDecoder {
  #messageBytesMax: number;
  readonly #entriesAreLazy: boolean;
  /** Shown every message before it is parsed; true: it is done with. */
  early: ((bytes: Buffer, start: number, end: number) => boolean) | undefined;
  // Unread bytes are #buffer[#start, #end). #owned: the buffer is ours to append to, at #end.
  #buffer: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  #owned = false;
  /** Whether somebody has views of it. */
  #isSeen = false;
  #failed: Decoded | undefined;

  /** `entriesAreLazy`: entries keep their attributes as they came, and take them apart when somebody looks at them. */
  constructor(options: { readonly messageBytesMax: number; readonly entriesAreLazy?: boolean }) {
    this.#messageBytesMax = options.messageBytesMax;
    this.#entriesAreLazy = options.entriesAreLazy ?? false;
  }

  /** Bytes pushed and not taken yet. */
  get bufferedBytes(): number {
    return this.#end - this.#start;
  }

  /** Changes the limit for messages that have not been taken yet; a server raises it after bind. */
  setMessageBytesMax(messageBytesMax: number): void {
    this.#messageBytesMax = messageBytesMax;
  }

  /** Forgets bytes not taken yet: what came in clear behind a StartTLS request must not be read as if it were protected. */
  discard(): void {
    this.#start = this.#end = 0;
    this.#buffer = Buffer.alloc(0);
    this.#owned = false;
  }

  /** Adds bytes. The chunk is not copied when it starts a message; it must not be changed afterwards. */
  push(chunk: Buffer): void {
    const kept = this.#end - this.#start;
    if (kept === 0) {
      this.#buffer = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      this.#owned = false;
      return;
    }
    const isFull = this.#end + chunk.length > this.#buffer.length;
    if (this.#owned && isFull && !this.#isSeen && kept + chunk.length <= this.#buffer.length) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
      this.#start = 0;
      this.#end = kept;
    } else if (!this.#owned || isFull) {
      // Messages already given out are views of the old buffer, so bytes never move within one: a new one is taken.
      const bigger = Buffer.allocUnsafeSlow(Math.max(1024, 2 * (kept + chunk.length)));
      this.#buffer.copy(bigger, 0, this.#start, this.#end);
      this.#buffer = bigger;
      this.#owned = true;
      this.#isSeen = false;
      this.#start = 0;
      this.#end = kept;
    }
    chunk.copy(this.#buffer, this.#end);
    this.#end += chunk.length;
  }

  /** The next message, or why there is none. */
  next(): Decoded {
    if (this.#failed !== undefined) return this.#failed;
    for (;;) {
      const decoded = this.#decode();
      if (decoded !== undefined) return decoded;
    }
  }

  /** `undefined`: somebody else took the message. */
  #decode(): Decoded | undefined {
    const start = this.#start;
    if (start === this.#end) return needsMore;
    const first = this.#buffer[start] as number;
    if (first !== berTags.sequence) {
      return this.#fail({ outcome: 'malformed', detail: `a message starts with 0x30, not with 0x${first.toString(16)}`, id: undefined });
    }
    let length: number;
    try {
      length = readLength(this.#buffer, start + 1, this.#end);
    } catch (error) {
      if (!(error instanceof BerError)) throw error;
      return this.#fail({ outcome: 'malformed', detail: error.message, id: undefined });
    }
    if (length === lengthIncomplete) return needsMore;
    const total = lengthContentStart() + length - start;
    if (total > this.#messageBytesMax) {
      return this.#fail({ outcome: 'too-big', detail: `a message of ${total} bytes passes the limit of ${this.#messageBytesMax}` });
    }
    if (start + total > this.#end) return needsMore;
    this.#start = start + total;
    if (this.early?.(this.#buffer, start, start + total) === true) return undefined;
    this.#isSeen = true;
    const parsed = parseMessage(this.#buffer.subarray(start, start + total), this.#entriesAreLazy);
    if (parsed.outcome === 'malformed') return this.#fail(parsed);
    if (parsed.outcome === 'over-limit') return parsed;
    return { outcome: 'message', message: parsed.message, bytes: total };
  }

  #fail(failure: Decoded): Decoded {
    this.discard();
    this.#failed = failure;
    return failure;
  }
}
