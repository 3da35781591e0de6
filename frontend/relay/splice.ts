/**
 * After login: bytes both ways between a client and its channel, unread and unchanged.
 *
 * Back-pressure: what one side cannot take stops the reading of the other until it has drained, so a session holds at most what the two
 * connections buffer. Half-close is passed on: a client that has said all it will say still gets its answers. When either side is gone, the
 * other gets what was queued for it and then the end; if it does not hang up within `lingerMs`, it is dropped.
 *
 * Most sessions idle, tens of thousands at a time: what one refers to is counted in bytes, so there are handlers with methods in place of closures.
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { Connection, ConnectionHandlers } from '#common/network/network.ts';

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

/** Who ended it first. */
export type SpliceEnd = 'client' | 'member' | 'frontend';

/** Whose relay it is. */
export interface SpliceOwner {
  readonly clock: Clock;
  /** Called once, when both sides are gone. */
  spliceEnded(by: SpliceEnd, error: Error | undefined): void;
  /**
   * What a client is told when its member's death cuts the session off, which a member that ends in good order does not let happen; `undefined`:
   * nothing, because it would fall into an answer that is not whole. Asked anew for each piece that comes from the member, with that piece, and
   * before the first one.
   */
  lastWords(piece: Buffer | undefined): string | undefined;
}

/**
 * Joins the two; it takes over their handlers.
 *
 * @param early bytes that the client had sent after its login; they go to the channel first
 */
export function splice(owner: SpliceOwner, client: Connection, channel: Connection, early: Buffer): Splice {
  return new Relay(owner, client, channel, early);
}

class Relay implements Splice {
  bytesIn = 0;
  bytesOut = 0;
  readonly #owner: SpliceOwner;
  readonly #client: Connection;
  #channel: Connection;
  #words: string | undefined;
  #by: SpliceEnd | undefined;
  #error: Error | undefined;
  #isClientOpen = true;
  #isChannelOpen = true;
  #linger: Timer | undefined;
  /** Set from the notice that the session moves until it goes on. */
  #reopen: (() => Promise<Connection | undefined>) | undefined;
  #isReopening = false;

  constructor(owner: SpliceOwner, client: Connection, channel: Connection, early: Buffer) {
    this.#owner = owner;
    this.#client = client;
    this.#channel = channel;
    this.#words = owner.lastWords(undefined);
    this.#attach(channel);
    client.handle(channel.returnsWritten === true ? new LendingClient(this) : new ClientSide(this));
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

  passIn(chunk: Buffer): void {
    this.bytesIn += chunk.length;
    if (!this.#channel.write(chunk)) this.#client.pause();
  }

  get passesInTo(): Connection {
    return this.#channel;
  }

  passedIn(count: number, hasRoom: boolean): void {
    this.bytesIn += count;
    if (!hasRoom) this.#client.pause();
  }

  /** Whether the channel still needs the memory of what came from the client. */
  get holdsIn(): boolean {
    return this.#channel.bufferedBytes > 0;
  }

  clientDrained(): void {
    this.#channel.resume();
  }

  clientEnded(): void {
    this.#halfClosed('client', this.#channel);
  }

  clientClosed(error: Error | undefined): void {
    this.#isClientOpen = false;
    this.#closed('client', error);
  }

  passOut(channel: Connection, chunk: Buffer): void {
    this.bytesOut += chunk.length;
    this.#words = this.#owner.lastWords(chunk);
    if (!this.#client.write(chunk, channel.endsNext === true && this.#reopen === undefined)) channel.pause();
  }

  get passesOutTo(): Connection {
    return this.#client;
  }

  passedOut(channel: Connection, count: number, hasRoom: boolean): void {
    this.bytesOut += count;
    // How far the member has come is known with the next piece.
    this.#words = undefined;
    if (!hasRoom) channel.pause();
  }

  get holdsOut(): boolean {
    return this.#client.bufferedBytes > 0;
  }

  channelDrained(channel: Connection): void {
    if (channel === this.#channel && this.#reopen === undefined) this.#client.resume();
  }

  channelEnded(channel: Connection): void {
    if (channel === this.#channel && this.#reopen !== undefined) void this.#goOn(this.#reopen);
    else this.#halfClosed('member', this.#client);
  }

  channelClosed(channel: Connection, error: Error | undefined): void {
    // A channel that was left behind, or is about to be.
    if (channel !== this.#channel || this.#isReopening) return;
    this.#isChannelOpen = false;
    if (error !== undefined && this.#by === undefined && this.#words !== undefined) this.#client.write(this.#words);
    this.#closed('member', error);
  }

  #attach(channel: Connection): void {
    channel.handle(this.#client.returnsWritten === true ? new LendingChannel(this, channel) : new ChannelSide(this, channel));
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
      this.#owner.spliceEnded(this.#by, this.#error);
      return;
    }
    // What is still to come from the side that is left is read and dropped, so that its own end is seen.
    const left = this.#isClientOpen ? this.#client : this.#channel;
    left.resume();
    left.end();
    this.#startLinger();
  }

  #startLinger(): void {
    this.#linger ??= this.#owner.clock.after(lingerMs, () => {
      this.#client.destroy();
      this.#channel.destroy();
    });
  }
}

/** Tells the relay of its client. */
class ClientSide implements ConnectionHandlers {
  protected readonly relay: Relay;

  constructor(relay: Relay) {
    this.relay = relay;
  }

  data(chunk: Buffer): void {
    this.relay.passIn(chunk);
  }
  drain(): void {
    this.relay.clientDrained();
  }
  end(): void {
    this.relay.clientEnded();
  }
  close(error: Error | undefined): void {
    this.relay.clientClosed(error);
  }
}

/** The same where the channel gives back what it is lent. */
class LendingClient extends ClientSide {
  lent(chunk: Buffer): void {
    this.relay.passIn(chunk);
  }
  holdsLent(): boolean {
    return this.relay.holdsIn;
  }
  passesTo(): Connection {
    return this.relay.passesInTo;
  }
  passed(count: number, hasRoom: boolean): void {
    this.relay.passedIn(count, hasRoom);
  }
}

/** Tells the relay of a channel, the one of now or one that it has left behind. */
class ChannelSide implements ConnectionHandlers {
  protected readonly relay: Relay;
  protected readonly channel: Connection;

  constructor(relay: Relay, channel: Connection) {
    this.relay = relay;
    this.channel = channel;
  }

  data(chunk: Buffer): void {
    this.relay.passOut(this.channel, chunk);
  }
  drain(): void {
    this.relay.channelDrained(this.channel);
  }
  end(): void {
    this.relay.channelEnded(this.channel);
  }
  close(error: Error | undefined): void {
    this.relay.channelClosed(this.channel, error);
  }
}

/** The same where the client gives back what it is lent. */
class LendingChannel extends ChannelSide {
  lent(chunk: Buffer): void {
    this.relay.passOut(this.channel, chunk);
  }
  holdsLent(): boolean {
    return this.relay.holdsOut;
  }
  passesTo(): Connection {
    return this.relay.passesOutTo;
  }
  passed(count: number, hasRoom: boolean): void {
    this.relay.passedOut(this.channel, count, hasRoom);
  }
}
