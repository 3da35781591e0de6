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
  /** Ends both sides in good order. */
  close(): void;
  /** Drops both sides. */
  destroy(): void;
}

/** Who ended it first. */
export type SpliceEnd = 'client' | 'member' | 'frontend';

/**
 * Joins the two; it takes over their handlers. `ended` is called once, when both are gone.
 *
 * @param early bytes that the client had sent after its login; they go to the channel first
 */
export function splice(
  clock: Clock,
  client: Connection,
  channel: Connection,
  early: Buffer,
  ended: (by: SpliceEnd, error: Error | undefined) => void,
): Splice {
  return new Relay(clock, client, channel, early, ended);
}

class Relay implements Splice {
  bytesIn = 0;
  bytesOut = 0;
  readonly #clock: Clock;
  readonly #client: Connection;
  readonly #channel: Connection;
  readonly #ended: (by: SpliceEnd, error: Error | undefined) => void;
  #by: SpliceEnd | undefined;
  #error: Error | undefined;
  #open = 2;
  #linger: Timer | undefined;

  constructor(
    clock: Clock,
    client: Connection,
    channel: Connection,
    early: Buffer,
    ended: (by: SpliceEnd, error: Error | undefined) => void,
  ) {
    this.#clock = clock;
    this.#client = client;
    this.#channel = channel;
    this.#ended = ended;
    channel.handle({
      data: (chunk) => {
        this.bytesOut += chunk.length;
        if (!client.write(chunk)) channel.pause();
      },
      drain: () => client.resume(),
      end: () => this.#halfClosed('member', client),
      close: (error) => this.#closed('member', error),
    });
    client.handle({
      data: (chunk) => {
        this.bytesIn += chunk.length;
        if (!channel.write(chunk)) client.pause();
      },
      drain: () => channel.resume(),
      end: () => this.#halfClosed('client', channel),
      close: (error) => this.#closed('client', error),
    });
    // A connection that a dialogue has been led on before is still paused.
    channel.resume();
    this.bytesIn += early.length;
    // A `false` here is followed by the channel's `drain`, which resumes the client.
    if (early.length === 0 || channel.write(early)) client.resume();
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

  #halfClosed(by: SpliceEnd, other: Connection): void {
    this.#by ??= by;
    other.end();
    // The protocol is over once the member has ended; a client may hold its own half open for as long as the member bears it.
    if (by === 'member') this.#startLinger();
  }

  #closed(by: SpliceEnd, error: Error | undefined): void {
    this.#by ??= by;
    this.#error ??= error;
    this.#open -= 1;
    if (this.#open === 0) {
      this.#linger?.cancel();
      this.#ended(this.#by, this.#error);
      return;
    }
    // What is still to come from the side that is left is read and dropped, so that its own end is seen.
    const left = by === 'client' ? this.#channel : this.#client;
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
