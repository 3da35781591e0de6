/** What an operator may ask of one frontend; peers are asked when it runs elsewhere. */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { HttpRequest, HttpServer } from '#common/http/server.ts';
import type { AdminOptions } from './options.ts';
import { askPeersInTurn } from './peers.ts';

type Frontend = { Params: { name: string } };

/** Actions of a frontend; it checks what comes with them itself. */
export const frontendActions = [
  'cordon',
  'drain',
  'resume',
  'weight',
  'guard-ls',
  'guard-why',
  'guard-block',
  'guard-allow',
  'guard-forget',
  'kick',
  'restart',
  'settings',
] as const;
export type FrontendAction = (typeof frontendActions)[number];

/** Adds `POST /api/v1/frontends/NAME/ACTION`, and the same below `/api/v1/node` for peers. */
export function addFrontendActions(server: HttpServer, options: AdminOptions): void {
  const here = (name: string) => options.services.find((service) => service.role === 'frontend' && service.name === name);
  for (const action of frontendActions) {
    const runHere = async (name: string, request: HttpRequest): Promise<unknown> => {
      const service = here(name);
      if (service === undefined) throw new PlatformError('ADMIN_NOT_FOUND', `this process runs no frontend ${name}`);
      if (service.control === undefined) throw new PlatformError('ADMIN_NOT_ABLE', `${name} cannot be asked for ${action}`);
      return service.control(action, bodyOf(request));
    };
    server.post<Frontend>(`/api/v1/node/frontends/:name/${action}`, (request) => runHere(request.params.name, request));
    server.post<Frontend>(`/api/v1/frontends/:name/${action}`, (request) => {
      const { name } = request.params;
      if (here(name) !== undefined) return runHere(name, request);
      const path = `/api/v1/node/frontends/${encodeURIComponent(name)}/${action}`;
      return askPeersInTurn(options, path, { what: `frontend ${name}` }, request.body ?? undefined);
    });
  }
}

function bodyOf(request: HttpRequest): Readonly<Record<string, unknown>> {
  const { body } = request;
  if (body === undefined || body === null) return {};
  if (typeof body === 'object' && !Array.isArray(body)) return body as Record<string, unknown>;
  throw new PlatformError('ADMIN_BAD_REQUEST', 'expected a JSON object');
}
