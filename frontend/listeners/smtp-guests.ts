/**
 * Who is connected to an SMTP listener, from the moment that the system gives the connection out: the library itself looks at a client only once TLS
 * and the PROXY header are behind it, and until then one address could take all the room that there is.
 *
 *   accepted ─► judged, counted ─► [PROXY header: judged anew, as its client's] ─► [TLS] ─► session ─► left
 *
 * Whoever is over a limit hears 421 where no handshake comes first, a stated number at a time; the others are hung up on.
 */
import type { Socket } from 'node:net';
import type { SMTPServer } from 'smtp-server';
import type { Clock } from '#common/clock.ts';
import { addressList } from '#common/network/address-list.ts';
import type { AddressRules } from '../guard/address-rules.ts';
import { clientGroup, clientPrefix } from '../guard/client-group.ts';
import type { ListenerLimits } from '../subset/settings.ts';
import { oneLess, refusalsAtATimeMax } from './mail-listener.ts';

/** Time for the PROXY header and the handshake where TLS comes first, milliseconds. */
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
}

interface Guest {
  readonly key: string;
  readonly socket: Socket;
  /** Whose connection it counts as, once that is known. */
  address: string | undefined;
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
      else if (this.#arrived(socket, key)) this.#begin(server, socket, takeUp);
    });
    const connect = server.connect.bind(server);
    server.connect = (socket, options) => {
      const key = keyOf(socket);
      const guest = key === undefined ? undefined : this.#guests.get(key);
      if (guest !== undefined) {
        if (guest.address === undefined && !this.#admit(guest, plainAddress(options?.remoteAddress ?? socket.remoteAddress ?? ''), socket))
          return;
        if (options?.id !== undefined) this.#bySession.set(options.id, guest);
      }
      connect(socket, options);
    };
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

  #arrived(socket: Socket, key: string): boolean {
    const guest: Guest = { key, socket, address: undefined };
    const address = plainAddress(socket.remoteAddress ?? '');
    // Who comes by a load balancer is known once the header has been read.
    if (!this.#sendsHeader(address) && !this.#admit(guest, address, this.#options.isTlsFirst ? undefined : socket)) return false;
    this.#guests.set(key, guest);
    socket.once('close', () => this.#leave(guest));
    return true;
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
