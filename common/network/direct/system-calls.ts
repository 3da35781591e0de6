/**
 * Calls into the C library and libuv that this process runs on, through koffi (foreign functions), and what they take.
 *
 * Node's own sockets cost a log-in ten times what the system takes for it, in streams, requests and buffers of their own. These are the same calls without
 * those: twenty-five nanoseconds each beside the system's own time. Linux only, on the main thread only; whoever uses them asks `systemCalls()` first.
 * What is handed over belongs to the caller again when a call returns: nothing here keeps an address.
 */
import { endianness } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import type { KoffiFunc, LibraryHandle } from 'koffi';

/** An address in memory, for handing on only. */
export type Pointer = number;
/** Memory of ours, valid until the call returns. */
export type Memory = Uint8Array | null;

/** The functions. All return -1 and set `errno` where the system does; those of libuv return its negative error. */
export interface SystemCalls {
  readonly library: LibraryHandle;
  readonly koffi: typeof import('koffi');
  readonly accept4: KoffiFunc<(fd: number, address: Memory, length: Memory, flags: number) => number>;
  readonly bind: KoffiFunc<(fd: number, address: Memory, length: number) => number>;
  readonly close: KoffiFunc<(fd: number) => number>;
  readonly connect: KoffiFunc<(fd: number, address: Memory, length: number) => number>;
  readonly epollCreate: KoffiFunc<(flags: number) => number>;
  readonly epollControl: KoffiFunc<(epoll: number, operation: number, fd: number, event: Memory) => number>;
  readonly epollWait: KoffiFunc<(epoll: number, events: Memory, count: number, timeoutMs: number) => number>;
  readonly fileControl: KoffiFunc<(fd: number, command: number, argument: number) => number>;
  readonly getPeerName: KoffiFunc<(fd: number, address: Memory, length: Memory) => number>;
  readonly getSocketName: KoffiFunc<(fd: number, address: Memory, length: Memory) => number>;
  readonly getSocketOption: KoffiFunc<(fd: number, level: number, name: number, value: Memory, length: Memory) => number>;
  readonly ioControl: KoffiFunc<(fd: number, request: number, value: Memory) => number>;
  readonly pipe: KoffiFunc<(descriptors: Memory, flags: number) => number>;
  readonly receive: KoffiFunc<(fd: number, memory: Pointer, length: number, flags: number) => number>;
  readonly send: KoffiFunc<(fd: number, memory: Memory, length: number, flags: number) => number>;
  readonly setSocketOption: KoffiFunc<(fd: number, level: number, name: number, value: Memory, length: number) => number>;
  readonly shutdown: KoffiFunc<(fd: number, how: number) => number>;
  readonly socket: KoffiFunc<(family: number, type: number, protocol: number) => number>;
  /** Only with no positions: sockets and pipes have none. */
  readonly splice: KoffiFunc<(from: number, fromAt: null, to: number, toAt: null, length: number, flags: number) => number>;
  errno(): number;
}

/** Numbers of Linux, the same on x64 and arm64. */
export const linux = {
  familyInet: 2,
  familyInet6: 10,
  sockStream: 1,
  sockNonBlocking: 0o4000,
  sockCloseOnExec: 0o2000000,
  levelSocket: 1,
  levelTcp: 6,
  optionError: 4,
  optionAcceptsConnections: 30,
  optionNoDelay: 1,
  optionCork: 3,
  optionCongestion: 13,
  messageNoSignal: 0x4000,
  messageMore: 0x8000,
  shutWrite: 1,
  duplicateCloseOnExec: 1030,
  setPipeSize: 1031,
  pipeNonBlocking: 0o4000,
  pipeCloseOnExec: 0o2000000,
  bytesToRead: 0x541b,
  spliceMove: 1,
  spliceNonBlocking: 2,
  epollCloseOnExec: 0o2000000,
  epollAdd: 1,
  epollDelete: 2,
  epollModify: 3,
  epollIn: 0x1,
  epollPriority: 0x2,
  epollOut: 0x4,
  epollError: 0x8,
  epollHangUp: 0x10,
  epollReadHangUp: 0x2000,
  epollEdge: 0x8000_0000,
} as const;

/** Errors that are told apart. */
export const errnos = {
  notPermitted: 1,
  noMemory: 12,
  invalid: 22,
  noSuchCall: 38,
  again: 11,
  interrupted: 4,
  inProgress: 115,
  connectionAborted: 103,
  badDescriptor: 9,
} as const;

/** `struct epoll_event` is packed on x64 only. */
export const epollEventBytes = process.arch === 'x64' ? 12 : 16;
export const epollDataAt = process.arch === 'x64' ? 4 : 8;

let known: SystemCalls | undefined | 'unknown' = 'unknown';

const koffi = await import('koffi').catch(() => undefined);

/** The calls, or `undefined` where they cannot be had: another system or processor, a worker thread, a build without the library. */
export function systemCalls(): SystemCalls | undefined {
  if (known === 'unknown') known = isMainThread ? load() : undefined;
  return known;
}

function load(): SystemCalls | undefined {
  const isKnown = process.platform === 'linux' && (process.arch === 'x64' || process.arch === 'arm64') && endianness() === 'LE';
  if (!isKnown || koffi === undefined) return undefined;
  try {
    const library = koffi.load(null);
    return {
      library,
      koffi,
      accept4: library.func('int accept4(int, void *, void *, int)'),
      bind: library.func('int bind(int, void *, int)'),
      close: library.func('int close(int)'),
      connect: library.func('int connect(int, void *, int)'),
      epollCreate: library.func('int epoll_create1(int)'),
      epollControl: library.func('int epoll_ctl(int, int, int, void *)'),
      epollWait: library.func('int epoll_wait(int, void *, int, int)'),
      fileControl: library.func('int fcntl(int, int, int)'),
      getPeerName: library.func('int getpeername(int, void *, void *)'),
      getSocketName: library.func('int getsockname(int, void *, void *)'),
      getSocketOption: library.func('int getsockopt(int, int, int, void *, void *)'),
      ioControl: library.func('int ioctl(int, unsigned long, void *)'),
      pipe: library.func('int pipe2(void *, int)'),
      receive: library.func('long recv(int, uintptr_t, size_t, int)'),
      send: library.func('long send(int, void *, size_t, int)'),
      setSocketOption: library.func('int setsockopt(int, int, int, void *, int)'),
      shutdown: library.func('int shutdown(int, int)'),
      socket: library.func('int socket(int, int, int)'),
      splice: library.func('long splice(int, void *, int, void *, size_t, unsigned int)'),
      errno: () => koffi.errno(),
    };
  } catch {
    // A C library without one of them.
    return undefined;
  }
}
