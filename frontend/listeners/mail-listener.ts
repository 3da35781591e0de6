/**
 * An open port for a protocol with a login dialogue: takes connections in, holds the limits for each address and for the listener, and starts TLS
 * where it comes first. A client over a limit is told so in its protocol; the others notice nothing.
 *
 * Connections are counted before the TLS handshake, so that stalled handshakes count as well, and before they wait for their turn: whoever is blocked or
 * has enough takes nobody's place.
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { ErrorCode } from '#common/errors/catalogue.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { addressList } from '#common/network/address-list.ts';
import type { Connection, Listener, TlsServerOptions } from '#common/network/network.ts';
import { Roster } from '#common/roster.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { FrontendListener } from '#frontend/config.ts';
import type { AddressRules } from '#frontend/guard/address-rules.ts';
import { clientGroup, clientPrefix } from '#frontend/guard/client-group.ts';
import { RateLimit } from '#frontend/routing/rate-limit.ts';
import type { LoginDialogue } from '#frontend/session/login-dialogue.ts';
import { type ListenerLimits, limitsOf } from '#frontend/subset/settings.ts';
import { type CountsElsewhere, type ListenerCounts, nothingElsewhere, told } from '#frontend/subset/shared-counts.ts';
import { readProxyHeader } from './proxied-connection.ts';

/** Clients over a limit that are being told so at a time; beyond that they are hung up on. */
export const refusalsAtATimeMax = 64;
/** TLS handshakes a second made only to say that there are too many connections. */
const refusedHandshakesPerSecond = 20;
/** How often connections that wait for their turn are looked at. */
const paceMs = 20;
/** Time for a refused client to read why, milliseconds. */
const refusalMs = 1000;

/** What a listener is made of. */
export interface MailListenerOptions {
  readonly listener: FrontendListener;
  readonly tls: TlsServerOptions | undefined;
  readonly ports: Pick<Ports, 'clock' | 'network' | 'log' | 'metrics'>;
  /** What operators decided about addresses. */
  readonly rules?: AddressRules;
  /** Missing: those of the listener. */
  readonly limits?: ListenerLimits;
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
  /** Stops accepting; whoever was accepted by then is served. */
  close(): Promise<void>;
  /** Accepts again, at the port that it had. Rejects when somebody else has it by now. */
  reopen(): Promise<void>;
  /** Connections of an address, or its IPv6 /64, now. */
  connectionsOf(address: string): number;
  /** Clients connected, logged in or not. */
  readonly connections: number;
  /** What the other processes of this frontend, so many, need to know of its connections. */
  counts(others: number): ListenerCounts;
  /** What they told of theirs; it counts for limits. */
  setElsewhere(counts: CountsElsewhere): void;
  /** Other limits, for connections from now on. */
  setLimits(limits: ListenerLimits): void;
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

/** A client in a TLS handshake, or before the end of its PROXY header. */
interface Beginning {
  readonly connection: Connection;
  /** For its address. */
  readonly isCounted: boolean;
  isDropped: boolean;
  leave(): void;
}

class MailListener implements RunningMailListener {
  readonly #options: MailListenerOptions;
  readonly #perAddress = new Map<string, number>();
  readonly #perPrefix = new Map<string, number>();
  /** Accepted by the system and waiting for their turn here, in order. */
  readonly #waiting: Connection[] = [];
  readonly #pace: RateLimit;
  #paceTimer: Timer | undefined;
  readonly #dialogues = new Roster<LoginDialogue>();
  /** One for all dialogues. */
  readonly #ended = ({ seat, connection }: LoginDialogue): void => {
    if (seat !== undefined) this.#dialogues.remove(seat);
    this.#release(connection.remoteAddress);
  };
  readonly #connections: ReturnType<Ports['metrics']['counter']>;
  readonly #beginning = new Roster<Beginning>();
  readonly #refusedHandshakes: RateLimit;
  readonly #sendsHeader: (address: string) => boolean;
  #refusals = 0;
  #elsewhere = nothingElsewhere;
  #limits: ListenerLimits;
  #port: Listener | undefined;

  constructor(options: MailListenerOptions) {
    this.#options = options;
    this.#limits = options.limits ?? limitsOf(options.listener);
    const { acceptPerSecond: perSecond } = this.#limits;
    this.#pace = new RateLimit(options.ports.clock, perSecond, 2 * perSecond);
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
    this.#port = await ports.network.listen({ host: listener.address, port: listener.port }, (connection) => this.#queue(connection));
  }

  get connections(): number {
    return this.#dialogues.size + this.#beginning.size + this.#waiting.length;
  }

  get #connectionsEverywhere(): number {
    return this.connections + this.#elsewhere.total;
  }

  counts(others: number): ListenerCounts {
    const { perAddressMax, perPrefixMax } = this.#limits;
    return {
      total: this.connections,
      addresses: told(this.#perAddress, perAddressMax, others),
      prefixes: told(this.#perPrefix, perPrefixMax, others),
    };
  }

  setElsewhere(counts: CountsElsewhere): void {
    this.#elsewhere = counts;
  }

  setLimits(limits: ListenerLimits): void {
    this.#limits = limits;
    this.#pace.setRate(limits.acceptPerSecond, 2 * limits.acceptPerSecond);
  }

  connectionsOf(address: string): number {
    return this.#perAddress.get(clientGroup(address)) ?? 0;
  }

  status(): FrontendStatus['listeners'][number] {
    const { protocol, tls, address, port } = this.#options.listener;
    return { protocol, tls, address: this.#port?.address ?? address, port: this.#port?.port ?? port, sessions: this.#dialogues.size };
  }

  sessions(): IterableIterator<LoginDialogue> {
    return this.#dialogues[Symbol.iterator]();
  }

  async reopen(): Promise<void> {
    const { listener, ports } = this.#options;
    const port = this.#port?.port ?? listener.port;
    this.#port = await ports.network.listen({ host: listener.address, port }, (connection) => this.#queue(connection));
  }

  async close(): Promise<void> {
    await this.#port?.close();
  }

  stop(): void {
    this.#paceTimer?.cancel();
    this.#paceTimer = undefined;
    for (const connection of this.#waiting.splice(0)) {
      if (!this.#sendsHeader(connection.remoteAddress)) this.#release(connection.remoteAddress);
      hangUp(connection);
    }
    // Nothing can be said to them, and whoever stalls would be waited for.
    for (const client of this.#beginning.values()) {
      client.isDropped = true;
      client.leave();
      if (client.isCounted) this.#release(client.connection.remoteAddress);
      client.connection.destroy();
    }
    for (const dialogue of this.#dialogues.values()) dialogue.stop();
  }

  drop(): void {
    for (const dialogue of this.#dialogues.values()) dialogue.drop();
  }

  /** Takes connections up at the listener's pace: a flood costs its own clients time, and not the sessions that are there. */
  #queue(connection: Connection): void {
    // Who comes by a load balancer is known once the header has been read.
    if (!this.#sendsHeader(connection.remoteAddress) && !this.#admit(connection)) return;
    if (this.#waiting.length === 0 && this.#pace.take()) {
      this.#arrive(connection);
      return;
    }
    if (this.#connectionsEverywhere >= this.#limits.connectionsMax) {
      this.#connections.add({ protocol: this.#options.listener.protocol, outcome: 'refused' });
      hangUp(connection);
      return;
    }
    this.#waiting.push(connection);
    this.#paceTimer ??= this.#options.ports.clock.every(paceMs, () => {
      while (this.#waiting.length > 0 && this.#pace.take()) this.#arrive(this.#waiting.shift() as Connection);
      if (this.#waiting.length > 0) return;
      this.#paceTimer?.cancel();
      this.#paceTimer = undefined;
    });
  }

  #arrive(connection: Connection): void {
    if (!this.#sendsHeader(connection.remoteAddress)) {
      this.#enter(connection);
      return;
    }
    const { listener, ports } = this.#options;
    if (this.#connectionsEverywhere >= this.#limits.connectionsMax) {
      this.#refuse(connection);
      return;
    }
    const isWanted = this.#beginsWith(connection, false);
    readProxyHeader(connection, ports.clock).then(
      (proxied) => {
        if (isWanted() && this.#admit(proxied)) this.#enter(proxied);
      },
      (error: unknown) => {
        isWanted();
        ports.log.debug({ protocol: listener.protocol, clientIp: connection.remoteAddress, errCode: codeOf(error) }, messageOf(error));
      },
    );
  }

  /** Counts a client, or sends it away. */
  #admit(connection: Connection): boolean {
    const { listener } = this.#options;
    const rule = this.#options.rules?.find(connection.remoteAddress);
    if (rule?.verdict === 'block') {
      this.#connections.add({ protocol: listener.protocol, outcome: 'blocked' });
      hangUp(connection);
      return false;
    }
    const group = clientGroup(connection.remoteAddress);
    const prefix = clientPrefix(connection.remoteAddress);
    const ofAddress = this.#perAddress.get(group) ?? 0;
    const ofPrefix = this.#perPrefix.get(prefix) ?? 0;
    const { addresses, prefixes } = this.#elsewhere;
    const isMany =
      ofAddress + (addresses.get(group) ?? 0) >= this.#limits.perAddressMax ||
      ofPrefix + (prefixes.get(prefix) ?? 0) >= this.#limits.perPrefixMax;
    const isOver = this.#connectionsEverywhere >= this.#limits.connectionsMax || (isMany && rule?.verdict !== 'allow');
    this.#connections.add({ protocol: listener.protocol, outcome: isOver ? 'refused' : 'accepted' });
    if (isOver) {
      this.#refuse(connection);
      return false;
    }
    this.#perAddress.set(group, ofAddress + 1);
    this.#perPrefix.set(prefix, ofPrefix + 1);
    return true;
  }

  #enter(connection: Connection): void {
    const { listener } = this.#options;
    // A load balancer may have ended the client's TLS itself, and said so.
    if (listener.tls === 'implicit' && connection.tls === undefined) this.#secure(connection);
    else this.#begin(connection);
  }

  #begin(connection: Connection): void {
    const dialogue = this.#options.dialogue(connection, this.#ended);
    dialogue.seat = this.#dialogues.add(dialogue);
    dialogue.start();
  }

  #secure(connection: Connection): void {
    const { tls, ports } = this.#options;
    if (tls === undefined) return;
    const isWanted = this.#beginsWith(connection, true);
    let isGone = false;
    connection.handle({
      data: () => {},
      close: () => {
        isGone = true;
      },
    });
    connection.startTls(tls).then(
      () => {
        if (!isWanted()) return;
        if (isGone) this.#release(connection.remoteAddress);
        else this.#begin(connection);
      },
      (error: unknown) => {
        if (isWanted()) this.#release(connection.remoteAddress);
        ports.log.debug(
          { protocol: this.#options.listener.protocol, clientIp: connection.remoteAddress, errCode: codeOf(error) },
          messageOf(error),
        );
      },
    );
  }

  /** Returns what is to be called at the end of it, which says whether the client has not been dropped. */
  #beginsWith(connection: Connection, isCounted: boolean): () => boolean {
    const client = { connection, isCounted, isDropped: false, leave: () => this.#beginning.remove(seat) };
    const seat = this.#beginning.add(client);
    return () => {
      client.leave();
      return !client.isDropped;
    };
  }

  #release(address: string): void {
    oneLess(this.#perAddress, clientGroup(address));
    oneLess(this.#perPrefix, clientPrefix(address));
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
      hangUp(connection);
      return;
    }
    this.#refusals += 1;
    refuseWith(connection, isImplicit ? this.#options.tls : undefined, refusal, ports.clock, () => {
      this.#refusals -= 1;
    });
  }
}

/** Takes one off a count that is dropped at zero. */
export function oneLess(counts: Map<string, number>, key: string): void {
  const left = (counts.get(key) ?? 1) - 1;
  if (left === 0) counts.delete(key);
  else counts.set(key, left);
}

function hangUp(connection: Connection): void {
  connection.handle({ data: () => {}, close: () => {} });
  connection.destroy();
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
