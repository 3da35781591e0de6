import { afterEach, describe, expect, it } from 'vitest';
import { createHttpServer, type HttpServer } from '#common/http/server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { addAuth, authLimits } from '#operate/api/auth.ts';
import { FakeClock } from '#test/fakes/clock.ts';

let server: HttpServer | undefined;

/** A server with one guarded route, on a clock of the test. */
function guarded(): { clock: FakeClock; ask: (authorization: string) => Promise<number> } {
  const clock = new FakeClock();
  const made = createHttpServer({ log: silentLogger, network: systemNetwork });
  server = made;
  addAuth(made, { token: new Secret('right'), isTls: false, clock, random: systemRandom });
  made.get('/api/v1/thing', () => ({ ok: true }));
  return {
    clock,
    ask: async (authorization) => (await made.inject({ url: '/api/v1/thing', headers: { authorization } })).statusCode,
  };
}

afterEach(async () => {
  await server?.close();
  server = undefined;
});

/** Whether a promise has settled by now; virtual time stands still meanwhile. */
async function isSettled(work: Promise<unknown>, clock: FakeClock): Promise<boolean> {
  let settled = false;
  void work.finally(() => {
    settled = true;
  });
  for (let turn = 0; turn < 20 && !settled; turn += 1) await clock.advance(0);
  return settled;
}

describe('a wrong token', () => {
  it('is answered later each time, up to a limit', async () => {
    const { clock, ask } = guarded();
    for (const delayMs of [100, 200, 400, 800, 1600, 3000, 3000]) {
      const answer = ask('Bearer wrong');
      expect(await isSettled(answer, clock)).toBe(false);
      await clock.advance(delayMs - 1);
      expect(await isSettled(answer, clock)).toBe(false);
      await clock.advance(1);
      expect(await answer).toBe(401);
    }
  });

  it('does not slow the right one', async () => {
    const { clock, ask } = guarded();
    const wrong = Array.from({ length: 10 }, () => ask('Bearer wrong'));
    expect(await isSettled(wrong[9] as Promise<number>, clock)).toBe(false);
    expect(await ask('Bearer right')).toBe(200);
    await clock.advance(authLimits.delayMsMax);
    expect(new Set(await Promise.all(wrong))).toEqual(new Set([401]));
  });

  it('is refused at once when too many wait already', async () => {
    const { clock, ask } = guarded();
    const waiting = Array.from({ length: authLimits.waitingMax }, () => ask('Bearer wrong'));
    expect(await isSettled(waiting[0] as Promise<number>, clock)).toBe(false);
    expect(await ask('Bearer wrong')).toBe(429);
    await clock.advance(authLimits.delayMsMax);
    await Promise.all(waiting);
  });

  it('is forgotten after a while', async () => {
    const { clock, ask } = guarded();
    const first = ask('Bearer wrong');
    await isSettled(first, clock);
    await clock.advance(authLimits.forgetAfterMs + 1000);
    await first;
    const later = ask('Bearer wrong');
    await isSettled(later, clock);
    await clock.advance(authLimits.delayMs);
    expect(await later).toBe(401);
  });
});

describe('a token that is none', () => {
  it.each(['', 'Bearer', 'Bearer ', `Bearer ${'x'.repeat(5000)}`, 'right', 'Basic right'])('"%s" is refused', async (authorization) => {
    const { clock, ask } = guarded();
    const answer = ask(authorization);
    await isSettled(answer, clock);
    await clock.advance(authLimits.delayMsMax);
    expect(await answer).toBe(401);
  });
});
