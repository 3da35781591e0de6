/**
 * Reads the text of one message from the server's stream into memory, within the listener's limit for one message and one limit for all
 * messages that are being received at the same time. Beyond either the text is read to its end and dropped, so that the client gets its answer.
 */
import type { Readable } from 'node:stream';

/** Bytes of messages being received at one time, over all sessions of this process. */
const receivingBytesMax = 512 * 1024 * 1024;

/** What came. */
export type ReceivedText =
  | { readonly kind: 'text'; readonly raw: Buffer }
  | { readonly kind: 'too-big' }
  /** Too much is being received at this moment. */
  | { readonly kind: 'busy' }
  /** The client went away in the midst of it. */
  | { readonly kind: 'lost' };

/** Counts what is being received. One per frontend. */
export class Receiving {
  #bytes = 0;

  /** Resolves when the text is complete or the client has gone. Never rejects. `release` gives the room back once the text is stored. */
  read(stream: Readable, bytesMax: number): Promise<{ readonly text: ReceivedText; readonly release: () => void }> {
    return new Promise((resolve) => {
      let parts: Buffer[] = [];
      let bytes = 0;
      let problem: 'too-big' | 'busy' | undefined;
      const release = (): void => {
        this.#bytes -= bytes;
        bytes = 0;
        parts = [];
      };
      stream.on('data', (chunk: Buffer) => {
        if (problem !== undefined) return;
        if (bytes + chunk.length > bytesMax) problem = 'too-big';
        else if (this.#bytes + chunk.length > receivingBytesMax) problem = 'busy';
        if (problem !== undefined) return release();
        parts.push(chunk);
        bytes += chunk.length;
        this.#bytes += chunk.length;
      });
      stream.once('end', () => {
        const text: ReceivedText = problem === undefined ? { kind: 'text', raw: Buffer.concat(parts) } : { kind: problem };
        resolve({ text, release });
      });
      const lost = (): void => {
        release();
        resolve({ text: { kind: 'lost' }, release });
      };
      // `close` comes after `end` as well; the promise has its answer by then.
      stream.once('error', lost);
      stream.once('close', () => {
        if (!stream.readableEnded) lost();
      });
    });
  }
}
