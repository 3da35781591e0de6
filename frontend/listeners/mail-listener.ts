/**
 * An open port for a protocol with a login dialogue: takes connections in, holds the limits for each address and for the listener, and starts TLS
 * where it comes first. A client over a limit is told so in its protocol; the others notice nothing.
 *
 * Connections are counted before the TLS handshake, so that stalled handshakes count as well.
 */
import type { Clock } from '#common/clock.ts';
import type { ErrorCode } from '#common/errors/catalogue.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { addressList } from '#common/network/address-list.ts';
import type { Connection, Listener, TlsServerOptions } from '#common/network/network.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { clientGroup } from '#frontend/guard/client-group.ts';
import { RateLimit } from '#frontend/routing/rate-limit.ts';
import type { LoginDialogue } from '#frontend/session/login-dialogue.ts';
import { readProxyHeader } from './proxied-connection.ts';

/** Clients over a limit that are being told so at a time; beyond that they are hung up on. */
export const refusalsAtATimeMax = 64;
/** TLS handshakes a second made only to say that there are too many connections. */
const refusedHandshakesPerSecond = 20;
/** Time for a refused client to read why, milliseconds. */
const refusalMs = 1000;

/** What a listener is made of. */
export interface MailListenerOptions {
  readonly listener: FrontendListener;
  readonly tls: TlsServerOptions | undefined;
  readonly ports: Pick<Ports, 'clock' | 'network' | 'log' | 'metrics'>;
  /** What a client over a limit is told. */
  readonly refusal: string;
  /** Makes the dialogue of a connection, which calls `ended` once. */
  dialogue(connection: Connection, ended: (dialogue: LoginDialogue) => void): LoginDialogue;
}

/** A running listener. */
export interface RunningMailListener {
  status(): FrontendStatus['listeners'][number];
  /** Sessions that are logged in. */
  sessions(): IterableIterator<LoginDialogue>;
  /** Stops accepting. */
  close(): Promise<void>;
  /** Clients connected, logged in or not. */
  readonly connections: number;
  /** Ends every session in good order. */
  stop(): void;
  /** Drops every session. */
  drop(): void;
}

/** Opens the port. Rejects when it cannot be bound. */
export async function startMailListener(options: MailListenerOptions): Promise<RunningMailListener> {
  const running = new MailListener(options);
  await running.open();
  return running;
}

class MailListener implements RunningMailListener {
  readonly #options: MailListenerOptions;
  readonly #perAddress = new Map<string, number>();
  readonly #dialogues = new Set<LoginDialogue>();
  readonly #connections: ReturnType<Ports['metrics']['counter']>;
  #handshakes = 0;
  readonly #refusedHandshakes: RateLimit;
  readonly #sendsHeader: (address: string) => boolean;
  #refusals = 0;
  #port: Listener | undefined;

  constructor(options: MailListenerOptions) {
    this.#options = options;
    this.#sendsHeader = addressList(options.listener.proxyFrom ?? []);
    this.#refusedHandshakes = new RateLimit(options.ports.clock, refusedHandshakesPerSecond, refusedHandshakesPerSecond);
    this.#connections = options.ports.metrics.counter(
      'archipelago_frontend_connections_total',
      'Connections accepted or refused, by protocol.',
      ['protocol', 'outcome'],
    );
  }

  async open(): Promise<void> {
    const { listener, tls, ports } = this.#options;
    if (listener.tls !== 'none' && tls === undefined) {
      throw new PlatformError(
        'CONFIG_INVALID',
        `the ${listener.protocol} listener at port ${listener.port} has tls: ${listener.tls}, and no certificate is configured (tls: {certFile, keyFile})`,
      );
    }
    this.#port = await ports.network.listen({ host: listener.address, port: listener.port }, (connection) => this.#arrive(connection));
  }

  get connections(): number {
    return this.#dialogues.size + this.#handshakes;
  }

  status(): FrontendStatus['listeners'][number] {
    const { protocol, tls, address, port } = this.#options.listener;
    return { protocol, tls, address: this.#port?.address ?? address, port: this.#port?.port ?? port, sessions: this.#dialogues.size };
  }

  sessions(): IterableIterator<LoginDialogue> {
    return this.#dialogues.values();
  }

  async close(): Promise<void> {
    await this.#port?.close();
  }

  stop(): void {
    for (const dialogue of [...this.#dialogues]) dialogue.stop();
  }

  drop(): void {
    for (const dialogue of [...this.#dialogues]) dialogue.drop();
  }

  #arrive(connection: Connection): void {
    if (!this.#sendsHeader(connection.remoteAddress)) {
      this.#accept(connection);
      return;
    }
    const { listener, ports } = this.#options;
    if (this.connections >= listener.connectionsMax) {
      this.#refuse(connection);
      return;
    }
    this.#handshakes += 1;
    readProxyHeader(connection, ports.clock).then(
      (proxied) => {
        this.#handshakes -= 1;
        this.#accept(proxied);
      },
      (error: unknown) => {
        this.#handshakes -= 1;
        ports.log.debug({ protocol: listener.protocol, clientIp: connection.remoteAddress, errCode: codeOf(error) }, messageOf(error));
      },
    );
  }

  #accept(connection: Connection): void {
    const { listener } = this.#options;
    const group = clientGroup(connection.remoteAddress);
    const ofAddress = this.#perAddress.get(group) ?? 0;
    const isOver = this.connections >= listener.connectionsMax || ofAddress >= listener.perAddressMax;
    this.#connections.add({ protocol: listener.protocol, outcome: isOver ? 'refused' : 'accepted' });
    if (isOver) {
      this.#refuse(connection);
      return;
    }
    this.#perAddress.set(group, ofAddress + 1);
    // A load balancer may have ended the client's TLS itself, and said so.
    if (listener.tls === 'implicit' && connection.tls === undefined) this.#secure(connection);
    else this.#begin(connection);
  }

  #begin(connection: Connection): void {
    const dialogue = this.#options.dialogue(connection, (ended) => {
      this.#dialogues.delete(ended);
      this.#release(connection.remoteAddress);
    });
    this.#dialogues.add(dialogue);
    dialogue.start();
  }

  #secure(connection: Connection): void {
    const { tls, ports } = this.#options;
    if (tls === undefined) return;
    this.#handshakes += 1;
    let isGone = false;
    connection.handle({
      data: () => {},
      close: () => {
        isGone = true;
      },
    });
    connection.startTls(tls).then(
      () => {
        this.#handshakes -= 1;
        if (isGone) this.#release(connection.remoteAddress);
        else this.#begin(connection);
      },
      (error: unknown) => {
        this.#handshakes -= 1;
        this.#release(connection.remoteAddress);
        ports.log.debug(
          { protocol: this.#options.listener.protocol, clientIp: connection.remoteAddress, errCode: codeOf(error) },
          messageOf(error),
        );
      },
    );
  }

  #release(address: string): void {
    const group = clientGroup(address);
    const left = (this.#perAddress.get(group) ?? 1) - 1;
    if (left === 0) this.#perAddress.delete(group);
    else this.#perAddress.set(group, left);
  }

  #refuse(connection: Connection): void {
    const { listener, ports, refusal } = this.#options;
    ports.log.debug(
      { protocol: listener.protocol, clientIp: connection.remoteAddress, errCode: 'LIMIT_CONNECTIONS' },
      'connection refused: over a limit',
    );
    const isImplicit = listener.tls === 'implicit' && connection.tls === undefined;
    // A flood is not worth a TLS handshake for each of its connections.
    if (this.#refusals >= refusalsAtATimeMax || (isImplicit && !this.#refusedHandshakes.take())) {
      connection.handle({ data: () => {}, close: () => {} });
      connection.destroy();
      return;
    }
    this.#refusals += 1;
    refuseWith(connection, isImplicit ? this.#options.tls : undefined, refusal, ports.clock, () => {
      this.#refusals -= 1;
    });
  }
}

function refuseWith(connection: Connection, tls: TlsServerOptions | undefined, text: string, clock: Clock, done: () => void): void {
  const timer = clock.after(refusalMs, () => connection.destroy());
  connection.handle({
    data: () => {},
    close: () => {
      timer.cancel();
      done();
    },
  });
  const answer = (): void => {
    connection.write(text);
    connection.end();
  };
  if (tls === undefined) answer();
  // A handshake that fails ends in the `close` above.
  else connection.startTls(tls).then(answer, () => {});
}

function codeOf(error: unknown): ErrorCode | undefined {
  return error instanceof Error && 'code' in error ? (error.code as ErrorCode) : undefined;
}
