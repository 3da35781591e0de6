import { describe, expect, it, vi } from 'vitest';
import { lingerMs, splice } from '#frontend/relay/splice.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';
import { spliceOwner } from '#test/fakes/splice-owner.ts';

/** A relay between `client` and `member`, which are the far ends. */
function relay(early = '') {
  const clock = new FakeClock();
  const [client, clientSide] = connectionPair();
  const [channelSide, member] = connectionPair();
  clientSide.pause();
  const ends: string[] = [];
  const owner = spliceOwner({ clock, spliceEnded: (by, error) => void ends.push(`${by}${error === undefined ? '' : ' error'}`) });
  const running = splice(owner, clientSide, channelSide, Buffer.from(early));
  return { clock, client, clientSide, member, channelSide, ends, running };
}

function collect(connection: MemoryConnection, withEnd = true): { text: string; isEnded: boolean; isClosed: boolean } {
  const seen = { text: '', isEnded: false, isClosed: false };
  connection.handle({
    data: (chunk) => {
      seen.text += chunk.toString('latin1');
    },
    ...(withEnd
      ? {
          end: () => {
            seen.isEnded = true;
          },
        }
      : {}),
    close: () => {
      seen.isClosed = true;
    },
  });
  return seen;
}

describe('the relay', () => {
  it('passes bytes both ways, those that came early first, and counts them', async () => {
    const { client, member, running } = relay('b NOOP\r\n');
    const [atClient, atMember] = [collect(client), collect(member)];
    client.write('c IDLE\r\n');
    member.write('b OK\r\n');
    await settle();
    expect(atMember.text).toBe('b NOOP\r\nc IDLE\r\n');
    expect(atClient.text).toBe('b OK\r\n');
    expect([running.bytesIn, running.bytesOut]).toEqual([16, 6]);
  });

  it('stops reading from the member while the client does not take what it is sent, and loses nothing', async () => {
    const { client, clientSide, member, channelSide } = relay();
    const atClient = collect(client);
    client.pause();
    const chunk = Buffer.alloc(32_768, 'x');
    for (let i = 0; i < 40; i += 1) member.write(chunk);
    await settle();
    // What is not with the client has stayed with the member: the relay holds no more than a chunk or two.
    expect(clientSide.bufferedBytes).toBeLessThan(200_000);
    expect(channelSide.pendingBytes).toBeGreaterThan(1_000_000);
    client.resume();
    for (let i = 0; i < 5; i += 1) await settle();
    expect(atClient.text.length).toBe(40 * 32_768);
  });

  it('stops reading from the client while the member does not take what it is sent', async () => {
    const { client, clientSide, member, channelSide } = relay();
    const atMember = collect(member);
    member.pause();
    const chunk = Buffer.alloc(32_768, 'x');
    for (let i = 0; i < 40; i += 1) client.write(chunk);
    await settle();
    expect(channelSide.bufferedBytes).toBeLessThan(200_000);
    expect(clientSide.pendingBytes).toBeGreaterThan(1_000_000);
    member.resume();
    for (let i = 0; i < 5; i += 1) await settle();
    expect(atMember.text.length).toBe(40 * 32_768);
  });

  it('passes a half-close on, and the answer that comes after it', async () => {
    const { client, member, ends } = relay();
    const [atClient, atMember] = [collect(client), collect(member)];
    client.write('QUIT\r\n');
    client.end();
    await settle();
    expect(atMember).toMatchObject({ text: 'QUIT\r\n', isEnded: true, isClosed: false });
    member.write('+OK\r\n');
    member.end();
    await settle();
    expect(atClient).toMatchObject({ text: '+OK\r\n', isEnded: true });
    expect(ends).toEqual(['client']);
  });

  it('ends the client’s side when the member is lost, even while nobody was read', async () => {
    const { client, clientSide, member, ends } = relay();
    const atClient = collect(client, false);
    member.pause();
    for (let i = 0; i < 10; i += 1) client.write(Buffer.alloc(32_768, 'x'));
    await settle();
    member.destroy();
    await settle();
    expect(atClient.isClosed).toBe(true);
    expect(clientSide.isClosed).toBe(true);
    expect(ends).toEqual(['member']);
  });

  it('drops a client that does not hang up after the member has', async () => {
    const { clock, client, clientSide, member, ends } = relay();
    collect(client);
    member.end();
    collect(member);
    await settle();
    expect(ends).toEqual([]);
    await clock.advance(lingerMs);
    expect(clientSide.isClosed).toBe(true);
    expect(ends).toEqual(['member']);
  });

  it('is over with the member when the client’s side can be closed as a whole, and waits for nobody', async () => {
    const { clock, client, clientSide, member, ends } = relay();
    const [atClient, atMember] = [collect(client), collect(member, false)];
    Object.assign(clientSide, {
      finish: () => {
        clientSide.destroy();
        return true;
      },
    });
    member.end();
    await settle();
    expect([atClient.isClosed, atMember.isClosed, ends]).toEqual([true, true, ['member']]);
    await clock.advance(lingerMs);
    expect(ends).toEqual(['member']);
  });

  it('goes on over another channel when the member hands over: nothing is lost, and nothing goes to both', async () => {
    const { client, member, running, ends } = relay();
    const [atClient, atFirst] = [collect(client), collect(member)];
    const [nextSide, second] = connectionPair();
    const atSecond = collect(second);
    client.write('a NOOP\r\n');
    await settle();
    const asked = Promise.withResolvers<void>();
    running.move(async () => {
      asked.resolve();
      return nextSide;
    });
    client.write('b NOOP\r\n');
    await settle();
    // The member has had all that was read before, and knows that no more comes.
    expect([atFirst.text, atFirst.isEnded]).toEqual(['a NOOP\r\n', true]);
    member.write('a OK\r\n');
    member.end();
    await asked.promise;
    await settle();
    second.write('b OK\r\n');
    await settle();
    expect([atSecond.text, atClient.text, atClient.isEnded, ends]).toEqual(['b NOOP\r\n', 'a OK\r\nb OK\r\n', false, []]);
    second.end();
    client.end();
    await settle();
    expect(ends).toEqual(['member']);
  });

  it('ends when nobody goes on with what was handed over, and when the client leaves in between', async () => {
    const lost = relay();
    const atClient = collect(lost.client, false);
    collect(lost.member, false);
    lost.running.move(async () => undefined);
    lost.member.end();
    await settle();
    expect([atClient.isClosed, lost.ends]).toEqual([true, ['member']]);

    const left = relay();
    collect(left.client);
    collect(left.member, false);
    const [nextSide, second] = connectionPair();
    const atSecond = collect(second);
    const opened = Promise.withResolvers<typeof nextSide>();
    left.running.move(() => opened.promise);
    left.member.end();
    await settle();
    left.client.destroy();
    await settle();
    expect(left.ends).toEqual([]);
    opened.resolve(nextSide);
    await settle();
    expect([atSecond.isClosed, left.ends]).toEqual([true, ['client']]);
  });

  it('gives the client a member’s last words when the channel breaks, and only after what was whole', async () => {
    for (const [pieces, expected] of [
      [[], 'BYE'],
      [['whole'], 'wholeBYE'],
      [['whole', 'part'], 'wholepart'],
      [['part', 'whole'], 'partwholeBYE'],
    ] as const) {
      const [client, clientSide] = connectionPair();
      const [channelSide, member] = connectionPair();
      const lastWords = (piece: Buffer | undefined): string | undefined => (piece?.toString() === 'part' ? undefined : 'BYE');
      splice(spliceOwner({ lastWords }), clientSide, channelSide, Buffer.alloc(0));
      const seen = collect(client);
      for (const piece of pieces) {
        member.write(piece);
        await settle();
      }
      channelSide.destroy(new Error('the link broke'));
      await settle();
      expect(seen).toMatchObject({ text: expected, isEnded: true });
    }
  });

  it('says nothing where it has not seen how far the member had come, as bytes were passed on unread', async () => {
    for (const [last, expected] of [
      [undefined, ''],
      ['whole', 'wholeBYE'],
    ] as const) {
      const [client, clientSide] = connectionPair();
      const [channelSide, member] = connectionPair();
      Object.assign(clientSide, { returnsWritten: true });
      const handled = vi.spyOn(channelSide, 'handle');
      const running = splice(spliceOwner({ lastWords: () => 'BYE' }), clientSide, channelSide, Buffer.alloc(0));
      const seen = collect(client);
      const handlers = handled.mock.lastCall?.[0];
      expect(handlers?.passesTo?.()).toBe(clientSide);
      handlers?.passed?.(5, true);
      if (last !== undefined) member.write(last);
      await settle();
      expect(running.bytesOut).toBe(5 + (last?.length ?? 0));
      channelSide.destroy(new Error('the link broke'));
      await settle();
      expect(seen).toMatchObject({ text: expected, isEnded: true });
    }
  });

  it('stops reading the side whose bytes were passed on unread and found no room', () => {
    const [, clientSide] = connectionPair();
    const [channelSide] = connectionPair();
    const sides = [clientSide, channelSide];
    for (const side of sides) Object.assign(side, { returnsWritten: true });
    const handled = sides.map((side) => vi.spyOn(side, 'handle'));
    splice(spliceOwner(), clientSide, channelSide, Buffer.alloc(0));
    const pauses = sides.map((side) => vi.spyOn(side, 'pause'));
    const paused = (): number[] => pauses.map((pause) => pause.mock.calls.length);
    const [ofClient, ofChannel] = handled.map((handle) => handle.mock.lastCall?.[0]);
    ofClient?.passed?.(1, true);
    ofChannel?.passed?.(1, true);
    expect(paused()).toEqual([0, 0]);
    ofClient?.passed?.(1, false);
    expect(paused()).toEqual([1, 0]);
    ofChannel?.passed?.(1, false);
    expect(paused()).toEqual([1, 1]);
  });

  it('adds nothing to what a member says that ends in good order', async () => {
    const [client, clientSide] = connectionPair();
    const [channelSide, member] = connectionPair();
    splice(spliceOwner({ lastWords: () => 'BYE' }), clientSide, channelSide, Buffer.alloc(0));
    const seen = collect(client);
    member.write('* BYE\r\n');
    member.end();
    await settle();
    channelSide.destroy(new Error('late'));
    await settle();
    expect(seen).toMatchObject({ text: '* BYE\r\n', isEnded: true });
  });
});
