/**
 * A connection that came through a load balancer: the same bytes, but the client's addresses and TLS facts as the PROXY header gave them
 * (protocol/proxy/header.ts).
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, ConnectionHandlers, TlsClientOptions, TlsFacts, TlsServerOptions } from '#common/network/network.ts';
import { ProxyDecoder, type ProxyHeader } from '#protocol/proxy/header.ts';

/** Time for a load balancer to send its header, milliseconds. */
export const proxyHeaderMs = 5000;

/**
 * Reads the header. Resolves with the connection as its client's, nothing of which has been read; rejects with `PROTO_SYNTAX` or `NET_*`, with
 * the connection destroyed.
 */
export function readProxyHeader(connection: Connection, clock: Clock): Promise<Connection> {
  const decoder = new ProxyDecoder();
  return new Promise((resolve, reject) => {
    const fail = (error: PlatformError): void => {
      timer.cancel();
      connection.handle({ data: () => {}, close: () => {} });
      connection.destroy();
      reject(error);
    };
    const from = connection.remoteAddress;
    const timer = clock.after(proxyHeaderMs, () =>
      fail(
        new PlatformError('NET_TIMEOUT', `${from} sent no PROXY header within ${proxyHeaderMs} ms; is it a load balancer that sends one?`),
      ),
    );
    connection.handle({
      data: (chunk) => {
        const result = decoder.push(chunk);
        if (result.kind === 'more') return;
        if (result.kind === 'bad') {
          fail(new PlatformError('PROTO_SYNTAX', `${from} is configured as a load balancer that sends a PROXY header: ${result.reason}`));
          return;
        }
        timer.cancel();
        connection.pause();
        resolve(new ProxiedConnection(connection, result.header, result.rest));
      },
      close: () => fail(new PlatformError('NET_CLOSED', `${from} hung up before its PROXY header was whole`)),
    });
  });
}

class ProxiedConnection implements Connection {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly #inner: Connection;
  readonly #tls: TlsFacts | undefined;
  /** What came in one piece with the header. */
  readonly #early: Buffer;
  #isUntouched = true;
  #isPaused = false;
  #handlers: ConnectionHandlers | undefined;

  constructor(inner: Connection, header: ProxyHeader, early: Buffer) {
    const { client, tls } = header;
    this.#inner = inner;
    this.#early = early;
    this.remoteAddress = client?.sourceAddress ?? inner.remoteAddress;
    this.remotePort = client?.sourcePort ?? inner.remotePort;
    this.localAddress = client?.destinationAddress ?? inner.localAddress;
    this.localPort = client?.destinationPort ?? inner.localPort;
    this.#tls =
      tls === undefined
        ? undefined
        : {
            protocol: tls.protocol,
            cipher: tls.cipher,
            serverName: tls.serverName,
            peerNames: tls.commonName === undefined ? [] : [tls.commonName],
          };
  }

  get tls(): TlsFacts | undefined {
    return this.#inner.tls ?? this.#tls;
  }

  get returnsWritten(): boolean {
    return this.#inner.returnsWritten === true;
  }

  get carrier(): Connection {
    return this.#inner;
  }

  get bufferedBytes(): number {
    return this.#inner.bufferedBytes;
  }

  handle(handlers: ConnectionHandlers): void {
    const isFirst = this.#handlers === undefined;
    this.#handlers = handlers;
    this.#inner.handle(handlers);
    if (!isFirst) return;
    queueMicrotask(() => {
      if (!this.#isUntouched) return;
      this.#isUntouched = false;
      if (this.#early.length > 0) this.#handlers?.data(this.#early);
      if (!this.#isPaused) this.#inner.resume();
    });
  }

  write(bytes: Uint8Array | string, isLast?: boolean): boolean {
    return this.#inner.write(bytes, isLast);
  }
  writeAll(parts: readonly Uint8Array[]): boolean {
    return this.#inner.writeAll(parts);
  }
  pause(): void {
    this.#isPaused = true;
    this.#inner.pause();
  }
  resume(): void {
    this.#isPaused = false;
    this.#inner.resume();
  }
  end(): void {
    this.#inner.end();
  }
  finish(): boolean {
    if (this.#inner.finish !== undefined) return this.#inner.finish();
    this.#inner.end();
    return false;
  }
  destroy(error?: Error): void {
    this.#inner.destroy(error);
  }
  async startTls(options: TlsServerOptions): Promise<void> {
    // Before anything was said in clear, what came with the header are the client's first TLS bytes.
    const early = this.#isUntouched ? this.#early : undefined;
    this.#isUntouched = false;
    await this.#inner.startTls(options, early);
    // Held since the header was read.
    if (!this.#isPaused) this.#inner.resume();
  }
  startTlsAsClient(options: TlsClientOptions): Promise<void> {
    return this.#inner.startTlsAsClient?.(options) ?? Promise.reject(new PlatformError('NET_TLS_FAILED', 'no TLS on this connection'));
  }
}
