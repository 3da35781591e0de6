/**
 * Frames of the link, the protocol between servers of an installation (frontend to member, member to member).
 *
 *   0        1        2        3        4                                   8
 *   +--------+--------+--------+--------+--------+--------+--------+--------+----------------
 *   |   length of payload (24)   |  type  |         channel or call (32)       | payload ...
 *   +--------+--------+--------+--------+--------+--------+--------+--------+----------------
 *
 * One connection carries many sessions. The one that dialled chooses the numbers, each once, counting up from 1; number 0 is the
 * connection itself. Bytes of a session flow against credit: either side may have `windowBytes` on the way that the other has not
 * consumed, so that a session whose client does not read holds up nobody else.
 *
 * `notice` is a word from the member beside a session's bytes, sent only to a dialler that asked for it when it opened the session.
 *
 * Dialogue: `hello` from the dialler, `hello` or `refuse` back; then `open`/`answer` and `data`/`credit`/`end`/`reset` for sessions,
 * `call`/`result` for calls, `ping`/`status` to notice a dead peer and to carry its load.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** What a frame is. The numbers are the protocol; they are never given a second meaning. */
export const frameTypes = {
  hello: 1,
  refuse: 2,
  ping: 3,
  status: 4,
  open: 5,
  answer: 6,
  data: 7,
  credit: 8,
  end: 9,
  reset: 10,
  call: 11,
  result: 12,
  notice: 13,
} as const;
export type FrameType = (typeof frameTypes)[keyof typeof frameTypes];

/** Octets before the payload. */
export const headerBytes = 8;
/** Largest `data` payload: small enough that other sessions' frames are never far behind. */
export const dataBytesMax = 16_384;
/** Bytes of one session and direction that may be on the way and not consumed. */
export const windowBytes = 65_536;
/** Largest JSON of a call or a result; longer lists are asked for in pages. */
export const jsonBytesMax = 1_048_576;
/** Largest JSON of a `hello`, `refuse`, `ping`, `status`, `open` or `answer`. */
export const smallJsonBytesMax = 16_384;
/** Longest reason in a `reset`. */
export const reasonBytesMax = 512;
/** Highest channel number. A connection that has used it up is replaced. */
export const channelMax = 0xffff_ffff;

const payloadBytesMax: Readonly<Record<number, number>> = {
  [frameTypes.hello]: smallJsonBytesMax,
  [frameTypes.refuse]: smallJsonBytesMax,
  [frameTypes.ping]: smallJsonBytesMax,
  [frameTypes.status]: smallJsonBytesMax,
  [frameTypes.open]: smallJsonBytesMax,
  [frameTypes.answer]: smallJsonBytesMax,
  [frameTypes.data]: dataBytesMax,
  [frameTypes.credit]: 4,
  [frameTypes.end]: 0,
  [frameTypes.reset]: reasonBytesMax,
  [frameTypes.call]: jsonBytesMax,
  [frameTypes.result]: jsonBytesMax,
  [frameTypes.notice]: smallJsonBytesMax,
};

/**
 * Takes whole frames. `payload` may share memory with the chunk it came in; it stays valid. `endsNext`: the frame that ends the channel is known to
 * come right behind.
 */
export type FrameSink = (type: FrameType, channel: number, payload: Buffer, endsNext: boolean) => void;

/** Octets of frames that a batch has room for before it is given more memory. */
const batchBytes = 6 * dataBytesMax;

/** Frames that leave together, one behind the other where they are put together. */
export class FrameBatch {
  #memory = Buffer.allocUnsafeSlow(batchBytes);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** All of them, as long as none is added and the batch is not cleared. */
  get bytes(): Buffer {
    return this.#memory.subarray(0, this.#length);
  }

  add(type: FrameType, channel: number, payload?: Uint8Array): void {
    const length = payload?.length ?? 0;
    this.#makeRoom(length);
    if (payload !== undefined) this.#memory.set(payload, this.#length + headerBytes);
    this.#close(type, channel, length);
  }

  /** A frame with a JSON payload. Throws `LINK_PROTOCOL` when it would be too large to be accepted. */
  addJson(type: FrameType, channel: number, value: unknown): void {
    const text = JSON.stringify(value);
    // Three octets at most for each unit of UTF-16.
    this.#makeRoom(text.length * 3);
    const length = this.#memory.write(text, this.#length + headerBytes, 'utf8');
    if (length > (payloadBytesMax[type] as number)) {
      throw new PlatformError('LINK_PROTOCOL', `a message of ${length} bytes is larger than the link takes (${payloadBytesMax[type]})`);
    }
    this.#close(type, channel, length);
  }

  /** @param isKept whether somebody keeps what `bytes` was: the next frames are put elsewhere */
  clear(isKept: boolean): void {
    this.#length = 0;
    if (isKept || this.#memory.length > batchBytes) this.#memory = Buffer.allocUnsafeSlow(batchBytes);
  }

  #makeRoom(payloadBytes: number): void {
    const wanted = this.#length + headerBytes + payloadBytes;
    if (wanted <= this.#memory.length) return;
    const memory = Buffer.allocUnsafeSlow(wanted);
    memory.set(this.bytes);
    this.#memory = memory;
  }

  #close(type: FrameType, channel: number, length: number): void {
    // The type stands in the lowest octet of the first four.
    this.#memory.writeUInt32BE(length * 256 + type, this.#length);
    this.#memory.writeUInt32BE(channel, this.#length + 4);
    this.#length += headerBytes + length;
  }
}

/** Parses a JSON payload into an object, or throws `LINK_PROTOCOL`. Depth is bounded by the size limits of frames. */
export function parseJsonObject(payload: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString('utf8'));
  } catch (error) {
    throw new PlatformError('LINK_PROTOCOL', 'a frame holds malformed JSON', { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new PlatformError('LINK_PROTOCOL', 'a frame holds JSON that is no object');
  }
  return value as Record<string, unknown>;
}

/** Turns bytes into frames: push decoder, any split of the bytes gives the same frames. Throws `LINK_PROTOCOL` and is dead from then on. */
export class FrameDecoder {
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #wanted = headerBytes;
  #isDead = false;

  /** Bytes held back until a frame is whole; never more than one frame. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  push(chunk: Buffer, sink: FrameSink): void {
    if (this.#isDead) return;
    let rest = chunk;
    if (this.#pendingBytes > 0) {
      // Gather until the frame is whole; its length becomes known with the header.
      while (this.#pendingBytes < this.#wanted && rest.length > 0) {
        const piece = rest.subarray(0, this.#wanted - this.#pendingBytes);
        this.#pending.push(piece);
        this.#pendingBytes += piece.length;
        rest = rest.subarray(piece.length);
        if (this.#wanted === headerBytes && this.#pendingBytes === headerBytes) {
          const header = Buffer.concat(this.#pending);
          this.#pending = [header];
          this.#wanted = headerBytes + this.#lengthOf(header);
        }
      }
      if (this.#pendingBytes < this.#wanted) return;
      const whole = this.#pending.length === 1 ? (this.#pending[0] as Buffer) : Buffer.concat(this.#pending);
      this.#pending = [];
      this.#pendingBytes = 0;
      this.#wanted = headerBytes;
      this.#emit(whole, 0, whole.length, sink);
    }
    let at = 0;
    while (rest.length - at >= headerBytes && !this.#isDead) {
      const end = at + headerBytes + this.#lengthOf(rest, at);
      if (rest.length < end) {
        this.#wanted = end - at;
        break;
      }
      this.#emit(rest, at, end, sink);
      at = end;
    }
    if (at < rest.length && !this.#isDead) {
      this.#pending.push(at === 0 ? rest : rest.subarray(at));
      this.#pendingBytes = rest.length - at;
    }
  }

  /** Nothing is decoded any more; what is held back is dropped. */
  stop(): void {
    this.#isDead = true;
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  #emit(chunk: Buffer, at: number, end: number, sink: FrameSink): void {
    const channel = chunk.readUInt32BE(at + 4);
    const endsNext = chunk.length >= end + headerBytes && chunk[end + 3] === frameTypes.end && chunk.readUInt32BE(end + 4) === channel;
    sink(chunk[at + 3] as FrameType, channel, chunk.subarray(at + headerBytes, end), endsNext);
  }

  // Checked on the header alone, so that garbage is noticed before anything is gathered for it.
  #lengthOf(header: Buffer, at = 0): number {
    const length = header.readUInt32BE(at) >>> 8;
    const type = header[at + 3] as number;
    const max = payloadBytesMax[type];
    if (max === undefined || length > max || (type === frameTypes.credit && length !== 4)) {
      this.stop();
      throw new PlatformError(
        'LINK_PROTOCOL',
        max === undefined ? `frame type ${type} is unknown` : `a frame of type ${type} claims ${length} bytes; at most ${max} are allowed`,
      );
    }
    return length;
  }
}
