/** The store of a cluster, for operators: how it is, a check, a repair. The cluster's Controller does the work. */
import { type AccountUuid, parseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import type { HttpServer } from '#common/http/server.ts';
import { clustersOf, hostOf, readerOf } from './accounts.ts';
import type { AdminOptions } from './options.ts';

type Cluster = { Params: { cluster: string } };
type Address = { Params: { address: string } };

/** Adds the routes. */
export function addStore(server: HttpServer, options: AdminOptions): void {
  server.get<Cluster>('/api/v1/clusters/:cluster/store', (request) => clustersOf(options).store(parseClusterName(request.params.cluster)));
  server.post<Cluster>('/api/v1/clusters/:cluster/store/scrub', (request) =>
    clustersOf(options).startScrub(parseClusterName(request.params.cluster)),
  );
  server.post<Address>('/api/v1/accounts/:address/check', async (request) => {
    const { cluster, uuid } = await storedAccount(options, request.params.address);
    return clustersOf(options).checkAccount(cluster, uuid);
  });
  server.post<Address>('/api/v1/accounts/:address/repair', async (request) => {
    const { cluster, uuid } = await storedAccount(options, request.params.address);
    const body = (request.body ?? {}) as Record<string, unknown>;
    return clustersOf(options).repairAccount(cluster, uuid, { discardLost: body.discardLost === true, isDryRun: body.dryRun === true });
  });
}

/** Which cluster stores an account: log lines name it by its UUID, people by its address. */
export async function storedAccount(
  options: AdminOptions,
  address: string,
): Promise<{ cluster: ClusterName; uuid: AccountUuid; name: string }> {
  const reader = readerOf(options);
  const uuid = tryParseAccountUuid(address);
  const { record } =
    uuid === undefined
      ? await reader.findAccount(parseAccountName(address), { authoritative: true })
      : await reader.findAccountByUuid(uuid, { authoritative: true });
  if (record === undefined) throw new PlatformError('ACCT_NOT_FOUND', `the master directory has no account ${address}`);
  return { cluster: hostOf(record), uuid: record.uuid, name: record.name };
}
