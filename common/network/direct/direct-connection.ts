/**
 * `Connection` on a socket of ours, plain or under TLS. It has no buffer of its own: what it reads is lent from one place for all, and what the system does
 * not take at once is kept as it was given.
 *
 * Handlers are called from turns of the event poll only; what a call made here finds out (a reset while writing, say) is told in the next turn.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, ConnectionHandlers, TlsClientOptions, TlsFacts, TlsServerOptions } from '#common/network/network.ts';
import type { EventPoll, PolledSocket } from './event-poll.ts';
import { Handshake } from './handshake.ts';
import { gather, type Piece } from './pieces.ts';
import { isPaced, Pipe, type Pipes } from './pipes.ts';
import { receiveInto, sendFrom, wouldBlock } from './plain-socket.ts';
import { type ReadBuffers, readBytes } from './read-buffers.ts';
import { decodeSocketAddress, type IpEndpoint, socketAddressBytes } from './socket-address.ts';
import { linux, type SystemCalls } from './system-calls.ts';
import { TlsSession } from './tls-session.ts';

/** Octets not taken by the system, from which on the writer is asked to wait. */
const queuedBytesMax = 65_536;
/** Small writes are put together here, and strings are written here. */
const scratchBytes = 262_144;
const scratch = Buffer.allocUnsafeSlow(scratchBytes);
/** Reads of one connection in one turn that are lent. */
const lentReadsMax = 8;
/** What every connection is told; `epollOut` only once it has had to wait. */
export const watchedEvents = linux.epollIn | linux.epollPriority | linux.epollReadHangUp | linux.epollEdge;
/** Whatever comes rouses those who watch for urgent data as well. */
const pausedEvents = watchedEvents & ~(linux.epollIn | linux.epollPriority);
const readEvents = linux.epollIn | linux.epollReadHangUp | linux.epollHangUp | linux.epollError;
/** After these no event tells of what is left; a read stops before urgent data (RFC 6093) and leaves what is behind it. */
const restEvents = linux.epollReadHangUp | linux.epollHangUp | linux.epollError | linux.epollPriority;
/** The first two alone say that the peer has ended in good order, and nothing urgent; nobody watches for that, nor for `epollIn`, while it is paused. */
const endEvents = linux.epollReadHangUp | linux.epollIn | linux.epollPriority | linux.epollError;
const noQueue: Piece[] = [];
const one = Buffer.from(Int32Array.of(1).buffer);
const lastFlags = linux.messageNoSignal | linux.messageMore;

/** What connections share. */
export interface DirectParts {
  readonly calls: SystemCalls;
  readonly poll: EventPoll;
  readonly buffers: ReadBuffers;
  readonly pipes: Pipes;
}

/** See the header of this file. */
export class DirectConnection implements Connection, PolledSocket {
  readonly returnsWritten = true;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly #parts: DirectParts;
  readonly #fd: number;
  #local: IpEndpoint | undefined;
  #handlers: ConnectionHandlers | undefined;
  #tls: TlsSession | undefined;
  #facts: TlsFacts | undefined;
  #securing: Handshake | undefined;
  #queue: Piece[] = noQueue;
  #queuedBytes = 0;
  /** There may be something to read. */
  #isReadable = false;
  /** The peer has ended, gone or sent urgent data: no event will come for what is left to be read. */
  #hasRest = false;
  /** The peer has ended, whatever of it is still to be read. */
  #hasPeerEnded = false;
  /** What was read last is all that it has sent. */
  #isAtEnd = false;
  /** What is written now is to travel with the end. */
  #isLast = false;
  /** A read has filled its buffer: there may be enough behind it to be passed on unread. */
  #comesMuch = false;
  #isPaced: boolean | undefined;
  #isPaused = false;
  /** Whether it is told what comes: not while it is paused and would only be woken, which costs both ends more than what comes. */
  #isInWatched = true;
  #isOutWatched = false;
  #wantsDrain = false;
  #isEnding = false;
  /** Nobody waits for what the peer may still say. */
  #isFinishing = false;
  #hasWriteEnded = false;
  #hasReadEnded = false;
  #isTurnAsked = false;
  /** The turn in which something was delivered last. */
  #deliveredIn = -1;
  #isEndUntold = false;
  #isClosed = false;
  #isCloseTold = false;
  #error: Error | undefined;

  /** @param isOutWatched whether it was added to the poll with `epollOut` as well */
  constructor(parts: DirectParts, fd: number, remote: IpEndpoint, isOutWatched = false, local?: IpEndpoint) {
    this.#parts = parts;
    this.#fd = fd;
    this.remoteAddress = remote.address;
    this.remotePort = remote.port;
    this.#isOutWatched = isOutWatched;
    this.#local = local;
  }

  get localAddress(): string {
    return this.#localEndpoint().address;
  }

  get localPort(): number {
    return this.#localEndpoint().port;
  }

  get tls(): TlsFacts | undefined {
    return this.#facts;
  }

  get bufferedBytes(): number {
    return this.#queuedBytes;
  }

  get endsNext(): boolean {
    return this.#isAtEnd;
  }

  handle(handlers: ConnectionHandlers): void {
    this.#handlers = handlers;
    if (this.#isCloseTold) this.#isCloseTold = false;
    else if (this.#hasReadEnded) this.#isEndUntold = true;
    else if (!this.#isReadable || this.#isPaused) return;
    this.#askTurn();
  }

  write(bytes: Uint8Array | string, isLast = false): boolean {
    if (this.#isEnding || this.#isClosed) return true;
    if (isLast) return this.#writeLast(bytes);
    if (typeof bytes === 'string') {
      // Three octets at most for each unit of UTF-16.
      if (bytes.length * 3 > scratchBytes) return this.#send(Buffer.from(bytes), undefined);
      return this.#send(scratch, scratch.write(bytes, 0, 'utf8'));
    }
    return this.#send(bytes, undefined);
  }

  writeAll(parts: readonly Uint8Array[]): boolean {
    if (this.#isEnding || this.#isClosed) return true;
    let total = 0;
    for (const part of parts) total += part.length;
    if (total <= scratchBytes && this.#queue.length === 0) {
      let at = 0;
      for (const part of parts) {
        scratch.set(part, at);
        at += part.length;
      }
      return this.#send(scratch, total);
    }
    let room = true;
    for (const part of parts) room = this.#send(part, undefined);
    return room;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#watchIn(true);
    if (this.#isReadable && this.#handlers !== undefined) this.#askTurn();
  }

  end(): void {
    if (this.#isEnding || this.#isClosed) return;
    this.#isEnding = true;
    if (this.#queue.length === 0 && this.#securing === undefined) this.#endWrites();
  }

  finish(): boolean {
    this.#isFinishing = true;
    this.end();
    return this.#isClosed;
  }

  destroy(error?: Error): void {
    this.#close(error);
  }

  startTls(options: TlsServerOptions, early?: Buffer): Promise<void> {
    return this.#secure(() => TlsSession.server(options, this.#fd, early), early !== undefined && early.length > 0);
  }

  startTlsAsClient(options: TlsClientOptions): Promise<void> {
    return this.#secure(() => TlsSession.client(options, this.#fd), true);
  }

  onEvents(events: number): void {
    if (this.#isClosed) return;
    if ((events & readEvents) !== 0) this.#isReadable = true;
    if ((events & restEvents) !== 0) {
      this.#hasRest = true;
      this.#hasPeerEnded = (events & endEvents) === (linux.epollReadHangUp | linux.epollIn);
    }
    if (this.#securing !== undefined) {
      this.#handshake(this.#securing);
      return;
    }
    if (this.#isPaused && (events & linux.epollIn) !== 0) this.#watchIn(false);
    // Whatever a handler throws, the socket goes on: these events do not come again.
    try {
      if (this.#queue.length > 0 || this.#tls?.isHeld === true || (this.#isEnding && !this.#hasWriteEnded)) this.#flush();
    } finally {
      this.#read();
    }
  }

  onTurn(): void {
    this.#isTurnAsked = false;
    if (this.#isClosed) {
      if (this.#isCloseTold) return;
      this.#isCloseTold = true;
      this.#handlers?.close(this.#error);
      return;
    }
    if (this.#securing !== undefined) {
      this.#handshake(this.#securing);
      return;
    }
    if (this.#isEndUntold) this.#tellEnd();
    else this.#read();
  }

  #localEndpoint(): IpEndpoint {
    if (this.#local !== undefined || this.#isClosed) return this.#local ?? { address: '', port: 0 };
    const bytes = Buffer.alloc(socketAddressBytes);
    const length = Buffer.from(Int32Array.of(socketAddressBytes).buffer);
    this.#parts.calls.getSocketName(this.#fd, bytes, length);
    this.#local = decodeSocketAddress(bytes);
    return this.#local;
  }

  #askTurn(): void {
    if (this.#isTurnAsked) return;
    this.#isTurnAsked = true;
    this.#parts.poll.again(this);
  }

  // What somebody awaits of one delivery (a handler replaced, a pause) comes true before the next: there is one in a turn.
  #read(): void {
    if (!this.#mayRead()) return;
    if (this.#deliveredIn === this.#parts.poll.turn) {
      this.#askTurn();
      return;
    }
    this.#deliveredIn = this.#parts.poll.turn;
    try {
      const handlers = this.#handlers;
      this.#readOnce();
      // Who borrows what is read only passes it on, and waits for nothing.
      for (let more = lentReadsMax - 1; more > 0 && handlers?.lent !== undefined; more -= 1) {
        if (handlers !== this.#handlers || !this.#mayRead()) break;
        this.#readOnce();
      }
    } finally {
      if (this.#mayRead()) this.#askTurn();
    }
  }

  #mayRead(): boolean {
    return (
      this.#isReadable &&
      !this.#isPaused &&
      this.#handlers !== undefined &&
      !this.#hasReadEnded &&
      !this.#isClosed &&
      this.#securing === undefined
    );
  }

  #readOnce(): void {
    if (this.#comesMuch && this.#passOn(this.#handlers as ConnectionHandlers)) return;
    const count = this.#isAtEnd ? 0 : this.#receive();
    if (count > 0) this.#deliver(this.#handlers as ConnectionHandlers, count);
    if (count !== 0) return;
    this.#isReadable = false;
    this.#hasReadEnded = true;
    this.#tellEnd();
  }

  /** Octets read, 0 at the end, `wouldBlock` when there is nothing or the connection broke. */
  #receive(): number {
    const { calls, buffers } = this.#parts;
    const { address } = buffers.current;
    try {
      if (this.#tls === undefined) {
        const count = receiveInto(calls, this.#fd, address, readBytes);
        if (count === readBytes) this.#comesMuch = true;
        else if (count === wouldBlock) this.#isReadable = false;
        else {
          if (!this.#hasRest) this.#isReadable = false;
          this.#isAtEnd = this.#hasPeerEnded;
        }
        return count;
      }
      const count = this.#tls.read(address, readBytes, !this.#hasRest);
      if (this.#tls.isDrained) this.#isReadable = false;
      if (this.#tls.isHeld) this.#watchOut();
      return count;
    } catch (error) {
      this.#close(error as Error);
      return wouldBlock;
    }
  }

  /** Whether the system has moved what lies there to where everything goes. The end of it is left, and so is all that an end or urgent data may cut. */
  #passOn(handlers: ConnectionHandlers): boolean {
    const target = handlers.passesTo?.();
    const to = target?.carrier ?? target;
    if (!(to instanceof DirectConnection) || !to.#takesUnread() || this.#tls !== undefined || this.#hasRest) return false;
    let pipe: Pipe | undefined;
    try {
      pipe = this.#parts.pipes.fill(this.#fd);
    } catch (error) {
      this.#close(error as Error);
      return true;
    }
    this.#comesMuch = pipe !== undefined;
    if (pipe === undefined) return false;
    const { length } = pipe;
    handlers.passed?.(length, to.#sendPipe(pipe));
    return true;
  }

  #takesUnread(): boolean {
    if (this.#isClosed || this.#isEnding || this.#queue.length > 0 || this.#tls !== undefined || this.#securing !== undefined) return false;
    this.#isPaced ??= isPaced(this.#parts.calls, this.#fd);
    return !this.#isPaced;
  }

  #deliver(handlers: ConnectionHandlers, count: number): void {
    const { buffers } = this.#parts;
    const { bytes } = buffers.current;
    if (handlers.lent === undefined || handlers.holdsLent?.() === true) {
      handlers.data(Buffer.from(bytes.subarray(0, count)));
      return;
    }
    try {
      handlers.lent(bytes.subarray(0, count));
    } finally {
      if (handlers.holdsLent?.() === true) buffers.giveAway(handlers);
    }
  }

  #tellEnd(): void {
    this.#isEndUntold = false;
    try {
      if (this.#handlers?.end === undefined) this.end();
      else this.#handlers.end();
    } finally {
      if (this.#hasWriteEnded) this.#close(undefined);
    }
  }

  /** @param length with which the bytes are in memory that belongs to others after this call */
  #send(bytes: Uint8Array, length: number | undefined): boolean {
    const wanted = length ?? bytes.length;
    if (wanted === 0) return this.#queuedBytes < queuedBytesMax;
    let taken = 0;
    if (this.#queue.length === 0 && this.#securing === undefined) {
      taken = this.#offer(bytes, wanted);
      if (taken === wanted || this.#isClosed) return true;
    }
    const rest = bytes.subarray(taken, wanted);
    return this.#enqueue(length === undefined ? rest : Buffer.from(rest));
  }

  /** Of a connection with nothing in its queue. */
  #sendPipe(pipe: Pipe): boolean {
    this.#offer(pipe, pipe.length);
    if (pipe.length > 0 && !this.#isClosed) return this.#enqueue(pipe);
    this.#parts.pipes.giveBack(pipe);
    return true;
  }

  #enqueue(piece: Piece): boolean {
    if (this.#queue === noQueue) this.#queue = [];
    this.#queue.push(piece);
    this.#queuedBytes += piece.length;
    if (this.#queuedBytes < queuedBytesMax) return true;
    this.#wantsDrain = true;
    return false;
  }

  /** Has the system take what it can; returns how much that was. A connection that broke is closed. */
  #offer(piece: Piece, length: number): number {
    const { calls } = this.#parts;
    const flags = this.#isLast ? lastFlags : linux.messageNoSignal;
    let taken = 0;
    while (taken < length) {
      let count: number;
      try {
        if (piece instanceof Pipe) count = piece.giveTo(this.#fd);
        else {
          const rest = taken === 0 ? piece : piece.subarray(taken, length);
          count = this.#tls === undefined ? sendFrom(calls, this.#fd, rest, length - taken, flags) : this.#tls.write(rest, length - taken);
        }
      } catch (error) {
        this.#close(error as Error);
        return taken;
      }
      if (count === wouldBlock) {
        this.#watchOut();
        return taken;
      }
      taken += count;
    }
    // The last of it may be where the system has still to take it from.
    if (this.#tls?.isHeld === true) this.#watchOut();
    return taken;
  }

  /** One packet less, for each side: the system sends it with the end, and by itself after 0.2 s. */
  #writeLast(bytes: Uint8Array | string): boolean {
    if (this.#tls !== undefined) this.#parts.calls.setSocketOption(this.#fd, linux.levelTcp, linux.optionCork, one, one.length);
    this.#isLast = true;
    const hasRoom = this.write(bytes);
    this.#isLast = false;
    return hasRoom;
  }

  #flush(): void {
    if (!this.#flushHeld()) return;
    while (this.#queue.length > 0) {
      gather(this.#queue);
      if (!this.#flushFirst()) return;
    }
    this.#queue = noQueue;
    if (this.#isEnding) {
      this.#endWrites();
      return;
    }
    if (!this.#wantsDrain) return;
    this.#wantsDrain = false;
    this.#handlers?.drain?.();
  }

  #flushHeld(): boolean {
    try {
      return this.#tls?.flush() !== false;
    } catch (error) {
      this.#close(error as Error);
      return false;
    }
  }

  /** Whether the first piece of the queue is gone. */
  #flushFirst(): boolean {
    const first = this.#queue[0] as Piece;
    const { length } = first;
    const taken = this.#offer(first, length);
    if (this.#isClosed) return false;
    this.#queuedBytes -= taken;
    if (taken < length) {
      if (!(first instanceof Pipe)) this.#queue[0] = first.subarray(taken);
      return false;
    }
    this.#queue.shift();
    if (first instanceof Pipe) this.#parts.pipes.giveBack(first);
    return true;
  }

  #watchIn(isWatched: boolean): void {
    if (this.#isInWatched === isWatched || this.#isClosed) return;
    this.#isInWatched = isWatched;
    this.#watch();
  }

  #watchOut(): void {
    if (this.#isOutWatched) return;
    this.#isOutWatched = true;
    this.#watch();
  }

  #watch(): void {
    const events = this.#isInWatched ? watchedEvents : pausedEvents;
    this.#parts.poll.change(this.#fd, this.#isOutWatched ? events | linux.epollOut : events);
  }

  #endWrites(): void {
    if (this.#hasWriteEnded) return;
    if (!this.#endTls()) return;
    this.#hasWriteEnded = true;
    // Closing says the same, unless something lies here unread: the system would then drop what it has still to send.
    if ((this.#hasReadEnded && !this.#isEndUntold) || (this.#isFinishing && !this.#isReadable)) this.#close(undefined);
    else this.#parts.calls.shutdown(this.#fd, linux.shutWrite);
  }

  /** Whether the peer has been told, as far as this was to be. */
  #endTls(): boolean {
    try {
      if (this.#tls?.end() !== false) return true;
      this.#watchOut();
    } catch (error) {
      this.#close(error as Error);
    }
    return false;
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#error = error;
    const first = this.#queue[0];
    if (first instanceof Pipe) this.#parts.pipes.giveBack(first);
    this.#queue = noQueue;
    this.#queuedBytes = 0;
    this.#tls?.free();
    this.#tls = undefined;
    const securing = this.#securing;
    if (securing !== undefined) this.#leaveHandshake(securing, error ?? new Error('the connection was closed'));
    this.#parts.poll.close(this.#fd);
    this.#askTurn();
  }

  /** @param startsAtOnce whether there is something to do before anything comes from the peer */
  #secure(begin: () => TlsSession, startsAtOnce: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: Error): PlatformError =>
        new PlatformError('NET_TLS_FAILED', `TLS handshake with ${this.remoteAddress} failed: ${error.message}`, { cause: error });
      if (this.#isClosed) return reject(failed(new Error('the peer hung up')));
      if (this.#tls !== undefined || this.#securing !== undefined) return reject(failed(new Error('it has begun before')));
      const securing = new Handshake(begin, {
        startsAtOnce,
        clear: this.#queue.length,
        done: (error) => (error === undefined ? resolve() : reject(failed(error))),
        tookTooLong: (error) => this.#failHandshake(securing, error),
      });
      this.#securing = securing;
      this.#watchIn(true);
      if (startsAtOnce || this.#isReadable || this.#queue.length > 0) this.#askTurn();
    });
  }

  #handshake(securing: Handshake): void {
    if (!this.#flushClear(securing)) return;
    let session: TlsSession | undefined;
    try {
      session = securing.step(this.#isReadable);
      if (session === undefined) {
        if (securing.wantsWrite) this.#watchOut();
        return;
      }
      this.#facts = session.facts();
    } catch (error) {
      this.#failHandshake(securing, error as Error);
      return;
    }
    this.#securing = undefined;
    this.#tls = session;
    // Something may have come right behind the handshake; it is for whoever waits for that.
    this.#deliveredIn = this.#parts.poll.turn;
    this.#isReadable = true;
    this.#askTurn();
    securing.succeed();
    if (this.#queue.length > 0 || this.#wantsDrain || this.#isEnding) this.#flush();
  }

  /** Whether nothing is left that is to go before the handshake. */
  #flushClear(securing: Handshake): boolean {
    for (; securing.clear > 0; securing.clear -= 1) {
      if (!this.#flushFirst()) return false;
    }
    return true;
  }

  #failHandshake(securing: Handshake, error: Error): void {
    this.#leaveHandshake(securing, error);
    // Who waits for the handshake has been told.
    this.#close(undefined);
  }

  #leaveHandshake(securing: Handshake, error: Error): void {
    if (this.#securing !== securing) return;
    this.#securing = undefined;
    securing.fail(error);
  }
}
