/**
 * Memory that a process shares with its children: a file of the system's that has no name, of which each maps what it needs. The one who makes it writes,
 * the others read; nothing keeps them apart but what both agree on.
 *
 * It takes of the machine's memory what was written. An address is used once: what is given back is the system's again, and reads as zeros.
 */
import { type SystemCalls, systemCalls } from './network/direct/system-calls.ts';

const closeOnExec = 1;
const readable = 1;
const writable = 2;
const mapShared = 1;
/** Nothing is set aside for what may never be written. */
const mapNoReserve = 0x4000;
const adviceRemove = 9;
const failed = -1;
/** What the system gives and takes back at a time, octets; a multiple of the size of its pages. */
const granule = process.arch === 'x64' ? 4_096 : 65_536;

/** A mapping; it lasts as long as the process. */
export class SharedMemory {
  /** To be handed to a child. */
  readonly fd: number;
  readonly bytes: number;
  readonly #calls: SystemCalls;
  readonly #address: number;
  readonly #advise: (address: number, bytes: number, advice: number) => number;

  private constructor(calls: SystemCalls, fd: number, bytes: number, address: number) {
    this.#calls = calls;
    this.fd = fd;
    this.bytes = bytes;
    this.#address = address;
    this.#advise = calls.library.func('int madvise(uintptr_t, size_t, int)');
  }

  /** New memory of so many octets at most; `undefined` where the system has none of this kind, or no room for addresses. */
  static create(name: string, bytes: number): SharedMemory | undefined {
    const calls = systemCalls();
    if (calls === undefined) return undefined;
    try {
      const fd: number = calls.library.func('int memfd_create(const char *, unsigned int)')(name, closeOnExec);
      if (fd < 0) return undefined;
      const isSized: number = calls.library.func('int ftruncate(int, int64_t)')(fd, bytes);
      const memory = isSized < 0 ? undefined : SharedMemory.#map(calls, fd, bytes, readable | writable);
      if (memory === undefined) calls.close(fd);
      return memory;
    } catch {
      // A C library without it.
      return undefined;
    }
  }

  /** What another process made, for reading only. */
  static open(fd: number, bytes: number): SharedMemory | undefined {
    const calls = systemCalls();
    return calls === undefined ? undefined : SharedMemory.#map(calls, fd, bytes, readable);
  }

  static #map(calls: SystemCalls, fd: number, bytes: number, access: number): SharedMemory | undefined {
    const map = calls.library.func('intptr_t mmap(void *, size_t, int, int, int, int64_t)');
    const address: number = map(null, bytes, access, mapShared | mapNoReserve, fd, 0);
    return address === failed ? undefined : new SharedMemory(calls, fd, bytes, address);
  }

  /** Rounds up to what can be given back by itself. */
  static roundUp(bytes: number): number {
    return Math.ceil(bytes / granule) * granule;
  }

  /** A part of it. */
  view(at: number, bytes: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#calls.koffi.view(this.#address + at, bytes));
  }

  /** Gives a part back, which was rounded up. */
  free(at: number, bytes: number): void {
    this.#advise(this.#address + at, bytes, adviceRemove);
  }
}
