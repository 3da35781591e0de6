/**
 * Two connections joined back to back, in memory: what one writes the other's handlers get, on a later turn.
 */
import type { Connection, ConnectionHandlers, TlsFacts } from '#common/network/network.ts';

/** Makes a joined pair: `[client, server]`. */
export function connectionPair(options: { clientAddress?: string } = {}): [MemoryConnection, MemoryConnection] {
  const client = new MemoryConnection('127.0.0.1', options.clientAddress ?? '127.0.0.1');
  const server = new MemoryConnection(options.clientAddress ?? '127.0.0.1', '127.0.0.1');
  client.peer = server;
  server.peer = client;
  return [client, server];
}

/** One end of the pair. Chunks are copied, so a test may reuse its buffers. */
export class MemoryConnection implements Connection {
  readonly remoteAddress: string;
  readonly remotePort = 40_000;
  readonly localAddress: string;
  readonly localPort = 143;
  tls: TlsFacts | undefined = undefined;
  peer: MemoryConnection | undefined;
  #handlers: ConnectionHandlers | undefined;
  #inbox: (Buffer | 'end')[] = [];
  #paused = false;
  #closed = false;
  #ended = false;
  #peerEnded = false;
  #scheduled = false;

  constructor(remoteAddress: string, localAddress: string) {
    this.remoteAddress = remoteAddress;
    this.localAddress = localAddress;
  }

  get bufferedBytes(): number {
    return (this.peer?.pendingBytes ?? 0) as number;
  }

  get pendingBytes(): number {
    return this.#inbox.reduce((sum, item) => sum + (item === 'end' ? 0 : item.length), 0);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  handle(handlers: ConnectionHandlers): void {
    this.#handlers = handlers;
    this.#schedule();
  }

  write(bytes: Uint8Array | string): boolean {
    if (this.#closed || this.#ended) return true;
    this.peer?.receive(Buffer.from(bytes as string));
    return this.bufferedBytes < 65_536;
  }

  writeAll(parts: readonly Uint8Array[]): boolean {
    return this.write(Buffer.concat(parts as Uint8Array[]));
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#schedule();
  }

  end(): void {
    if (this.#closed || this.#ended) return;
    this.#ended = true;
    this.peer?.receive('end');
    // Both halves are over: as a socket does, this end closes.
    if (this.#peerEnded) this.#close(undefined);
  }

  destroy(error?: Error): void {
    if (this.#closed) return;
    this.#close(error);
    const peer = this.peer;
    setImmediate(() => peer?.peerGone());
  }

  startTls(): Promise<void> {
    this.#inbox = [];
    this.tls = { protocol: 'TLSv1.3', cipher: 'memory', serverName: undefined, peerNames: [] };
    return Promise.resolve();
  }

  receive(item: Buffer | 'end'): void {
    if (this.#closed) return;
    this.#inbox.push(item);
    this.#schedule();
  }

  peerGone(): void {
    if (this.#closed) return;
    this.#paused = false;
    this.#deliver();
    this.#close(undefined);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    while (!this.#paused && !this.#closed && this.#handlers !== undefined) {
      const item = this.#inbox.shift();
      if (item === undefined) break;
      if (item === 'end') this.#peerEnded = true;
      if (item !== 'end') this.#handlers.data(item);
      else if (this.#handlers.end === undefined) this.end();
      else this.#handlers.end();
      if (item === 'end' && this.#ended) {
        this.#close(undefined);
        return;
      }
    }
    if (this.#inbox.length === 0) this.peer?.notifyDrain();
  }

  notifyDrain(): void {
    if (!this.#closed) this.#handlers?.drain?.();
  }

  #close(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    const handlers = this.#handlers;
    setImmediate(() => handlers?.close(error));
  }
}
