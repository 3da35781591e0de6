/**
 * Where an account's connections go, for proxies and mail servers that are not ours and ask before they connect: nginx, Dovecot, Postfix.
 *
 * An account of a foreign cluster is on one of its hosts; an account of a cluster of ours is reached through a frontend, whose own listeners are named then.
 */
import { type AccountName, type DomainName, domainOf, tryParseAccountName } from '#common/account-name.ts';
import type { ForeignProtocol } from '#directory/client/records.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { ForeignClusters } from '#frontend/foreign/foreign-clusters.ts';
import type { Domains } from '#frontend/routing/domains.ts';
import type { AccountRouter } from '#frontend/routing/route-account.ts';

/** What is known of an address. `unknown` is the master's word; everything that stands in the way is `temporary`. */
export type Destination =
  | {
      readonly kind: 'server';
      /** Whether it is a frontend of ours, which takes mail by SMTP, and not a foreign host, which takes it by LMTP. */
      readonly isFrontend: boolean;
      readonly host: string;
      readonly port: number;
      readonly tls: string;
      /** Empty where nobody logs in. */
      readonly account: string;
    }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'temporary'; readonly reason: string };

/** What finding needs. */
export interface DestinationOptions {
  readonly router: AccountRouter;
  readonly foreign: ForeignClusters;
  readonly defaultDomain: DomainName | undefined;
  readonly domains: Pick<Domains, 'find'>;
  /** This frontend's own listeners. */
  listeners(): FrontendStatus['listeners'];
}

/** See the header of this file. */
export class Destinations {
  readonly #options: DestinationOptions;

  constructor(options: DestinationOptions) {
    this.#options = options;
  }

  /**
   * Never rejects.
   *
   * @param login as a client or a mail server gives it: a login name or an address
   * @param reached address of ours that whoever asks has reached, for listeners that listen on all
   */
  async find(login: string, protocol: ForeignProtocol, reached: string): Promise<Destination> {
    const address = tryParseAccountName(login, this.#options.defaultDomain);
    if (address === undefined) return { kind: 'unknown' };
    const found = await this.#of(address, protocol, reached);
    if (found.kind !== 'unknown' || protocol !== 'lmtp') return found;
    const catchAll = this.#options.domains.find(domainOf(address))?.catchAll;
    if (catchAll === undefined || catchAll === address) return found;
    const other = await this.#of(catchAll, protocol, reached);
    return other.kind === 'unknown' ? { kind: 'temporary', reason: `mailCatchAll ${catchAll} does not exist` } : other;
  }

  /** Where mail is taken from servers that have not logged in: our own SMTP listener judges its recipients itself. */
  ofMail(reached: string): Destination {
    return this.#own('', 'lmtp', reached);
  }

  async #of(address: AccountName, protocol: ForeignProtocol, reached: string): Promise<Destination> {
    const { router, foreign } = this.#options;
    const found = await router.route(address);
    const route =
      found.kind === 'routed' && found.cluster.foreign !== undefined && found.name === undefined
        ? await router.routeWithUuid(address)
        : found;
    if (route.kind === 'unknown') return route;
    if (route.kind === 'temporary') return { kind: 'temporary', reason: route.error.message };
    const { cluster, pinned, name } = route;
    if (cluster.foreign === undefined) return this.#own(address, protocol, reached);
    if (name === undefined)
      return { kind: 'temporary', reason: `the name of the account with the address ${address} could not be looked up` };
    const service = cluster.foreign.find((each) => each.protocol === protocol);
    if (service === undefined) return { kind: 'temporary', reason: `${cluster.name} has no foreignService ${protocol}` };
    const choice = foreign.choose({ cluster, pinned, name });
    if (choice === undefined) return { kind: 'temporary', reason: `no host of ${cluster.name} may be used now` };
    return { kind: 'server', isFrontend: false, host: choice.host.host, port: service.port, tls: service.tls, account: name };
  }

  /** Mail is taken by our SMTP listener; the other protocols by the listener without implicit TLS, if there is one. */
  #own(account: AccountName | '', protocol: ForeignProtocol, reached: string): Destination {
    const wanted = protocol === 'lmtp' ? 'smtp' : protocol;
    const own = this.#options.listeners().filter((each) => each.protocol === wanted);
    const listener = own.find(({ tls }) => tls !== 'implicit') ?? own[0];
    if (listener === undefined) return { kind: 'temporary', reason: `this frontend has no ${wanted} listener` };
    const host = listener.address === '0.0.0.0' || listener.address === '::' ? reached : listener.address;
    return { kind: 'server', isFrontend: true, host, port: listener.port, tls: listener.tls, account };
  }
}
