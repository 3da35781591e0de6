/**
 * One kept connection of the link, either end: frames in and out, channels, calls, and the pings that tell a dead peer from an idle one.
 *
 * States: `hello` (nothing but hello or refuse may come) → `open` → `closed`. Whatever breaks the protocol closes the connection with
 * `LINK_PROTOCOL`; the channels on it see their connection end, all others go on. The end that dialled opens channels and makes calls,
 * the other one answers; a member that wants something of another member dials it.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, TlsFacts } from '#common/network/network.ts';
import { channelMax, dataBytesMax, FrameBatch, FrameDecoder, type FrameType, frameTypes, parseJsonObject } from '#protocol/link/frames.ts';
import { type ChannelCarrier, LinkChannel } from './link-channel.ts';

/** Channels on one connection. */
export const channelsMax = 16_384;
/** Opens and calls on one connection that wait for an answer. */
export const unansweredMax = 4_096;
/** Bytes on the connection that the system has not taken, beyond which sessions wait. */
export const congestionBytes = 262_144;
/** Bytes that do not wait for the end of the turn. */
const batchBytesMax = 4 * dataBytesMax;
const pingEveryMs = 2_000;
/** Silence after which the peer counts as dead; checked every second, so a dead link is noticed within five. */
const silenceMsMax = 4_000;
const tickMs = 1_000;
const helloTimeoutMs = 5_000;
const closeWaitMs = 1_000;

/** What the owner of a connection is told. */
export interface LinkEvents {
  /** First frame of the peer: `hello` or `refuse`. Throwing closes the connection. */
  hello(message: Record<string, unknown>, isRefusal: boolean): void;
  /** Acceptor: a session is asked for; answer with `answer`, then use or `destroy` the channel. */
  open?(channel: LinkChannel, message: Record<string, unknown>): void;
  /** Acceptor: a call; answer with `result`. */
  call?(number: number, message: Record<string, unknown>): void;
  /** The peer told its state. */
  status?(message: Record<string, unknown>): void;
  /** Acceptor: what `status` frames say. */
  report?(): object;
  /** The connection is gone; called exactly once. */
  closed(error: PlatformError): void;
}

interface Waiting {
  readonly timer: Timer;
  readonly channel: LinkChannel | undefined;
  settle(message: Record<string, unknown>): void;
  fail(error: Error): void;
}

/** See the header of this file. */
export class LinkConnection implements ChannelCarrier {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly tls: TlsFacts | undefined;
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #events: LinkEvents;
  readonly #isDialler: boolean;
  readonly #decoder = new FrameDecoder();
  readonly #channels = new Map<number, LinkChannel>();
  /** In boxes, which are emptied when they are taken out (common/roster.ts). */
  readonly #waiting = new Map<number, { waiting: Waiting | undefined }>();
  readonly #inLine = new Set<LinkChannel>();
  readonly #ticker: Timer;
  #state: 'hello' | 'open' | 'closed' = 'hello';
  #lastNumber = 0;
  #unanswered = 0;
  readonly #batch = new FrameBatch();
  #isFlushPlanned = false;
  #heardAtMs: number;
  #tickedAtMs: number;
  readonly #startedAtMs: number;
  #pingedAtMs: number;

  constructor(connection: Connection, clock: Clock, side: 'dialler' | 'acceptor', events: LinkEvents) {
    this.#connection = connection;
    this.#clock = clock;
    this.#events = events;
    this.#isDialler = side === 'dialler';
    this.remoteAddress = connection.remoteAddress;
    this.remotePort = connection.remotePort;
    this.localAddress = connection.localAddress;
    this.localPort = connection.localPort;
    this.tls = connection.tls;
    this.#startedAtMs = this.#heardAtMs = this.#tickedAtMs = this.#pingedAtMs = clock.monotonicMs();
    this.#ticker = clock.every(tickMs, () => this.#tick());
    connection.handle({
      data: (chunk) => this.#onBytes(chunk),
      end: () => this.close(new PlatformError('NET_CLOSED', 'the peer closed the link')),
      drain: () => this.#onDrain(),
      close: (error) => this.#closed(new PlatformError('NET_CLOSED', 'the link broke', error === undefined ? {} : { cause: error })),
    });
  }

  get channelCount(): number {
    return this.#channels.size;
  }
  /** Sessions on it, or calls under way where there are more of those. */
  get inUse(): number {
    return Math.max(this.#channels.size, this.#waiting.size);
  }
  get unsentBytes(): number {
    return this.#batch.length + this.#connection.bufferedBytes;
  }
  get isCongested(): boolean {
    return this.unsentBytes >= congestionBytes;
  }
  get isOpen(): boolean {
    return this.#state === 'open';
  }
  /** Room for one more session. */
  get hasRoom(): boolean {
    return (
      this.#state === 'open' && this.#channels.size < channelsMax && this.#waiting.size < unansweredMax && this.#lastNumber < channelMax
    );
  }

  /** No number is left for another session or call. */
  get isSpent(): boolean {
    return this.#lastNumber >= channelMax;
  }
  /** Dialler: sessions and calls asked for so far. */
  get requests(): number {
    return this.#lastNumber;
  }

  /** Hellos are exchanged; channels and calls may begin. */
  opened(): void {
    if (this.#state === 'hello') this.#state = 'open';
  }

  /** Dialler: asks for a session. */
  open(request: object, timeoutMs: number): Promise<{ message: Record<string, unknown>; channel: LinkChannel }> {
    return new Promise((resolve, reject) => {
      const channel = new LinkChannel(this.#nextNumber(), this);
      this.#channels.set(channel.number, channel);
      const fail = (error: Error): void => {
        channel.destroy(error);
        reject(error);
      };
      this.#ask(frameTypes.open, channel.number, request, timeoutMs, channel, (message) => resolve({ message, channel }), fail);
    });
  }

  /** Dialler: makes a call and resolves with its `LinkCallAnswer`. */
  call(message: object, timeoutMs: number): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      this.#ask(frameTypes.call, this.#nextNumber(), message, timeoutMs, undefined, resolve, reject);
    });
  }

  sendJson(type: FrameType, number: number, message: object): void {
    if (this.#state === 'closed') return;
    this.#batch.addJson(type, number, message);
    this.#planFlush();
  }

  /** Acceptor: answers an `open`; false when the peer has lost interest. Unless it says `opened`, the channel is over with it. */
  answer(channel: LinkChannel, message: { readonly outcome: string }): boolean {
    this.#unanswered -= 1;
    if (!this.#channels.has(channel.number)) return false;
    this.sendJson(frameTypes.answer, channel.number, message);
    if (message.outcome !== 'opened') this.forget(channel);
    return true;
  }

  /** Acceptor: answers a `call`. */
  result(number: number, message: object): void {
    this.#unanswered -= 1;
    if (this.#state === 'open') this.sendJson(frameTypes.result, number, message);
  }

  send(type: FrameType, channel: number, payload?: Buffer): void {
    if (this.#state === 'closed') return;
    this.#batch.add(type, channel, payload);
    this.#planFlush();
  }

  awaitRoom(channel: LinkChannel): void {
    this.#inLine.add(channel);
  }

  forget(channel: LinkChannel): void {
    this.#channels.delete(channel.number);
    this.#inLine.delete(channel);
  }

  /** Sends a last frame, if any, and closes. */
  close(error: PlatformError): void {
    if (this.#state === 'closed') return;
    this.#flush();
    // What is queued in the system goes out before the half-close; the peer closes in turn, or is not waited for.
    this.#connection.end();
    this.#clock.after(closeWaitMs, () => this.#connection.destroy());
    this.#closed(error);
  }

  /** Drops the connection at once, without a word. */
  kill(error: PlatformError): void {
    if (this.#state === 'closed') return;
    this.#batch.clear(false);
    this.#connection.destroy();
    this.#closed(error);
  }

  #nextNumber(): number {
    if (!this.hasRoom) {
      throw new PlatformError(
        this.#state === 'open' ? 'LIMIT_CONNECTIONS' : 'NET_CLOSED',
        this.#state === 'open' ? 'the link carries as many sessions and calls as it may' : 'the link is closed',
      );
    }
    this.#lastNumber += 1;
    return this.#lastNumber;
  }

  #ask(
    type: FrameType,
    number: number,
    message: object,
    timeoutMs: number,
    channel: LinkChannel | undefined,
    settle: (message: Record<string, unknown>) => void,
    fail: (error: Error) => void,
  ): void {
    const timer = this.#clock.after(timeoutMs, () => {
      this.#take(number);
      fail(new PlatformError('NET_TIMEOUT', `no answer from ${this.remoteAddress}:${this.remotePort} within ${timeoutMs} ms`));
    });
    this.#waiting.set(number, { waiting: { timer, channel, settle, fail } });
    try {
      this.sendJson(type, number, message);
    } catch (error) {
      this.#take(number);
      fail(asPlatformError(error));
    }
  }

  // Frames made in one turn of the event loop leave in one system call.
  #planFlush(): void {
    if (this.#batch.length >= batchBytesMax) this.#flush();
    else if (!this.#isFlushPlanned) {
      this.#isFlushPlanned = true;
      process.nextTick(() => this.#flush());
    }
  }

  #flush(): void {
    this.#isFlushPlanned = false;
    if (this.#batch.length === 0) return;
    const { bytes } = this.#batch;
    // What has to wait behind others takes no more memory than it needs.
    const isLent = this.#connection.returnsWritten === true && this.#connection.bufferedBytes === 0;
    this.#connection.write(isLent ? bytes : Buffer.from(bytes));
    this.#batch.clear(isLent && this.#connection.bufferedBytes > 0);
    // Channels may be in line although the system took all at once: then no `drain` will come.
    if (this.#inLine.size > 0 && !this.isCongested) queueMicrotask(() => this.#onDrain());
  }

  #onDrain(): void {
    while (this.#inLine.size > 0 && !this.isCongested) {
      const [next] = this.#inLine;
      if (next === undefined) break;
      this.#inLine.delete(next);
      next.pump(true);
    }
  }

  #onBytes(chunk: Buffer): void {
    this.#heardAtMs = this.#clock.monotonicMs();
    try {
      this.#decoder.push(chunk, this.#onFrame);
    } catch (error) {
      this.close(asPlatformError(error));
    }
  }

  readonly #onFrame = (type: FrameType, number: number, payload: Buffer, endsNext: boolean): void => {
    if (this.#state === 'closed') return;
    if (this.#state === 'hello') {
      if (type !== frameTypes.hello && type !== frameTypes.refuse)
        throw new PlatformError('LINK_PROTOCOL', 'the peer did not say hello first');
      this.#events.hello(parseJsonObject(payload), type === frameTypes.refuse);
      return;
    }
    if (!this.#takeSessionFrame(type, number, payload, endsNext) && !this.#takeControlFrame(type, number, payload)) {
      throw new PlatformError('LINK_PROTOCOL', `frame type ${type} does not belong here`);
    }
  };

  #takeSessionFrame(type: FrameType, number: number, payload: Buffer, endsNext: boolean): boolean {
    if (type === frameTypes.data) this.#onChannel(number, (channel) => channel.onData(payload, endsNext));
    else if (type === frameTypes.credit) this.#onChannel(number, (channel) => channel.onCredit(payload.readUInt32BE(0)));
    else if (type === frameTypes.end) this.#onChannel(number, (channel) => channel.onEnd());
    else if (type === frameTypes.notice && this.#isDialler)
      this.#onChannel(number, (channel) => channel.onNoticeFrame(parseJsonObject(payload)));
    else if (type === frameTypes.reset) {
      this.#onChannel(number, (channel) => {
        this.#refuseWaiting(number, payload.toString('utf8'));
        channel.onReset(payload.toString('utf8'));
        return true;
      });
    } else return false;
    return true;
  }

  #takeControlFrame(type: FrameType, number: number, payload: Buffer): boolean {
    if (this.#isDialler) {
      if (type === frameTypes.status) this.#events.status?.(parseJsonObject(payload));
      else if ((type === frameTypes.answer || type === frameTypes.result) && number <= this.#lastNumber) {
        this.#onAnswer(number, parseJsonObject(payload));
      } else return false;
      return true;
    }
    if (type === frameTypes.ping) this.sendStatus();
    else if ((type === frameTypes.open || type === frameTypes.call) && number > this.#lastNumber) {
      this.#lastNumber = number;
      this.#onRequest(type, number, parseJsonObject(payload));
    } else return false;
    return true;
  }

  /** Acceptor: tells the peer this member's load and state. */
  sendStatus(): void {
    if (this.#state === 'open') this.sendJson(frameTypes.status, 0, this.#events.report?.() ?? {});
  }

  // A number that was in use is late news and passed over; one that never was is a broken peer.
  #onChannel(number: number, act: (channel: LinkChannel) => boolean): void {
    const channel = this.#channels.get(number);
    if (channel === undefined) {
      if (number === 0 || number > this.#lastNumber) throw new PlatformError('LINK_PROTOCOL', `session ${number} was never opened`);
      return;
    }
    if (!act(channel)) throw new PlatformError('LINK_PROTOCOL', `session ${number} broke its credit or went on after its end`);
  }

  #onRequest(type: FrameType, number: number, message: Record<string, unknown>): void {
    this.#unanswered += 1;
    if (type === frameTypes.call) {
      if (this.#unanswered > unansweredMax) this.result(number, tooMuch('calls without an answer', unansweredMax));
      else this.#events.call?.(number, message);
      return;
    }
    const channel = new LinkChannel(number, this);
    this.#channels.set(number, channel);
    if (this.#unanswered > unansweredMax || this.#channels.size > channelsMax) {
      this.answer(channel, { outcome: 'refused', ...tooMuch('sessions', channelsMax) });
    } else {
      this.#events.open?.(channel, message);
    }
  }

  #onAnswer(number: number, message: Record<string, unknown>): void {
    const waiting = this.#take(number);
    if (waiting === undefined) return;
    if (waiting.channel !== undefined && message.outcome !== 'opened') this.forget(waiting.channel);
    waiting.settle(message);
  }

  #take(number: number): Waiting | undefined {
    const box = this.#waiting.get(number);
    const waiting = box?.waiting;
    if (box === undefined || waiting === undefined) return undefined;
    this.#waiting.delete(number);
    box.waiting = undefined;
    waiting.timer.cancel();
    return waiting;
  }

  #refuseWaiting(number: number, reason: string): void {
    this.#take(number)?.fail(new PlatformError('NET_CLOSED', `the peer dropped the session before it was open: ${reason}`));
  }

  #tick(): void {
    const now = this.#clock.monotonicMs();
    // A tick that comes late means that this process slept, and that the peer's bytes may still lie unread.
    if (now - this.#tickedAtMs > 2 * tickMs) this.#heardAtMs = now;
    this.#tickedAtMs = now;
    if (this.#state === 'hello') {
      if (now - this.#startedAtMs >= helloTimeoutMs) this.kill(new PlatformError('NET_TIMEOUT', `no hello within ${helloTimeoutMs} ms`));
      return;
    }
    if (now - this.#heardAtMs >= silenceMsMax) {
      this.kill(
        new PlatformError('NET_TIMEOUT', `the peer was silent for ${Math.round(now - this.#heardAtMs)} ms; the link counts as dead`),
      );
    } else if (this.#isDialler && now - this.#pingedAtMs >= pingEveryMs - tickMs / 2) {
      this.#pingedAtMs = now;
      this.send(frameTypes.ping, 0);
    }
  }

  #closed(error: PlatformError): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#decoder.stop();
    this.#ticker.cancel();
    this.#inLine.clear();
    for (const number of [...this.#waiting.keys()]) this.#take(number)?.fail(error);
    for (const channel of [...this.#channels.values()]) channel.onCarrierLost(error);
    this.#channels.clear();
    this.#events.closed(error);
  }
}

function tooMuch(what: string, limit: number) {
  return { ok: false, code: 'LIMIT_CONNECTIONS', kind: 'limit', message: `more than ${limit} ${what} on one link connection` };
}
