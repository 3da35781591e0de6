/** What an operator reads when a process cannot accept connections: two lines, however many attempts failed. */
import { expect, it } from 'vitest';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { AcceptTrouble } from '#common/network/direct/accept-trouble.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const tooManyFiles = 24;
const noBuffers = 105;

it('tells of trouble once, and of its end when no attempt has failed for a while', async () => {
  const lines: string[] = [];
  const told = (_fields: Record<string, unknown>, message: string): void => void lines.push(message);
  const log: Logger = { ...silentLogger, child: () => log, info: told, error: told };
  const clock = new FakeClock();
  const metrics = createMetrics();
  const trouble = new AcceptTrouble({ clock, log, metrics });
  for (let i = 0; i < 200; i += 1) {
    trouble.failed(i % 2 === 0 ? tooManyFiles : noBuffers, i % 2 === 0 ? '0.0.0.0:143' : '0.0.0.0:110');
    await clock.advance(100);
  }
  expect(lines).toEqual([expect.stringMatching(/^cannot accept connections at 0\.0\.0\.0:143: .*raise this process’s limit/)]);
  await clock.advance(4_899);
  expect(lines).toHaveLength(1);
  await clock.advance(1);
  expect(lines.slice(1)).toEqual(['connections are accepted again']);
  trouble.failed(noBuffers, '0.0.0.0:110');
  expect(lines[2]).toMatch(/^cannot accept connections at 0\.0\.0\.0:110: no buffer space/);
  expect(await metrics.render()).toMatch(/archipelago_accept_failures_total\{error="EMFILE"\} 100\n.*error="ENOBUFS"\} 101\n/s);
});
