/**
 * Comparisons and repairs of a replica as a stream of lines (NDJSON, `ComparisonLine`): the client sees at once that something is being done,
 * and a million differences pass through without ever being in memory together. The reader sets the pace.
 */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type HttpReply, problemOf } from '#common/http/server.ts';
import type { ComparisonProgress, Difference, FoundDifferences, RepairOptions, VerifyReport } from '#replication/client/status.ts';
import type { AdminService } from './options.ts';
import type { ComparisonLine, ListedDifference, ReplicaActionReport } from './reports.ts';

/** Media type of the stream. */
export const linesType = 'application/x-ndjson';
/** How often it says how far it is, also when nothing has moved. */
const progressEveryMs = 1000;
/** Bytes that are written together. */
const chunkBytes = 16_384;

type Body = Readonly<Record<string, unknown>>;
/** What an action tells the stream. */
type Listener = Required<Pick<RepairOptions, 'onProgress' | 'signal' | 'onFound'>>;
type Run = (service: AdminService, name: string, body: Body, to: Listener) => Promise<Omit<ReplicaActionReport, 'replica'>>;

/** The actions that answer so, by name. */
export const comparisonStreams: Readonly<Record<string, Run>> = {
  async verify(service, name, _body, { onProgress, signal }) {
    if (service.verify === undefined) throw notAble(service);
    const [report] = await service.verify(name, { onProgress, signal });
    const { replicas = [] } = service.status() as {
      readonly replicas?: readonly { readonly name: string; readonly lastVerifyResult?: string }[];
    };
    const result = replicas.find((one) => one.name === name)?.lastVerifyResult ?? 'compared';
    return { result, ...(report === undefined ? {} : { differing: report.differing }) };
  },
  async diff(service, name, _body, to) {
    if (service.repair === undefined) throw notAble(service);
    const { before } = await service.repair(name, { isDryRun: true, ...to });
    return { result: diffResult(before) };
  },
  async repair(service, name, body, to) {
    if (service.repair === undefined) throw notAble(service);
    const isDryRun = body.dryRun === true;
    const { before, after } = await service.repair(name, { isDryRun, allowsDeletes: body.allowDeletes === true, ...to });
    return { result: repairResult(before, after), ...(after === undefined ? {} : { after }) };
  },
};

/** What a comparison came to, in words. */
export function diffResult({ differing }: VerifyReport): string {
  return differing === 0 ? 'equal' : `${differing} entries differ`;
}

/** What a repair came to, in words; a dry run has no `after`. */
export function repairResult(before: VerifyReport, after: VerifyReport | undefined): string {
  if (after === undefined) return `${before.differing} entries would be made the master’s`;
  return `${before.differing} entries differed, ${after.differing} do now`;
}

/** Runs an action and sends what it tells. What fails before the first line is an answer of its own. */
export async function sendComparison(
  reply: HttpReply,
  clock: Clock,
  replica: string,
  run: (to: Listener) => Promise<Omit<ReplicaActionReport, 'replica'>>,
): Promise<unknown> {
  const out = new PassThrough();
  const gone = new AbortController();
  out.once('close', () => gone.abort(new PlatformError('NET_CLOSED', 'whoever asked has gone')));
  out.on('error', () => {});
  const begun = Promise.withResolvers<void>();
  let hasBegun = false;
  const put = (line: ComparisonLine): boolean => {
    hasBegun = true;
    begun.resolve();
    return out.destroyed || out.write(`${JSON.stringify(line)}\n`);
  };
  let latest: ComparisonProgress | undefined;
  const timer = clock.every(progressEveryMs, () => {
    if (latest !== undefined && !out.writableNeedDrain) put({ progress: latest });
  });
  const listener: Listener = {
    signal: gone.signal,
    onProgress: (progress) => {
      const isNewStep = latest?.step !== progress.step;
      latest = progress;
      if (isNewStep) put({ progress });
    },
    onFound: (found) => sendFound(out, put, found, gone.signal),
  };
  const running = run(listener)
    .then((result) => put({ end: { replica, ...result } }))
    .catch((error: unknown) => {
      if (hasBegun) put({ problem: problemOf(error) });
      else begun.reject(error);
    })
    .finally(() => {
      timer.cancel();
      out.end();
    });
  await begun.promise;
  void running;
  return reply.type(linesType).send(out);
}

async function sendFound(
  out: PassThrough,
  put: (line: ComparisonLine) => boolean,
  found: FoundDifferences,
  signal: AbortSignal,
): Promise<void> {
  const { differences: _list, ...report }: VerifyReport = found.report;
  put({
    found: {
      ...report,
      isCut: found.size < report.differing,
      listed: found.size,
      ...(found.refusal === undefined ? {} : { refusal: found.refusal }),
    },
  });
  let chunk = '';
  for (const difference of found.all()) {
    chunk += `${JSON.stringify({ difference: listed(difference) } satisfies ComparisonLine)}\n`;
    if (chunk.length < chunkBytes) continue;
    signal.throwIfAborted();
    if (!out.write(chunk)) await once(out, 'drain', { signal });
    chunk = '';
  }
  if (chunk !== '') out.write(chunk);
}

function listed(difference: Difference): ListedDifference {
  return { ...difference, todo: todoOf(difference) };
}

function todoOf({ kind, what }: Difference): ListedDifference['todo'] {
  if (kind === 'missing') return ['add'];
  if (kind === 'extra') return ['delete'];
  const isRenamed = what.includes('dn');
  return [...(isRenamed ? (['rename'] as const) : []), ...(what.length > (isRenamed ? 1 : 0) ? (['modify'] as const) : [])];
}

function notAble({ name }: AdminService): PlatformError {
  return new PlatformError('ADMIN_NOT_ABLE', `${name} cannot do that`);
}
