/**
 * Routing as the mail half of the frontend sees it (listeners/smtp-contract.ts): is the domain ours, whose is the address, where is the account now.
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf } from '#common/account-name.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import type { DirectoryFollower, DirectoryReader } from '#directory/client/directory.ts';
import type { MailRoute, MailRouter } from '#frontend/listeners/smtp-contract.ts';
import type { AccountRouter } from './route-account.ts';
import type { Routes } from './routes.ts';

/** Makes the router of the mail half. */
export function createMailRouter(options: {
  readonly routes: Routes;
  readonly router: AccountRouter;
  readonly reader: DirectoryReader;
  readonly follower: DirectoryFollower;
}): MailRouter {
  const { routes, router, reader, follower } = options;
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
      // As it was given: the member knows aliases itself, and an alternate address may have been entered at one.
      return { kind: 'local', uuid: route.uuid, name: address, cluster: route.cluster.name };
    },

    async resolveUuid(uuid: AccountUuid): Promise<MailRoute> {
      const { route, name } = await router.routeUuid(uuid);
      if (route.kind !== 'routed' || name === undefined) return route.kind === 'routed' ? { kind: 'unknown' } : route;
      return { kind: 'local', uuid, name, cluster: route.cluster.name };
    },
  };
}
