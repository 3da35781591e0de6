/**
 * A process that answers at a port of the direct network, for a parent that leaves it few descriptors: by itself, for a server of Node's (`for-node`), or
 * for one of HTTP (`for-http`); the first two echo.
 * Prints the port, and then what operators are told, a line each; ends with its standard input.
 */
import { createServer, type Server } from 'node:net';
import { systemClock } from '#common/clock.ts';
import { createHttpServer, listenAt } from '#common/http/server.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { AcceptTrouble } from '#common/network/direct/accept-trouble.ts';
import { createDirectNetwork } from '#common/network/direct/direct-network.ts';
import { boundAnew, type SocketAddress } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';

const told = (_fields: Record<string, unknown>, message: string): void => void process.stdout.write(`${message}\n`);
const log: Logger = { ...silentLogger, child: () => log, info: told, warn: told, error: told };
const trouble = new AcceptTrouble({ clock: systemClock, log, metrics: createMetrics() });
const network = createDirectNetwork(boundAnew, trouble) as Network;
const target = { host: '127.0.0.1', port: 0 } as const;
const { port } = await listen(String(process.argv[2]));
process.stdout.write(`${port}\n`);
process.stdin.resume().once('end', () => process.exit(0));

function listen(whose: string): Promise<SocketAddress> {
  if (whose === 'for-node') {
    const server = createServer((socket) => socket.on('error', () => {}).pipe(socket));
    return boundAnew.listen(network.serverFor?.(server) as Server, target);
  }
  if (whose === 'for-http') {
    const server = createHttpServer({ log, network });
    server.get('/', () => 'here');
    return listenAt(server, target);
  }
  return network.listen(target, (connection) => {
    connection.handle({ data: (chunk) => void connection.write(chunk), close: () => {} });
  });
}
