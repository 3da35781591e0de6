/**
 * The mail half of a frontend: its SMTP and submission listeners, the durable queue behind them, and the relay to the world outside where
 * one is configured. See smtp-contract.ts for what it is given.
 */
import type { ClusterName } from '#common/host-server.ts';
import { MailQueue } from '../queue/queue.ts';
import { createRelay } from '../queue/relay.ts';
import type { RunningSmtp, SmtpOptions } from './smtp-contract.ts';
import { SmtpListener } from './smtp-listener.ts';
import { Receiving } from './smtp-message.ts';

/** Opens the queue, which begins to deliver what it held, then listens. When one listener cannot, all that was started is stopped. */
export async function startSmtp(options: SmtpOptions): Promise<RunningSmtp> {
  const { config, ports } = options;
  await options.takeQueue?.();
  const queueOptions = {
    directory: config.queueDirectory,
    hostName: config.name,
    router: options.router,
    openDelivery: (cluster: ClusterName) => options.openDelivery(cluster),
    relay: config.relay === undefined ? undefined : createRelay({ ...config.relay, hostName: config.name }),
    clock: ports.clock,
    random: ports.random,
    files: ports.files,
    log: ports.log.child({ component: 'queue' }),
    metrics: ports.metrics,
  };
  const queue = await MailQueue.open(queueOptions, options.takeQueue !== undefined);
  const started: SmtpListener[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(started.map((listener) => listener[Symbol.asyncDispose]()));
    await queue[Symbol.asyncDispose]();
  };
  try {
    const receiving = new Receiving();
    for (const listener of options.listeners) started.push(await SmtpListener.start(options, listener, queue, receiving));
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    listeners: () => started.map((listener) => listener.status()),
    queue: () => queue.status(),
    applySettings: () => {
      for (const listener of started) listener.applySettings();
    },
    setAccepting: async (isAccepting) => {
      for (const listener of started) await listener.setAccepting(isAccepting);
    },
    connections: () => started.reduce((sum, listener) => sum + listener.connections, 0),
    sessions: () => started.flatMap((listener) => [...listener.sessions()]),
    release: (heir) => queue.release(heir),
    takeBack: () => queue.takeBack(),
    adopt: (id) => queue.adopt(id),
    [Symbol.asyncDispose]: stop,
  };
}
