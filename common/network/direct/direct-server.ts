/**
 * A listening socket of ours, in the shape of Node's server: Node binds it, takes it over from another process and passes it on, as
 * listening-sockets.ts has it; the connections are accepted here.
 *
 * As soon as Node's server listens, its descriptor is found and duplicated, and Node's is closed: the socket in the system is the same one. To be
 * passed on it is given to one of Node's servers again, for as long as that takes.
 */
import { Server, type Socket } from 'node:net';
import type { AcceptTrouble } from './accept-trouble.ts';
import type { EventPoll, PolledSocket } from './event-poll.ts';
import { decodeSocketAddress, type IpEndpoint, socketAddressBytes } from './socket-address.ts';
import { errnos, linux, type SystemCalls } from './system-calls.ts';

/** Connections accepted in one turn. */
const acceptedPerTurn = 64;
/** Time until the next attempt after one that failed. */
const pauseMs = 100;
/** Listening anew sets the length of the system's queue anew. */
const passedBacklog = 4_096;
/** Descriptors that are looked through for one that listens. */
const descriptorsMax = 1_048_576;
const wildcards: readonly string[] = ['0.0.0.0', '::'];

/** Takes a connection that was accepted; its descriptor is the taker's. `local` is known where the server listens at one address only. */
export type AcceptDescriptor = (fd: number, remote: IpEndpoint, local: IpEndpoint | undefined) => void;

/** See the header of this file. */
export class DirectServer extends Server implements PolledSocket {
  readonly #calls: SystemCalls;
  readonly #poll: EventPoll;
  readonly #accept: AcceptDescriptor;
  readonly #acceptSocket: (socket: Socket) => void;
  readonly #trouble: AcceptTrouble | undefined;
  readonly #peer = Buffer.alloc(socketAddressBytes);
  readonly #peerLength = Buffer.from(Int32Array.of(socketAddressBytes).buffer);
  #fd: number | undefined;
  #bound: { readonly address: string; readonly family: string; readonly port: number } | undefined;
  #local: IpEndpoint | undefined;
  #pause: NodeJS.Timeout | undefined;

  /**
   * @param acceptSocket takes what one of Node's servers accepts while the socket is passed on
   * @param trouble told when connections cannot be accepted
   */
  constructor(
    calls: SystemCalls,
    poll: EventPoll,
    accept: AcceptDescriptor,
    acceptSocket: (socket: Socket) => void,
    trouble: AcceptTrouble | undefined,
  ) {
    super({ noDelay: true, allowHalfOpen: true }, acceptSocket);
    this.#calls = calls;
    this.#poll = poll;
    this.#accept = accept;
    this.#acceptSocket = acceptSocket;
    this.#trouble = trouble;
    this.on('listening', () => this.#takeOver());
    Object.defineProperty(this, 'listening', { get: () => this.#fd !== undefined || super.address() !== null });
  }

  override address(): ReturnType<Server['address']> {
    return this.#fd === undefined ? super.address() : (this.#bound ?? null);
  }

  override close(closed?: (error?: Error) => void): this {
    if (this.#fd === undefined) return super.close(closed);
    const fd = this.#fd;
    this.#fd = undefined;
    clearTimeout(this.#pause);
    this.#poll.closeShared(fd);
    setImmediate(() => {
      this.emit('close');
      closed?.();
    });
    return this;
  }

  /** The socket as one of Node's servers, to be sent to another process and closed then. */
  async toSend(): Promise<Server> {
    if (this.#fd === undefined) throw new Error('the server does not listen');
    const fd = this.#calls.fileControl(this.#fd, linux.duplicateCloseOnExec, 0);
    const server = new Server({ noDelay: true, allowHalfOpen: true }, this.#acceptSocket);
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen({ fd, backlog: passedBacklog }, resolve));
    return server;
  }

  onEvents(): void {
    for (let i = 0; i < acceptedPerTurn && this.#fd !== undefined; i += 1) {
      const fd = this.#calls.accept4(this.#fd, this.#peer, this.#peerLength, linux.sockNonBlocking | linux.sockCloseOnExec);
      if (fd >= 0) {
        this.#accept(fd, decodeSocketAddress(this.#peer), this.#local);
        continue;
      }
      const errno = this.#calls.errno();
      // A client that has gone again.
      if (errno === errnos.connectionAborted || errno === errnos.interrupted) continue;
      // Out of descriptors or memory, or what else may last: the event would come again at once.
      if (errno !== errnos.again) {
        this.#trouble?.failed(errno, `${this.#bound?.address}:${this.#bound?.port}`);
        this.#rest(this.#fd);
      }
      return;
    }
  }

  onTurn(): void {}

  /** Nothing can be accepted for the moment; the system keeps those who come. */
  #rest(fd: number): void {
    this.#poll.change(fd, 0);
    this.#pause = setTimeout(() => this.#poll.change(fd, linux.epollIn), pauseMs);
  }

  #takeOver(): void {
    const bound = super.address();
    if (bound === null || typeof bound === 'string') return;
    const listening = findListening(this.#calls, bound.address, bound.port);
    // Then Node accepts, and hands over sockets of its own.
    if (listening === undefined) return;
    const fd = this.#calls.fileControl(listening, linux.duplicateCloseOnExec, 0);
    if (fd < 0) return;
    const one = Buffer.from(Int32Array.of(1).buffer);
    // What it accepts has this from the beginning.
    this.#calls.setSocketOption(fd, linux.levelTcp, linux.optionNoDelay, one, one.length);
    if (!this.#poll.add(fd, this, linux.epollIn)) {
      this.#calls.close(fd);
      return;
    }
    this.#bound = bound;
    if (!wildcards.includes(bound.address)) this.#local = { address: bound.address.replace(/^::ffff:(?=\d+\.)/, ''), port: bound.port };
    // Node's `close` asks whether this server listens, so it comes first; and it waits for no connections, as there are none.
    Server.prototype.close.call(this);
    this.#fd = fd;
  }
}

/** The descriptor of a socket of this process that listens at an address. */
function findListening(calls: SystemCalls, address: string, port: number): number | undefined {
  const value = Buffer.alloc(4);
  const bytes = Buffer.alloc(socketAddressBytes);
  const length = Buffer.alloc(4);
  const wanted = address.startsWith('::ffff:') ? address.slice(7) : address;
  for (let fd = 3, missing = 0; fd < descriptorsMax && missing < 4_096; fd += 1) {
    length.writeInt32LE(4);
    if (calls.getSocketOption(fd, linux.levelSocket, linux.optionAcceptsConnections, value, length) < 0) {
      missing = calls.errno() === errnos.badDescriptor ? missing + 1 : 0;
      continue;
    }
    missing = 0;
    if (value.readInt32LE() === 0) continue;
    length.writeInt32LE(socketAddressBytes);
    calls.getSocketName(fd, bytes, length);
    const found = decodeSocketAddress(bytes);
    if (found.port === port && found.address === wanted) return fd;
  }
  return undefined;
}
