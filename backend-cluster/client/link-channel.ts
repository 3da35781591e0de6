/**
 * One session's channel on a link connection. It behaves as any `Connection` does: back-pressure (here by credit), half-close both ways,
 * an abrupt end. What it may hold is bounded: received and not taken at most `windowBytes`, written and not sent `unsentBytesMax`.
 */
import type { NoticeListener } from '#backend-cluster/client/cluster-client.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, ConnectionHandlers, TlsFacts } from '#common/network/network.ts';
import { dataBytesMax, type FrameType, frameTypes, reasonBytesMax, windowBytes } from '#protocol/link/frames.ts';

/** Bytes a writer may queue against `write`'s advice before the channel is reset: room for the largest message and then some. */
export const unsentBytesMax = 134_217_728;

/** Of a channel at rest: an array of its own that has held something keeps the room for more. */
const noQueue: Buffer[] = [];
Object.freeze(noQueue);

/** What a channel needs of the connection it runs on. */
export interface ChannelCarrier {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly tls: TlsFacts | undefined;
  /** Too much is unsent on the connection: hold data back until `pump` is called. */
  readonly isCongested: boolean;
  send(type: FrameType, channel: number, payload?: Buffer): void;
  /** Puts the channel in line for the time when the connection is free again. */
  awaitRoom(channel: LinkChannel): void;
  /** The channel is over on both sides. */
  forget(channel: LinkChannel): void;
}

/** See the header of this file. */
export class LinkChannel implements Connection {
  readonly number: number;
  readonly #carrier: ChannelCarrier;
  #handlers: ConnectionHandlers | undefined;
  #sendQueue = noQueue;
  #unsentBytes = 0;
  #sendCredit = windowBytes;
  #receiveQueue = noQueue;
  /** What the peer may still send. */
  #receiveWindow = windowBytes;
  #toGrant = 0;
  #isPaused = false;
  #wasBlocked = false;
  #isDelivering = false;
  #deliveryPlanned = false;
  #ending: 'no' | 'queued' | 'sent' = 'no';
  #peerEnd: 'no' | 'received' | 'delivered' = 'no';
  /** The end is known to come behind what was received last. */
  #isEndNear = false;
  #resetReason: Error | true | undefined;
  #lastNotice: Buffer | undefined;
  #noticeListener: NoticeListener | undefined;
  #isClosed = false;
  #closeError: Error | undefined;
  #closeReported = false;

  constructor(number: number, carrier: ChannelCarrier) {
    this.number = number;
    this.#carrier = carrier;
  }

  get remoteAddress(): string {
    return this.#carrier.remoteAddress;
  }
  get remotePort(): number {
    return this.#carrier.remotePort;
  }
  get localAddress(): string {
    return this.#carrier.localAddress;
  }
  get localPort(): number {
    return this.#carrier.localPort;
  }
  get tls(): TlsFacts | undefined {
    return this.#carrier.tls;
  }
  get bufferedBytes(): number {
    return this.#unsentBytes;
  }
  get isClosed(): boolean {
    return this.#isClosed;
  }
  get endsNext(): boolean {
    return this.#isEndNear && this.#receiveQueue.length === 0;
  }

  handle(handlers: ConnectionHandlers): void {
    this.#handlers = handlers;
    if (this.#isClosed) this.#reportClose();
    else this.#planDelivery();
  }

  write(bytes: Uint8Array | string): boolean {
    const chunk = typeof bytes === 'string' ? Buffer.from(bytes) : asBuffer(bytes);
    if (this.#isClosed || this.#ending !== 'no' || chunk.length === 0) return true;
    if (this.#sendQueue === noQueue) this.#sendQueue = [chunk];
    else this.#sendQueue.push(chunk);
    this.#unsentBytes += chunk.length;
    this.pump();
    if (this.#unsentBytes > unsentBytesMax) {
      this.destroy(
        new PlatformError('LINK_PROTOCOL', `more than ${unsentBytesMax} bytes were written to a session whose peer does not read`),
      );
    }
    if (this.#unsentBytes === 0 && !this.#carrier.isCongested) return true;
    this.#wasBlocked = true;
    if (this.#unsentBytes === 0) this.#carrier.awaitRoom(this);
    return false;
  }

  writeAll(parts: readonly Uint8Array[]): boolean {
    // Small parts travel better in one frame than in one each.
    return this.write(parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts as Uint8Array[]));
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#planDelivery();
  }

  end(): void {
    if (this.#isClosed || this.#ending !== 'no') return;
    this.#ending = 'queued';
    this.pump();
  }

  /** Says something beside the bytes, at once. */
  notify(notice: object): void {
    if (!this.#isClosed) this.#carrier.send(frameTypes.notice, this.number, Buffer.from(JSON.stringify(notice)));
  }

  /** As `end`, with a notice that stands after all bytes. */
  endWith(notice: object): void {
    this.#lastNotice = Buffer.from(JSON.stringify(notice));
    this.end();
  }

  /** Takes notices over; they come as they are received, which may be before bytes that were sent earlier. */
  onNotice(listener: NoticeListener): void {
    this.#noticeListener = listener;
  }

  onNoticeFrame(notice: Record<string, unknown>): boolean {
    if (!this.#isClosed) this.#noticeListener?.channelNotice(notice);
    return true;
  }

  destroy(error?: Error): void {
    if (this.#isClosed) return;
    if (this.#resetReason === undefined) {
      const reason = error === undefined ? Buffer.alloc(0) : Buffer.from(error.message).subarray(0, reasonBytesMax);
      this.#carrier.send(frameTypes.reset, this.number, reason);
    }
    this.#close(error);
  }

  startTls(): Promise<void> {
    return Promise.reject(new PlatformError('NET_TLS_FAILED', 'a channel of the link has no TLS of its own; the link has'));
  }

  /** Sends what credit and the connection allow; one frame when `once` is set, so that channels in line take turns. */
  pump(once = false): void {
    while (this.#unsentBytes > 0 && this.#sendCredit > 0) {
      if (this.#carrier.isCongested) {
        this.#carrier.awaitRoom(this);
        return;
      }
      const piece = this.#takePiece(Math.min(dataBytesMax, this.#sendCredit));
      this.#sendCredit -= piece.length;
      this.#unsentBytes -= piece.length;
      this.#carrier.send(frameTypes.data, this.number, piece);
      if (once && this.#unsentBytes > 0 && this.#sendCredit > 0) {
        this.#carrier.awaitRoom(this);
        return;
      }
    }
    if (this.#unsentBytes > 0) return;
    if (this.#ending === 'queued') {
      this.#ending = 'sent';
      if (this.#lastNotice !== undefined) this.#carrier.send(frameTypes.notice, this.number, this.#lastNotice);
      this.#carrier.send(frameTypes.end, this.number);
      this.#closeWhenOver();
    } else if (this.#wasBlocked && !this.#carrier.isCongested) {
      this.#wasBlocked = false;
      queueMicrotask(() => {
        if (!this.#isClosed) this.#handlers?.drain?.();
      });
    }
  }

  /** Bytes came. `false`: the peer sent more than it had credit for. */
  onData(payload: Buffer, endsNext: boolean): boolean {
    if (payload.length > this.#receiveWindow || this.#peerEnd !== 'no') return false;
    this.#receiveWindow -= payload.length;
    if (this.#isClosed) return true;
    this.#isEndNear = endsNext;
    if (this.#receiveQueue === noQueue) this.#receiveQueue = [payload];
    else this.#receiveQueue.push(payload);
    this.#deliver();
    return true;
  }

  onCredit(bytes: number): boolean {
    this.#sendCredit += bytes;
    if (this.#sendCredit > windowBytes) return false;
    this.pump();
    return true;
  }

  onEnd(): boolean {
    if (this.#peerEnd !== 'no') return false;
    this.#peerEnd = 'received';
    this.#deliver();
    return true;
  }

  /** The peer dropped the channel: what came before is still delivered. */
  onReset(reason: string): void {
    if (this.#isClosed) return;
    this.#resetReason = reason === '' ? true : new PlatformError('NET_CLOSED', `the peer dropped the session: ${reason}`);
    this.#sendQueue = noQueue;
    this.#unsentBytes = 0;
    this.#carrier.forget(this);
    this.#deliver();
  }

  /** The connection below is gone. */
  onCarrierLost(error: Error): void {
    if (this.#resetReason === undefined) this.#close(error);
  }

  #takePiece(max: number): Buffer {
    const first = this.#sendQueue[0] as Buffer;
    if (first.length > max) {
      this.#sendQueue[0] = first.subarray(max);
      return first.subarray(0, max);
    }
    if (this.#sendQueue.length === 1) {
      this.#sendQueue = noQueue;
      return first;
    }
    if (first.length >= 4096) {
      this.#sendQueue.shift();
      return first;
    }
    const parts: Buffer[] = [];
    let total = 0;
    for (const next of this.#sendQueue) {
      if (total + next.length > max) break;
      parts.push(next);
      total += next.length;
    }
    if (parts.length === this.#sendQueue.length) this.#sendQueue = noQueue;
    else this.#sendQueue.splice(0, parts.length);
    return Buffer.concat(parts, total);
  }

  #planDelivery(): void {
    if (this.#deliveryPlanned) return;
    this.#deliveryPlanned = true;
    queueMicrotask(() => {
      this.#deliveryPlanned = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    if (this.#isDelivering || this.#handlers === undefined) return;
    this.#isDelivering = true;
    while (!this.#isPaused && !this.#isClosed) {
      const chunk = this.#receiveQueue[0];
      if (chunk === undefined) break;
      if (this.#receiveQueue.length === 1) this.#receiveQueue = noQueue;
      else this.#receiveQueue.shift();
      this.#toGrant += chunk.length;
      this.#handlers.data(chunk);
    }
    this.#isDelivering = false;
    if (this.#isClosed || this.#receiveQueue.length > 0) return;
    if (this.#resetReason !== undefined) {
      if (!this.#isPaused) this.#close(this.#resetReason === true ? undefined : this.#resetReason);
      return;
    }
    if (this.#peerEnd === 'received' && !this.#isPaused) {
      this.#peerEnd = 'delivered';
      if (this.#handlers.end === undefined) this.end();
      else this.#handlers.end();
      this.#closeWhenOver();
    }
    // Credit goes back in halves of the window: a quarter of the frames, and the peer never runs dry waiting for it.
    if (this.#toGrant >= windowBytes / 2 && this.#peerEnd === 'no' && !this.#isClosed) {
      const credit = Buffer.allocUnsafe(4);
      credit.writeUInt32BE(this.#toGrant);
      this.#receiveWindow += this.#toGrant;
      this.#toGrant = 0;
      this.#carrier.send(frameTypes.credit, this.number, credit);
    }
  }

  #closeWhenOver(): void {
    if (this.#ending === 'sent' && this.#peerEnd === 'delivered') this.#close(undefined);
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#sendQueue = noQueue;
    this.#receiveQueue = noQueue;
    this.#unsentBytes = 0;
    this.#carrier.forget(this);
    this.#reportClose();
  }

  #reportClose(): void {
    if (this.#handlers === undefined || this.#closeReported) return;
    this.#closeReported = true;
    queueMicrotask(() => {
      const handlers = this.#handlers;
      // The table it stood in may refer to it for long (common/roster.ts).
      this.#handlers = undefined;
      this.#noticeListener = undefined;
      handlers?.close(this.#closeError);
    });
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
