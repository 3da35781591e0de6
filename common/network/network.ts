/**
 * Connections, as the rest of the code is given them. The real ones are in node-network.ts; the simulator brings its own.
 *
 * A connection calls its handlers from the event loop, never from inside a call made to it. Writes are queued by the connection;
 * the one who writes watches `bufferedBytes` or the result of `write` and stops reading from the other side until `drain`.
 */
import type { Server } from 'node:net';

/** What is known of a TLS session once its handshake is over. */
export interface TlsFacts {
  readonly protocol: string;
  readonly cipher: string;
  /** Server name that the client asked for (SNI), if any. */
  readonly serverName: string | undefined;
  /** DNS and URI names in the verified peer certificate; empty when the peer showed none. */
  readonly peerNames: readonly string[];
  /** What binds a login to this connection, `tls-exporter` (RFC 9266); missing before TLS 1.3, where it would not be unique. */
  readonly channelBinding?: () => Buffer;
}

/** What a connection reports. Handlers may be replaced at any time by `handle`. */
export interface ConnectionHandlers {
  /** Bytes came. The buffer belongs to the handler. */
  data(chunk: Buffer): void;
  /**
   * Called instead of `data`, by a connection that lends what it reads, while `holdsLent` says no: the buffer is valid until this returns, and longer
   * if it says yes by then.
   */
  lent?(chunk: Buffer): void;
  /** Whether anything that was lent, or passed on before, is still needed. */
  holdsLent?(): boolean;
  /**
   * The connection to which all that comes is written, unchanged and at once. It may then be sent there without being shown here, except for the end of
   * what there is at a time. Asked for each time; a connection that cannot do that does not ask.
   */
  passesTo?(): Connection;
  /** So many octets went that way. `hasRoom` is what `write` would have returned. */
  passed?(count: number, hasRoom: boolean): void;
  /** The peer will send no more (half-close). Without this handler the connection is ended in turn. */
  end?(): void;
  /** All that was written has been handed to the system; write on. */
  drain?(): void;
  /** The connection is gone; called exactly once, last of all. `error` is set when it did not end in good order. */
  close(error: Error | undefined): void;
}

/** Server-side TLS: PEM texts and what to ask of the peer. */
export interface TlsServerOptions {
  readonly cert: string;
  readonly key: string;
  /** PEM of the CAs that may sign client certificates; set when `requestCert` is. */
  readonly ca?: string;
  readonly requestCert?: boolean;
  readonly rejectUnauthorized?: boolean;
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3';
  /** Shown instead of `cert` to clients that ask for one of its names (RFC 6066 §3), which are those in the certificate. */
  readonly further?: readonly { readonly cert: string; readonly key: string }[];
  /** 48 bytes by which sessions are resumed, here and on every server that has the same (RFC 5077, RFC 8446 §2.2). */
  readonly ticketKey?: Buffer;
  /** Changes whenever anything above does, for options that are read anew while they are in use. */
  readonly version?: string;
}

/** Client-side TLS. */
export interface TlsClientOptions {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Name the peer's certificate must carry. */
  readonly serverName: string;
}

/** One stream connection, plain or under TLS. */
export interface Connection {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  /** Set while the connection runs under TLS. */
  readonly tls: TlsFacts | undefined;
  /** Bytes written that the system has not taken yet. */
  readonly bufferedBytes: number;
  /** The connection that this one stands before, with other addresses and the very same octets. */
  readonly carrier?: Connection;
  /** Whether the memory of what was written is the writer's again as soon as `bufferedBytes` is 0. */
  readonly returnsWritten?: boolean;
  /** Takes over the events of this connection. Data that came before the first call is kept. */
  handle(handlers: ConnectionHandlers): void;
  /** Asked for while a piece is handed over: nothing but the peer's end comes behind it, and that at once. Missing where it cannot be known. */
  readonly endsNext?: boolean;
  /**
   * Queues bytes; `false` asks the writer to wait for `drain`. After close it does nothing.
   *
   * @param isLast `end` or `finish` is called next, and at once: what is written may be kept for it, a fifth of a second at most, to travel with it
   */
  write(bytes: Uint8Array | string, isLast?: boolean): boolean;
  /** Several writes in one system call; the handlers see nothing of it. */
  writeAll(parts: readonly Uint8Array[]): boolean;
  pause(): void;
  resume(): void;
  /** Sends what is queued, then a half-close. */
  end(): void;
  /**
   * As `end`, by one whose protocol is over and to whom it does not matter what the peer still says: where that has said nothing, the connection is closed
   * as a whole once the system has what is queued. Returns whether it is closed by now. Missing where `end` is all there is.
   */
  finish?(): boolean;
  /** Drops the connection and what is queued. */
  destroy(error?: Error): void;
  /**
   * Server side of STARTTLS: bytes that came after the command are thrown away, so that nothing injected in clear survives
   * (RFC 9051 §6.2.1, RFC 3207 §4.2). Rejects with `NET_TLS_FAILED`. The handlers stay.
   *
   * @param early where TLS comes first and something stood before it: bytes that were read with that; then nothing is thrown away
   */
  startTls(options: TlsServerOptions, early?: Buffer): Promise<void>;
  /**
   * Client side of STARTTLS, once the server has agreed. Bytes that came after its answer are thrown away. Rejects with `NET_TLS_FAILED`.
   * The handlers stay. Missing on connections that are no sockets of their own.
   */
  startTlsAsClient?(options: TlsClientOptions): Promise<void>;
}

/** An open listener. */
export interface Listener {
  readonly address: string;
  readonly port: number;
  /** Stops accepting; open connections go on. Resolves once the port is free. */
  close(): Promise<void>;
}

/** Where to listen: an address with a port (0 chooses one), or a socket path. */
export interface ListenOptions {
  readonly host?: string;
  readonly port?: number;
  readonly path?: string;
  /** With `path`: only processes of this process's user may connect. */
  readonly ownUserOnly?: boolean;
  /** Implicit TLS. */
  readonly tls?: TlsServerOptions;
  /** Connections in the system's accept queue; default 4096. */
  readonly backlog?: number;
  /** With TLS: a client was turned away in the handshake, and why. Not called for one that only went away. */
  readonly turnedAway?: (remoteAddress: string, why: string) => void;
}

/** Where to connect. */
export interface ConnectOptions {
  readonly host?: string;
  readonly port?: number;
  readonly path?: string;
  readonly tls?: TlsClientOptions;
  /** Whole time for connect and TLS handshake, milliseconds; default 10,000. */
  readonly timeoutMs?: number;
  /** Local address to connect from. */
  readonly localAddress?: string;
}

/** Makes and accepts connections. */
export interface Network {
  /** Rejects with `NET_CONNECT_FAILED`, `NET_TIMEOUT` or `NET_TLS_FAILED`. */
  connect(options: ConnectOptions): Promise<Connection>;
  /** Rejects with `NET_CONNECT_FAILED` when the address cannot be bound. With TLS, `accept` is called once the handshake is over. */
  listen(options: ListenOptions, accept: (connection: Connection) => void): Promise<Listener>;
  /**
   * What is to listen in place of a server of Node's, which a library has made for itself: it accepts as this network does, and that server gets the
   * connections as Node's sockets, `maxConnections` of them at once. Missing where it would be no different.
   */
  serverFor?(server: Server): Server;
}
