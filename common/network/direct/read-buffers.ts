/**
 * Where sockets are read into: one buffer for all of them, so that an idle socket has none and no read leaves garbage behind.
 *
 * It is lent to the handler for the length of a call. A handler whose other side could not take everything keeps it, and the next read gets another one.
 */
import type { Pointer, SystemCalls } from './system-calls.ts';

/** Most octets of one read. */
export const readBytes = 65_536;

/** Memory with its address, which stays the same as long as the buffer is held. */
export interface ReadBuffer {
  readonly bytes: Buffer;
  readonly address: Pointer;
}

/** See the header of this file. */
export class ReadBuffers {
  readonly #calls: SystemCalls;
  #current: ReadBuffer;

  constructor(calls: SystemCalls) {
    this.#calls = calls;
    this.#current = this.#make();
  }

  /** The one to read into now. */
  get current(): ReadBuffer {
    return this.#current;
  }

  /** Leaves the current one to whoever holds it, and to the collector afterwards. */
  giveAway(): void {
    this.#current = this.#make();
  }

  #make(): ReadBuffer {
    const bytes = Buffer.allocUnsafeSlow(readBytes);
    return { bytes, address: Number(this.#calls.koffi.address(bytes)) };
  }
}
