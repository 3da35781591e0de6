/** `Network` by system calls of our own. What has a path instead of an address, or a name that is not one address, is led through Node where it must be. */
import { lookup } from 'node:dns/promises';
import { type Server, Socket } from 'node:net';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { SocketSource } from '#common/network/listening-sockets.ts';
import type { Connection, ConnectOptions, Listener, ListenOptions, Network, TlsServerOptions } from '#common/network/network.ts';
import { connectionOf, createNodeNetwork } from '#common/network/node-network.ts';
import { limitTime } from '#common/network/time-limit.ts';
import type { AcceptTrouble } from './accept-trouble.ts';
import { DirectConnection, type DirectParts, watchedEvents } from './direct-connection.ts';
import { type AcceptDescriptor, DirectServer } from './direct-server.ts';
import { eventPoll, type PolledSocket } from './event-poll.ts';
import { openSsl } from './openssl.ts';
import { Pipes } from './pipes.ts';
import { ReadBuffers } from './read-buffers.ts';
import { encodeSocketAddress } from './socket-address.ts';
import { errnos, linux, systemCalls } from './system-calls.ts';
import { systemError } from './system-error.ts';

const connectTimeoutMs = 10_000;
const one = Buffer.from(Int32Array.of(1).buffer);

/**
 * The network, or `undefined` where system calls are out of reach; sockets of listeners come from `sockets`.
 *
 * @param trouble told when connections cannot be accepted
 */
export function createDirectNetwork(sockets: SocketSource, trouble?: AcceptTrouble): Network | undefined {
  const calls = systemCalls();
  const poll = eventPoll();
  if (calls === undefined || poll === undefined || openSsl() === undefined) return undefined;
  return new DirectNetwork({ calls, poll, buffers: new ReadBuffers(calls), pipes: new Pipes(calls) }, sockets, trouble);
}

/** See the header of this file. */
export class DirectNetwork implements Network {
  readonly #parts: DirectParts;
  readonly #sockets: SocketSource;
  readonly #trouble: AcceptTrouble | undefined;
  /** For Unix sockets. */
  readonly #node: Network;

  constructor(parts: DirectParts, sockets: SocketSource, trouble: AcceptTrouble | undefined) {
    this.#parts = parts;
    this.#sockets = sockets;
    this.#trouble = trouble;
    this.#node = createNodeNetwork(sockets);
  }

  connect(options: ConnectOptions): Promise<Connection> {
    if (options.path !== undefined) return this.#node.connect(options);
    return new Promise((resolve, reject) => new Dialling(this.#parts, options, resolve, reject).begin());
  }

  async listen(options: ListenOptions, accept: (connection: Connection) => void): Promise<Listener> {
    if (options.path !== undefined) return this.#node.listen(options, accept);
    const { host = '127.0.0.1', port = 0, backlog, tls, turnedAway } = options;
    const take = (connection: Connection): void => {
      if (tls === undefined) accept(connection);
      else secure(connection, tls, accept, turnedAway);
    };
    const server = new DirectServer(
      this.#parts.calls,
      this.#parts.poll,
      (fd, remote, local) => {
        const connection = new DirectConnection(this.#parts, fd, remote, false, local);
        if (this.#parts.poll.add(fd, connection, watchedEvents)) take(connection);
        else this.#parts.calls.close(fd);
      },
      (socket) => take(connectionOf(socket)),
      this.#trouble,
    );
    try {
      const bound = await this.#sockets.listen(server, { host, port, ...(backlog === undefined ? {} : { backlog }) });
      // After binding, an error is passing; the listener goes on.
      server.on('error', () => {});
      return {
        ...bound,
        close: () =>
          new Promise((closed) => {
            server.close();
            // The descriptor goes at the end of the turn.
            setImmediate(() => setImmediate(closed));
          }),
      };
    } catch (error) {
      throw new PlatformError('NET_CONNECT_FAILED', `cannot listen on ${host}:${port}: ${messageOf(error)}`, { cause: error });
    }
  }

  serverFor(server: Server): Server {
    const { calls, poll } = this.#parts;
    let connections = 0;
    const handOver = (socket: Socket): void => {
      // As that server would, if it accepted.
      if (connections >= (server.maxConnections ?? Number.POSITIVE_INFINITY)) {
        socket.destroy();
        return;
      }
      connections += 1;
      socket.once('close', () => (connections -= 1));
      server.emit('connection', socket);
    };
    const accept: AcceptDescriptor = (fd) => handOver(new Socket({ fd, readable: true, writable: true }));
    const door = new DirectServer(calls, poll, accept, handOver, this.#trouble);
    // From then on a server for HTTP looks after the time that its clients take.
    door.on('listening', () => server.emit('listening'));
    return door;
  }
}

function secure(
  connection: Connection,
  tls: TlsServerOptions,
  accept: (connection: Connection) => void,
  turnedAway: ((remoteAddress: string, why: string) => void) | undefined,
): void {
  connection.startTls(tls).then(
    () => accept(connection),
    (error: Error) => {
      const cause = error.cause;
      // One that only went away is not turned away.
      if (cause instanceof Error && !('code' in cause)) turnedAway?.(connection.remoteAddress, cause.message);
    },
  );
}

/** A connection being made, from the look-up of its name to the end of its TLS handshake. Nothing is awaited: log-ins come by the thousand a second. */
class Dialling implements PolledSocket {
  readonly #parts: DirectParts;
  readonly #options: ConnectOptions;
  readonly #host: string;
  readonly #port: number;
  readonly #resolve: (connection: Connection) => void;
  readonly #reject: (error: PlatformError) => void;
  readonly #cancelLimit: () => void;
  /** Those of a name that are still to be tried. */
  #addresses: string[] = [];
  #address = '';
  #fd = -1;
  #connection: DirectConnection | undefined;
  #isOver = false;

  constructor(
    parts: DirectParts,
    options: ConnectOptions,
    resolve: (connection: Connection) => void,
    reject: (error: PlatformError) => void,
  ) {
    this.#parts = parts;
    this.#options = options;
    this.#host = options.host ?? '127.0.0.1';
    this.#port = options.port ?? 0;
    this.#resolve = resolve;
    this.#reject = reject;
    const limitMs = options.timeoutMs ?? connectTimeoutMs;
    this.#cancelLimit = limitTime(limitMs, () => {
      this.#finish(new PlatformError('NET_TIMEOUT', `no connection to ${this.#where} within ${limitMs} ms`));
    });
  }

  get #where(): string {
    return `${this.#host}:${this.#port}`;
  }

  begin(): void {
    const bytes = encodeSocketAddress(this.#host, this.#port);
    if (bytes !== undefined) {
      this.#try(this.#host, bytes);
      return;
    }
    lookup(this.#host, { all: true }).then(
      (found) => {
        this.#addresses = found.map(({ address }) => address);
        this.#tryNext(new Error('the name has no address'));
      },
      (error: Error) => this.#failed(error),
    );
  }

  onEvents(events: number): void {
    if (this.#isOver) return;
    const errno = (events & (linux.epollError | linux.epollHangUp)) === 0 ? 0 : this.#errorOf();
    if (errno !== 0) {
      this.#parts.poll.close(this.#fd);
      this.#tryNext(systemError('connect', errno, `${this.#address}:${this.#port}`));
      return;
    }
    const connection = new DirectConnection(this.#parts, this.#fd, { address: this.#address, port: this.#port }, true);
    this.#connection = connection;
    this.#parts.poll.replace(this.#fd, connection);
    // Whatever else has happened since is the connection's.
    connection.onEvents(events);
    const { tls } = this.#options;
    if (tls === undefined) {
      this.#finish(undefined);
      return;
    }
    connection.startTlsAsClient(tls).then(
      () => this.#finish(undefined),
      ({ cause }: { readonly cause: Error }) => {
        const code = 'syscall' in cause ? 'NET_CONNECT_FAILED' : 'NET_TLS_FAILED';
        this.#finish(new PlatformError(code, `cannot connect to ${this.#where}: ${messageOf(cause)}`, { cause }));
      },
    );
  }

  onTurn(): void {}

  #finish(error: PlatformError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelLimit();
    if (error === undefined) {
      this.#resolve(this.#connection as DirectConnection);
      return;
    }
    if (this.#connection !== undefined) this.#connection.destroy();
    else if (this.#fd >= 0) this.#parts.poll.close(this.#fd);
    this.#reject(error);
  }

  #failed(error: Error): void {
    this.#finish(new PlatformError('NET_CONNECT_FAILED', `cannot connect to ${this.#where}: ${messageOf(error)}`, { cause: error }));
  }

  /** A name may have several addresses, and one is enough. */
  #tryNext(error: Error): void {
    this.#fd = -1;
    const next = this.#addresses.shift();
    const bytes = next === undefined || this.#isOver ? undefined : encodeSocketAddress(next, this.#port);
    if (next === undefined || bytes === undefined) this.#failed(error);
    else this.#try(next, bytes);
  }

  #try(address: string, to: Buffer): void {
    const { calls } = this.#parts;
    this.#address = address;
    const fd = calls.socket(to.readUInt16LE(0), linux.sockStream | linux.sockNonBlocking | linux.sockCloseOnExec, 0);
    if (fd < 0) {
      this.#tryNext(systemError('socket', calls.errno()));
      return;
    }
    calls.setSocketOption(fd, linux.levelTcp, linux.optionNoDelay, one, one.length);
    const error = this.#start(fd, to);
    if (error === undefined) {
      this.#fd = fd;
      return;
    }
    calls.close(fd);
    this.#tryNext(error);
  }

  #start(fd: number, to: Buffer): Error | undefined {
    const { calls, poll } = this.#parts;
    const { localAddress } = this.#options;
    const failure = (syscall: string): Error => systemError(syscall, calls.errno(), `${this.#address}:${this.#port}`);
    if (localAddress !== undefined) {
      const from = encodeSocketAddress(localAddress, 0);
      if (from === undefined) return new Error(`${localAddress} is no address to connect from`);
      if (calls.bind(fd, from, from.length) < 0) return failure('bind');
    }
    if (calls.connect(fd, to, to.length) < 0 && calls.errno() !== errnos.inProgress) return failure('connect');
    return poll.add(fd, this, watchedEvents | linux.epollOut) ? undefined : failure('epoll_ctl');
  }

  #errorOf(): number {
    const value = Buffer.alloc(4);
    const length = Buffer.from(Int32Array.of(4).buffer);
    this.#parts.calls.getSocketOption(this.#fd, linux.levelSocket, linux.optionError, value, length);
    return value.readInt32LE();
  }
}
