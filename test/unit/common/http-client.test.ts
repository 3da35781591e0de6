import { createServer, type Server } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import type { PlatformError } from '#common/errors/platform-error.ts';
import { requestJson } from '#common/http/client.ts';
import { FakeClock } from '#test/fakes/clock.ts';

let server: Server | undefined;

/** A server that answers every connection with `bytes` and then, if told so, closes it. */
async function answering(bytes: string, closes: boolean): Promise<string> {
  server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.write(bytes);
      if (closes) socket.end();
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}/x`;
}

async function failureOf(work: Promise<unknown>): Promise<PlatformError> {
  return work.then(
    () => {
      throw new Error('it was answered');
    },
    (error: PlatformError) => error,
  );
}

afterEach(() => {
  server?.close();
  server = undefined;
});

describe('a request', () => {
  it('that is refused has the code and the hint of the other side', async () => {
    const body = JSON.stringify({ code: 'ACCT_EXISTS', detail: 'bob exists', hint: 'choose another name' });
    const url = await answering(`HTTP/1.1 409 Conflict\r\ncontent-length: ${body.length}\r\n\r\n${body}`, true);
    const error = await failureOf(requestJson(systemClock, { url }));
    expect([error.code, error.message, error.fields.hint]).toEqual(['ACCT_EXISTS', 'bob exists', 'choose another name']);
  });

  it('that is refused with a code of nobody’s is a bad request, not a crash', async () => {
    const url = await answering('HTTP/1.1 418 Teapot\r\ncontent-length: 22\r\n\r\n{"code":"constructor"}', true);
    expect((await failureOf(requestJson(systemClock, { url }))).code).toBe('ADMIN_BAD_REQUEST');
  });

  it('ends when the answer passes its limit', async () => {
    const url = await answering(`HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n${'x'.repeat(5000)}`, false);
    expect((await failureOf(requestJson(systemClock, { url, answerBytesMax: 1000 }))).code).toBe('PROTO_TOO_LONG');
  });

  it('ends when its whole time is over, also in the midst of an answer', async () => {
    const clock = new FakeClock();
    const url = await answering('HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\nabc', false);
    const failure = failureOf(requestJson(clock, { url, timeoutMs: 700 }));
    await clock.advance(701);
    expect((await failure).code).toBe('NET_TIMEOUT');
  });

  it('fails when the connection breaks in the midst of an answer', async () => {
    const url = await answering('HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\nabc', true);
    expect((await failureOf(requestJson(systemClock, { url }))).code).toMatch(/^NET_/);
  });

  it('fails when nobody listens', async () => {
    expect((await failureOf(requestJson(systemClock, { url: 'http://127.0.0.1:9/' }))).code).toBe('NET_CONNECT_FAILED');
  });
});
