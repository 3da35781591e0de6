/**
 * What goes to the client. Whole responses are gathered and written together; when the connection holds more than `connectionBytesMax` the
 * sender waits, so a big FETCH goes no faster than the client reads. A client that takes nothing for `stallMs` is cut: nobody can keep
 * a member's memory by not reading.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection } from '#common/network/network.ts';

/** Octets gathered before they are written without being asked to. */
const gatheredBytesMax = 32_768;
/** Octets the connection may hold before the sender waits. */
export const connectionBytesMax = 262_144;
/** Size of one write of a long literal. */
const sliceBytes = 65_536;
/** Time in which the client must have read something. */
export const stallMs = 120_000;

/** Lets other sessions have their turn in the middle of long work. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** See the header of this file. */
export class ImapOutput {
  readonly #connection: Connection;
  readonly #clock: Clock;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #waiting: (() => void) | undefined;
  #isClosed = false;
  #isHalfWritten = false;
  #hasStalled = false;

  constructor(connection: Connection, clock: Clock) {
    this.#connection = connection;
    this.#clock = clock;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The client was cut because it did not read. */
  get hasStalled(): boolean {
    return this.#hasStalled;
  }

  /** Sends one whole response. Rejects with `NET_CLOSED` once the connection is gone. */
  async send(parts: readonly Buffer[]): Promise<void> {
    this.#assertOpen();
    for (const part of parts) {
      this.#gathered.push(part);
      this.#gatheredBytes += part.length;
    }
    if (this.#gatheredBytes < gatheredBytesMax) return;
    await this.flush();
    // A client that reads as fast as we write would else keep every other session of the member waiting.
    await nextTurn();
  }

  /** Sends one line of ASCII text. */
  line(text: string): Promise<void> {
    return this.send([Buffer.from(`${text}\r\n`, 'latin1')]);
  }

  /** Writes what was gathered, and waits while the connection is full. */
  async flush(): Promise<void> {
    this.#assertOpen();
    const parts = this.#gathered;
    const total = this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    if (total <= 2 * sliceBytes) {
      if (total > 0) this.#connection.writeAll(parts);
      await this.#room();
      return;
    }
    this.#isHalfWritten = true;
    for (const part of parts) {
      for (let at = 0; at < part.length; at += sliceBytes) {
        this.#connection.write(part.subarray(at, at + sliceBytes));
        await this.#room();
      }
    }
    this.#isHalfWritten = false;
  }

  /** The connection took what it held. */
  drained(): void {
    this.#waiting?.();
  }

  /** The connection is gone. */
  closed(): void {
    this.#isClosed = true;
    this.#waiting?.();
  }

  /** Says a last line and ends. A response that is half written cannot be followed by a line: then the connection is dropped. */
  finish(lastLine: string | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#isHalfWritten) this.#connection.destroy();
    else {
      if (lastLine !== undefined) this.#gathered.push(Buffer.from(`${lastLine}\r\n`, 'latin1'));
      if (this.#gathered.length > 0) this.#connection.writeAll(this.#gathered);
      this.#gathered = [];
      this.#connection.end();
    }
    this.#waiting?.();
  }

  async #room(): Promise<void> {
    while (this.#connection.bufferedBytes > connectionBytesMax && !this.#isClosed) {
      let timer: Timer | undefined;
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
        timer = this.#clock.after(stallMs, () => {
          this.#hasStalled = true;
          this.#isClosed = true;
          this.#connection.destroy(new PlatformError('NET_TIMEOUT', `the client read nothing for ${stallMs} ms`));
          resolve();
        });
      });
      timer?.cancel();
      this.#waiting = undefined;
    }
    this.#assertOpen();
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new PlatformError('NET_CLOSED', 'the connection of the session has ended');
  }
}
