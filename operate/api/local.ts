/** What this process alone can say: its services, their sessions, how its frontends would route. */

import type { BackendStatus } from '#backend-cluster/client/status.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { isReady } from '#common/http/health.ts';
import { productVersion } from '#common/version.ts';
import type { FrontendStatus, RouteExplanation } from '#frontend/client/status.ts';
import type { AdminOptions } from './options.ts';
import type { NodeReport, ServiceReport, SessionView, WriterCopies } from './reports.ts';

/** Which sessions are wanted; text is compared as it stands, `account` without regard to case. */
export interface SessionFilter {
  readonly account?: string | undefined;
  readonly protocol?: string | undefined;
  readonly cluster?: string | undefined;
  readonly member?: string | undefined;
  readonly frontend?: string | undefined;
}

/** Largest number of sessions in one answer. */
export const sessionsLimitMax = 5_000;

/** This process: `/api/v1/node`. Sessions are counted, not listed: there may be very many. */
export function localReport(options: Pick<AdminOptions, 'node' | 'services' | 'ports' | 'directory'>, startedAtMs: number): NodeReport {
  const writers = [
    ...options.services.map((service) => ({ writer: service.name, servers: service.copies?.() ?? [] })),
    { writer: `admin API of ${options.node}`, servers: options.directory?.writer?.copies?.() ?? [] },
  ];
  return {
    copies: writers.filter(({ servers }) => servers.length > 0) as WriterCopies[],
    node: options.node,
    version: productVersion,
    atMs: options.ports.clock.nowMs(),
    upMs: Math.round(options.ports.clock.monotonicMs() - startedAtMs),
    services: options.services.map((service): ServiceReport => {
      const status = service.status() as Record<string, unknown>;
      const { sessions, ...rest } = status;
      return {
        role: service.role,
        name: service.name,
        ready: isReady(service),
        readiness: service.readiness(),
        status: Array.isArray(sessions) ? { ...rest, sessionCount: sessions.length } : status,
      };
    }),
  };
}

/** Sessions of this process's frontends, newest first, and how many match in all. */
export function localSessions(
  options: Pick<AdminOptions, 'services'>,
  filter: SessionFilter,
  limit: number,
): { total: number; sessions: SessionView[] } {
  const matching: SessionView[] = [];
  for (const service of options.services) {
    if (service.role !== 'frontend') continue;
    const status = service.status() as FrontendStatus;
    for (const session of status.sessions) {
      const view: SessionView = { ...session, frontend: status.name, subset: status.subset };
      if (matches(view, filter)) matching.push(view);
    }
  }
  matching.sort((a, b) => b.startedAtMs - a.startedAtMs);
  return { total: matching.length, sessions: matching.slice(0, limit) };
}

/** Member names of this process; for the demo's switch. */
export function localMembers(options: Pick<AdminOptions, 'services'>): string[] {
  return options.services
    .filter((service) => service.role === 'backend-cluster')
    .map((service) => (service.status() as BackendStatus).name);
}

/** How each frontend of this process would route an address. A frontend that fails says so instead of being left out. */
export function localExplanations(options: Pick<AdminOptions, 'services'>, address: string): Promise<RouteExplanation[]> {
  const asked = options.services.filter((service) => service.explain !== undefined);
  return Promise.all(
    asked.map(async (service): Promise<RouteExplanation> => {
      try {
        return (await service.explain?.(address)) as RouteExplanation;
      } catch (error) {
        return {
          address,
          frontend: service.name,
          subset: '',
          steps: [{ what: 'route', found: messageOf(error) }],
          verdict: 'unavailable',
          uuid: undefined,
          hostServer: undefined,
          member: undefined,
          memberReason: undefined,
        };
      }
    }),
  );
}

function matches(session: SessionView, filter: SessionFilter): boolean {
  return (
    (filter.account === undefined || session.account.toLowerCase() === filter.account.toLowerCase()) &&
    (filter.protocol === undefined || session.protocol === filter.protocol) &&
    (filter.cluster === undefined || session.cluster === filter.cluster) &&
    (filter.member === undefined || session.member === filter.member) &&
    (filter.frontend === undefined || session.frontend === filter.frontend)
  );
}
