/**
 * Routing as the mail half of the frontend sees it (listeners/smtp-contract.ts): is the domain ours, whose is the address, where is the account now.
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf } from '#common/account-name.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { DirectoryFollower, DirectoryReader } from '#directory/client/directory.ts';
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
  return {
    async isLocalDomain(domain: DomainName): Promise<boolean> {
      if (routes.hasDomain(domain)) return true;
      // While the directory is followed the list is as good as a look-up; otherwise a domain may be new, and "not ours" is a permanent refusal.
      return routes.isRefreshed && follower.status().state === 'following' ? false : reader.findDomain(domain);
    },

    async resolve(address: AccountName): Promise<MailRoute> {
      try {
        if (!(await this.isLocalDomain(domainOf(address)))) return { kind: 'foreign-domain' };
      } catch (thrown) {
        return { kind: 'temporary', error: asPlatformError(thrown) };
      }
      const route = await router.routeWithUuid(address);
      if (route.kind !== 'routed') return route;
      return local(route, address);
    },

    async resolveUuid(uuid: AccountUuid): Promise<MailRoute> {
      const { route, name } = await router.routeUuid(uuid);
      if (route.kind !== 'routed' || name === undefined) return route.kind === 'routed' ? { kind: 'unknown' } : route;
      return local(route, name);
    },
  };
}
