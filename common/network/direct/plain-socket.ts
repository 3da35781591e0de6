/** Reading and writing a socket without TLS, with what comes of it told as `TlsSession` tells it. */
import { errnos, type Pointer, type SystemCalls } from './system-calls.ts';
import { systemError } from './system-error.ts';

/** Nothing can be read or written now. */
export const wouldBlock = -1;

/** Octets read, 0 at the end, `wouldBlock` when there are none now. Throws what broke the connection. */
export function receiveInto(calls: SystemCalls, fd: number, address: Pointer, room: number): number {
  for (;;) {
    const count = calls.receive(fd, address, room, 0);
    if (count >= 0) return count;
    const errno = calls.errno();
    if (errno === errnos.again) return wouldBlock;
    if (errno !== errnos.interrupted) throw systemError('read', errno);
  }
}

/** Octets taken, or `wouldBlock`. Throws what broke the connection. */
export function sendFrom(calls: SystemCalls, fd: number, bytes: Uint8Array, length: number, flags: number): number {
  for (;;) {
    const count = calls.send(fd, bytes, length, flags);
    if (count >= 0) return count;
    const errno = calls.errno();
    if (errno === errnos.again) return wouldBlock;
    if (errno !== errnos.interrupted) throw systemError('write', errno);
  }
}
