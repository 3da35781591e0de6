/**
 * What load balancers, supervisors and collectors ask, without a token:
 * `/livez` this process turns its event loop; `/readyz` every service of it is ready; `/metrics` Prometheus exposition.
 */
import type { HttpServer } from '#common/http/server.ts';
import type { RunningService } from '#common/lifecycle.ts';
import type { Metrics } from '#common/metrics/metrics.ts';

type Service = Pick<RunningService<unknown>, 'role' | 'name' | 'readiness'>;

/** Services are looked at anew for every request. */
export interface HealthOptions {
  readonly services: readonly Service[];
  readonly metrics: Metrics;
}

/** Adds the three routes. */
export function addHealthRoutes(server: HttpServer, options: HealthOptions): void {
  server.get('/livez', (_request, reply) => reply.type('text/plain; charset=utf-8').send('ok\n'));
  server.get<{ Querystring: Record<string, string | undefined> }>('/readyz', (request, reply) => {
    const checks = options.services.flatMap((service) =>
      service.readiness().map((check) => ({ ...check, service: `${service.role} ${service.name}` })),
    );
    const neverReady = options.services.filter((service) => service.readiness().length === 0);
    const bad = checks.filter((check) => !check.ok);
    const ready = bad.length === 0 && neverReady.length === 0 && options.services.length > 0;
    // A check that fails is named also without `verbose`: whoever sees the 503 wants to know why.
    const shown = request.query.verbose === undefined ? bad : checks;
    const lines = [
      ...shown.map((check) => `[${check.ok ? '+' : '-'}] ${check.service}: ${check.name}: ${check.detail}`),
      ...neverReady.map((service) => `[-] ${service.role} ${service.name}: start: it was never ready`),
      ...(options.services.length === 0 ? ['[-] node: services: none runs in this process'] : []),
      ready ? 'ready' : 'not ready',
    ];
    return reply
      .code(ready ? 200 : 503)
      .type('text/plain; charset=utf-8')
      .send(`${lines.join('\n')}\n`);
  });
  server.get('/metrics', async (_request, reply) =>
    reply.type('text/plain; version=0.0.4; charset=utf-8').send(await options.metrics.render()),
  );
}

/** Whether a service takes work: it has been ready once and no check fails. */
export function isReady(service: Service): boolean {
  const checks = service.readiness();
  return checks.length > 0 && checks.every((check) => check.ok);
}
