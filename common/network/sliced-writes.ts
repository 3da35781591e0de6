/**
 * Writes to a TLS socket in slices of at most `sliceBytes`, one at a time.
 *
 * What is written at once is enciphered at once, into a buffer of the process that is made for the largest write and stays with the connection: 80 KiB
 * for 64 kB, and a session that fetched one large message held them while it was idle for hours. Below 16 kB the buffer has 16 KiB.
 */
import type { TLSSocket } from 'node:tls';

/** Most octets of one write; from 16,384 on Node makes room for the whole write. */
export const sliceBytes = 16_000;
/** Octets that wait here, from which on the writer is asked to wait. */
const waitingBytesMax = 65_536;

/** See the header of this file. What waits is bounded by the writer, who is told as a stream tells it. */
export class SlicedWrites {
  readonly #socket: TLSSocket;
  readonly #drained: () => void;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #isWriting = false;
  #isEnding = false;
  #wantsDrain = false;

  /** @param drained called when a writer that was asked to wait may go on */
  constructor(socket: TLSSocket, drained: () => void) {
    this.#socket = socket;
    this.#drained = drained;
  }

  /** Octets that the socket has not been given yet. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** `false` asks the writer to wait for `drained`. */
  write(bytes: Uint8Array | string): boolean {
    if (this.#isEnding || !this.#socket.writable) return true;
    const chunk = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    if (chunk.length === 0) return true;
    if (!this.#isWriting && chunk.length <= sliceBytes) {
      this.#isWriting = true;
      this.#socket.write(chunk, this.#written);
      return true;
    }
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (!this.#isWriting) this.#writeNext();
    if (this.#waitingBytes < waitingBytesMax) return true;
    this.#wantsDrain = true;
    return false;
  }

  /** Ends the stream behind all that waits. */
  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    if (this.#waiting.length === 0) this.#socket.end();
  }

  #writeNext(): void {
    this.#isWriting = true;
    const slice = this.#take();
    this.#waitingBytes -= slice.length;
    this.#socket.write(slice, this.#written);
  }

  readonly #written = (error?: Error | null): void => {
    this.#isWriting = false;
    if (error !== undefined && error !== null) {
      this.#waiting = [];
      this.#waitingBytes = 0;
      return;
    }
    if (this.#waiting.length > 0) this.#writeNext();
    if (this.#isEnding && this.#waiting.length === 0 && !this.#socket.writableEnded) this.#socket.end();
    // A whole slice is under way by now, so the next ones come in time.
    if (!this.#wantsDrain || this.#waitingBytes >= waitingBytesMax / 2) return;
    this.#wantsDrain = false;
    this.#drained();
  };

  #take(): Uint8Array {
    const first = this.#waiting[0] as Uint8Array;
    if (first.length > sliceBytes) {
      this.#waiting[0] = first.subarray(sliceBytes);
      return first.subarray(0, sliceBytes);
    }
    if (this.#waiting.length === 1 || first.length >= sliceBytes / 2) {
      this.#waiting.shift();
      return first;
    }
    let count = 0;
    let total = 0;
    for (const next of this.#waiting) {
      if (total + next.length > sliceBytes) break;
      total += next.length;
      count += 1;
    }
    return Buffer.concat(this.#waiting.splice(0, count), total);
  }
}
