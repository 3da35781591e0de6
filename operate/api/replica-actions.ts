/** What an operator may ask of the replication service about one replica; peers are asked when it runs elsewhere. */
import { type Clock, withTimeout } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { HttpReply, HttpRequest, HttpServer } from '#common/http/server.ts';
import type { ReplicaStatus } from '#replication/client/status.ts';
import { comparisonStreams, diffResult, linesType, repairResult, sendComparison } from './comparison-stream.ts';
import type { AdminOptions, AdminService } from './options.ts';
import { askPeersForStream, askPeersInTurn, type Sought } from './peers.ts';
import type { ReplicaActionReport } from './reports.ts';

type Replica = { Params: { name: string } };
type Body = Readonly<Record<string, unknown>>;
type Action = (service: AdminService, name: string, body: Body, clock: Clock) => Promise<Omit<ReplicaActionReport, 'replica'>>;

/** Of an `entryCSN`: time, count, server, count. */
const csnForm = /^\d{14}\.\d{6}Z#[0-9a-f]{6}#[0-9a-f]{3}#[0-9a-f]{6}$/i;
const waitDefaultMs = 30_000;
const waitMaxMs = 500_000;

const actions: Readonly<Record<string, Action>> = {
  async verify(service, name) {
    const [report] = await able(service, service.verify)(name);
    const result = replicaOf(service, name)?.lastVerifyResult ?? 'compared';
    return { result, ...(report === undefined ? {} : { differing: report.differing }) };
  },
  async diff(service, name) {
    const { before } = await able(service, service.repair)(name, { isDryRun: true });
    return { result: diffResult(before), before };
  },
  async repair(service, name, body) {
    const isDryRun = body.dryRun === true;
    const { before, after } = await able(service, service.repair)(name, { isDryRun, allowsDeletes: body.allowDeletes === true });
    return { result: repairResult(before, after), before, ...(after === undefined ? {} : { after }) };
  },
  async wait(service, name, body, clock) {
    const csn = typeof body.csn === 'string' && body.csn !== '' ? body.csn : await able(service, service.masterCsn)();
    if (!csnForm.test(csn)) {
      throw new PlatformError(
        'ADMIN_BAD_REQUEST',
        `"${csn}" is no change; expected an entryCSN such as 20261122120000.000001Z#000000#000#000000`,
        {
          fields: { hint: 'the post-read control of a write gives it; without --change it is the latest of the master' },
        },
      );
    }
    const withinMs = body.withinMs === undefined ? waitDefaultMs : Number(body.withinMs);
    if (!(withinMs > 0 && withinMs <= waitMaxMs)) throw new PlatformError('ADMIN_BAD_REQUEST', `withinMs is not from 1 to ${waitMaxMs}`);
    const late = new AbortController();
    await withTimeout(clock, withinMs, able(service, service.waitFor)(csn, name, late.signal), () => {
      const { contextCsn, state, lastError } = replicaOf(service, name) ?? {};
      const where = `it is ${state ?? 'not known'} and has everything up to ${contextCsn ?? 'nothing yet'}`;
      const why = lastError === undefined ? '' : `; last error: ${lastError}`;
      const error = new PlatformError('NET_TIMEOUT', `${name} does not have ${csn} after ${withinMs} ms: ${where}${why}`, {
        fields: { hint: 'archipelago replica status says how far behind it is and why' },
      });
      // Ends the wait as well; its own rejection says the same.
      late.abort(error);
      return error;
    });
    const refused = replicaOf(service, name)?.refused?.entries ?? 0;
    const but = refused === 0 ? '' : `, except ${refused} entries that it refuses; archipelago replica status -o json says why`;
    return { result: `has everything up to ${csn}${but}` };
  },
  async promote(service, name, body) {
    const withinMs = body.withinMs === undefined ? waitDefaultMs : Number(body.withinMs);
    if (!(withinMs > 0 && withinMs <= waitMaxMs)) throw new PlatformError('ADMIN_BAD_REQUEST', `withinMs is not from 1 to ${waitMaxMs}`);
    const promotion = await able(service, service.promote)(name, { isForced: body.force === true, withinMs });
    const { term, missing, notTold, isForced, frozenMs } = promotion;
    // Of one that had broken off nobody knows it.
    const paused = isForced || frozenMs === 0 ? '' : `; no server took writes for ${frozenMs} ms`;
    const later = notTold.length === 0 ? '' : `; to be told when they answer: ${notTold.join(', ')}`;
    return { result: `is the master, term ${term}${paused}${later}${missing === '' ? '' : `. ${missing}`}`, promotion };
  },
  async 'allow-deletes'(service, name) {
    able(service, service.allowDeletes)(name);
    return { result: 'the deletes that its refresh asks for are allowed' };
  },
  async resume(service, name) {
    able(service, service.resume)(name);
    return { result: 'follows the master as it is now; what had stopped it stops it again where it is still so' };
  },
};

/** What is asked of the service that feeds a replica. */
const feeder = (name: string): Sought => ({
  what: `replication service that feeds a replica ${name}`,
  hintIfSilent:
    'start what is silent; where it is lost with the master, start a replication service elsewhere with the same suffix, master and replicas, and ask its admin API',
});

/** Adds `POST /api/v1/replicas/NAME/ACTION`, and the same below `/api/v1/node` for peers. */
export function addReplicaActions(server: HttpServer, options: AdminOptions): void {
  const here = (name: string): AdminService | undefined =>
    options.services.find((service) => service.role === 'replication' && isFedBy(service, name));
  // The master is no replica; but it may be one that a promotion is to make it, where an earlier one broke off or was not answered.
  const hereToPromote = (name: string): AdminService | undefined =>
    options.services.find((service) => service.role === 'replication' && masterNameOf(service) === name);
  // Only it knows what was received and not applied; one that stands by acts once the replica's lease has come to it.
  const standingBy = (name: string): AdminService | undefined =>
    options.services.find((service) => service.role === 'replication' && replicaOf(service, name)?.state === 'standby');
  for (const [action, run] of Object.entries(actions)) {
    const runHere = async (name: string, request: HttpRequest): Promise<ReplicaActionReport> => {
      const body = bodyOf(request);
      const instead = action === 'promote' ? hereToPromote(name) : undefined;
      const service = here(name) ?? instead ?? (body.standby === true ? standingBy(name) : undefined);
      if (service === undefined)
        throw new PlatformError('ADMIN_NOT_FOUND', `no replication service of this process feeds a replica ${name}`);
      return { replica: name, ...(await run(service, name, body, options.ports.clock)) };
    };
    const stream = comparisonStreams[action];
    const answerHere = (name: string, request: HttpRequest, reply: HttpReply): Promise<unknown> => {
      const service = here(name);
      if (stream === undefined || service === undefined || !wantsStream(request)) return runHere(name, request);
      return sendComparison(reply, options.ports.clock, name, (to) => stream(service, name, bodyOf(request), to));
    };
    server.post<Replica>(`/api/v1/node/replicas/:name/${action}`, (request, reply) => answerHere(request.params.name, request, reply));
    server.post<Replica>(`/api/v1/replicas/:name/${action}`, async (request, reply) => {
      const { name } = request.params;
      if (here(name) !== undefined || (action === 'promote' && hereToPromote(name) !== undefined)) return answerHere(name, request, reply);
      const path = `/api/v1/node/replicas/${encodeURIComponent(name)}/${action}`;
      if (stream !== undefined && wantsStream(request))
        return reply.type(linesType).send(await askPeersForStream(options, path, feeder(name), bodyOf(request), linesType));
      try {
        return await askPeersInTurn(options, path, feeder(name), request.body ?? undefined);
      } catch (error) {
        if (action !== 'promote' || !isNobody(error)) throw error;
        // Whoever feeds it is gone, maybe with the master: one that stands by will do.
        const body = { ...bodyOf(request), standby: true };
        const service = standingBy(name);
        if (service === undefined) return askPeersInTurn(options, path, feeder(name), body);
        return { replica: name, ...(await run(service, name, body, options.ports.clock)) };
      }
    });
  }
}

/** No peer that answered feeds it; an error that a peer answered with has a status. */
function isNobody(error: unknown): boolean {
  return (
    error instanceof PlatformError &&
    (error.code === 'ADMIN_NOT_FOUND' || error.code === 'NET_TIMEOUT') &&
    error.fields.status === undefined
  );
}

const wantsStream = ({ headers }: HttpRequest): boolean => headers.accept?.includes(linesType) === true;

// Of two services for one replica, only the one that is active can do anything about it.
function isFedBy(service: AdminService, name: string): boolean {
  const replica = replicaOf(service, name);
  return replica !== undefined && replica.state !== 'standby';
}

function replicaOf(service: AdminService, name: string) {
  type Known = Pick<ReplicaStatus, 'name' | 'state' | 'contextCsn' | 'lastError' | 'lastVerifyResult'> & {
    readonly refused?: ReplicaStatus['refused'];
  };
  type Status = { readonly replicas?: readonly Known[] };
  return (service.status() as Status).replicas?.find((replica) => replica.name === name);
}

function masterNameOf(service: AdminService): string | undefined {
  return (service.status() as { readonly master?: { readonly name?: string } }).master?.name;
}

function able<A extends unknown[], R>(service: AdminService, method: ((...args: A) => R) | undefined): (...args: A) => R {
  if (method === undefined) throw new PlatformError('ADMIN_NOT_ABLE', `${service.name} cannot do that`);
  return method.bind(service);
}

function bodyOf(request: HttpRequest): Body {
  const { body } = request;
  if (body === undefined || body === null) return {};
  if (typeof body === 'object' && !Array.isArray(body)) return body as Body;
  throw new PlatformError('ADMIN_BAD_REQUEST', 'expected a JSON object');
}
