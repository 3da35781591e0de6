/**
 * A process that echoes at a port of the direct network, for a parent that leaves it few descriptors: by itself, or (`for-node`) for a server of Node's.
 * Prints the port, and then what operators are told, a line each; ends with its standard input.
 */
import { createServer, type Server } from 'node:net';
import { systemClock } from '#common/clock.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { AcceptTrouble } from '#common/network/direct/accept-trouble.ts';
import { createDirectNetwork } from '#common/network/direct/direct-network.ts';
import { boundAnew } from '#common/network/listening-sockets.ts';

const told = (_fields: Record<string, unknown>, message: string): void => void process.stdout.write(`${message}\n`);
const log: Logger = { ...silentLogger, child: () => log, info: told, warn: told, error: told };
const trouble = new AcceptTrouble({ clock: systemClock, log, metrics: createMetrics() });
const network = createDirectNetwork(boundAnew, trouble);
const server = createServer((socket) => socket.on('error', () => {}).pipe(socket));
const listener =
  process.argv[2] === 'for-node'
    ? await boundAnew.listen(network?.serverFor?.(server) as Server, { host: '127.0.0.1', port: 0 })
    : await network?.listen({}, (connection) => {
        connection.handle({ data: (chunk) => void connection.write(chunk), close: () => {} });
      });
process.stdout.write(`${listener?.port}\n`);
process.stdin.resume().once('end', () => process.exit(0));
