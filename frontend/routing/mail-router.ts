/**
 * Routing as the mail half of the frontend sees it (listeners/smtp-contract.ts): is the domain ours, whose is the address, where is the account now.
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { DirectoryFollower, DirectoryReader } from '#directory/client/directory.ts';
import type { DomainRecord } from '#directory/client/records.ts';
import type { ForeignClusters } from '#frontend/foreign/foreign-clusters.ts';
import type { MailRoute, MailRouter } from '#frontend/listeners/smtp-contract.ts';
import type { AccountRoute, AccountRouter } from './route-account.ts';
import type { Routes } from './routes.ts';

type RoutedAccount = Extract<AccountRoute, { kind: 'routed' }>;

/** Makes the router of the mail half. */
export function createMailRouter(options: {
  readonly routes: Routes;
  readonly router: AccountRouter;
  readonly reader: DirectoryReader;
  readonly follower: DirectoryFollower;
  readonly foreign: ForeignClusters;
}): MailRouter {
  const { routes, router, reader, follower, foreign } = options;
  const local = (route: RoutedAccount, address: AccountName): MailRoute => {
    const { uuid, cluster, pinned, name } = route;
    // As it was given: the member knows aliases itself, and an alternate address may have been entered at one.
    if (cluster.foreign === undefined || name === undefined) return { kind: 'local', uuid, name: address, cluster: cluster.name };
    // A foreign server knows the account by its name, and mail goes to the host that the sessions are on.
    const host = foreign.choose({ cluster, pinned, name })?.host.name;
    return { kind: 'local', uuid, name, cluster: host === undefined ? cluster.name : (host as unknown as ClusterName) };
  };
  const findDomain = async (name: DomainName): Promise<DomainRecord | undefined> => {
    const known = routes.domains.find(name);
    if (known !== undefined) return known;
    // While the directory is followed the list is as good as a look-up; otherwise a domain may be new, and "not ours" is a permanent refusal.
    return routes.isRefreshed && follower.status().state === 'following' ? undefined : reader.findDomain(name);
  };
  return {
    async isLocalDomain(domain: DomainName): Promise<boolean> {
      return (await findDomain(domain)) !== undefined;
    },

    async resolve(address: AccountName): Promise<MailRoute> {
      let domain: DomainRecord | undefined;
      try {
        domain = await findDomain(domainOf(address));
      } catch (thrown) {
        return { kind: 'temporary', error: asPlatformError(thrown) };
      }
      if (domain === undefined) return { kind: 'foreign-domain' };
      const route = await router.routeWithUuid(address);
      if (route.kind === 'routed') return local(route, address);
      const { catchAll } = domain;
      // Only once the master has said that nobody has the address.
      if (route.kind === 'temporary' || catchAll === undefined || catchAll === address) return route;
      const other = await router.routeWithUuid(catchAll);
      if (other.kind === 'unknown') return { kind: 'temporary', error: noSuchCatchAll(domain.name, catchAll) };
      return other.kind === 'routed' ? local(other, catchAll) : other;
    },

    async resolveUuid(uuid: AccountUuid): Promise<MailRoute> {
      const { route, name } = await router.routeUuid(uuid);
      if (route.kind !== 'routed' || name === undefined) return route.kind === 'routed' ? { kind: 'unknown' } : route;
      return local(route, name);
    },
  };
}

function noSuchCatchAll(domain: DomainName, catchAll: AccountName): PlatformError {
  return new PlatformError(
    'ROUTE_NO_CATCH_ALL',
    `mailCatchAll of the domain ${domain} is ${catchAll}, and there is no such account; create it, or change or remove mailCatchAll`,
    { fields: { account: catchAll } },
  );
}
