/**
 * The whole federation in one process: what the demo shows and the end-to-end tests drive.
 *
 * Everything starts in the order in which addresses become known (ports may be chosen by the system): directories, replication, cluster
 * members, the topology entries that name them, frontends, the admin API. It stops in the reverse order.
 */
import { join } from 'node:path';
import type { BackendConfig } from '#backend-cluster/config.ts';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { type RunningBackend, startBackend } from '#backend-cluster/main.ts';
import { sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Ports, RunningService } from '#common/lifecycle.ts';
import { Secret } from '#common/secret.ts';
import { startAdminApi } from '#deploy/run/admin.ts';
import type { DirectoryConfig } from '#directory/config.ts';
import { type RunningDirectory, startDirectory } from '#directory/main.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import { type RunningFrontend, startFrontend } from '#frontend/main.ts';
import type { RunningAdmin } from '#operate/api/admin-server.ts';
import { type RunningReplication, startReplication } from '#replication/main.ts';
import {
  adminDn,
  clusterNames,
  consoleName,
  consolePort,
  directoryAccess,
  directoryConfig,
  frontendConfig,
  frontendNames,
  identityDn,
  type Layout,
  layoutOf,
  memberConfig,
  memberNames,
  type PortOf,
  portsFrom,
  replicationConfig,
  subsetNames,
  suffix,
} from './plan.ts';
import type { DirectoryEndpoints, FrontendEndpoints, ReadyDocument, SubsetEndpoints } from './ready-document.ts';
import { sampleAccounts } from './sample-mail.ts';
import { deliverSamples, provisionSamples, registerTopology } from './seed.ts';
import { prepareState, readText } from './state.ts';

const readyWithinMs = 15_000;

/** How a federation is made. */
export interface FederationOptions {
  /** Directory that holds all of its state. */
  readonly root: string;
  /** Base of all ports; without it the system chooses each. */
  readonly portBase?: number;
  /** Accounts and messages to try things with; default true. Nothing is added to a root that already has them. */
  readonly withSamples?: boolean;
  /** Starts a master directory that is not ours, once certificates and secrets are there; it is stopped last. */
  readonly startMaster?: (layout: Layout) => Promise<MasterDirectory>;
  /** Changes to what is configured. */
  readonly adjust?: {
    readonly directory?: Partial<DirectoryConfig>;
    readonly member?: Partial<BackendConfig>;
    readonly frontend?: Partial<FrontendConfig>;
  };
  readonly ports: Ports;
  /** Told what is being done, for a progress line. */
  readonly onProgress?: (step: string) => void;
}

/** A master directory of any make; it knows the identities by their DNs and passwords. */
export interface MasterDirectory extends DirectoryEndpoints, AsyncDisposable {}

/** A running federation. */
export interface Federation extends AsyncDisposable {
  readonly ready: ReadyDocument;
  /** Our own directory servers; without `master` when that is another's. */
  readonly directories: { readonly master?: RunningDirectory; readonly eu: RunningDirectory; readonly us: RunningDirectory };
  readonly master: DirectoryEndpoints;
  readonly replication: RunningReplication;
  readonly members: ReadonlyMap<string, RunningBackend>;
  readonly frontends: ReadonlyMap<string, RunningFrontend>;
  /** Ends a member as `kill -9` would: nothing is handed over. */
  killMember(name: string): Promise<void>;
}

/** Starts everything and resolves once it serves. What was started is stopped again when a later part fails. */
export async function startFederation(options: FederationOptions): Promise<Federation> {
  const started = new AsyncDisposableStack();
  try {
    return await startAll(options, started);
  } catch (error) {
    await started.disposeAsync();
    throw error;
  }
}

async function startAll(options: FederationOptions, started: AsyncDisposableStack): Promise<Federation> {
  const { root, ports } = options;
  const progress = options.onProgress ?? ((): void => {});
  const layout = layoutOf(root);
  const portOf = portsFrom(options.portBase);
  const portsFor = (role: string, name: string): Ports => ({
    ...ports,
    log: ports.log.child({ service: role, node: name }),
    metrics: ports.metrics.withLabels({ service: role, node: name }),
  });

  progress('certificates and secrets');
  const { consolePassword } = await prepareState(layout, ports.files, ports.clock, ports.random);

  progress('directories');
  const foreign = options.startMaster === undefined ? undefined : started.use(await options.startMaster(layout));
  const { endpoints: master, ...directories } = await startDirectories(
    layout,
    portOf,
    portsFor,
    started,
    foreign,
    options.adjust?.directory,
  );
  const urls = { master: master.ldapsUrl, eu: ldapsUrl(directories.eu), us: ldapsUrl(directories.us) };

  progress('replication');
  const replicationOptions = replicationConfig(layout, urls);
  const replication = started.use(await startReplication(replicationOptions, portsFor('replication', replicationOptions.name)));

  progress('cluster members');
  const members = new Map<string, RunningBackend>();
  const coordinators = createEmbeddedCoordinators();
  for (const [index, cluster] of clusterNames.entries()) {
    // Each cluster reads the replica of one subset, the other one when that is down.
    const servers = index === 0 ? [urls.us, urls.eu] : [urls.eu, urls.us];
    for (const name of memberNames(cluster)) {
      const access = directoryAccess(layout, 'cluster', servers, urls.master);
      const config = { ...memberConfig(layout, cluster, name, portOf, access), ...options.adjust?.member };
      members.set(name, started.use(await startBackend(config, portsFor('backend-cluster', name), { coordinators })));
    }
  }
  const clusters: ReadyDocument['clusters'] = Object.fromEntries(
    clusterNames.map((cluster) => [
      cluster,
      { members: memberNames(cluster).map((name) => ({ name, link: (members.get(name) as RunningBackend).status().linkAddress })) },
    ]),
  );

  progress('topology');
  const adminAccess = directoryAccess(layout, 'admin', [urls.master], urls.master);
  await registerTopology(adminAccess, clusters, ports);
  const areSamplesNew = options.withSamples !== false && (await provisionSamples(adminAccess, ports));

  progress('frontends');
  const frontends = new Map<string, RunningFrontend>();
  for (const subset of subsetNames) {
    const servers = subset === 'eu' ? [urls.eu, urls.us] : [urls.us, urls.eu];
    for (const name of frontendNames(subset)) {
      const access = directoryAccess(layout, 'frontend', servers, urls.master);
      const config = { ...frontendConfig(layout, subset, name, portOf, access), ...options.adjust?.frontend };
      frontends.set(name, started.use(await startFrontend(config, portsFor('frontend', name))));
    }
  }

  progress('console');
  const services: RunningService<unknown>[] = [...Object.values(directories), replication, ...members.values(), ...frontends.values()];
  const killMember = async (name: string): Promise<void> => {
    const member = members.get(name);
    const at = member === undefined ? -1 : services.indexOf(member);
    if (member === undefined || at < 0) {
      throw new PlatformError('ADMIN_NOT_FOUND', `no member ${name} is alive; there are ${[...members.keys()].join(', ')}`);
    }
    // A dead process reports nothing: what is shown of it from now on is what the others say.
    services.splice(at, 1);
    await member.kill();
  };
  const admin = started.use(
    await startAdminApi({
      node: consoleName,
      listen: { address: '127.0.0.1', port: consolePort(portOf) },
      tls: layout.tls(consoleName),
      token: new Secret(consolePassword),
      peers: [],
      services,
      directory: directoryAccess(layout, 'admin', [urls.eu, urls.us], urls.master),
      link: layout.link(consoleName),
      demo: { killMember },
      ports: portsFor('operate', consoleName),
    }),
  );

  progress('waiting until everything is ready');
  await eventually(ports, () => services.flatMap(failingChecks));
  const ready = await readyDocument(layout, ports, { master, directories, clusters, frontends, admin, consolePassword });
  if (areSamplesNew) {
    progress('delivering sample messages');
    await deliverSamples(ready, (await readText(ports.files, layout.caFile)) ?? '', ports.clock.nowMs());
    await eventually(ports, () => [...frontends.values()].flatMap(unsentMail));
  }
  return {
    ready,
    master,
    directories,
    replication,
    members,
    frontends,
    killMember,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

type PortsFor = (role: string, name: string) => Ports;

async function startDirectories(
  layout: Layout,
  portOf: PortOf,
  portsFor: PortsFor,
  started: AsyncDisposableStack,
  foreign: DirectoryEndpoints | undefined,
  adjust: Partial<DirectoryConfig> | undefined,
): Promise<Federation['directories'] & { readonly endpoints: DirectoryEndpoints }> {
  const start = async (which: 'master' | 'eu' | 'us', masterUrl?: string): Promise<RunningDirectory> => {
    const config = { ...directoryConfig(layout, which, portOf, masterUrl), ...adjust };
    return started.use(await startDirectory(config, portsFor('directory', config.name)));
  };
  const own = foreign === undefined ? await start('master') : undefined;
  const endpoints = own === undefined ? (foreign as DirectoryEndpoints) : endpointsOf(own);
  const replicas = { eu: await start('eu', endpoints.url), us: await start('us', endpoints.url) };
  return { ...(own === undefined ? {} : { master: own }), ...replicas, endpoints };
}

function endpointsOf(directory: RunningDirectory): DirectoryEndpoints {
  return { name: directory.name, url: ldapUrl(directory), ldapsUrl: ldapsUrl(directory) };
}

function ldapUrl(directory: RunningDirectory): string {
  return urlOf(directory, 'ldap:');
}

function ldapsUrl(directory: RunningDirectory): string {
  return urlOf(directory, 'ldaps:');
}

function urlOf(directory: RunningDirectory, scheme: string): string {
  const url = directory.urls.find((each) => each.startsWith(scheme));
  if (url === undefined) throw new Error(`${directory.name} listens on ${directory.urls.join(', ')}; a ${scheme} listener was expected`);
  return url;
}

function failingChecks(service: RunningService<unknown>): string[] {
  const failing = service.readiness().filter((check) => !check.ok);
  return failing.map((check) => `${service.name} ${check.name}: ${check.detail}`);
}

function unsentMail(frontend: RunningFrontend): string[] {
  const { messages } = frontend.status().queue;
  return messages === 0 ? [] : [`${frontend.name} has ${messages} messages in its queue`];
}

/** Waits until nothing is named any more; after 15 s it rejects with what still is. */
async function eventually(ports: Ports, whatIsMissing: () => readonly string[]): Promise<void> {
  const deadlineMs = ports.clock.monotonicMs() + readyWithinMs;
  for (;;) {
    const missing = whatIsMissing();
    if (missing.length === 0) return;
    if (ports.clock.monotonicMs() > deadlineMs) throw new Error(`not ready within ${readyWithinMs / 1000} s: ${missing.join('; ')}`);
    await sleep(ports.clock, 25);
  }
}

async function readyDocument(
  layout: Layout,
  ports: Ports,
  parts: {
    master: DirectoryEndpoints;
    directories: Federation['directories'];
    clusters: ReadyDocument['clusters'];
    frontends: ReadonlyMap<string, RunningFrontend>;
    admin: RunningAdmin;
    consolePassword: string;
  },
): Promise<ReadyDocument> {
  const secret = async (path: string): Promise<string> => ((await readText(ports.files, path)) ?? '').trim();
  const subsets = Object.fromEntries(
    subsetNames.map((subset): [string, SubsetEndpoints] => {
      const frontends = frontendNames(subset).map((name) => frontendEndpoints(parts.frontends.get(name) as RunningFrontend));
      const { name: _first, ...first } = frontends[0] as FrontendEndpoints;
      return [subset, { ...first, frontends }];
    }),
  );
  return {
    pid: process.pid,
    directory: {
      suffix,
      master: parts.master,
      replicas: [endpointsOf(parts.directories.eu), endpointsOf(parts.directories.us)],
      adminDn,
      adminPassword: await secret(layout.secret('admin')),
      provisionerDn: identityDn('provisioner'),
      provisionerPassword: await secret(layout.secret('provisioner')),
    },
    subsets,
    clusters: parts.clusters,
    console: `${parts.admin.url}/`,
    adminPassword: parts.consolePassword,
    accounts: sampleAccounts,
    caFile: layout.caFile,
  };
}

function frontendEndpoints(frontend: RunningFrontend): FrontendEndpoints {
  const { listeners } = frontend.status();
  const find = (protocol: string, tls: string): string => {
    const found = listeners.find((listener) => listener.protocol === protocol && listener.tls === tls);
    if (found === undefined) throw new Error(`${frontend.name} has no ${protocol} listener with tls ${tls}`);
    return `${found.address}:${found.port}`;
  };
  return {
    name: frontend.name,
    imap: find('imap', 'starttls'),
    imaps: find('imap', 'implicit'),
    pop3: find('pop3', 'starttls'),
    pop3s: find('pop3', 'implicit'),
    sieve: find('managesieve', 'starttls'),
    smtp: find('smtp', 'starttls'),
    submission: find('submission', 'starttls'),
    http: find('http', 'none'),
  };
}

/** Directory of a federation's logs. */
export function logFileOf(root: string): string {
  return join(root, 'archipelago.log');
}
