/**
 * Account operations. They run on the hosting cluster's Controller, which journals them; this file only finds the cluster and asks.
 * Nothing permanent is said about an account that the master has not been asked about.
 */
import type { ClusterAccounts } from '#backend-cluster/client/cluster-client.ts';
import { type AccountName, parseAccountName } from '#common/account-name.ts';
import { withTimeout } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import { Secret } from '#common/secret.ts';
import type { DirectoryReader, DirectoryWriter } from '#directory/client/directory.ts';
import type { AccountRecord, ClusterRecord } from '#directory/client/records.ts';
import type { AdminOptions } from './options.ts';
import type { AccountView, ClusterView, StatusReport } from './reports.ts';

/** Longest password that is taken, octets. */
export const passwordBytesMax = 1024;

/** Time that a cluster has to say how full it is before an account is placed elsewhere. */
const placementTimeoutMs = 2_000;

/** Creates an account; without `cluster` the cluster with the fewest accounts for its weight takes it. */
export async function createAccount(
  options: AdminOptions,
  request: Readonly<Record<string, unknown>>,
  status: () => Promise<StatusReport>,
): Promise<{ uuid: string; name: string; cluster: string; placedBy: string }> {
  const accounts = clustersOf(options);
  const name = parseAccountName(textOf(request, 'name'));
  const given = optionalText(request, 'cluster');
  const quotaBytes = request.quotaBytes;
  if (quotaBytes !== undefined && !(Number.isSafeInteger(quotaBytes) && (quotaBytes as number) >= 0)) {
    throw new PlatformError('ADMIN_BAD_REQUEST', 'quotaBytes is not a whole number of bytes');
  }
  const password = optionalText(request, 'password');
  if (password !== undefined) checkPassword(password);
  const displayName = optionalText(request, 'displayName');
  const account = {
    name,
    ...(password === undefined ? {} : { password: new Secret(password) }),
    ...(displayName === undefined ? {} : { displayName }),
    ...(quotaBytes === undefined ? {} : { quotaBytes: quotaBytes as number }),
  };
  if (given !== undefined) {
    const cluster = parseClusterName(given);
    return { ...(await accounts.create(cluster, account)), name, cluster, placedBy: 'request' };
  }
  const cluster = await placeAccount(options, accounts, status);
  return { ...(await accounts.create(cluster, account)), name, cluster, placedBy: 'fewest accounts' };
}

/** Renames an account; sessions and mail stay with it. */
export async function renameAccount(
  options: AdminOptions,
  address: string,
  request: Readonly<Record<string, unknown>>,
): Promise<AccountView> {
  const to = parseAccountName(textOf(request, 'to'));
  const accounts = clustersOf(options);
  const record = await knownAccount(readerOf(options), parseAccountName(address));
  await accounts.rename(hostOf(record), record.uuid, to);
  return { ...accountView(record, 'master'), name: to, dn: '' };
}

/** Removes an account; its storage is kept for the configured grace. */
export async function removeAccount(options: AdminOptions, address: string): Promise<{ uuid: string; name: string }> {
  const accounts = clustersOf(options);
  const record = await knownAccount(readerOf(options), parseAccountName(address));
  await accounts.remove(hostOf(record), record.uuid);
  return { uuid: record.uuid, name: record.name };
}

/** Brings a removed account back, from the cluster that keeps its storage. */
export async function restoreAccount(
  options: AdminOptions,
  removed: string,
  request: Readonly<Record<string, unknown>>,
): Promise<{ uuid: string; name: string; cluster: string }> {
  const accounts = clustersOf(options);
  const [cluster, as, password] = [optionalText(request, 'cluster'), optionalText(request, 'name'), optionalText(request, 'password')];
  if (password !== undefined) checkPassword(password);
  const wanted = {
    removed,
    ...(as === undefined ? {} : { name: parseAccountName(as) }),
    ...(password === undefined ? {} : { password: new Secret(password) }),
  };
  const clusters = cluster === undefined ? (await readerOf(options).listClusters()).map(({ name }) => name) : [parseClusterName(cluster)];
  let last: unknown;
  for (const name of clusters) {
    try {
      return { ...(await accounts.restore(name, wanted)), cluster: name };
    } catch (error) {
      // Only who has no such storage sends on to the next; one that does not answer may be the one.
      if (!(error instanceof PlatformError) || error.code !== 'ACCT_NOT_FOUND') throw error;
      last = error;
    }
  }
  throw last ?? new PlatformError('ACCT_NOT_FOUND', 'the topology has no cluster');
}

/** Sets a password at the master. */
export async function setPassword(options: AdminOptions, address: string, request: Readonly<Record<string, unknown>>): Promise<void> {
  const password = textOf(request, 'password');
  checkPassword(password);
  const writer = writerOf(options);
  const record = await knownAccount(readerOf(options), parseAccountName(address));
  await writer.setPassword(record.uuid, new Secret(password));
}

/** One account as the directory holds it. */
export async function showAccount(options: AdminOptions, address: string): Promise<AccountView> {
  const reader = readerOf(options);
  const name = parseAccountName(address);
  const answer = await reader.findAccount(name);
  if (answer.record !== undefined) return accountView(answer.record, answer.server);
  const sure = await reader.findAccount(name, { authoritative: true });
  if (sure.record === undefined) throw noSuchAccount(name);
  return accountView(sure.record, sure.server);
}

/** An entry as the API shows it: without password hashes. */
export function accountView(record: AccountRecord, server: string): AccountView {
  const { uuid, name, dn, hostServer, hostServerProblem, status, addresses, quotaBytes, region, displayName } = record;
  return { uuid, name, dn, hostServer, hostServerProblem, status, addresses, quotaBytes, region, displayName, server };
}

/** The directory's reader, or the error that says to ask elsewhere. */
export function readerOf(options: AdminOptions): DirectoryReader {
  if (options.directory === undefined) throw notAble(options, 'it has no directory access');
  return options.directory.reader;
}

async function knownAccount(reader: DirectoryReader, name: AccountName): Promise<AccountRecord> {
  const { record } = await reader.findAccount(name, { authoritative: true });
  if (record === undefined) throw noSuchAccount(name);
  return record;
}

/** The cluster that an entry names, or what is wrong with it. */
export function hostOf(record: AccountRecord): ClusterName {
  if (record.hostServer !== undefined) return record.hostServer;
  throw new PlatformError(
    'ROUTE_NO_HOST_SERVER',
    `${record.name} has no usable hostServer: ${record.hostServerProblem ?? 'the attribute is missing'}`,
    {
      fields: { hint: `set hostServer of ${record.dn} to a cluster of the topology` },
    },
  );
}

/**
 * The cluster that takes a new account: of those that the topology gives new accounts to and that have a Controller now, the one with
 * the fewest accounts for its weight. A process without directory access goes by the members that its peers have told of.
 */
async function placeAccount(options: AdminOptions, accounts: ClusterAccounts, status: () => Promise<StatusReport>): Promise<ClusterName> {
  const reader = options.directory?.reader;
  const candidates =
    reader === undefined ? candidatesOf((await status()).clusters) : await askCandidates(options, accounts, await reader.listClusters());
  const able = candidates.filter((candidate) => candidate.weight > 0 && candidate.problem === undefined);
  able.sort((a, b) => a.accounts / a.weight - b.accounts / b.weight || (a.name < b.name ? -1 : 1));
  const chosen = able[0];
  if (chosen !== undefined) return parseClusterName(chosen.name);
  const reasons = candidates.map(({ name, weight, problem }) => `${name}: ${weight === 0 ? 'takes no new accounts' : problem}`);
  throw new PlatformError(
    'CLUSTER_NO_CONTROLLER',
    `no cluster can take an account now (${reasons.join('; ') || 'the topology has none'})`,
    {
      fields: { hint: 'try again, name a cluster, or see archipelago status' },
    },
  );
}

const noController = 'no Controller';

interface Candidate {
  readonly name: string;
  readonly accounts: number;
  /** Share of new accounts; 0 takes none. */
  readonly weight: number;
  /** Why it cannot take an account now; `undefined` when it can. */
  readonly problem: string | undefined;
}

function candidatesOf(clusters: readonly ClusterView[]): Candidate[] {
  return clusters.map(({ name, accounts, controller, members }) => ({
    name,
    accounts,
    weight: 1,
    problem: controller === undefined ? noController : members.some((member) => member.state === 'active') ? undefined : 'no active member',
  }));
}

function askCandidates(options: AdminOptions, accounts: ClusterAccounts, clusters: readonly ClusterRecord[]): Promise<Candidate[]> {
  return Promise.all(
    clusters.map(async ({ name, weight }): Promise<Candidate> => {
      try {
        const asked = withTimeout(options.ports.clock, placementTimeoutMs, accounts.status(name), () => {
          return new PlatformError('NET_TIMEOUT', `${name} did not answer within ${placementTimeoutMs} ms`);
        });
        const seen = await asked;
        return { name, weight, accounts: seen.accounts, problem: seen.controller === undefined ? noController : undefined };
      } catch (error) {
        // A cluster that cannot be asked cannot take an account either; the others can.
        return { name, weight, accounts: 0, problem: messageOf(error) };
      }
    }),
  );
}

/** The door to the clusters, or the error that says to ask elsewhere. */
export function clustersOf(options: AdminOptions): ClusterAccounts {
  if (options.accounts === undefined) throw notAble(options, 'it speaks to no cluster');
  return options.accounts;
}

function writerOf(options: AdminOptions): DirectoryWriter {
  if (options.directory?.writer === undefined) throw notAble(options, 'it may not write the directory');
  return options.directory.writer;
}

function notAble(options: AdminOptions, why: string): PlatformError {
  return new PlatformError('ADMIN_NOT_ABLE', `node ${options.node} cannot do this: ${why}`, {
    fields: { hint: `ask another node: ${options.peers.map((peer) => peer.url).join(', ') || 'none is listed as a peer'}` },
  });
}

function noSuchAccount(name: AccountName): PlatformError {
  return new PlatformError('ACCT_NOT_FOUND', `the master directory has no account ${name}`, {
    fields: { hint: `archipelago account create ${name}` },
  });
}

function checkPassword(password: string): void {
  if (password === '' || Buffer.byteLength(password) > passwordBytesMax) {
    throw new PlatformError('ADMIN_BAD_REQUEST', `a password has 1 to ${passwordBytesMax} octets`);
  }
}

function textOf(request: Readonly<Record<string, unknown>>, key: string): string {
  const value = optionalText(request, key);
  if (value === undefined) throw new PlatformError('ADMIN_BAD_REQUEST', `the request has no text "${key}"`);
  return value;
}

function optionalText(request: Readonly<Record<string, unknown>>, key: string): string | undefined {
  const value = request[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw new PlatformError('ADMIN_BAD_REQUEST', `"${key}" is not a text`);
  return value;
}
