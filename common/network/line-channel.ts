/**
 * A connection read line by line, for the dialogues that we serve or lead with one command at a time: POP3 and LMTP.
 *
 * The reader pulls: it asks for a line or for what has come, does its work, asks again. What comes meanwhile is kept, up to
 * `keptBytesMax`; then the connection is paused, so a peer that sends faster than it is served waits in its own system. The writer
 * waits for `drained` where it writes much, so a peer that never reads holds one chunk of ours and no more.
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { Connection } from '#common/network/network.ts';

/** Bytes kept before the connection is paused. */
const keptBytesMax = 64 * 1024;
/** Time that a peer has to close its side after we closed ours. */
const lingerMs = 5000;

/** What came of asking for a line. `line` is without its line end. */
export type LineResult =
  | { readonly kind: 'line'; readonly line: Buffer }
  /** Longer than asked for; the connection cannot be read by lines any more. */
  | { readonly kind: 'too-long' }
  | { readonly kind: 'timeout' }
  /** The peer has ended, or the connection is closed. */
  | { readonly kind: 'ended' };

/** See the header of this file. One reader at a time. */
export class LineChannel {
  readonly #connection: Connection;
  readonly #clock: Clock;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #isPaused = false;
  #hasEnded = false;
  #isClosed = false;
  #linger: Timer | undefined;
  #wakeReader: (() => void) | undefined;
  #wakeWriters: (() => void)[] = [];
  readonly #closeListeners: ((error: Error | undefined) => void)[] = [];

  constructor(connection: Connection, clock: Clock) {
    this.#connection = connection;
    this.#clock = clock;
    connection.handle({
      data: (chunk) => {
        if (this.#linger !== undefined) return;
        this.#kept.push(chunk);
        this.#keptBytes += chunk.length;
        if (this.#keptBytes > keptBytesMax && !this.#isPaused) {
          this.#isPaused = true;
          connection.pause();
        }
        this.#wake();
      },
      end: () => {
        this.#hasEnded = true;
        this.#wake();
      },
      drain: () => this.#drained(),
      close: (error) => {
        this.#isClosed = true;
        this.#linger?.cancel();
        this.#wake();
        this.#drained();
        for (const listener of this.#closeListeners) listener(error);
      },
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether the peer can send no more, though it may still read. */
  get hasEnded(): boolean {
    return this.#hasEnded || this.#isClosed;
  }

  /** Whether something came that nobody has read yet. */
  get hasUnread(): boolean {
    return this.#keptBytes > 0;
  }

  /** Called once the connection is gone. */
  onClose(listener: (error: Error | undefined) => void): void {
    this.#closeListeners.push(listener);
  }

  /**
   * The next line. `bytesMax` counts its line end. With `strict` a line ends with CRLF only and a lone LF is part of it; otherwise LF
   * alone ends it as well, for clients that type.
   */
  async readLine(options: { bytesMax: number; timeoutMs: number; strict: boolean }): Promise<LineResult> {
    const deadlineMs = this.#clock.monotonicMs() + options.timeoutMs;
    for (;;) {
      const whole = this.#joined();
      const end = lineEnd(whole, options.strict);
      if (end !== undefined && end.next <= options.bytesMax) {
        this.#put(whole.subarray(end.next));
        return { kind: 'line', line: whole.subarray(0, end.length) };
      }
      if (end !== undefined || whole.length >= options.bytesMax) return { kind: 'too-long' };
      if (!(await this.#more(deadlineMs))) return { kind: this.hasEnded ? 'ended' : 'timeout' };
    }
  }

  /** What has come, at least one byte; `undefined` when no more will or nothing came in time. */
  async readChunk(timeoutMs: number): Promise<Buffer | undefined> {
    if (this.#keptBytes === 0 && !(await this.#more(this.#clock.monotonicMs() + timeoutMs))) return undefined;
    const whole = this.#joined();
    this.#put(Buffer.alloc(0));
    return whole;
  }

  /** Gives back what was read too far. */
  unread(bytes: Buffer): void {
    if (bytes.length > 0) this.#put(Buffer.concat([bytes, this.#joined()]));
  }

  /** All that has come and was not read; the connection is somebody else's from here on. */
  takeRest(): Buffer {
    const rest = this.#joined();
    this.#put(Buffer.alloc(0));
    return rest;
  }

  /** Drops what has come and was not read. Returns how many bytes that was. */
  discard(): number {
    const dropped = this.#keptBytes;
    this.#put(Buffer.alloc(0));
    return dropped;
  }

  /** Writes; `drained` tells when to go on. */
  write(bytes: Uint8Array | string): boolean {
    return this.#isClosed ? true : this.#connection.write(bytes);
  }

  /** Writes and, when that was enough for now, waits until the connection has sent it. False when it is closed or the time is over. */
  async writeAndWait(bytes: Uint8Array | string, timeoutMs: number): Promise<boolean> {
    if (this.#isClosed) return false;
    if (this.#connection.write(bytes)) return true;
    return new Promise<boolean>((resolve) => {
      const timer = this.#clock.after(timeoutMs, () => resolve(false));
      this.#wakeWriters.push(() => {
        timer.cancel();
        resolve(!this.#isClosed);
      });
    });
  }

  /** Sends what is queued and half-closes; a peer that does not close its side within `lingerMs` is cut off. */
  end(): void {
    if (this.#isClosed || this.#linger !== undefined) return;
    this.discard();
    this.#linger = this.#clock.after(lingerMs, () => this.destroy());
    this.#connection.end();
  }

  destroy(error?: Error): void {
    if (!this.#isClosed) this.#connection.destroy(error);
  }

  /** Waits for more bytes; false when none will come or the deadline has passed. */
  async #more(deadlineMs: number): Promise<boolean> {
    if (this.hasEnded) return false;
    const before = this.#keptBytes;
    const waitMs = deadlineMs - this.#clock.monotonicMs();
    if (waitMs <= 0) return false;
    await new Promise<void>((resolve) => {
      const timer = this.#clock.after(waitMs, () => this.#wake());
      this.#wakeReader = () => {
        timer.cancel();
        resolve();
      };
    });
    return this.#keptBytes > before;
  }

  #joined(): Buffer {
    if (this.#kept.length === 1) return this.#kept[0] as Buffer;
    const whole = Buffer.concat(this.#kept);
    this.#kept = [whole];
    return whole;
  }

  #put(rest: Buffer): void {
    this.#kept = rest.length === 0 ? [] : [rest];
    this.#keptBytes = rest.length;
    if (this.#isPaused && this.#keptBytes <= keptBytesMax) {
      this.#isPaused = false;
      if (!this.#isClosed) this.#connection.resume();
    }
  }

  #wake(): void {
    const wake = this.#wakeReader;
    this.#wakeReader = undefined;
    wake?.();
  }

  #drained(): void {
    const waiting = this.#wakeWriters;
    this.#wakeWriters = [];
    for (const wake of waiting) wake();
  }
}

/** Where the first line ends: its length, and where the next begins. */
function lineEnd(bytes: Buffer, strict: boolean): { length: number; next: number } | undefined {
  if (strict) {
    const at = bytes.indexOf('\r\n');
    return at < 0 ? undefined : { length: at, next: at + 2 };
  }
  const at = bytes.indexOf(0x0a);
  if (at < 0) return undefined;
  return { length: at > 0 && bytes[at - 1] === 0x0d ? at - 1 : at, next: at + 1 };
}
