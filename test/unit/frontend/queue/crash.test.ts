import { describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { settle } from '#test/fakes/clock.ts';
import type { Fault } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { QueueHarness } from './queue-harness.ts';

const faults: readonly Fault['kind'][] = ['dies-before', 'dies-after', 'dies-half-way'];

/**
 * One message for two accounts of two clusters, one of which fails at first; the frontend loses its power at the `at`-th operation on its
 * disk. Says how far it came.
 */
async function crashAt(at: number, kind: (typeof faults)[number], seed: number): Promise<'not reached' | 'not accepted' | 'accepted'> {
  const h = new QueueHarness();
  await h.open();
  let count = 0;
  let hasDied = false;
  h.files.decideBy(() => {
    count += 1;
    if (count !== at) return undefined;
    hasDied = true;
    return { kind } as Fault;
  });
  h.east.failures.set('carol@isp.example', new PlatformError('STORE_UNAVAILABLE', 'storage away'));
  let isAccepted = false;
  void h.accept(['bob@isp.example', 'carol@isp.example', 'gone@isp.example']).then(
    () => {
      isAccepted = true;
    },
    () => undefined,
  );
  await settle();
  h.east.failures.clear();
  await h.clock.advance(10_000);
  await settle();
  const died = h.queue[Symbol.asyncDispose]();
  await h.clock.advance(2000);
  await died;
  h.disk.powerCut(seededRandom(seed));
  h.files = h.disk.client();
  await h.open();
  for (let i = 0; i < 10; i += 1) await h.clock.advance(10_000);
  const where = `${kind} at operation ${at}, seed ${seed}`;
  expect(h.queue.status().messages, where).toBe(0);
  const expected = isAccepted ? 1 : expect.toSatisfy((count: number) => count <= 1);
  expect((await h.west.texts('bob@isp.example')).length, where).toEqual(expected);
  expect((await h.east.texts('carol@isp.example')).length, where).toEqual(expected);
  const bounces = await h.west.texts('alice@isp.example');
  expect(bounces.length, where).toEqual(expected);
  expect(h.names('incoming'), where).toEqual([]);
  await h.close();
  if (!hasDied) return 'not reached';
  return isAccepted ? 'accepted' : 'not accepted';
}

describe('a frontend that loses its power', () => {
  it.each(faults)('loses nothing that it accepted and delivers nothing twice, wherever it stops (%s)', async (kind) => {
    const seen = new Set<string>();
    let at = 1;
    for (; at < 100; at += 1) {
      const outcomes = await Promise.all([1, 2, 3].map((seed) => crashAt(at, kind, seed)));
      for (const outcome of outcomes) seen.add(outcome);
      if (outcomes.includes('not reached')) break;
    }
    expect(at).toBeGreaterThan(8);
    expect(at).toBeLessThan(100);
    expect(seen).toEqual(new Set(['not accepted', 'accepted', 'not reached']));
  });
});
