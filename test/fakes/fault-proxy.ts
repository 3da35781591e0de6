/**
 * A TCP relay that fails on request: cut (connections are reset, new ones refused), silent (bytes go nowhere, connections stay), slow (each
 * piece of bytes waits, and only so many pass in a second).
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

/** Bytes that pass at once on a slow link. */
const pieceBytes = 4096;

/** See the header of this file. */
export class FaultProxy implements AsyncDisposable {
  /** ldap URL of the relay. */
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;
  #isSilent = false;
  #delayMs = 0;
  #bytesPerSecond = Number.POSITIVE_INFINITY;
  #heldBytes = 0;
  #changed = Promise.withResolvers<void>();

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `ldap://127.0.0.1:${port}`;
  }

  /** Starts one before the server of that URL. */
  static async before(url: string): Promise<FaultProxy> {
    const port = Number(new URL(url).port);
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new FaultProxy(server, (server.address() as { port: number }).port);
    server.on('connection', (client) => proxy.#accept(client, port));
    return proxy;
  }

  /** Clients connected. */
  get connections(): number {
    return this.#sockets.size / 2;
  }

  /** Bytes that came in silence, ever. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Resets every connection and refuses new ones, until `heal`. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#tell();
  }

  /** Takes bytes and passes none on, until `heal`; what was taken is passed on then. */
  silence(): void {
    this.#isSilent = true;
    this.#tell();
  }

  slow(delayMs: number, bytesPerSecond: number): void {
    this.#delayMs = delayMs;
    this.#bytesPerSecond = bytesPerSecond;
  }

  heal(): void {
    this.#isCut = false;
    this.#isSilent = false;
    this.slow(0, Number.POSITIVE_INFINITY);
    this.#tell();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(client: Socket, port: number): void {
    if (this.#isCut) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ port, host: '127.0.0.1', noDelay: true });
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      void this.#relay(from, to);
    }
  }

  async #relay(from: Socket, to: Socket): Promise<void> {
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        for (let at = 0; at < chunk.length; at += pieceBytes) {
          const piece = this.#bytesPerSecond === Number.POSITIVE_INFINITY && at === 0 ? chunk : chunk.subarray(at, at + pieceBytes);
          if (this.#isSilent) this.#heldBytes += piece.length;
          while (this.#isSilent) await this.#changed.promise;
          const waitMs = this.#delayMs + (1000 * piece.length) / this.#bytesPerSecond;
          if (waitMs > 0) await this.#hold(waitMs);
          if (!to.write(piece)) await new Promise<void>((resolve) => to.once('drain', resolve).once('close', resolve));
          if (piece === chunk) break;
        }
      }
      to.end();
    } catch {
      to.destroy();
    }
  }

  /** Healed, it passes on at once what was waiting. */
  async #hold(waitMs: number): Promise<void> {
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, waitMs);
    await Promise.race([over.promise, this.#changed.promise]);
    clearTimeout(timer);
  }

  #tell(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
