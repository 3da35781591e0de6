/**
 * Where sockets are read into: one buffer for all of them, so that an idle socket has none and no read leaves garbage behind.
 *
 * It is lent to the handler for the length of a call. A handler whose other side could not take everything keeps it, and the next read gets another one.
 */
import type { Pointer, SystemCalls } from './system-calls.ts';

/** Most octets of one read: what the system takes in one piece of memory when they are written on; passing on twice as many took nearly twice the CPU. */
export const readBytes = 32_768;

/** Memory with its address, which stays the same as long as the buffer is held. */
export interface ReadBuffer {
  readonly bytes: Buffer;
  readonly address: Pointer;
}

/** Who was lent a buffer. */
interface Borrower {
  holdsLent?(): boolean;
}

/** Buffers that somebody holds and that are looked at again; what is beyond is left to the collector. */
const heldMax = 64;

/** See the header of this file. */
export class ReadBuffers {
  readonly #calls: SystemCalls;
  #current: ReadBuffer;
  /** Given away, with whether they are still held: used again when not, because the collector sees 32 KiB of each as a reason to run. */
  #held: { readonly buffer: ReadBuffer; readonly by: Borrower }[] = [];

  constructor(calls: SystemCalls) {
    this.#calls = calls;
    this.#current = this.#make();
  }

  /** The one to read into now. */
  get current(): ReadBuffer {
    return this.#current;
  }

  /** Leaves the current one to whoever holds it, for as long as it says so. */
  giveAway(by: Borrower): void {
    const free = this.#held.findIndex((one) => one.by.holdsLent?.() !== true);
    const next = free < 0 ? this.#make() : (this.#held.splice(free, 1)[0]?.buffer as ReadBuffer);
    if (this.#held.length >= heldMax) this.#held.shift();
    this.#held.push({ buffer: this.#current, by });
    this.#current = next;
  }

  #make(): ReadBuffer {
    const bytes = Buffer.allocUnsafeSlow(readBytes);
    return { bytes, address: Number(this.#calls.koffi.address(bytes)) };
  }
}
