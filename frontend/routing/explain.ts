/**
 * How this frontend would route an address now, step by step, as the login would go: the heart of `archipelago user why`. It asks the same
 * index, the same servers and the same chooser as a login does, and in addition compares them with each other and with the master.
 */
import type { LinkClient } from '#backend-cluster/client/cluster-client.ts';
import { type AccountName, type DomainName, domainOf, printable, tryParseAccountName } from '#common/account-name.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { DirectoryFollower, DirectoryReader } from '#directory/client/directory.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { RouteExplanation } from '#frontend/client/status.ts';
import type { ForeignClusters } from '../foreign/foreign-clusters.ts';
import type { LastHosts } from './last-hosts.ts';
import type { AccountRoute, AccountRouter } from './route-account.ts';
import type { Routes } from './routes.ts';
import { selectMember } from './select-member.ts';

/** What explaining needs. */
export interface ExplainOptions {
  readonly frontend: string;
  readonly subset: string;
  readonly defaultDomain: DomainName | undefined;
  readonly routes: Routes;
  readonly router: AccountRouter;
  readonly lastHosts: LastHosts;
  readonly reader: DirectoryReader;
  readonly follower: DirectoryFollower;
  readonly link: LinkClient;
  readonly foreign: ForeignClusters;
}

/** Explains an address as a client would give it. Never rejects. */
export async function explainRoute(options: ExplainOptions, text: string): Promise<RouteExplanation> {
  const { routes, router, link } = options;
  const steps: { what: string; found: string }[] = [];
  const nothing = { uuid: undefined, hostServer: undefined, member: undefined, memberReason: undefined };
  const base = { frontend: options.frontend, subset: options.subset, steps };
  const address = tryParseAccountName(text, options.defaultDomain);
  if (address === undefined) {
    steps.push({ what: 'login name', found: `"${printable(text)}" is no account name; expected local@domain` });
    return { ...base, address: printable(text), verdict: 'unknown-account', ...nothing };
  }
  const canonical = routes.domains.canonicalAddress(address);
  steps.push({ what: 'login name', found: canonical === address ? address : `${address}, which is ${canonical} by a domain alias` });
  if (!routes.hasDomain(domainOf(address)))
    steps.push({ what: 'domain', found: `${domainOf(address)} is not among the ${routes.domains.count} known here` });
  steps.push({ what: 'directory followed', found: followed(options.follower) });
  const indexed = routes.find(address);
  steps.push({
    what: 'route index',
    found:
      indexed === undefined
        ? `not among ${routes.index.accounts} accounts`
        : `at ${indexed.cluster ?? 'no cluster (no usable hostServer)'}`,
  });
  const ofSubset = await entry(options.reader, address, false);
  steps.push({ what: `entry at ${ofSubset.server ?? 'the subset’s directory'}`, found: ofSubset.found });
  const ofMaster = await entry(options.reader, address, true);
  steps.push({ what: 'entry at the master', found: ofMaster.found });
  const master = ofMaster.record;
  const isIndexStale = master !== undefined && indexed !== undefined && indexed.cluster !== master.hostServer;
  const { record } = ofSubset;
  const isSubsetStale =
    master !== undefined && record !== undefined && (record.uuid !== master.uuid || record.hostServer !== master.hostServer);
  if (isIndexStale || isSubsetStale)
    steps.push({
      what: 'comparison',
      found: 'what is known here is behind the master; the first login costs one more question and then goes the right way',
    });

  const route = await router.route(address);
  const catchAll = routes.domains.find(domainOf(address))?.catchAll;
  if (route.kind === 'unknown' && catchAll !== undefined)
    steps.push({ what: 'catch-all', found: `nobody logs in by this name; mail for it goes to ${catchAll}` });
  if (route.kind === 'unknown') return { ...base, address, verdict: 'unknown-account', ...nothing };
  if (route.kind === 'temporary') {
    steps.push({ what: 'route', found: `${route.error.code}: ${route.error.message}` });
    const hostServer = indexed?.cluster ?? ofSubset.record?.hostServer;
    return { ...base, address, verdict: 'unavailable', ...nothing, uuid: ofSubset.record?.uuid ?? master?.uuid, hostServer };
  }
  const { cluster } = route;
  const uuid = route.uuid ?? ofSubset.record?.uuid ?? master?.uuid;
  if (cluster.foreign !== undefined)
    return { ...base, address, uuid, hostServer: cluster.name, ...explainForeign(options, route, address, steps) };
  const health = cluster.members.map((member) => link.health(member));
  for (const { member, state, load, lastError } of health) {
    steps.push({
      what: `member ${member.name}`,
      found: `${state} at ${member.host}:${member.port}, load ${load}${lastError === undefined ? '' : `, last error: ${lastError}`}`,
    });
  }
  const choice = selectMember(health, new Set(), 0, options.lastHosts.find(address));
  if (choice === undefined) steps.push({ what: 'choice of member', found: `no member of ${cluster.name} is up` });
  return {
    ...base,
    address,
    verdict: choice === undefined ? 'unavailable' : 'routed',
    uuid,
    hostServer: cluster.name,
    member: choice?.health.member.name,
    memberReason: choice?.reason,
  };
}

function explainForeign(
  options: ExplainOptions,
  route: Extract<AccountRoute, { kind: 'routed' }>,
  address: AccountName,
  steps: { what: string; found: string }[],
): Pick<RouteExplanation, 'verdict' | 'member' | 'memberReason'> {
  const { cluster, pinned } = route;
  const services = cluster.foreign?.map(({ protocol, port, tls }) => `${protocol} ${port} ${tls}`).join(', ');
  steps.push({ what: 'foreign cluster', found: `${cluster.name} has the services ${services === '' ? 'none' : services}` });
  for (const host of cluster.members) {
    const { state, sessions, lastError } = options.foreign.hostStatus(host);
    const error = lastError === undefined ? '' : `, last error: ${lastError}`;
    steps.push({
      what: `host ${host.name}`,
      found: `${state} at ${host.host}, weight ${host.weight ?? 100}, ${sessions} sessions from here${error}`,
    });
  }
  const choice = options.foreign.choose({ cluster, pinned, name: route.name ?? options.routes.domains.canonicalAddress(address) });
  if (choice === undefined) steps.push({ what: 'choice of host', found: `no host of ${cluster.name} may serve the account now` });
  return { verdict: choice === undefined ? 'unavailable' : 'routed', member: choice?.host.name, memberReason: choice?.reason };
}

async function entry(
  reader: DirectoryReader,
  address: Parameters<DirectoryReader['findAccount']>[0],
  authoritative: boolean,
): Promise<{ readonly record: AccountRecord | undefined; readonly server: string | undefined; readonly found: string }> {
  try {
    const { record, server } = await reader.findAccount(address, { authoritative });
    const found =
      record === undefined
        ? 'no entry'
        : `${record.dn} (${record.uuid}), ${record.status}, hostServer ${record.hostServer ?? record.hostServerProblem ?? 'missing'}`;
    return { record, server, found };
  } catch (thrown) {
    return { record: undefined, server: undefined, found: `nothing to go by: ${messageOf(thrown)}` };
  }
}

function followed(follower: DirectoryFollower): string {
  const { server, state, silentMs, lastError } = follower.status();
  if (state === 'frozen')
    return `none answers; routes are frozen as they were ${Math.round(silentMs / 1000)} s ago at ${server}${lastError === undefined ? '' : `, last error: ${lastError}`}`;
  return `${server}, ${state}, last heard of ${Math.round(silentMs / 1000)} s ago${lastError === undefined ? '' : `, last error: ${lastError}`}`;
}
