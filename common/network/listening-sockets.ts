/**
 * Where the servers of a process get their sockets from: bound anew, or taken over from another process that has them.
 *
 * A socket is passed on as the public API of Node has it: one process sends its `net.Server` over the channel to a child, the other listens on
 * what it received. Both then accept from the same queue of the system, so that closing one of them refuses nobody; the connections
 * in the queue belong to the socket and not to a process.
 *
 *   first process    listen ──► bound ─────────────────────────────── open() ──sent──┐       release()
 *   its successor    listen ──► known by its key, address told, nothing accepted ──► take() ──► accepts
 */
import { type AddressInfo, Server } from 'node:net';
import { DirectServer } from './direct/direct-server.ts';

/** Where a server is to listen. */
export interface SocketTarget {
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
  /** Connections in the system's accept queue; default `backlogDefault`. */
  readonly backlog?: number;
}

/** Where it does. */
export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

/** Has servers listen. */
export interface SocketSource {
  /** Resolves once the address is known. Rejects with the system's error when it cannot be bound. */
  listen(server: Server, target: SocketTarget): Promise<SocketAddress>;
}

/** A socket that another process has, by what it was asked for. */
export interface PassedSocket extends SocketAddress {
  readonly key: string;
}

/** Connections that the system keeps until they are accepted, unless somebody says otherwise. */
export const backlogDefault = 4096;

/** Binds every socket; for processes that take none over and pass none on. */
export const boundAnew: SocketSource = {
  listen: (server, { host, port, backlog }) =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port, backlog: backlog ?? backlogDefault }, () => {
        server.off('error', reject);
        const bound = server.address() as AddressInfo;
        resolve({ address: bound.address, port: bound.port });
      });
    }),
};

/** See the header of this file. */
export class ListeningSockets implements SocketSource {
  readonly #elsewhere: ReadonlyMap<string, PassedSocket>;
  /** Those asked for that the other process has, until `take`. */
  readonly #awaited = new Map<string, { readonly server: Server; readonly backlog: number }>();
  readonly #held = new Map<string, { readonly server: Server; readonly address: SocketAddress }>();
  /** How often the system was to choose a port of this address: they are told apart by their order. */
  readonly #chosen = new Map<string, number>();

  readonly #borrow: ((key: string) => Promise<void>) | undefined;
  #hasTaken = false;

  /**
   * @param elsewhere sockets that another process has, and passes on
   * @param borrow for a process that never binds what another has: asks for a socket that was closed here and is to be opened again
   */
  constructor(elsewhere: readonly PassedSocket[] = [], borrow?: (key: string) => Promise<void>) {
    this.#elsewhere = new Map(elsewhere.map((socket) => [socket.key, socket]));
    this.#borrow = borrow;
  }

  async listen(server: Server, target: SocketTarget): Promise<SocketAddress> {
    const key = this.#keyOf(target);
    const passed = this.#elsewhere.get(key);
    if (passed !== undefined && (!this.#held.has(key) || this.#borrow !== undefined) && !this.#awaited.has(key)) {
      this.#awaited.set(key, { server, backlog: target.backlog ?? backlogDefault });
      if (this.#hasTaken && this.#borrow !== undefined) {
        await this.#borrow(key);
        if (this.#awaited.delete(key)) throw new Error('the process that has the port has closed it');
      }
      return { address: passed.address, port: passed.port };
    }
    // Once taken it is this process's own; closed and opened again it is bound like any other.
    const address = await boundAnew.listen(server, target);
    this.#held.set(key, { server, address });
    return address;
  }

  /** Keys of the sockets that this process waits for. */
  awaited(): readonly string[] {
    return [...this.#awaited.keys()];
  }

  /** The sockets that this process waits for, with their addresses. */
  expected(): readonly PassedSocket[] {
    return this.awaited().map((key) => this.#elsewhere.get(key) as PassedSocket);
  }

  /** Accepts from now on at a socket that was waited for. `false` when nobody waits for it: it is closed here. */
  take(key: string, received: Server): boolean {
    const waiting = this.#awaited.get(key);
    if (waiting === undefined) {
      received.close();
      return false;
    }
    this.#awaited.delete(key);
    this.#hasTaken = true;
    // What was received accepts already; within this turn of the event loop the socket becomes the other server's.
    waiting.server.listen(received, waiting.backlog);
    this.#held.set(key, { server: waiting.server, address: this.#elsewhere.get(key) as PassedSocket });
    return true;
  }

  /** The sockets that are open here, with the servers to be sent. */
  open(): readonly (PassedSocket & { readonly server: Server })[] {
    return [...this.#held]
      .filter(([, { server }]) => server.listening)
      .map(
        ([
          key,
          {
            server,
            address: { address, port },
          },
        ]) => ({ key, address, port, server }),
      );
  }

  /** Hands a socket to whoever sends it to another process; resolves once that is done. */
  async passOn(server: Server, send: (server: Server) => Promise<unknown>): Promise<void> {
    if (!(server instanceof DirectServer)) {
      await send(server);
      return;
    }
    const passed = await server.toSend();
    try {
      await send(passed);
    } finally {
      passed.close();
    }
  }

  /** Accepts no more, anywhere. Connections go on, also those of HTTP that are idle. */
  release(): void {
    for (const { server } of this.open()) {
      // An HTTP server's own `close` would hang up on clients that are about to send their next request.
      if (server instanceof DirectServer) server.close();
      else Server.prototype.close.call(server);
    }
  }

  #keyOf({ host, port }: SocketTarget): string {
    if (port !== 0) {
      // Opened again where the system once chose a port.
      const known = [...this.#held].find(([key, { address }]) => address.port === port && key.startsWith(`${host}:0#`));
      return known?.[0] ?? `${host}:${port}`;
    }
    const number = this.#chosen.get(host) ?? 0;
    this.#chosen.set(host, number + 1);
    return `${host}:0#${number}`;
  }
}
