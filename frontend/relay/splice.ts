/**
 * After login: bytes both ways between a client and its channel, unread and unchanged.
 *
 * Back-pressure: what one side cannot take stops the reading of the other until it has drained, so a session holds at most what the two
 * connections buffer. Half-close is passed on: a client that has said all it will say still gets its answers. When either side is gone, the
 * other gets what was queued for it and then the end; if it does not hang up within `lingerMs`, it is dropped.
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { Connection } from '#common/network/network.ts';

/** Time for the other side to hang up once one is gone, milliseconds. */
export const lingerMs = 30_000;

/** A running relay. */
export interface Splice {
  /** Bytes from the client, and to it. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /**
   * The member is about to hand the session over: the client is not read until `reopen`, called once the member has said all, has given the
   * channel on which it goes on. `undefined` ends the session. Nothing is lost and nothing said twice: the member gets all that was read
   * before, and whatever it does not answer travels with its state.
   */
  move(reopen: () => Promise<Connection | undefined>): void;
  /** Ends both sides in good order. */
  close(): void;
  /** Drops both sides. */
  destroy(): void;
}

/**
 * What a client is told when its member's death cuts the session off; `undefined`: nothing, because it would fall into an answer that is not
 * whole. Asked anew for each piece that comes from the member, with that piece, and before the first one.
 */
export type LastWords = (piece: Buffer | undefined) => string | undefined;

/** Who ended it first. */
export type SpliceEnd = 'client' | 'member' | 'frontend';

/**
 * Joins the two; it takes over their handlers. `ended` is called once, when both are gone.
 *
 * @param early bytes that the client had sent after its login; they go to the channel first
 * @param lastWords for a channel that breaks off, which a member that ends in good order does not let happen
 */
export function splice(
  clock: Clock,
  client: Connection,
  channel: Connection,
  early: Buffer,
  ended: (by: SpliceEnd, error: Error | undefined) => void,
  lastWords: LastWords = () => undefined,
): Splice {
  return new Relay(clock, client, channel, early, ended, lastWords);
}

class Relay implements Splice {
  bytesIn = 0;
  bytesOut = 0;
  readonly #clock: Clock;
  readonly #client: Connection;
  #channel: Connection;
  readonly #ended: (by: SpliceEnd, error: Error | undefined) => void;
  readonly #lastWords: LastWords;
  #words: string | undefined;
  #by: SpliceEnd | undefined;
  #error: Error | undefined;
  #isClientOpen = true;
  #isChannelOpen = true;
  #linger: Timer | undefined;
  /** Set from the notice that the session moves until it goes on. */
  #reopen: (() => Promise<Connection | undefined>) | undefined;
  #isReopening = false;

  constructor(
    clock: Clock,
    client: Connection,
    channel: Connection,
    early: Buffer,
    ended: (by: SpliceEnd, error: Error | undefined) => void,
    lastWords: LastWords,
  ) {
    this.#clock = clock;
    this.#client = client;
    this.#channel = channel;
    this.#ended = ended;
    this.#lastWords = lastWords;
    this.#words = lastWords(undefined);
    this.#attach(channel);
    const pass = (chunk: Buffer): void => {
      this.bytesIn += chunk.length;
      if (!this.#channel.write(chunk)) client.pause();
    };
    client.handle({
      data: pass,
      ...(channel.returnsWritten === true ? { lent: pass, holdsLent: () => this.#channel.bufferedBytes > 0 } : {}),
      drain: () => this.#channel.resume(),
      end: () => this.#halfClosed('client', this.#channel),
      close: (error) => {
        this.#isClientOpen = false;
        this.#closed('client', error);
      },
    });
    // A connection that a dialogue has been led on before is still paused.
    channel.resume();
    this.bytesIn += early.length;
    // A `false` here is followed by the channel's `drain`, which resumes the client.
    if (early.length === 0 || channel.write(early)) client.resume();
  }

  move(reopen: () => Promise<Connection | undefined>): void {
    if (this.#by !== undefined || this.#reopen !== undefined) return;
    this.#reopen = reopen;
    this.#client.pause();
    // After what the client has sent so far.
    this.#channel.end();
  }

  close(): void {
    this.#by ??= 'frontend';
    this.#client.end();
    this.#channel.end();
    this.#startLinger();
  }

  destroy(): void {
    this.#by ??= 'frontend';
    this.#client.destroy();
    this.#channel.destroy();
  }

  #attach(channel: Connection): void {
    const isCurrent = (): boolean => channel === this.#channel;
    const pass = (chunk: Buffer): void => {
      this.bytesOut += chunk.length;
      this.#words = this.#lastWords(chunk);
      if (!this.#client.write(chunk, channel.endsNext === true && this.#reopen === undefined)) channel.pause();
    };
    channel.handle({
      data: pass,
      ...(this.#client.returnsWritten === true ? { lent: pass, holdsLent: () => this.#client.bufferedBytes > 0 } : {}),
      drain: () => {
        if (isCurrent() && this.#reopen === undefined) this.#client.resume();
      },
      end: () => {
        if (isCurrent() && this.#reopen !== undefined) void this.#goOn(this.#reopen);
        else this.#halfClosed('member', this.#client);
      },
      close: (error) => {
        // A channel that was left behind, or is about to be.
        if (!isCurrent() || this.#isReopening) return;
        this.#isChannelOpen = false;
        if (error !== undefined && this.#by === undefined && this.#words !== undefined) this.#client.write(this.#words);
        this.#closed('member', error);
      },
    });
  }

  /** The member is at rest and has said all: the session goes on elsewhere, or ends. */
  async #goOn(reopen: () => Promise<Connection | undefined>): Promise<void> {
    this.#isReopening = true;
    this.#isChannelOpen = false;
    const next = await reopen();
    this.#isReopening = false;
    this.#reopen = undefined;
    if (next === undefined || !this.#isClientOpen || this.#by !== undefined) {
      next?.destroy();
      this.#closed('member', undefined);
      return;
    }
    this.#channel = next;
    this.#isChannelOpen = true;
    this.#attach(next);
    this.#client.resume();
  }

  #halfClosed(by: SpliceEnd, other: Connection): void {
    this.#by ??= by;
    if (by === 'client') {
      // It may hold its own half open for as long as the member bears it.
      other.end();
      return;
    }
    // The protocol is over once the member has ended.
    if (other.finish?.() === true) {
      this.#channel.end();
      return;
    }
    other.end();
    this.#startLinger();
  }

  #closed(by: SpliceEnd, error: Error | undefined): void {
    this.#by ??= by;
    this.#error ??= error;
    // What became of a session that is between two members is known when the next one has answered.
    if (this.#isReopening) return;
    if (!this.#isClientOpen && !this.#isChannelOpen) {
      this.#linger?.cancel();
      this.#ended(this.#by, this.#error);
      return;
    }
    // What is still to come from the side that is left is read and dropped, so that its own end is seen.
    const left = this.#isClientOpen ? this.#client : this.#channel;
    left.resume();
    left.end();
    this.#startLinger();
  }

  #startLinger(): void {
    this.#linger ??= this.#clock.after(lingerMs, () => {
      this.#client.destroy();
      this.#channel.destroy();
    });
  }
}
