/**
 * What is read from a socket, lent for the length of a call instead of given away.
 *
 * Left alone, Node makes 64 KiB for every read and leaves them to the garbage collector: a relay of large messages spent a quarter of its time there.
 * With `onread` (node:net) sockets read into memory of ours. It is one buffer for all of them, so that an idle socket has none, and what is in it is copied
 * before another one can be read: into a buffer from a small stock, which goes back there when the other side has taken everything.
 */
import type { ConnectionHandlers } from '#common/network/network.ts';

const bufferBytes = 65_536;
/** The same for all: nothing in it outlives the call that brought it. */
export const sharedBuffer = Buffer.allocUnsafeSlow(bufferBytes);
/** Nobody uses them. One is enough as long as the other sides take everything at once. */
const stock: Buffer[] = [];
const stockMax = 16;

/** Hands over what was read into the shared buffer. */
export function passLent(handlers: ConnectionHandlers, count: number): void {
  if (handlers.lent === undefined || handlers.holdsLent?.() === true) {
    handlers.data(Buffer.from(sharedBuffer.subarray(0, count)));
    return;
  }
  const buffer = stock.pop() ?? Buffer.allocUnsafeSlow(bufferBytes);
  sharedBuffer.copy(buffer, 0, 0, count);
  handlers.lent(buffer.subarray(0, count));
  // What is still needed is left to the collector afterwards.
  if (handlers.holdsLent?.() !== true && stock.length < stockMax) stock.push(buffer);
}
