/**
 * The network between the machines: streams that arrive whole, in order and late, or break. A lost packet is a retransmission, and one
 * that comes out of order or twice is sorted by TCP: all of it is delay. A cut, one-way or both, holds the bytes back until it heals.
 * Connections do not wait for each other, so what goes over two of them arrives in any order.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Connection, ConnectionHandlers, Listener, Network } from '#common/network/network.ts';
import type { Machine, SimProcess } from './machine.ts';
import type { Chance, World } from './world.ts';

const socketBufferBytes = 262_144;
const retransmitMs = 200;
/** A peer that is out of reach for so long is given up by the system. */
const giveUpMs = 60_000;

interface OpenListener {
  readonly process: SimProcess;
  readonly accept: (connection: Connection) => void;
}

/** See the header of this file. */
export class SimNetwork {
  readonly world: World;
  readonly chance: Chance;
  /** Share of writes that a packet loss delays. */
  lossShare = 0;
  latencyMs: readonly [number, number] = [0.2, 3];
  /** Every segment takes up to so much longer. */
  slowMs = 0;
  readonly #listeners = new Map<string, OpenListener>();
  readonly #machines = new Map<string, Machine>();
  /** `from to` by machine name. */
  readonly cuts = new Set<string>();
  /** Machines without power: nobody refuses a connection to them. */
  readonly dark = new Set<string>();
  #ports = 40_000;

  constructor(world: World) {
    this.world = world;
    this.chance = world.chance.fork();
  }

  add(machine: Machine): void {
    this.#machines.set(machine.host, machine);
  }

  isCut(from: Machine, to: Machine): boolean {
    if (this.cuts.size > 0 && this.cuts.has(`${from.name} ${to.name}`)) return true;
    return this.dark.size > 0 && (this.dark.has(to.name) || this.dark.has(from.name));
  }

  /** Time for one segment from a machine to another. */
  latency(): number {
    let ms = this.chance.between(this.latencyMs[0], this.latencyMs[1] + this.slowMs);
    for (let tries = 0; this.lossShare > 0 && tries < 5 && this.chance.is(this.lossShare); tries += 1) ms += retransmitMs * 2 ** tries;
    return ms;
  }

  /** The network port of a process. */
  portOf(process: SimProcess): Network {
    return {
      listen: (options, accept) => this.#listen(process, options.port ?? 0, accept),
      connect: (options) => this.#connect(process, options.host ?? '', options.port ?? 0, options.timeoutMs ?? 10_000),
    };
  }

  #listen(process: SimProcess, port: number, accept: (connection: Connection) => void): Promise<Listener> {
    const key = `${process.machine.host}:${port}`;
    if (this.#listeners.has(key)) return Promise.reject(new PlatformError('NET_CONNECT_FAILED', `${key} is taken`));
    const listener = { process, accept };
    this.#listeners.set(key, listener);
    const close = (): void => {
      if (this.#listeners.get(key) === listener) this.#listeners.delete(key);
    };
    process.onDeath.push(close);
    return Promise.resolve({ address: process.machine.host, port, close: async () => close() });
  }

  #connect(process: SimProcess, host: string, port: number, timeoutMs: number): Promise<Connection> {
    const { world } = this;
    const here = process.machine;
    const there = this.#machines.get(host);
    return new Promise((resolve, reject) => {
      let isOver = false;
      const timer = process.clock.after(timeoutMs, () => {
        isOver = true;
        reject(new PlatformError('NET_TIMEOUT', `no connection to ${host}:${port} within ${timeoutMs} ms`));
      });
      const answer = (what: string, happen: () => void): void => {
        if (there !== undefined && this.isCut(there, here)) return;
        world.after(this.latency(), what, () =>
          process.deliver(what, () => {
            if (isOver) return;
            isOver = true;
            timer.cancel();
            happen();
          }),
        );
      };
      world.after(this.latency(), 'syn', () => {
        if (there === undefined || this.isCut(here, there)) return;
        const listener = this.#listeners.get(`${host}:${port}`);
        if (listener === undefined) {
          const cause = Object.assign(new Error(`connect ECONNREFUSED ${host}:${port}`), { code: 'ECONNREFUSED' });
          answer('refused', () => reject(new PlatformError('NET_CONNECT_FAILED', `cannot connect to ${host}:${port}: refused`, { cause })));
          return;
        }
        this.#ports += 1;
        const near = new SimConnection(this, process, here.host, this.#ports, host, port);
        const far = new SimConnection(this, listener.process, host, port, here.host, near.localPort);
        near.peer = far;
        far.peer = near;
        // The kernel accepts, also for a process that sleeps.
        listener.process.deliver('accept', () => listener.accept(far));
        answer('connected', () => resolve(near));
      });
    });
  }
}

type Segment = { readonly bytes: Buffer } | 'end' | 'reset';

class SimConnection implements Connection {
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly tls = undefined;
  readonly #network: SimNetwork;
  readonly #process: SimProcess;
  peer: SimConnection | undefined;
  #handlers: ConnectionHandlers | undefined;
  /** Sent and not arrived, in order. */
  #outgoing: Segment[] = [];
  #isSending = false;
  #unreadBytes = 0;
  #wasFull = false;
  #inbox: Segment[] = [];
  #deliveryPlanned = false;
  #isPaused = false;
  #hasEnded = false;
  #peerEnded = false;
  #isClosed = false;
  #closeError: Error | undefined;
  #isReported = false;

  constructor(
    network: SimNetwork,
    process: SimProcess,
    localAddress: string,
    localPort: number,
    remoteAddress: string,
    remotePort: number,
  ) {
    this.#network = network;
    this.#process = process;
    this.localAddress = localAddress;
    this.localPort = localPort;
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    process.onDeath.push(() => this.#orphaned());
  }

  get bufferedBytes(): number {
    return Math.max(0, this.#unreadBytes - socketBufferBytes);
  }

  handle(handlers: ConnectionHandlers): void {
    this.#handlers = handlers;
    if (this.#isClosed) this.#planReport();
    else this.#planDelivery();
  }

  write(bytes: Uint8Array | string): boolean {
    if (this.#isClosed || this.#hasEnded || bytes.length === 0) return true;
    const copy = Buffer.from(bytes as string);
    this.#unreadBytes += copy.length;
    this.#send({ bytes: copy });
    this.#wasFull ||= this.bufferedBytes > 0;
    return !this.#wasFull;
  }

  writeAll(parts: readonly Uint8Array[]): boolean {
    return this.write(Buffer.concat(parts as Uint8Array[]));
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#planDelivery();
  }

  end(): void {
    if (this.#isClosed || this.#hasEnded) return;
    this.#hasEnded = true;
    this.#send('end');
    if (this.#peerEnded) this.#close(undefined);
  }

  destroy(error?: Error): void {
    if (this.#isClosed) return;
    this.#outgoing = [];
    this.#send('reset');
    this.#close(error);
  }

  startTls(): Promise<void> {
    return Promise.reject(new PlatformError('NET_TLS_FAILED', 'the simulated network has no TLS'));
  }

  /** The process is dead and its kernel closes for it; without power nobody does. */
  #orphaned(): void {
    if (this.#isClosed || this.#network.dark.has(this.#process.machine.name)) return;
    if (!this.#hasEnded) this.#send(this.#network.chance.is(0.5) ? 'end' : 'reset');
    this.#hasEnded = true;
    this.#isClosed = true;
  }

  #send(segment: Segment): void {
    this.#outgoing.push(segment);
    if (!this.#isSending) this.#sendNext(this.#network.latency(), 0);
  }

  #sendNext(delayMs: number, waitedMs: number): void {
    this.#isSending = true;
    const { world } = this.#network;
    const peer = this.peer as SimConnection;
    world.after(delayMs, 'segment', () => {
      if (this.#network.isCut(this.#process.machine, peer.#process.machine)) {
        if (waitedMs < giveUpMs) {
          this.#sendNext(Math.min(2_000, retransmitMs + waitedMs / 2), waitedMs + delayMs);
          return;
        }
        this.#outgoing = [];
        this.#isSending = false;
        this.#process.deliver('broken', () => this.#close(new PlatformError('NET_TIMEOUT', 'the peer does not acknowledge')));
        return;
      }
      // One segment holds all that was written since the last one.
      const arrived = this.#outgoing;
      this.#outgoing = [];
      this.#isSending = false;
      peer.#receive(arrived);
    });
  }

  #receive(segments: readonly Segment[]): void {
    if (!this.#process.isAlive) {
      // Nobody has this connection any more: the machine says so as soon as it runs.
      const { peer } = this;
      if (segments.includes('reset') || peer === undefined) return;
      this.#network.world.after(this.#network.latency(), 'segment', () => {
        if (!this.#network.isCut(this.#process.machine, peer.#process.machine) && peer.#process.isAlive) peer.#receive(['reset']);
      });
      return;
    }
    this.#inbox.push(...segments);
    this.#process.deliver('bytes', () => this.#take());
  }

  #planDelivery(): void {
    if (this.#deliveryPlanned || this.#isClosed) return;
    this.#deliveryPlanned = true;
    this.#network.world.after(0, 'handover', () =>
      this.#process.deliver('handover', () => {
        this.#deliveryPlanned = false;
        this.#take();
      }),
    );
  }

  #take(): void {
    while (this.#handlers !== undefined && !this.#isPaused && !this.#isClosed) {
      const segment = this.#inbox.shift();
      if (segment === undefined) return;
      if (segment === 'reset') {
        this.#close(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }));
      } else if (segment === 'end') {
        this.#peerEnded = true;
        if (this.#handlers.end === undefined) this.end();
        else this.#handlers.end();
        if (this.#hasEnded) this.#close(undefined);
      } else {
        (this.peer as SimConnection).#taken(segment.bytes.length);
        this.#handlers.data(segment.bytes);
      }
    }
  }

  #taken(bytes: number): void {
    this.#unreadBytes -= bytes;
    if (!this.#wasFull || this.bufferedBytes > 0) return;
    this.#wasFull = false;
    this.#network.world.after(0, 'drain', () =>
      this.#process.deliver('drain', () => {
        if (!this.#isClosed) this.#handlers?.drain?.();
      }),
    );
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeError = error;
    this.#planReport();
  }

  /** Never from within a call made to the connection, and once. */
  #planReport(): void {
    this.#network.world.after(0, 'close', () =>
      this.#process.deliver('close', () => {
        if (this.#isReported || this.#handlers === undefined) return;
        this.#isReported = true;
        this.#handlers.close(this.#closeError);
      }),
    );
  }
}
