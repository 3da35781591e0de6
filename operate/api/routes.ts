/**
 * The routes of the admin API. `/api/v1/node...` speaks for this process alone, and is what peers ask each other; the others speak for
 * the whole installation.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { HttpRequest, HttpServer } from '#common/http/server.ts';
import { productVersion } from '#common/version.ts';
import { createAccount, removeAccount, renameAccount, restoreAccount, setPassword, showAccount } from './accounts.ts';
import { addArchives } from './archives.ts';
import { addFrontendActions } from './frontend-actions.ts';
import { localExplanations, localReport, localSessions, type SessionFilter, sessionsLimitMax } from './local.ts';
import { addMembers } from './members.ts';
import { mergeStatus } from './merge.ts';
import type { AdminOptions } from './options.ts';
import { askPeersInTurn, gather } from './peers.ts';
import { addReplicaActions } from './replica-actions.ts';
import type { ReplicasReport, SessionsReport, StatusReport } from './reports.ts';
import { addStore } from './store.ts';
import { topologyOf } from './topology.ts';
import { explainUser } from './why.ts';

type Address = { Params: { address: string } };

/** Adds all routes. `ownUrl` is asked for late: the port is known only once the server listens. */
export function addRoutes(server: HttpServer, options: AdminOptions, ownUrl: () => string): void {
  const { clock } = options.ports;
  const startedAtMs = clock.monotonicMs();
  const ownReport = () => localReport(options, startedAtMs);
  const refresh = async (): Promise<void> => {
    await Promise.all(options.services.map((service) => service.refresh?.()));
  };
  const status = async (): Promise<StatusReport> => {
    await refresh();
    const { replies, answers } = await gather(options, ownUrl(), '/api/v1/node', ownReport());
    const abilities = {
      accounts: options.accounts !== undefined,
      passwords: options.directory?.writer !== undefined,
      killMember: options.demo !== undefined,
    };
    return mergeStatus({ node: options.node, version: productVersion, atMs: clock.nowMs(), abilities }, replies, answers);
  };

  server.get('/api/v1/node', async () => {
    await refresh();
    return ownReport();
  });
  server.get('/api/v1/node/sessions', async (request) => {
    await refresh();
    return localSessions(options, filterOf(request), limitOf(request));
  });
  server.get<Address>('/api/v1/node/explain/:address', async (request) => ({
    explanations: await localExplanations(options, request.params.address),
  }));

  server.get('/api/v1/status', status);
  server.get('/api/v1/topology', async () => topologyOf(await status()));
  server.get('/api/v1/replicas', async (): Promise<ReplicasReport> => {
    const { replies, replicas, replication, writers } = await status();
    // One that stands by for all its replicas has no stream from the master.
    const master = (replication.find((one) => one.master.state === 'connected') ?? replication[0])?.master;
    return {
      replies,
      master: master === undefined ? undefined : { url: master.url, state: master.state, problem: master.lastError },
      replicas,
      writers,
    };
  });
  server.get('/api/v1/sessions', async (request): Promise<SessionsReport> => {
    const filter = filterOf(request);
    const limit = limitOf(request);
    const query = new URLSearchParams({ ...definedOnly(filter), limit: String(limit) });
    await refresh();
    const own = localSessions(options, filter, limit);
    const { replies, answers } = await gather(options, ownUrl(), `/api/v1/node/sessions?${query.toString()}`, own);
    const sessions = answers.flatMap((answer) => answer.sessions).sort((a, b) => b.startedAtMs - a.startedAtMs);
    return { replies, total: answers.reduce((total, answer) => total + answer.total, 0), sessions: sessions.slice(0, limit) };
  });
  server.get<Address>('/api/v1/users/:address/why', (request) => explainUser(options, ownUrl(), request.params.address));

  server.post('/api/v1/accounts', async (request, reply) => {
    const created = await createAccount(options, bodyOf(request), status);
    return reply.code(201).send(created);
  });
  server.get<Address>('/api/v1/accounts/:address', (request) => showAccount(options, request.params.address));
  server.post<Address>('/api/v1/accounts/:address/rename', (request) => renameAccount(options, request.params.address, bodyOf(request)));
  server.put<Address>('/api/v1/accounts/:address/password', async (request, reply) => {
    await setPassword(options, request.params.address, bodyOf(request));
    return reply.code(204).send();
  });
  server.delete<Address>('/api/v1/accounts/:address', (request) => removeAccount(options, request.params.address));

  server.post<Address>('/api/v1/accounts/:address/restore', (request) => restoreAccount(options, request.params.address, bodyOf(request)));

  addStore(server, options);
  addArchives(server, options);
  addReplicaActions(server, options);
  addMembers(server, options);
  addDrain(server, options);
  addFrontendActions(server, options);
  server.post<{ Params: { name: string } }>('/api/v1/members/:name/kill', async (request, reply) => {
    if (options.demo === undefined) {
      throw new PlatformError('ADMIN_NOT_ABLE', 'members are killed by this API in the demo only', {
        fields: { hint: 'stop the process itself' },
      });
    }
    await options.demo.killMember(request.params.name);
    return reply.code(204).send();
  });
}

/** Drains a service of this process or of a peer. */
function addDrain(server: HttpServer, options: AdminOptions): void {
  type Service = { Params: { name: string } };
  const here = (name: string) => options.services.find((service) => service.name === name);
  const drainHere = async (name: string): Promise<{ service: string; drained: true }> => {
    const service = here(name);
    if (service === undefined) throw new PlatformError('ADMIN_NOT_FOUND', `this process runs no service ${name}`);
    if (service.drain === undefined) throw new PlatformError('ADMIN_NOT_ABLE', `a service of role ${service.role} cannot be drained`);
    await service.drain();
    return { service: name, drained: true };
  };
  server.post<Service>('/api/v1/node/services/:name/drain', (request) => drainHere(request.params.name));
  server.post<Service>('/api/v1/services/:name/drain', (request) =>
    here(request.params.name) !== undefined
      ? drainHere(request.params.name)
      : askPeersInTurn(options, `/api/v1/node/services/${encodeURIComponent(request.params.name)}/drain`, {
          what: `service ${request.params.name}`,
        }),
  );
}

function bodyOf(request: HttpRequest): Readonly<Record<string, unknown>> {
  const { body } = request;
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new PlatformError('ADMIN_BAD_REQUEST', 'expected a JSON object');
  return body as Record<string, unknown>;
}

function filterOf(request: HttpRequest): SessionFilter {
  const query = request.query as Record<string, unknown>;
  const text = (key: string): string | undefined => (typeof query[key] === 'string' && query[key] !== '' ? query[key] : undefined);
  return {
    account: text('account'),
    protocol: text('protocol'),
    cluster: text('cluster'),
    member: text('member'),
    frontend: text('frontend'),
  };
}

function limitOf(request: HttpRequest): number {
  const given = (request.query as Record<string, unknown>).limit;
  if (given === undefined) return 200;
  const limit = Number(given);
  if (!Number.isInteger(limit) || limit < 0 || limit > sessionsLimitMax) {
    throw new PlatformError('ADMIN_BAD_REQUEST', `limit is not a whole number from 0 to ${sessionsLimitMax}`);
  }
  return limit;
}

function definedOnly(filter: SessionFilter): Record<string, string> {
  return Object.fromEntries(Object.entries(filter).filter((pair): pair is [string, string] => pair[1] !== undefined));
}
