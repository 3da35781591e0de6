/**
 * `Network` on this machine's sockets. Every socket is `noDelay` (a mail dialogue is short lines both ways) and may be half-open
 * (a relay must be able to pass a half-close on).
 */
import { connect as connectTcp, createServer, isIP, type Server, type Socket } from 'node:net';
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect as connectTls,
  createServer as createTlsServer,
  type PeerCertificate,
  type SecureContext,
  TLSSocket,
} from 'node:tls';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import { backlogDefault, boundAnew, type SocketSource } from '#common/network/listening-sockets.ts';
import type {
  Connection,
  ConnectionHandlers,
  ConnectOptions,
  Listener,
  ListenOptions,
  Network,
  TlsClientOptions,
  TlsFacts,
  TlsServerOptions,
} from '#common/network/network.ts';
import { contextFor, contextsOf, secureOptions, tlsFactsOf } from './secure-contexts.ts';
import { limitTime } from './time-limit.ts';

const connectTimeoutMs = 10_000;
const handshakeTimeoutMs = 20_000;
/** Most connections never have any to keep. */
const noBuffers: Buffer[] = [];

/** The real network. */
export const nodeNetwork: Network = createNodeNetwork(boundAnew);

/** The real network, with listeners' sockets from this source. */
export function createNodeNetwork(sockets: SocketSource): Network {
  return { connect, listen: (options, accept) => listen(sockets, options, accept) };
}

/** A connection on a socket of Node's that somebody else accepted. */
export function connectionOf(socket: Socket): Connection {
  return new NodeConnection(socket);
}

function connect(options: ConnectOptions): Promise<Connection> {
  const where = options.path ?? `${options.host ?? '127.0.0.1'}:${options.port}`;
  return new Promise((resolve, reject) => {
    const target =
      options.path === undefined
        ? {
            host: options.host ?? '127.0.0.1',
            port: options.port ?? 0,
            ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
          }
        : { path: options.path };
    const tls = options.tls;
    const socket: Socket =
      tls === undefined
        ? connectTcp({
            ...target,
            noDelay: true,
            allowHalfOpen: true,
          })
        : connectTls(tlsClientOptions(target, tls));
    const failed = (error: Error): void => {
      cancelLimit();
      const isTls = tls !== undefined && !('syscall' in error);
      reject(
        new PlatformError(isTls ? 'NET_TLS_FAILED' : 'NET_CONNECT_FAILED', `cannot connect to ${where}: ${messageOf(error)}`, {
          cause: error,
        }),
      );
    };
    const limitMs = options.timeoutMs ?? connectTimeoutMs;
    const cancelLimit = limitTime(limitMs, () => {
      socket.destroy();
      reject(new PlatformError('NET_TIMEOUT', `no connection to ${where} within ${limitMs} ms`));
    });
    socket.on('error', failed);
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
      cancelLimit();
      socket.off('error', failed);
      if (tls !== undefined) socket.setNoDelay(true);
      resolve(new NodeConnection(socket));
    });
  });
}

async function listen(sockets: SocketSource, options: ListenOptions, accept: (connection: Connection) => void): Promise<Listener> {
  const tls = options.tls;
  const server: Server =
    tls === undefined
      ? createServer({ noDelay: true, allowHalfOpen: true }, (socket) => accept(new NodeConnection(socket)))
      : createTlsServer({ ...secureOptions(tls), allowHalfOpen: true, handshakeTimeout: handshakeTimeoutMs }, (socket) => {
          socket.setNoDelay(true);
          accept(new NodeConnection(socket));
        });
  if (tls !== undefined) {
    server.on('connection', (socket: Socket) => socket.setNoDelay(true));
    // A failed handshake concerns that client only; the socket is already being torn down.
    server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
      // Node closes on a certificate that it does not accept, and then reports a reset.
      const why = String(socket.authorizationError ?? errnoOf(error));
      if (why !== 'ECONNRESET') options.turnedAway?.(plainAddress(socket.remoteAddress), why);
      socket.destroy();
    });
    // By then the address would be gone. A socket keeps it once it was asked, and in a handshake this is the only occasion.
    if (options.turnedAway !== undefined) server.on('keylog', (_secret: Buffer, socket: TLSSocket) => void socket.remoteAddress);
  }
  const where = options.path ?? `${options.host ?? '127.0.0.1'}:${options.port ?? 0}`;
  try {
    const bound =
      options.path === undefined
        ? await sockets.listen(server, {
            host: options.host ?? '127.0.0.1',
            port: options.port ?? 0,
            ...(options.backlog === undefined ? {} : { backlog: options.backlog }),
          })
        : await listenAtPath(server, options.path, options);
    // After binding, an accept error (EMFILE) is passing; the listener goes on.
    server.on('error', () => {});
    return {
      ...bound,
      close: () =>
        new Promise((closed) => {
          // `close` waits for open connections; the port itself is free at once, which is all that is promised here.
          server.close();
          setImmediate(closed);
        }),
    };
  } catch (error) {
    throw new PlatformError('NET_CONNECT_FAILED', `cannot listen on ${where}: ${messageOf(error)}`, { cause: error });
  }
}

function listenAtPath(server: Server, path: string, options: ListenOptions): Promise<{ address: string; port: number }> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // The file of a Unix socket is made within this call, so at no moment with more rights than these.
    const umask = options.ownUserOnly === true ? process.umask(0o177) : undefined;
    server.listen({ path, backlog: options.backlog ?? backlogDefault }, () => {
      server.off('error', reject);
      resolve({ address: path, port: 0 });
    });
    if (umask !== undefined) process.umask(umask);
  });
}

// `allowHalfOpen` is documented for tls.connect and missing in its types.
function tlsClientOptions(target: object, tls: TlsClientOptions): ConnectionOptions & { allowHalfOpen: boolean } {
  return {
    ...target,
    // An address is no server name (RFC 6066 §3); the certificate must name it all the same.
    servername: isIP(tls.serverName) === 0 ? tls.serverName : '',
    checkServerIdentity: (_host: string, certificate: PeerCertificate) => checkServerIdentity(tls.serverName, certificate),
    allowHalfOpen: true,
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.cert === undefined || tls.key === undefined ? {} : { cert: tls.cert, key: tls.key }),
  };
}

class NodeConnection implements Connection {
  readonly returnsWritten = true;
  readonly remoteAddress: string;
  #localAddress: string | undefined;
  #socket: Socket;
  #handlers: ConnectionHandlers | undefined;
  #early: Buffer[] = noBuffers;
  #ended = false;
  #closed = false;
  #closeError: Error | undefined;
  #tls: TlsFacts | undefined;

  constructor(socket: Socket) {
    this.remoteAddress = plainAddress(socket.remoteAddress);
    this.#socket = socket;
    if (socket instanceof TLSSocket) this.#tls = tlsFactsOf(socket);
    this.#attach(socket);
  }

  get remotePort(): number {
    return this.#socket.remotePort ?? 0;
  }

  // Costs a system call, and few ask.
  get localAddress(): string {
    this.#localAddress ??= plainAddress(this.#socket.localAddress);
    return this.#localAddress;
  }

  get localPort(): number {
    return this.#socket.localPort ?? 0;
  }

  get tls(): TlsFacts | undefined {
    return this.#tls;
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength;
  }

  handle(handlers: ConnectionHandlers): void {
    this.#handlers = handlers;
    if (this.#early.length === 0 && !this.#ended && !this.#closed) return;
    const early = this.#early;
    this.#early = noBuffers;
    queueMicrotask(() => {
      for (const chunk of early) this.#handlers?.data(chunk);
      if (this.#ended) this.#onEnd();
      if (this.#closed) this.#handlers?.close(this.#closeError);
    });
  }

  write(bytes: Uint8Array | string): boolean {
    return this.#socket.writable ? this.#socket.write(bytes) : true;
  }

  writeAll(parts: readonly Uint8Array[]): boolean {
    let room = true;
    if (!this.#socket.writable) return true;
    this.#socket.cork();
    for (const part of parts) room = this.#socket.write(part);
    this.#socket.uncork();
    return room;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    // Ending twice makes an error with its stack, which nobody is told, at a measurable cost per session.
    if (this.#socket.writableEnded || this.#socket.destroyed) return;
    this.#socket.end();
  }

  destroy(error?: Error): void {
    this.#closeError ??= error;
    this.#socket.destroy();
  }

  startTls(options: TlsServerOptions, early?: Buffer): Promise<void> {
    const contexts = contextsOf(options);
    const SNICallback = (name: string, answer: (error: null, context: SecureContext) => void): void =>
      answer(null, contextFor(contexts, name));
    return this.#secure((plain, done) => {
      if (options.requestCert === true) {
        // Only a server verifies what clients show; it is given this one connection (node:tls, event `connection`).
        const server = createTlsServer({ ...contexts.shared, SNICallback });
        server.once('secureConnection', (secure) => done(undefined, secure));
        server.once('tlsClientError', (error, secure) => done(error, secure));
        server.emit('connection', plain);
        return undefined;
      }
      const secure = new TLSSocket(plain, {
        isServer: true,
        secureContext: contexts.first,
        ...(contexts.further.length === 0 ? {} : { SNICallback }),
      });
      secure.once('secure', () => done(undefined, secure));
      return secure;
    }, early);
  }

  startTlsAsClient(options: TlsClientOptions): Promise<void> {
    return this.#secure((plain, done) => {
      const secure = connectTls(tlsClientOptions({ socket: plain }, options));
      secure.once('secureConnect', () => done(undefined, secure));
      return secure;
    });
  }

  #secure(
    wrap: (plain: Socket, done: (error: Error | undefined, secure: TLSSocket) => void) => TLSSocket | undefined,
    early?: Buffer,
  ): Promise<void> {
    const plain = this.#socket;
    this.#detach(plain);
    plain.pause();
    // What was read but not handed on was sent in clear after the command: drop it.
    const read: Buffer[] = [];
    for (let chunk: Buffer | null = plain.read(); chunk !== null; chunk = plain.read()) read.push(chunk);
    const kept = early === undefined ? [] : [early, ...read].filter(({ length }) => length > 0);
    if (kept.length > 0) plain.unshift(Buffer.concat(kept));
    return new Promise((resolve, reject) => {
      let isOver = false;
      const fail = (why: string, secure: TLSSocket | undefined): void => {
        if (isOver) return;
        isOver = true;
        cancelLimit();
        secure?.on('error', () => {});
        secure?.destroy();
        plain.destroy();
        reject(new PlatformError('NET_TLS_FAILED', `TLS handshake with ${this.remoteAddress} failed: ${why}`));
        this.#onClose(undefined);
      };
      const cancelLimit = limitTime(handshakeTimeoutMs, () => fail(`nothing came within ${handshakeTimeoutMs} ms`, wrapped));
      const wrapped = wrap(plain, (error, secure) => {
        if (error !== undefined) {
          fail(messageOf(error), secure);
          return;
        }
        isOver = true;
        cancelLimit();
        secure.removeAllListeners('error').removeAllListeners('close');
        this.#socket = secure;
        this.#tls = tlsFactsOf(secure);
        this.#attach(secure);
        resolve();
      });
      wrapped?.once('error', (error) => fail(messageOf(error), wrapped));
      wrapped?.once('close', () => fail('the peer hung up', wrapped));
      plain.once('close', () => fail('the peer hung up', wrapped));
      // Reported by the TLS socket, or by the end.
      plain.on('error', () => {});
    });
  }

  #attach(socket: Socket): void {
    (socket as OwnedSocket)[owner] = this;
    socket.on('data', onData);
    socket.on('end', onEnd);
    socket.on('drain', onDrain);
    socket.on('error', onError);
    socket.on('close', onClose);
  }

  // Only our own: TLS on a socket whose other listeners are gone never sees what was put back before it.
  #detach(socket: Socket): void {
    socket.off('data', onData);
    socket.off('end', onEnd);
    socket.off('drain', onDrain);
    socket.off('error', onError);
    socket.off('close', onClose);
  }

  onSocketData(socket: Socket, chunk: Buffer): void {
    if (this.#handlers !== undefined) {
      this.#handlers.data(chunk);
      return;
    }
    if (this.#early === noBuffers) this.#early = [];
    this.#early.push(chunk);
    // Nobody listens yet: hold the peer back after the first chunk.
    socket.pause();
    queueMicrotask(() => this.#handlers !== undefined && socket.resume());
  }

  onSocketEnd(): void {
    this.#ended = true;
    if (this.#handlers !== undefined) this.#onEnd();
  }

  onSocketDrain(): void {
    this.#handlers?.drain?.();
  }

  onSocketError(error: Error): void {
    this.#closeError ??= error;
  }

  onSocketClose(): void {
    this.#onClose(this.#closeError);
  }

  #onEnd(): void {
    if (this.#handlers?.end === undefined) this.end();
    else this.#handlers.end();
  }

  #onClose(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeError = error;
    this.#handlers?.close(error);
  }
}

/** Where a socket says whose it is: its listeners are functions that all sockets share. */
const owner = Symbol('connection');
type OwnedSocket = Socket & { [owner]?: NodeConnection };

function onData(this: OwnedSocket, chunk: Buffer): void {
  this[owner]?.onSocketData(this, chunk);
}

function onEnd(this: OwnedSocket): void {
  this[owner]?.onSocketEnd();
}

function onDrain(this: OwnedSocket): void {
  this[owner]?.onSocketDrain();
}

function onError(this: OwnedSocket, error: Error): void {
  this[owner]?.onSocketError(error);
}

function onClose(this: OwnedSocket): void {
  this[owner]?.onSocketClose();
}

/** An IPv4 address without what stands before it on a socket for both kinds. */
function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}
