/**
 * `ClusterAccounts`: account operations of a cluster, asked of any of its members; whichever is asked passes them to the Controller.
 *
 * A question is asked of the next member when one cannot be reached. A change is, only if it was never sent: what may have happened is
 * reported as it is, and the Controller's journal brings it to an end.
 */
import type { AccountWhereabouts, ClusterAccounts, LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { AccountCheckReport, AccountRepairReport, ClusterStatus, StoreReport } from '#backend-cluster/client/status.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, parseMemberName } from '#common/host-server.ts';
import type { Connection } from '#common/network/network.ts';
import { hopsMax } from '#protocol/link/messages.ts';

/** A cluster's members, as the topology has them. */
export interface ClusterSeeds {
  readonly name: ClusterName;
  readonly members: readonly MemberAddress[];
}

/** What it is made of. */
export interface ClusterAccountsOptions {
  readonly link: LinkClient;
  /** The clusters now, from the directory's topology. */
  clusters(): Promise<readonly ClusterSeeds[]> | readonly ClusterSeeds[];
}

/** Longest time of an operation: the Controller's own limit, an election before it, and the way. */
const operationTimeoutMs = 45_000;
const questionTimeoutMs = 15_000;
/** A large account is read as a whole. */
const storeTimeoutMs = 615_000;
/** A member may have thousands of accounts to close. */
const manageTimeoutMs = 75_000;

/** Makes the door to the accounts of all clusters. */
export function createClusterAccounts(options: ClusterAccountsOptions): ClusterAccounts {
  const call = async (cluster: ClusterName, method: string, params: object, timeoutMs = operationTimeoutMs): Promise<unknown> => {
    const seeds = (await options.clusters()).find((record) => record.name === cluster);
    if (seeds === undefined) throw new PlatformError('ROUTE_UNKNOWN_CLUSTER', `the topology has no cluster ${cluster}`);
    const isQuestion = method === 'status' || method === 'accounts.where-is';
    let last: PlatformError | undefined;
    for (const member of inOrder(options.link, seeds.members)) {
      try {
        return await options.link.call(member, method, params, isQuestion ? questionTimeoutMs : timeoutMs);
      } catch (error) {
        last = asPlatformError(error);
        const wasNeverSent = last.code === 'NET_CONNECT_FAILED' || last.code === 'LINK_REFUSED' || last.code === 'NET_TLS_FAILED';
        if (!wasNeverSent && !(isQuestion && last.code.startsWith('NET_'))) throw last;
      }
    }
    throw new PlatformError('ROUTE_NO_MEMBER', `no member of ${cluster} can be reached: ${last?.message ?? 'the topology lists none'}`, {
      cause: last,
    });
  };
  return {
    async create(cluster, account) {
      const params = { ...account, ...(account.password === undefined ? {} : { password: account.password.reveal() }) };
      const { uuid } = (await call(cluster, 'accounts.create', params)) as { uuid: string };
      return { uuid: parseAccountUuid(uuid) };
    },
    async rename(cluster, uuid, to) {
      await call(cluster, 'accounts.rename', { uuid, to });
    },
    async remove(cluster, uuid) {
      await call(cluster, 'accounts.remove', { uuid });
    },
    async restore(cluster, { removed, name, password }) {
      const params = {
        removed,
        ...(name === undefined ? {} : { name }),
        ...(password === undefined ? {} : { password: password.reveal() }),
      };
      return (await call(cluster, 'accounts.restore', params)) as { uuid: AccountUuid; name: string };
    },
    openArchive: (cluster, uuid, service, from) => openArchive(options, cluster, uuid, service, from),
    async store(cluster) {
      return (await call(cluster, 'store.stat', {})) as StoreReport;
    },
    async startScrub(cluster) {
      return (await call(cluster, 'store.scrub', {})) as StoreReport;
    },
    async checkAccount(cluster, uuid) {
      return (await call(cluster, 'store.check', { uuid }, storeTimeoutMs)) as AccountCheckReport;
    },
    async repairAccount(cluster, uuid, how) {
      return (await call(cluster, 'store.repair', { uuid, ...how }, storeTimeoutMs)) as AccountRepairReport;
    },
    manage: (cluster, method, params) => call(cluster, method, params, manageTimeoutMs),
    async status(cluster) {
      return (await call(cluster, 'status', {})) as ClusterStatus;
    },
    async whereIs(cluster, uuid) {
      return (await call(cluster, 'accounts.where-is', { uuid })) as AccountWhereabouts;
    },
  };
}

async function openArchive(
  { link, clusters }: ClusterAccountsOptions,
  cluster: ClusterName,
  uuid: AccountUuid,
  service: 'export' | 'import',
  from: string,
): Promise<Connection> {
  const seeds = (await clusters()).find((record) => record.name === cluster);
  const candidates = [...inOrder(link, seeds?.members ?? [])];
  let last: PlatformError | undefined;
  let hops = 0;
  for (let member = candidates.shift(); member !== undefined; member = candidates.shift()) {
    try {
      const request = {
        service,
        sessionId: `${service}-${uuid}`,
        account: { uuid, name: '' },
        client: { address: '', port: 0, tls: false },
        from,
        hops,
      };
      const { answer, channel } = await link.openSession(member, request);
      if (channel !== undefined) return channel;
      if (answer.outcome === 'at' && hops < hopsMax) {
        hops += 1;
        candidates.unshift({ name: parseMemberName(answer.member), host: answer.host, port: answer.port });
      } else if (answer.outcome === 'refused') {
        throw new PlatformError(answer.code, answer.message);
      } else {
        throw new PlatformError('LINK_MOVED', `${cluster} does not host ${uuid} any more`);
      }
    } catch (error) {
      last = asPlatformError(error);
      if (!last.code.startsWith('NET_')) throw last;
    }
  }
  throw new PlatformError('ROUTE_NO_MEMBER', `no member of ${cluster} can be reached: ${last?.message ?? 'the topology lists none'}`, {
    cause: last,
  });
}

// Members that are up first, those known to be down last.
function inOrder(link: LinkClient, members: readonly MemberAddress[]): readonly MemberAddress[] {
  const rank = { up: 0, unknown: 1, draining: 2, down: 3 };
  return [...members].sort((a, b) => rank[link.health(a).state] - rank[link.health(b).state]);
}
