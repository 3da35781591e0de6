/** Whole streams over a connection, at the pace of the slower side. */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection } from './network.ts';

/** Sends all pieces, waiting where the peer is slow, and half-closes. Rejects when the connection goes before that. */
export async function writeAll(connection: Connection, pieces: AsyncIterable<Buffer>): Promise<void> {
  let wake: () => void = () => {};
  let gone: Error | undefined;
  connection.handle({
    data: () => {},
    end: () => {},
    drain: () => wake(),
    close: (error) => {
      gone = error ?? new PlatformError('NET_CLOSED', 'the connection was closed by the other side');
      wake();
    },
  });
  for await (const piece of pieces) {
    if (gone !== undefined) throw gone;
    if (connection.write(piece)) continue;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
    if (gone !== undefined) throw gone;
  }
  connection.end();
}

/**
 * Hands over what comes in until the half-close, piece after piece, while the connection is paused. Rejects with the taker's failure, after
 * which nothing more is read, or when the connection goes before its end.
 */
export function receive(connection: Connection, take: (chunk: Buffer) => Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    let tail = Promise.resolve();
    let pending = 0;
    connection.handle({
      data: (chunk) => {
        pending += 1;
        connection.pause();
        tail = tail.then(() => take(chunk));
        tail.then(
          () => {
            pending -= 1;
            if (pending === 0) connection.resume();
          },
          // What was under way is thrown away, so that the peer can read the answer.
          (error: unknown) => {
            connection.handle({ data: () => {}, end: () => {}, close: () => {} });
            connection.resume();
            reject(error);
          },
        );
      },
      end: () => void tail.then(resolve, reject),
      close: (error) => reject(error ?? new PlatformError('NET_CLOSED', 'the connection was closed before its end')),
    });
  });
}

/** Sends all pieces as `writeAll` does and reads the answer, which may come early and ends the sending then. */
export async function sendAndRead(connection: Connection, pieces: AsyncIterable<Buffer>, answerBytesMax: number): Promise<Buffer> {
  let wake: () => void = () => {};
  let isOver = false;
  const answer = new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const over = (finish: () => void): void => {
      isOver = true;
      wake();
      finish();
    };
    connection.handle({
      data: (chunk) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > answerBytesMax)
          connection.destroy(new PlatformError('PROTO_TOO_LONG', `an answer has more than ${answerBytesMax} bytes`));
      },
      drain: () => wake(),
      end: () => over(() => resolve(Buffer.concat(chunks))),
      close: (error) => over(() => reject(error ?? new PlatformError('NET_CLOSED', 'the connection was closed before the answer'))),
    });
  });
  // Looked at below; until then it must not count as unhandled.
  answer.catch(() => {});
  try {
    for await (const piece of pieces) {
      if (isOver) break;
      if (connection.write(piece)) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    if (!isOver) connection.end();
    return await answer;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}
