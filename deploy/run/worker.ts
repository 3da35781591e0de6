/**
 * A helper process of a frontend (workers.ts): learns domains and clusters, is handed the listening sockets for sessions, and serves what it accepts. It
 * has no mail, no admin API, no ports of its own and no route index: it reads the first process's, or asks it over their channel, and the directory when
 * that one is silent.
 */
import { systemClock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Ports } from '#common/lifecycle.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { AcceptTrouble } from '#common/network/direct/accept-trouble.ts';
import { ListeningSockets, type PassedSocket } from '#common/network/listening-sockets.ts';
import { createSystemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { productVersion } from '#common/version.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import { type RunningFrontend, startFrontend } from '#frontend/main.ts';
import { type SharedIndexFacts, SharedIndexReader } from '#frontend/routing/shared-index.ts';
import { type ListenerCounts, reportEveryMs } from '#frontend/subset/shared-counts.ts';
import type { SharedNews } from '#frontend/subset/sharing.ts';
import { type FrontendLegacy, leaveDefaultMs } from '#frontend/subset/succession.ts';
import { wholeFrontend } from '#frontend/subset/whole.ts';
import { IndexQuestions } from './index-questions.ts';
import { type Body, type ChannelEnd, ProcessChannel } from './process-channel.ts';

const askMs = 10_000;
/** The first process hands sockets over when it has them itself. */
const socketsMs = 600_000;

interface Greeting {
  readonly number: number;
  readonly config: FrontendConfig;
  readonly log: { readonly level: 'info'; readonly file?: string };
  readonly localMembers: readonly string[];
  readonly others: number;
  readonly sockets: readonly PassedSocket[];
  readonly legacy: FrontendLegacy;
  /** Where the route index is read. */
  readonly index?: SharedIndexFacts & { readonly fd: number; readonly bytes: number };
}

const stopped = new AbortController();
const left = Promise.withResolvers<number>();
process.on('SIGTERM', () => stopped.abort());
// For the first process, which says what is to be done: a terminal sends it to all.
for (const signal of ['SIGINT', 'SIGUSR2'] as const) process.on(signal, () => {});

const metrics = createMetrics();
let sockets = new ListeningSockets();
let frontend: RunningFrontend | undefined;
const serving = (): RunningFrontend => {
  if (frontend === undefined) throw new Error('this worker does not serve yet');
  return frontend;
};
const channel = new ProcessChannel(process as ChannelEnd, systemClock, {
  socket: ({ key }, server) => {
    sockets.take(String(key), server as Parameters<ListeningSockets['take']>[1]);
    return {};
  },
  status: () => ({ status: serving().status() }),
  control: async ({ action, body }) => ({ result: await serving().control(String(action), body as Body) }),
  metrics: async () => ({ text: await metrics.render() }),
  guard: ({ what, address, account }) => {
    serving().sharing.guard.note(what === 'failed' ? 'failed' : 'succeeded', String(address), String(account));
    return {};
  },
  news: ({ from, news }) => {
    serving().sharing.takeNews(String(from), news as SharedNews);
    return {};
  },
  leave: ({ deadlineMs }) => {
    sockets.release();
    left.resolve(Number(deadlineMs));
    return {};
  },
});
// Without it nobody asks for anything any more, and whoever comes next wants the ports.
void channel.closed.then(() => {
  sockets.release();
  left.resolve(leaveDefaultMs);
});

const keepAlive = setInterval(() => {}, 60_000);
try {
  const greeting = (await channel.ask('greet', {}, askMs)) as unknown as Greeting;
  await serve(greeting);
} catch (error) {
  process.stderr.write(`archipelago worker: ${messageOf(error)}\n`);
  await channel.ask('failed', { message: messageOf(error) }, askMs).catch(() => {});
  process.exitCode = 1;
}
clearInterval(keepAlive);
process.exit();

async function serve({ number, config, log, localMembers, others, sockets: passed, legacy, index: shared }: Greeting): Promise<void> {
  const ask = async (keys: readonly string[]): Promise<void> => void (await channel.ask('sockets', { keys }, socketsMs));
  sockets = new ListeningSockets(passed, (key) => ask([key]));
  const ownLog = createLogger(log.level, {}, log.file).child({ worker: number });
  const trouble = new AcceptTrouble({ clock: systemClock, log: ownLog, metrics });
  const ports: Ports = {
    clock: systemClock,
    random: systemRandom,
    network: createSystemNetwork(sockets, process.env.ARCHIPELAGO_NETWORK, trouble),
    files: nodeFiles,
    log: ownLog,
    metrics: metrics.withLabels({ service: 'frontend', node: config.name }),
    sockets,
  };
  const reader = shared === undefined ? undefined : SharedIndexReader.open(shared.fd, shared.bytes, shared);
  const index = config.routing.mode === 'follow' ? new IndexQuestions(channel, reader) : undefined;
  await using own = await startFrontend(config, ports, process.env, localMembers, {
    inheritance: { legacy },
    helper: { index },
    processes: others + 1,
  });
  frontend = wholeFrontend({
    own,
    clock: ports.clock,
    pid: process.pid,
    version: productVersion,
    parts: () => [],
    restart: () => Promise.reject(new Error('the first process is restarted, and its helpers with it')),
  });
  own.sharing.guard.onChange = (what, address, account) => void channel.ask('guard', { what, address, account }, askMs).catch(() => {});
  process.on('SIGHUP', () => void own.reload?.());
  await ask(sockets.awaited());
  const missing = sockets.awaited();
  if (missing.length > 0) throw new Error(`the first process has not got ${missing.join(', ')} open`);
  await channel.ask('serving', {}, askMs);
  const reports = ports.clock.every(reportEveryMs, () => {
    channel.ask('counts', { counts: own.sharing.counts(others) }, askMs).then(
      ({ elsewhere }) => own.sharing.setElsewhere(elsewhere as readonly ListenerCounts[]),
      () => {},
    );
  });
  const ended = new Promise<undefined>((resolve) => stopped.signal.addEventListener('abort', () => resolve(undefined), { once: true }));
  const deadlineMs = await Promise.race([left.promise, ended]);
  if (deadlineMs !== undefined) await own.succession.leave(deadlineMs, stopped.signal);
  reports.cancel();
}
