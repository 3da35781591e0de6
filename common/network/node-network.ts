/**
 * `Network` on this machine's sockets. Every socket is `noDelay` (a mail dialogue is short lines both ways) and may be half-open
 * (a relay must be able to pass a half-close on).
 */
import { connect as connectTcp, createServer, isIP, type Server, type Socket } from 'node:net';
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect as connectTls,
  createSecureContext,
  createServer as createTlsServer,
  type PeerCertificate,
  TLSSocket,
} from 'node:tls';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
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

const connectTimeoutMs = 10_000;
const handshakeTimeoutMs = 20_000;

/** The real network. */
export const nodeNetwork: Network = { connect, listen };

function connect(options: ConnectOptions): Promise<Connection> {
  const where = options.path ?? `${options.host}:${options.port}`;
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
      tls === undefined ? connectTcp({ ...target, noDelay: true, allowHalfOpen: true }) : connectTls(tlsClientOptions(target, tls));
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new PlatformError('NET_TIMEOUT', `no connection to ${where} within ${options.timeoutMs ?? connectTimeoutMs} ms`));
    }, options.timeoutMs ?? connectTimeoutMs);
    socket.once('error', (error) => {
      clearTimeout(timer);
      const isTls = tls !== undefined && !('syscall' in error);
      reject(
        new PlatformError(isTls ? 'NET_TLS_FAILED' : 'NET_CONNECT_FAILED', `cannot connect to ${where}: ${messageOf(error)}`, {
          cause: error,
        }),
      );
    });
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      socket.setNoDelay(true);
      resolve(new NodeConnection(socket));
    });
  });
}

function listen(options: ListenOptions, accept: (connection: Connection) => void): Promise<Listener> {
  return new Promise((resolve, reject) => {
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
      server.on('tlsClientError', (_error: Error, socket: Socket) => socket.destroy());
    }
    const where = options.path ?? `${options.host ?? '127.0.0.1'}:${options.port ?? 0}`;
    server.once('error', (error) => {
      reject(new PlatformError('NET_CONNECT_FAILED', `cannot listen on ${where}: ${messageOf(error)}`, { cause: error }));
    });
    const target = options.path === undefined ? { host: options.host ?? '127.0.0.1', port: options.port ?? 0 } : { path: options.path };
    server.listen({ ...target, backlog: options.backlog ?? 4096 }, () => {
      server.removeAllListeners('error');
      // After binding, an accept error (EMFILE) is passing; the listener goes on.
      server.on('error', () => {});
      const bound = server.address();
      resolve({
        address: typeof bound === 'object' && bound !== null ? bound.address : where,
        port: typeof bound === 'object' && bound !== null ? bound.port : 0,
        close: () =>
          new Promise((closed) => {
            // `close` waits for open connections; the port itself is free at once, which is all that is promised here.
            server.close();
            setImmediate(closed);
          }),
      });
    });
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

function secureOptions(tls: TlsServerOptions) {
  return {
    cert: tls.cert,
    key: tls.key,
    minVersion: tls.minVersion ?? ('TLSv1.2' as const),
    requestCert: tls.requestCert ?? false,
    rejectUnauthorized: tls.rejectUnauthorized ?? tls.requestCert ?? false,
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
  };
}

class NodeConnection implements Connection {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  #socket: Socket;
  #handlers: ConnectionHandlers | undefined;
  #early: Buffer[] = [];
  #ended = false;
  #closed = false;
  #closeError: Error | undefined;
  #tls: TlsFacts | undefined;

  constructor(socket: Socket) {
    this.remoteAddress = (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
    this.remotePort = socket.remotePort ?? 0;
    this.localAddress = (socket.localAddress ?? '').replace(/^::ffff:/, '');
    this.localPort = socket.localPort ?? 0;
    this.#socket = socket;
    this.#tls = socket instanceof TLSSocket ? tlsFactsOf(socket) : undefined;
    this.#attach(socket);
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
    this.#early = [];
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
    if (!this.#socket.writable) return true;
    this.#socket.cork();
    let room = true;
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
    this.#socket.end();
  }

  destroy(error?: Error): void {
    this.#closeError ??= error;
    this.#socket.destroy();
  }

  startTls(options: TlsServerOptions): Promise<void> {
    return this.#secure('secure', (plain) => {
      return new TLSSocket(plain, {
        isServer: true,
        secureContext: createSecureContext(secureOptions(options)),
        requestCert: options.requestCert ?? false,
      });
    });
  }

  startTlsAsClient(options: TlsClientOptions): Promise<void> {
    return this.#secure('secureConnect', (plain) => connectTls(tlsClientOptions({ socket: plain }, options)));
  }

  #secure(readyEvent: 'secure' | 'secureConnect', wrap: (plain: Socket) => TLSSocket): Promise<void> {
    const plain = this.#socket;
    plain.removeAllListeners();
    plain.pause();
    // What was read but not handed on was sent in clear after the command: drop it.
    while (plain.read() !== null);
    return new Promise((resolve, reject) => {
      const secure = wrap(plain);
      const fail = (why: string): void => {
        clearTimeout(timer);
        secure.destroy();
        plain.destroy();
        reject(new PlatformError('NET_TLS_FAILED', `TLS handshake with ${this.remoteAddress} failed: ${why}`));
        this.#onClose(undefined);
      };
      const timer = setTimeout(() => fail(`nothing came within ${handshakeTimeoutMs} ms`), handshakeTimeoutMs);
      secure.once('error', (error) => fail(messageOf(error)));
      secure.once('close', () => fail('the peer hung up'));
      secure.once(readyEvent, () => {
        clearTimeout(timer);
        secure.removeAllListeners();
        this.#socket = secure;
        this.#tls = tlsFactsOf(secure);
        this.#attach(secure);
        resolve();
      });
    });
  }

  #attach(socket: Socket): void {
    socket.on('data', (chunk: Buffer) => {
      if (this.#handlers === undefined) {
        this.#early.push(chunk);
        // Nobody listens yet: hold the peer back after the first chunk.
        socket.pause();
        queueMicrotask(() => this.#handlers !== undefined && socket.resume());
      } else {
        this.#handlers.data(chunk);
      }
    });
    socket.on('end', () => {
      this.#ended = true;
      if (this.#handlers !== undefined) this.#onEnd();
    });
    socket.on('drain', () => this.#handlers?.drain?.());
    socket.on('error', (error) => {
      this.#closeError ??= error;
    });
    socket.on('close', () => this.#onClose(this.#closeError));
  }

  #onEnd(): void {
    if (this.#handlers?.end === undefined) this.#socket.end();
    else this.#handlers.end();
  }

  #onClose(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeError = error;
    this.#handlers?.close(error);
  }
}

function tlsFactsOf(socket: TLSSocket): TlsFacts {
  const certificate = socket.getPeerCertificate();
  // A peer that was let in without a verified certificate has no names.
  const names = socket.authorized ? (certificate?.subjectaltname ?? '') : '';
  return {
    protocol: socket.getProtocol() ?? '',
    cipher: socket.getCipher()?.name ?? '',
    serverName: typeof socket.servername === 'string' && socket.servername !== '' ? socket.servername : undefined,
    peerNames: names === '' ? [] : names.split(', ').map((name) => name.replace(/^(?:DNS|URI):/, '')),
  };
}
