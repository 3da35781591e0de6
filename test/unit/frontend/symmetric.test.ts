import { expect, it } from 'vitest';
import { createMetrics } from '#common/metrics/metrics.ts';
import { emptyTopology, withCluster } from '#frontend/routing/topology.ts';
import { countPlaces, passedOn } from '#frontend/subset/symmetric.ts';
import { cluster, west } from './fakes.ts';

it('shows what a symmetric node passes on beside what is expected: M·(N−1)/N', async () => {
  expect([passedOn(1000, 4), passedOn(1000, 1), passedOn(5, 0)]).toEqual([750, 0, 0]);
  const metrics = createMetrics();
  const topology = withCluster(
    withCluster(emptyTopology, cluster(1, west, ['back1', 'back2', 'back3'])),
    cluster(2, 'east.isp.example', ['back1']),
  );
  const count = countPlaces(metrics, 'n', [`back1.${west}`], () => topology);
  for (let i = 0; i < 9; i += 1) count(west, `back${(i % 3) + 1}.${west}`);
  count('east.isp.example' as typeof west, 'back1.east.isp.example');
  const text = await metrics.render();
  expect(text).toMatch(/symmetric_sessions_total\{[^}]*place="here"[^}]*\} 3\n/);
  expect(text).toMatch(/symmetric_sessions_total\{[^}]*place="passed-on"[^}]*\} 6\n/);
  expect(text).toMatch(/symmetric_passed_on_expected\{[^}]*cluster="west\.isp\.example"[^}]*\} 6\n/);
  expect(text).not.toContain('east');
});
