import { expect, it } from 'vitest';
import { LinkConnection } from '#backend-cluster/client/link-connection.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { FrameDecoder, frameTypes, parseJsonObject } from '#protocol/link/frames.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { connectionPair, MemoryConnection } from '#test/fakes/memory-connection.ts';

/** One whose system takes nothing for the time being, so that it keeps what it was given as it was given. */
class Stalled extends MemoryConnection {
  readonly returnsWritten = true;
  readonly kept: Buffer[] = [];

  override get bufferedBytes(): number {
    return this.kept.reduce((sum, { length }) => sum + length, 0);
  }

  override write(bytes: Uint8Array): boolean {
    this.kept.push(bytes as Buffer);
    return true;
  }
}

const nextTick = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));

function said(pieces: readonly Buffer[]): unknown[] {
  const found: unknown[] = [];
  const decoder = new FrameDecoder();
  for (const piece of pieces) decoder.push(piece, (_type, number, payload) => found.push([number, parseJsonObject(payload)]));
  return found;
}

it('puts the frames of a turn into one piece, and leaves what the system has not taken alone', async () => {
  const connection = new Stalled('127.0.0.1', '127.0.0.1');
  const link = new LinkConnection(connection, new FakeClock(), 'acceptor', { hello: () => {}, closed: () => {} });
  const expected: unknown[] = [];
  for (let turn = 1; turn <= 4; turn += 1) {
    for (let number = 1; number <= 3; number += 1) {
      link.sendJson(frameTypes.status, number, { turn, text: 'ü'.repeat(turn) });
      expected.push([number, { turn, text: 'ü'.repeat(turn) }]);
    }
    expect(link.unsentBytes).toBeGreaterThan(connection.bufferedBytes);
    await nextTick();
    expect(connection.kept).toHaveLength(turn);
    expect(link.unsentBytes).toBe(connection.bufferedBytes);
  }
  expect(said(connection.kept)).toEqual(expected);
});

it('sends nothing after it was closed', async () => {
  const [near, far] = connectionPair();
  const link = new LinkConnection(near, new FakeClock(), 'acceptor', { hello: () => {}, closed: () => {} });
  const seen: Buffer[] = [];
  far.handle({ data: (chunk) => void seen.push(chunk), close: () => {} });
  link.sendJson(frameTypes.status, 0, { is: 'last' });
  link.close(new PlatformError('NET_CLOSED', 'over'));
  link.sendJson(frameTypes.status, 0, { is: 'late' });
  for (let i = 0; i < 5; i += 1) await new Promise((resolve) => setImmediate(resolve));
  expect(said(seen)).toEqual([[0, { is: 'last' }]]);
});
