import { expect, it } from 'vitest';
import { mergeExpositions } from '#common/metrics/merge.ts';
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

it('shows all that was counted and observed, each set of labels by itself, whoever counted it', async () => {
  const metrics = createMetrics();
  const [one, other] = [1, 2].map(() => metrics.counter('archipelago_x_total', 'X.', ['a', 'b']));
  one?.add({ a: 'p', b: 'q' });
  one?.add({ b: 'q', a: 'p' }, 2);
  other?.add({ a: 'p', b: 'q' }, 3);
  one?.add({ a: 'p', b: 'r' }, 0);
  metrics.counter('archipelago_plain_total', 'Plain.').add();
  metrics.histogram('archipelago_y_seconds', 'Y.', ['a'], [1]).observe({ a: 'p' }, 0.5);
  for (let asked = 0; asked < 2; asked += 1) {
    const text = await metrics.render();
    expect(text).toContain('archipelago_x_total{a="p",b="q"} 6');
    expect(text).toContain('archipelago_x_total{a="p",b="r"} 0');
    expect(text).toContain('archipelago_plain_total 1');
    expect(text).toContain('archipelago_y_seconds_bucket{le="1",a="p"} 1');
  }
  expect(() => one?.add({ a: 'p', b: 'q' }, -1)).toThrow(RangeError);
  expect(() => one?.add({ a: 'p', c: 'q' })).toThrow();
});

it('shows several processes as one, families together and each sample with its process', async () => {
  const text = mergeExpositions([
    { label: 'worker="1"', text: '# HELP a_total A.\n# TYPE a_total counter\na_total{x="}"} 1\n\n# HELP b B.\n# TYPE b gauge\nb 2\n' },
    { label: 'worker="2"', text: '# HELP c C.\n# TYPE c gauge\nc{} 5\n# HELP a_total A.\n# TYPE a_total counter\na_total{x="y"} 3\n' },
  ]);
  expect(text.split('\n')).toEqual([
    '# HELP a_total A.',
    '# TYPE a_total counter',
    'a_total{worker="1",x="}"} 1',
    'a_total{worker="2",x="y"} 3',
    '# HELP b B.',
    '# TYPE b gauge',
    'b{worker="1"} 2',
    '# HELP c C.',
    '# TYPE c gauge',
    'c{worker="2"} 5',
    '',
  ]);
  const alone = createMetrics();
  const metrics = createMetrics(async () => [{ label: 'worker="2"', text: await alone.render() }]);
  metrics.gauge('archipelago_sessions', 'Sessions.').set({}, 7);
  alone.gauge('archipelago_sessions', 'Sessions.').set({}, 8);
  expect(await metrics.withLabels({}).render()).toContain('archipelago_sessions{worker="1"} 7\narchipelago_sessions{worker="2"} 8\n');
});
