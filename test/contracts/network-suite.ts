/**
 * What the cases of the network contract share: the implementations, pairs of connections, and watchers for both ends.
 *
 * A watcher holds every connection to what `Connection` promises of its handlers, whatever the case is about: never called from inside a
 * call made to the connection, nothing after `close`, no data after `end`, each of the two once. `faults` lists the breaches.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { expect, onTestFinished } from 'vitest';
import { systemClock, withTimeout } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type {
  Connection,
  ConnectionHandlers,
  ConnectOptions,
  Listener,
  ListenOptions,
  Network,
  TlsClientOptions,
  TlsServerOptions,
} from '#common/network/network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa, type ThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { type Gap, gaps, networks } from './network-table.ts';

/** Every wait ends here, on a machine of any speed. */
const waitMs = 20_000;

/** One implementation under test. */
export interface Implementation {
  readonly name: string;
  readonly network: Network;
}

/** All that must behave alike. */
export const implementations: readonly Implementation[] = Object.entries(networks).map(([name, network]) => ({ name, network }));

/** Whether an implementation is known not to do something. */
export function lacks(name: string, gap: Gap): boolean {
  return gaps[name]?.includes(gap) === true;
}

/** Who connects, and who accepts. */
export interface Pair {
  readonly client: Network;
  readonly server: Network;
}

/** Every implementation with every other one and with itself. */
export const pairs = implementations.flatMap((client) =>
  implementations.map((server) => ({ title: `${client.name} to ${server.name}`, client: client.network, server: server.network })),
);

/** How two ends come to speak: also as mail listeners do it, which start TLS themselves at the first byte. */
export const kinds = ['in clear', 'under TLS', 'under TLS that a session starts at once', 'after STARTTLS'] as const;
/** One of them. */
export type Kind = (typeof kinds)[number];

/** Breaches that watchers saw since they were last taken. */
const faults: string[] = [];

/** For `afterEach`. */
export function expectNoFaults(): void {
  expect(faults.splice(0)).toEqual([]);
}

/** Waits until something that is looked at after every event is so. */
class Waiters {
  #waiting: (() => void)[] = [];

  wake(): void {
    const woken = this.#waiting;
    this.#waiting = [];
    for (const wake of woken) wake();
  }

  async until(isSo: () => boolean, state: () => string): Promise<void> {
    const watch = async (): Promise<void> => {
      while (!isSo()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    };
    await within(watch(), () => `waited for ${isSo}; ${state()}`);
  }
}

/** Bounds a wait. */
export function within<T>(work: Promise<T>, what: string | (() => string)): Promise<T> {
  return withTimeout(systemClock, waitMs, work, () => new Error(typeof what === 'string' ? what : what()));
}

/** A connection of an implementation, watched. */
export class Side {
  readonly connection: Connection;
  readonly chunks: Buffer[] = [];
  /** What was reported, without the repetitions: `data`, `lent`, `end`, `drain`, `close`. */
  readonly events: string[] = [];
  bytes = 0;
  drains = 0;
  hasEnded = false;
  isClosed = false;
  closeError: Error | undefined;
  readonly #waiters = new Waiters();
  #isCalling = false;

  /** @param isWatched false leaves the handlers for later */
  constructor(connection: Connection, isWatched = true) {
    this.connection = connection;
    onTestFinished(() => connection.destroy());
    if (isWatched) this.watch();
  }

  /** Takes the handlers; `further` stand in for those that only record, `undefined` leaves one out. */
  watch(further: { [name in keyof ConnectionHandlers]?: ConnectionHandlers[name] | undefined } = {}): void {
    const report = (name: string, passOn: () => void): void => {
      if (this.#isCalling) faults.push(`${name} was called from inside a call`);
      if (this.isClosed) faults.push(`${name} after close`);
      if (this.hasEnded && (name === 'data' || name === 'lent' || name === 'end')) faults.push(`${name} after end`);
      if (this.events.at(-1) !== name) this.events.push(name);
      if (name === 'end') this.hasEnded = true;
      if (name === 'close') this.isClosed = true;
      if (name === 'drain') this.drains += 1;
      passOn();
      this.#waiters.wake();
    };
    const { data, lent, holdsLent, end, drain, close } = further;
    const handlers: ConnectionHandlers = {
      data: (chunk) =>
        report('data', () => {
          this.bytes += chunk.length;
          if (data === undefined) this.chunks.push(chunk);
          else data(chunk);
        }),
      ...(lent === undefined
        ? {}
        : {
            lent: (chunk) =>
              report('lent', () => {
                this.bytes += chunk.length;
                lent(chunk);
              }),
          }),
      ...(holdsLent === undefined ? {} : { holdsLent }),
      ...('end' in further && end === undefined ? {} : { end: () => report('end', () => end?.()) }),
      drain: () => report('drain', () => drain?.()),
      close: (error) => {
        this.closeError = error;
        report('close', () => close?.(error));
      },
    };
    this.call(() => this.connection.handle(handlers));
  }

  /** Calls the connection: no handler may be called meanwhile. */
  call<T>(work: () => T): T {
    const outer = this.#isCalling;
    this.#isCalling = true;
    try {
      return work();
    } finally {
      this.#isCalling = outer;
    }
  }

  write(bytes: Uint8Array | string): boolean {
    return this.call(() => this.connection.write(bytes));
  }
  writeAll(parts: readonly Uint8Array[]): boolean {
    return this.call(() => this.connection.writeAll(parts));
  }
  pause(): void {
    this.call(() => this.connection.pause());
  }
  resume(): void {
    this.call(() => this.connection.resume());
  }
  end(): void {
    this.call(() => this.connection.end());
  }
  destroy(error?: Error): void {
    this.call(() => this.connection.destroy(error));
  }
  startTls(options: TlsServerOptions, early?: Buffer): Promise<void> {
    return within(
      this.call(() => this.connection.startTls(options, early)),
      'startTls did not come to an end',
    );
  }
  startTlsAsClient(options: TlsClientOptions): Promise<void> {
    const started = this.call(() => this.connection.startTlsAsClient?.(options));
    return within(started ?? Promise.reject(new Error('startTlsAsClient is missing')), 'startTlsAsClient did not come to an end');
  }

  /** All that came, as UTF-8. */
  text(): string {
    return Buffer.concat(this.chunks).toString();
  }

  until(isSo: () => boolean): Promise<void> {
    return this.#waiters.until(
      isSo,
      () => `events: ${this.events}; ${this.bytes} bytes came, ${this.connection.bufferedBytes} are buffered`,
    );
  }
  untilText(expected: string): Promise<void> {
    return this.until(() => this.text().length >= expected.length).then(() => expect(this.text()).toBe(expected));
  }
  untilEnd(): Promise<void> {
    return this.until(() => this.hasEnded);
  }
  async untilClosed(): Promise<Error | undefined> {
    await this.until(() => this.isClosed);
    return this.closeError;
  }
}

/** A socket of Node's own as the other party, watched. */
export class Peer<S extends Socket = Socket> {
  readonly socket: S;
  readonly chunks: Buffer[] = [];
  hasEnded = false;
  isClosed = false;
  error: Error | undefined;
  readonly #waiters = new Waiters();

  constructor(socket: S) {
    this.socket = socket;
    onTestFinished(() => void socket.destroy());
    socket.on('data', (chunk: Buffer) => {
      this.chunks.push(chunk);
      this.#waiters.wake();
    });
    socket.on('end', () => {
      this.hasEnded = true;
      this.#waiters.wake();
    });
    socket.on('error', (error: Error) => {
      this.error = error;
    });
    socket.on('close', () => {
      this.isClosed = true;
      this.#waiters.wake();
    });
  }

  text(): string {
    return Buffer.concat(this.chunks).toString();
  }
  until(isSo: () => boolean): Promise<void> {
    return this.#waiters.until(isSo, () => `ended ${this.hasEnded}, closed ${this.isClosed}, ${this.error}, ${this.text().slice(0, 80)}`);
  }
  untilText(expected: string): Promise<void> {
    return this.until(() => this.text().length >= expected.length).then(() => expect(this.text()).toBe(expected));
  }
  /** The other side is known to be gone, in whatever manner. */
  untilGone(): Promise<void> {
    return this.until(() => this.hasEnded || this.isClosed);
  }
}

/** Certificates of one authority, one for all cases, and one that nobody trusts. */
export interface Identities {
  readonly ca: ThrowawayCa;
  readonly stranger: ThrowawayCa;
  /** For `localhost` and the addresses of loopback. */
  readonly server: { readonly cert: string; readonly key: string };
}

let made: Promise<Identities> | undefined;
/** Made at the first call. */
export function identities(): Promise<Identities> {
  made ??= (async () => {
    const ca = await createThrowawayCa(systemClock, systemRandom);
    const stranger = await createThrowawayCa(systemClock, systemRandom);
    return { ca, stranger, server: await issued(ca, ['localhost', '127.0.0.1', '::1']) };
  })();
  return made;
}

/** A certificate as TLS options have it. */
export async function issued(ca: ThrowawayCa, names: readonly string[]): Promise<{ cert: string; key: string }> {
  const { certificate, key } = await ca.issue(names);
  return { cert: certificate, key };
}

/** The authority as it was long ago: what it issues has expired. */
export async function expiredCa(): Promise<ThrowawayCa> {
  const longAgo = { ...systemClock, nowMs: () => systemClock.nowMs() - 200 * 24 * 3_600_000 };
  return createThrowawayCa(longAgo, systemRandom, (await identities()).ca.kept);
}

/** Listens until the test is over. */
export async function listen(network: Network, options: ListenOptions, accept: (connection: Connection) => void): Promise<Listener> {
  const listener = await network.listen(options, accept);
  onTestFinished(() => listener.close());
  return listener;
}

/** Two ends that are ready to speak. */
export async function joined(kind: Kind, { client, server }: Pair, further: ConnectOptions = {}): Promise<{ client: Side; server: Side }> {
  const { ca, server: shown } = await identities();
  const tls = { ca: ca.certificate, serverName: 'localhost' };
  const accepted = Promise.withResolvers<Side>();
  const ready = async (connection: Connection): Promise<Side> => {
    const side = new Side(connection);
    if (kind === 'under TLS that a session starts at once') await side.startTls(shown);
    if (kind !== 'after STARTTLS') return side;
    await side.untilText('S');
    side.write('G');
    side.chunks.length = 0;
    await side.startTls(shown);
    return side;
  };
  const listener = await listen(server, kind === 'under TLS' ? { tls: shown } : {}, (connection) => {
    ready(connection).then(accepted.resolve, accepted.reject);
  });
  const isImplicit = kind === 'under TLS' || kind === 'under TLS that a session starts at once';
  const connection = await client.connect({
    host: '127.0.0.1',
    port: listener.port,
    timeoutMs: waitMs,
    ...(isImplicit ? { tls } : {}),
    ...further,
  });
  const side = new Side(connection);
  if (kind === 'after STARTTLS') {
    side.write('S');
    await side.untilText('G');
    side.chunks.length = 0;
    await side.startTlsAsClient(tls);
  }
  const other = await within(accepted.promise, 'nothing was accepted');
  for (const end of [side, other]) {
    end.events.length = 0;
    end.bytes = 0;
  }
  return { client: side, server: other };
}

/** Which end of the connection is the implementation's; the other is Node's. */
export const roles = ['accepted', 'made'] as const;

/** A connection in clear with a socket of Node's at the other end. */
export async function withPeer(role: (typeof roles)[number], network: Network, isWatched = true): Promise<{ side: Side; peer: Peer }> {
  if (role === 'accepted') {
    const accepted = Promise.withResolvers<Side>();
    const listener = await listen(network, {}, (connection) => accepted.resolve(new Side(connection, isWatched)));
    const peer = await peerTo(listener.port);
    return { peer, side: await within(accepted.promise, 'nothing was accepted') };
  }
  const { port, next } = await peerServer();
  const connection = await network.connect({ host: '127.0.0.1', port, timeoutMs: waitMs });
  return { side: new Side(connection, isWatched), peer: await next() };
}

/** Connects a socket of Node's. */
export async function peerTo(port: number, host = '127.0.0.1'): Promise<Peer> {
  const socket = connect({ port, host, allowHalfOpen: true });
  const peer = new Peer(socket);
  await within(once(socket, 'connect'), 'Node could not connect');
  return peer;
}

/** A server of Node's. */
export async function peerServer(host = '127.0.0.1'): Promise<{ server: Server; port: number; next: () => Promise<Peer> }> {
  const server = createServer({ allowHalfOpen: true });
  const queue: Socket[] = [];
  const waiters = new Waiters();
  server.on('connection', (socket) => {
    queue.push(socket);
    waiters.wake();
  });
  server.listen(0, host);
  onTestFinished(() => void server.close());
  await within(once(server, 'listening'), 'Node could not listen');
  return {
    server,
    port: (server.address() as { port: number }).port,
    next: async () => {
      await waiters.until(
        () => queue.length > 0,
        () => 'nobody connected',
      );
      return new Peer(queue.shift() as Socket);
    },
  };
}

/**
 * Lets what is on its way arrive, as far as this can be known from outside: some turns of the event loop with traffic of its own. A case that
 * expects that something does not happen looks after this.
 */
export async function settled(): Promise<void> {
  const { server, port, next } = await peerServer();
  const [one, other] = [await peerTo(port), await next()];
  for (let i = 1; i <= 5; i += 1) {
    one.socket.write('.');
    await other.until(() => other.text().length === i);
    other.socket.write('.');
    await one.until(() => one.text().length === i);
  }
  one.socket.destroy();
  other.socket.destroy();
  server.close();
}

/** `tls-exporter` of RFC 9266, as Node has it. */
export function binding(socket: TLSSocket): string {
  return socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)).toString('hex');
}

/** Makes Node's TLS write where `send` says, so that a case decides when and in what pieces. */
export class Transport extends Duplex {
  readonly #send: (bytes: Buffer) => void;

  constructor(send: (bytes: Buffer) => void) {
    super({ allowHalfOpen: true });
    this.#send = send;
  }

  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, written: () => void): void {
    this.#send(chunk);
    written();
  }
}

/** The code that a promise is rejected with. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await failureOf(work);
  return error.code;
}

/** What a promise is rejected with, which must be one of the platform's own. */
export async function failureOf(work: Promise<unknown>): Promise<PlatformError> {
  const outcome = await within(
    work.then(
      () => 'no failure',
      (error: unknown) => error,
    ),
    'neither succeeded nor failed',
  );
  expect(outcome).toBeInstanceOf(PlatformError);
  return outcome as PlatformError;
}

const block = randomBytes(1_048_576);

/** Pieces of many sizes, `total` bytes in all. */
export function* pieces(total: number, seed: number): Generator<Buffer> {
  let left = total;
  for (let i = seed; left > 0; i += 1) {
    const length = Math.min(left, 1 + ((i * 7919) % 150_000));
    const start = (i * 104_729) % (block.length - length);
    left -= length;
    yield block.subarray(start, start + length);
  }
}

/** Writes them at the pace of the other side; resolves with their hash and the most that was buffered beside the last piece. */
export async function send(side: Side, total: number, seed: number): Promise<{ hash: string; most: number }> {
  const hash = createHash('sha1');
  let most = 0;
  for (const piece of pieces(total, seed)) {
    hash.update(piece);
    const drains = side.drains;
    const mayGoOn = side.write(piece);
    most = Math.max(most, side.connection.bufferedBytes - piece.length);
    if (!mayGoOn) await side.until(() => side.drains > drains || side.isClosed);
  }
  return { hash: hash.digest('hex'), most };
}

/** Hashes what comes until the end, and pauses in between: every so many chunks, for some turns of the event loop. */
export function receive(side: Side, pauseEvery: number): Promise<string> {
  const hash = createHash('sha1');
  let count = 0;
  let isPaused = false;
  side.watch({
    data: (chunk) => {
      if (isPaused) faults.push('data came while the connection was paused');
      hash.update(chunk);
      count += 1;
      if (count % pauseEvery !== 0) return;
      isPaused = true;
      side.pause();
      setImmediate(() =>
        setImmediate(() => {
          isPaused = false;
          side.resume();
        }),
      );
    },
  });
  return side.untilEnd().then(() => hash.digest('hex'));
}
