/**
 * Who is connected to an SMTP listener, from the moment that the system gives the connection out: the library itself looks at a client only once TLS
 * and the PROXY header are behind it, and until then one address could take all the room that there is.
 *
 *   accepted ─► [PROXY header] ─► judged as whose connection it is, counted ─► [TLS] ─► session ─► left
 *
 * The header is read here: the library knows version 1 only, and nothing of the address that the client reached or of TLS that the load balancer ended.
 *
 * Whoever is over a limit hears 421 where no handshake comes first, a stated number at a time; the others are hung up on.
 */
import type { Socket } from 'node:net';
import type { SMTPServer } from 'smtp-server';
import type { Clock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { addressList } from '#common/network/address-list.ts';
import { ProxyDecoder, type ProxyHeader } from '#protocol/proxy/header.ts';
import type { AddressRules } from '../guard/address-rules.ts';
import { clientGroup, clientPrefix } from '../guard/client-group.ts';
import type { ListenerLimits } from '../subset/settings.ts';
import { oneLess, refusalsAtATimeMax } from './mail-listener.ts';
import { proxyHeaderMs } from './proxied-connection.ts';

/** Time for the handshake where TLS comes first, milliseconds. */
export const beginningMs = 20_000;
/** Time for a refused client to read why, milliseconds. */
const refusalMs = 1000;

/** What becomes of a client. */
export type Outcome = 'accepted' | 'refused' | 'blocked';

export interface SmtpGuestsOptions {
  readonly clock: Clock;
  readonly rules: AddressRules | undefined;
  /** Load balancers whose connections begin with a header. */
  readonly proxyFrom: readonly string[];
  readonly isTlsFirst: boolean;
  limits(): ListenerLimits;
  judged(address: string, outcome: Outcome): void;
  /** A load balancer’s header did not come, or is none. */
  headerless(address: string, why: string): void;
}

interface Guest {
  readonly key: string;
  readonly socket: Socket;
  /** Whose connection it counts as, once that is known. */
  address: string | undefined;
  /** What a load balancer said of it. */
  header: ProxyHeader | undefined;
}

/** See the header of this file. */
export class SmtpGuests {
  readonly #options: SmtpGuestsOptions;
  readonly #sendsHeader: (address: string) => boolean;
  /** By both ends' addresses and the client's port: TLS puts another socket on top of the one that was accepted. */
  readonly #guests = new Map<string, Guest>();
  /** By the library's name of the session. STARTTLS takes our listeners off the socket: from then on the session says that it is over. */
  readonly #bySession = new Map<string, Guest>();
  readonly #perAddress = new Map<string, number>();
  readonly #perPrefix = new Map<string, number>();
  readonly #refused = new Set<Socket>();
  #nextSession = 1;

  constructor(options: SmtpGuestsOptions) {
    this.#options = options;
    this.#sendsHeader = addressList(options.proxyFrom);
  }

  /** Clients connected. */
  get size(): number {
    return this.#guests.size;
  }

  /** Stands between a server's socket and the library from now on. */
  watch(server: SMTPServer): void {
    const [takeUp] = server.server.listeners('connection') as [(socket: Socket) => void];
    server.server.removeAllListeners('connection').on('connection', (socket: Socket) => {
      const key = keyOf(socket);
      // A client that has gone again.
      if (key === undefined) socket.destroy();
      else this.#arrived(server, socket, key, takeUp);
    });
    const connect = server.connect.bind(server);
    server.connect = (socket, options) => {
      const key = keyOf(socket);
      const guest = key === undefined ? undefined : this.#guests.get(key);
      if (guest !== undefined && options?.id !== undefined) this.#bySession.set(options.id, guest);
      const { sourceAddress, sourcePort, destinationAddress, destinationPort } = guest?.header?.client ?? {};
      // Undefined: the socket's own.
      const addresses = {
        remoteAddress: sourceAddress,
        remotePort: sourcePort,
        localAddress: destinationAddress,
        localPort: destinationPort,
      };
      connect(socket, { ...options, ...addresses });
    };
  }

  /** TLS that a load balancer says it has ended for the client of a session. */
  tlsBefore(sessionId: string): ProxyHeader['tls'] {
    return this.#bySession.get(sessionId)?.header?.tls;
  }

  /** A session is over. */
  left(sessionId: string): void {
    const guest = this.#bySession.get(sessionId);
    if (guest === undefined) return;
    this.#bySession.delete(sessionId);
    this.#leave(guest);
  }

  /** Ends every connection. */
  destroy(): void {
    for (const { socket } of this.#guests.values()) socket.destroy();
    for (const socket of this.#refused) socket.destroy();
  }

  #arrived(server: SMTPServer, socket: Socket, key: string, takeUp: (socket: Socket) => void): void {
    const guest: Guest = { key, socket, address: undefined, header: undefined };
    const address = plainAddress(socket.remoteAddress ?? '');
    const { isTlsFirst, limits, headerless } = this.#options;
    const sendsHeader = this.#sendsHeader(address);
    if (!sendsHeader && !this.#admit(guest, address, isTlsFirst ? undefined : socket)) return;
    // Who comes by a load balancer is known once the header has been read.
    if (sendsHeader && this.#guests.size >= limits().connectionsMax) {
      socket.on('error', () => {}).destroy();
      return;
    }
    this.#guests.set(key, guest);
    socket.once('close', () => this.#leave(guest));
    if (!sendsHeader) {
      this.#begin(server, socket, takeUp);
      return;
    }
    this.#readHeader(socket).then(
      (header) => {
        guest.header = header;
        const hasTlsAhead = isTlsFirst && header.tls === undefined;
        if (!this.#admit(guest, header.client?.sourceAddress ?? address, hasTlsAhead ? undefined : socket)) return;
        if (isTlsFirst && !hasTlsAhead) server.connect(socket, { id: `proxied-${this.#nextSession++}` });
        else this.#begin(server, socket, takeUp);
      },
      (error: unknown) => {
        socket.destroy();
        headerless(address, messageOf(error));
      },
    );
  }

  /** Rejects when none came in time, or something else. What follows it is left in the socket. */
  #readHeader(socket: Socket): Promise<ProxyHeader> {
    const decoder = new ProxyDecoder();
    return new Promise((resolve, reject) => {
      const over = (): void => {
        timer.cancel();
        socket.off('data', take).off('close', gone);
      };
      const fail = (why: string): void => {
        over();
        reject(new Error(why));
      };
      const gone = (): void => fail('it hung up before its PROXY header was whole');
      const take = (chunk: Buffer): void => {
        const result = decoder.push(chunk);
        if (result.kind === 'more') return;
        if (result.kind === 'bad') {
          fail(result.reason);
          return;
        }
        over();
        socket.pause();
        if (result.rest.length > 0) socket.unshift(result.rest);
        resolve(result.header);
      };
      const timer = this.#options.clock.after(proxyHeaderMs, () => fail(`it sent no PROXY header within ${proxyHeaderMs} ms`));
      socket.on('error', () => {});
      socket.on('data', take).once('close', gone);
    });
  }

  #begin(server: SMTPServer, socket: Socket, takeUp: (socket: Socket) => void): void {
    takeUp(socket);
    if (!server._pendingSockets.has(socket)) return;
    // Of the two sockets of a handshake the upper one has to be destroyed.
    const timer = this.#options.clock.after(beginningMs, () => server._pendingSockets.get(socket)?.destroy());
    socket.once('close', () => timer.cancel());
  }

  /** @param open the socket on which a refusal can be said in clear or within TLS; missing: none */
  #admit(guest: Guest, address: string, open: Socket | undefined): boolean {
    const { rules, judged } = this.#options;
    const verdict = rules?.find(address)?.verdict;
    const [group, prefix] = [clientGroup(address), clientPrefix(address)];
    const { perAddressMax, perPrefixMax, connectionsMax } = this.#options.limits();
    const ofAddress = this.#perAddress.get(group) ?? 0;
    const ofPrefix = this.#perPrefix.get(prefix) ?? 0;
    const isMany = (ofAddress >= perAddressMax || ofPrefix >= perPrefixMax) && verdict !== 'allow';
    const refusal =
      verdict === 'block'
        ? '421 4.7.0 Not now'
        : isMany
          ? '421 4.7.0 Too many connections from your address'
          : this.#guests.size >= connectionsMax + Number(this.#guests.get(guest.key) === guest)
            ? '421 4.3.2 Too many connections, try again later'
            : undefined;
    judged(address, refusal === undefined ? 'accepted' : verdict === 'block' ? 'blocked' : 'refused');
    if (refusal !== undefined) {
      this.#refuse(guest, open, refusal);
      return false;
    }
    guest.address = address;
    this.#perAddress.set(group, ofAddress + 1);
    this.#perPrefix.set(prefix, ofPrefix + 1);
    return true;
  }

  #refuse({ socket }: Guest, open: Socket | undefined, text: string): void {
    if (open === undefined || this.#refused.size >= refusalsAtATimeMax) {
      socket.on('error', () => {});
      (open ?? socket).on('error', () => {}).destroy();
      return;
    }
    this.#refused.add(open);
    const timer = this.#options.clock.after(refusalMs, () => open.destroy());
    open
      .on('error', () => {})
      .once('close', () => {
        timer.cancel();
        this.#refused.delete(open);
      });
    open.resume().end(`${text}\r\n`);
  }

  #leave(guest: Guest): void {
    const { address } = guest;
    if (this.#guests.get(guest.key) === guest) this.#guests.delete(guest.key);
    guest.address = undefined;
    if (address === undefined) return;
    oneLess(this.#perAddress, clientGroup(address));
    oneLess(this.#perPrefix, clientPrefix(address));
  }
}

// A client may use one port for connections to several addresses of a listener.
function keyOf({ remoteAddress, remotePort, localAddress }: Socket): string | undefined {
  return remoteAddress === undefined ? undefined : `${plainAddress(remoteAddress)} ${remotePort} ${localAddress}`;
}

/** An IPv4 address without what stands before it on a socket for both kinds. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}
