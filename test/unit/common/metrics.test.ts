import { expect, it } from 'vitest';
import { createMetrics } from '#common/metrics/metrics.ts';

it('keeps the services of one process apart by label', async () => {
  const metrics = createMetrics();
  for (const node of ['front1', 'front2']) {
    const own = metrics.withLabels({ node });
    own.counter('archipelago_logins_total', 'Logins.', ['outcome']).add({ outcome: 'ok' }, node === 'front1' ? 1 : 2);
    own.onCollect(() => own.gauge('archipelago_sessions', 'Sessions.').set({}, 7));
  }
  const text = await metrics.render();
  expect(text).toContain('archipelago_logins_total{node="front1",outcome="ok"} 1');
  expect(text).toContain('archipelago_logins_total{node="front2",outcome="ok"} 2');
  expect(text).toContain('archipelago_sessions{node="front2"} 7');
});
