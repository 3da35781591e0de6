/** Members of a cluster, for operators: drain, placement, hand-over, removal, settings. Any member passes it to the one it is about. */
import { PlatformError } from '#common/errors/platform-error.ts';
import { clusterOf, parseClusterName, parseMemberName } from '#common/host-server.ts';
import type { HttpServer } from '#common/http/server.ts';
import { clustersOf } from './accounts.ts';
import type { AdminOptions } from './options.ts';

type Member = { Params: { name: string } };
type Cluster = { Params: { cluster: string } };

/** Adds the routes. */
export function addMembers(server: HttpServer, options: AdminOptions): void {
  const ofMember = (name: string, method: string, body: unknown = {}): Promise<unknown> => {
    const member = parseMemberName(name);
    return clustersOf(options).manage(clusterOf(member), method, { ...fieldsOf(body), member });
  };
  const ofCluster = (name: string, method: string, params: object = {}): Promise<unknown> =>
    clustersOf(options).manage(parseClusterName(name), method, params);

  server.get<Member>('/api/v1/members/:name/drain', (request) => ofMember(request.params.name, 'members.drain-status'));
  server.post<Member>('/api/v1/members/:name/drain', (request) => ofMember(request.params.name, 'members.drain', request.body));
  server.delete<Member>('/api/v1/members/:name/drain', (request) => ofMember(request.params.name, 'members.drain-abort'));
  server.delete<Member>('/api/v1/members/:name', (request) => ofMember(request.params.name, 'members.remove'));

  server.post<Cluster>('/api/v1/clusters/:cluster/rebalance', (request) => ofCluster(request.params.cluster, 'members.rebalance'));
  server.post<Cluster>('/api/v1/clusters/:cluster/hand-over', (request) =>
    ofCluster(request.params.cluster, 'members.hand-over', fieldsOf(request.body)),
  );
  server.get<Cluster>('/api/v1/clusters/:cluster/settings', (request) => ofCluster(request.params.cluster, 'settings.get'));
  server.post<Cluster>('/api/v1/clusters/:cluster/settings', (request) =>
    ofCluster(request.params.cluster, 'settings.set', { change: fieldsOf(request.body) }),
  );
}

function fieldsOf(body: unknown): Record<string, unknown> {
  if (body === undefined || body === null) return {};
  if (typeof body === 'object' && !Array.isArray(body)) return body as Record<string, unknown>;
  throw new PlatformError('ADMIN_BAD_REQUEST', 'expected a JSON object');
}
