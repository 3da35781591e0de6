/** What a connection has still to send, piece by piece. */
import { Pipe } from './pipes.ts';

/** A pipe can only be the first one. */
export type Piece = Uint8Array | Pipe;

/** What is queued in small pieces is sent in larger ones of this size. */
const gatheredBytesMax = 65_536;

/** Puts small pieces together: there may be very many. */
export function gather(queue: Piece[]): void {
  const small: Uint8Array[] = [];
  let bytes = 0;
  for (const piece of queue) {
    if (piece instanceof Pipe || bytes + piece.length > gatheredBytesMax) break;
    small.push(piece);
    bytes += piece.length;
  }
  if (small.length > 1) queue.splice(0, small.length, Buffer.concat(small, bytes));
}
