/**
 * One Directory Server, master or replica: an LDAPv3 server on a store of its own.
 *
 *   listeners ─► session (one per connection) ─► dispatch ─► bind, search, add, modify, ... ─► tree ─► store (SQLite)
 *                                                     └────► sync: followers, fed from the journal ◄────┘
 *
 * What always holds: an answered write is durable; entry, indexes and journal agree; change numbers and CSNs only rise; a failure of one
 * connection ends that connection. What may be lost: nothing that was answered.
 */
import { join } from 'node:path';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import type { Ports, ReadinessCheck, RunningService } from '#common/lifecycle.ts';
import type { Connection, Listener, TlsServerOptions } from '#common/network/network.ts';
import { createPasswordHasher, type PasswordHasherLimits } from '#common/passwords/password-hasher.ts';
import { productVersion } from '#common/version.ts';
import { DirectoryServers } from '#directory/client/directory-servers.ts';
import type { DirectoryStatus } from '#directory/client/status.ts';
import { AccessControl } from './access/access.ts';
import { BindGuard } from './access/bind-guard.ts';
import { generalizedTime } from './changelog/csn.ts';
import { startJournalCare } from './changelog/journal-care.ts';
import type { DirectoryConfig } from './config.ts';
import { createMailSchema, pieceAttributes } from './schema/mail-schema.ts';
import type { SchemaFile } from './schema/schema-file.ts';
import { checkSchemaInUse, rememberSchema } from './schema/schema-in-use.ts';
import type { Identity } from './server/authenticate.ts';
import { Authority } from './server/authority.ts';
import { createBackups } from './server/backups.ts';
import { createDispatcher } from './server/dispatch.ts';
import { fillPieces } from './server/fill-pieces.ts';
import { WriteForwarder } from './server/forward-writes.ts';
import { noteOpening } from './server/opening.ts';
import { PeerWatch } from './server/peer-watch.ts';
import { seedTree } from './server/seed.ts';
import { LdapSession } from './server/session.ts';
import { Tree } from './server/tree.ts';
import { defaultCacheBytes, EntryStore } from './store/entry-store.ts';
import { databaseFile, entryFunctions } from './tools/offline.ts';

/** Connections are looked at so often for being idle. */
const idleSweepMs = 10_000;

/** A Directory Server that runs. */
export interface RunningDirectory extends RunningService<DirectoryStatus> {
  readonly role: 'directory';
  /** Where it listens, in the order of the configuration. */
  readonly urls: readonly string[];
  /** Reads the access rules again. Rejects with what is wrong in them; then the old ones stay in force. */
  reload(): Promise<void>;
}

/**
 * Starts a Directory Server; resolves when it listens. `env` is where secrets named by `env` are found; `readRules` gives the access rules as the
 * configuration has them by then; `passwordChecks` bounds the queue of password checks otherwise than by default.
 */
export async function startDirectory(
  config: DirectoryConfig,
  ports: Ports,
  options: {
    readonly env?: Environment;
    readonly readRules?: () => Promise<readonly string[]>;
    readonly passwordChecks?: Pick<PasswordHasherLimits, 'runningMax' | 'waitingMax'>;
  } = {},
): Promise<RunningDirectory> {
  const { clock, random, files, network, metrics } = ports;
  const log = ports.log.child({ component: 'directory', service: 'directory', node: config.name });
  const tls = await readTls(config, ports);
  await files.mkdirAll(config.dataDirectory);
  const schema = createMailSchema(await readSchemaFiles(config, ports));
  await using cleanup = new AsyncDisposableStack();
  const cacheBytesMax = config.cacheBytesMax ?? defaultCacheBytes;
  const store = cleanup.use(new EntryStore(join(config.dataDirectory, databaseFile), entryFunctions(schema), cacheBytesMax));
  const tree = new Tree({ store, schema, suffix: config.suffix, clock, mode: config.mode });
  const authority = new Authority(tree, clock, log, config.master);
  const write = {
    tree,
    clock,
    random,
    placement: config.placement,
    authority,
    get masterUrl() {
      return authority.masterUrl;
    },
  };
  // A replica takes its master's entries as they are.
  if (tree.mode === 'master') checkSchemaInUse(tree);
  await rememberSchema(tree);
  await seedTree(write);
  cleanup.defer(await noteOpening(tree, ports));
  cleanup.use(await fillPieces(store, pieceAttributes(schema, config.substringIndexes ?? []), clock, log));
  const identities = await readIdentities(config, tree, ports, options.env ?? {});
  const access = new AccessControl(tree, config.access ?? []);
  const warn = (): void => {
    for (const warning of access.warnings()) log.warn({ detail: warning }, 'access rules');
  };
  warn();
  const reload = async (): Promise<void> => {
    if (options.readRules === undefined)
      throw new PlatformError('CONFIG_INVALID', 'this server was not started from a file that could be read again');
    try {
      access.replace(await options.readRules());
    } catch (error) {
      log.error({ err: error, outcome: 'refused' }, 'access rules were not changed');
      throw error;
    }
    log.info({ rules: access.rules.length, outcome: 'done' }, 'access rules read again');
    warn();
  };
  const guard = new BindGuard(clock);
  const sessions = new Set<LdapSession>();
  let followers = 0;
  const dispatcher = createDispatcher({
    write,
    binding: {
      tree,
      access,
      identities,
      hasher: createPasswordHasher(random, { ...options.passwordChecks, scramIterations: config.scramIterations }),
      guard,
      socketIdentity: socketIdentityOf(config, tree, identities),
      passwordsInClear: config.passwordsInClear ?? 'loopback',
      policy: config.passwordPolicy,
      clock,
      log,
    },
    sync: {
      tree,
      clock,
      counted: (by) => {
        followers += by;
      },
    },
    access,
    forwarder: await forwarderOf(config, tree, authority, ports, options.env ?? {}, cleanup),
    reloadAccess: reload,
    backup: config.backupDirectory === undefined ? undefined : createBackups(store, config.backupDirectory, ports),
    status: () => status(),
    clock,
    log,
    metrics,
    version: productVersion,
    startedAt: generalizedTime(clock.nowMs()),
  });
  const care = startJournalCare(tree, clock, log);
  cleanup.defer(() => care.cancel());
  const sweep = clock.every(idleSweepMs, () => {
    const before = clock.monotonicMs() - config.idleTimeoutMs;
    for (const session of sessions) {
      // A session with operations under way is not idle: followers wait for changes.
      if (session.outstanding === 0 && session.lastRequestAtMs < before) session.disconnect('other', 'idle for too long');
    }
  });
  cleanup.defer(() => sweep.cancel());

  const accept = (connection: Connection, startTls: TlsServerOptions | undefined): void => {
    const session = new LdapSession(connection, {
      clock,
      log,
      dispatcher,
      access,
      messageBytesMax: config.messageBytesMax,
      startTls,
      closed: (gone) => sessions.delete(gone),
    });
    sessions.add(session);
    if (sessions.size > config.connectionsMax) session.disconnect('busy', `${config.connectionsMax} connections are open already`);
  };

  const listeners: Listener[] = [];
  const urls: string[] = [];
  cleanup.defer(async () => {
    await Promise.all(listeners.map((listener) => listener.close()));
    for (const session of sessions) session.disconnect('unavailable', 'the server is stopping');
  });
  for (const listen of config.listeners) {
    if (listen.tls === 'implicit' && tls === undefined) {
      throw new PlatformError(
        'CONFIG_INVALID',
        `directory ${config.name}: listener ${listen.address}:${listen.port} needs "tls" with certificate and key`,
      );
    }
    const implicit = listen.tls === 'implicit' ? tls : undefined;
    const startTls = listen.tls === 'starttls' ? tls?.forStartTls : undefined;
    const listener = await network.listen(
      { host: listen.address, port: listen.port, ...(implicit === undefined ? {} : { tls: implicit.forLdaps }) },
      (connection) => accept(connection, startTls),
    );
    listeners.push(listener);
    const host = listener.address.includes(':') ? `[${listener.address}]` : listener.address;
    urls.push(`${implicit === undefined ? 'ldap' : 'ldaps'}://${host}:${listener.port}`);
  }

  if (config.ldapiPath !== undefined) {
    await removeStaleSocket(config.ldapiPath, ports);
    listeners.push(
      await network.listen({ path: config.ldapiPath, ownUserOnly: config.ldapiIdentity !== undefined }, (connection) =>
        accept(connection, undefined),
      ),
    );
    urls.push(`ldapi://${encodeURIComponent(config.ldapiPath)}`);
  }

  if (config.peers !== undefined && config.peers.length > 0) {
    const ca = config.peersCaFile === undefined ? undefined : await readPem(config.peersCaFile, files);
    cleanup.use(
      new PeerWatch({ peers: config.peers, needsMajority: config.writesNeed === 'majority', ca, authority, store, network, clock, log }),
    );
  }

  const gauge = (name: string, help: string, read: () => number): void => {
    const made = metrics.gauge(name, help);
    metrics.onCollect(() => made.set({}, read()));
  };
  gauge('archipelago_directory_connections', 'Open LDAP connections', () => sessions.size);
  gauge('archipelago_directory_followers', 'Followers in the persist phase', () => followers);
  gauge('archipelago_directory_failed_binds', 'Failed binds since the start', () => guard.counts().failed);
  gauge(
    'archipelago_directory_refused_binds',
    'Binds refused for failures from their address, since the start',
    () => guard.counts().refused,
  );
  gauge('archipelago_directory_refused_addresses', 'Addresses from which accounts cannot bind now', () => guard.counts().addressesRefused);
  let stopped = false;
  gauge('archipelago_directory_term', 'Number of the present mastership, as far as this server knows', () =>
    stopped ? 0 : authority.term,
  );
  gauge('archipelago_directory_cache_bytes', 'Memory that cached entries, names and index lists take', () => store.cachedBytes);
  gauge('archipelago_directory_cache_bytes_max', 'Memory that these and pages of the file may take', () => cacheBytesMax);
  gauge('archipelago_directory_change_number', 'Number of the last change', () => (stopped ? 0 : store.lastChangeNumber()));
  log.info({ urls, mode: tree.mode, term: authority.term, entries: store.tally('entries') }, 'directory server listens');

  const status = (): DirectoryStatus => ({
    role: 'directory',
    name: config.name,
    mode: tree.mode,
    term: authority.term,
    masterUrl: authority.masterUrl,
    note: roleNote(authority, tree),
    urls,
    suffix: config.suffix,
    entries: store.tally('entries'),
    accounts: store.tally('accounts'),
    contextCsn: tree.contextCsn,
    lastChangeNumber: store.lastChangeNumber(),
    connections: sessions.size,
    followers,
    binds: guard.counts(),
    cache: { bytes: store.cachedBytes, bytesMax: cacheBytesMax },
    operations: { ...dispatcher.counts },
  });

  const owned = cleanup.move();
  return {
    role: 'directory',
    name: config.name,
    urls,
    status,
    reload,
    readiness: () => readinessOf(config, tree, authority),
    async [Symbol.asyncDispose]() {
      if (stopped) return;
      stopped = true;
      await owned.disposeAsync();
    },
  };
}

function readSchemaFiles(config: DirectoryConfig, { files }: Ports): Promise<SchemaFile[]> {
  return Promise.all(
    (config.schemaFiles ?? []).map(async (path) => {
      try {
        return { path, text: (await files.read(path)).toString('utf8') };
      } catch (error) {
        throw new PlatformError('CONFIG_UNREADABLE', `the schema file ${path} cannot be read: ${messageOf(error)}`, { cause: error });
      }
    }),
  );
}

async function forwarderOf(
  config: DirectoryConfig,
  tree: Tree,
  authority: Authority,
  ports: Ports,
  env: Environment,
  cleanup: AsyncDisposableStack,
): Promise<WriteForwarder | undefined> {
  const { forwardAs } = config;
  if (config.writes !== 'forward') return undefined;
  if (forwardAs === undefined) throw new PlatformError('CONFIG_INVALID', `directory ${config.name}: writes: forward needs "forwardAs"`);
  const { bindDn, bindPassword, caFile, timeoutMs, waitMs } = forwardAs;
  const access = {
    ...{ suffix: config.suffix, bindDn, timeoutMs },
    password: await readSecret(bindPassword, ports.files, env),
    ca: caFile === undefined ? undefined : await readPem(caFile, ports.files),
  };
  const connect = (master: string): DirectoryServers => new DirectoryServers({ ...access, urls: [master], master }, ports);
  return cleanup.use(new WriteForwarder(tree, () => authority.masterUrl, connect, { waitMs, clock: ports.clock, log: ports.log }));
}

/** What is unusual about the role of this server; empty when nothing is. */
function roleNote(authority: Authority, tree: Tree): string {
  if (authority.doubt !== undefined) return authority.doubt;
  if (authority.isFrozen) return 'takes no writes: the mastership is being handed over';
  if (!authority.isChanged) return '';
  return tree.mode === 'master'
    ? `promoted in term ${authority.term}; its configuration still says replica`
    : `superseded in term ${authority.term} by ${authority.masterUrl}; its configuration still says master`;
}

function readinessOf(config: DirectoryConfig, tree: Tree, authority: Authority): ReadinessCheck[] {
  const note = roleNote(authority, tree);

  const content = `${tree.store.tally('entries')} entries as of ${tree.contextCsn}`;
  return [
    { name: 'content', ok: tree.isFilled, detail: tree.isFilled ? content : 'replication has not filled this replica yet' },
    { name: 'role', ok: authority.doubt === undefined, detail: `${authority.roleText}${note === '' ? '' : `: ${note}`}` },
    { name: 'listening', ok: true, detail: `${config.listeners.length + (config.ldapiPath === undefined ? 0 : 1)} listeners` },
  ];
}

// A client certificate is asked for on ldaps only: after StartTLS its verification would be ours to do. It is not required: passwords do too.
async function readTls(
  config: DirectoryConfig,
  ports: Ports,
): Promise<{ forLdaps: TlsServerOptions; forStartTls: TlsServerOptions } | undefined> {
  if (config.tls === undefined) return undefined;
  const own = { cert: await readPem(config.tls.certFile, ports.files), key: await readPem(config.tls.keyFile, ports.files) };
  if (config.clientCaFile === undefined) return { forLdaps: own, forStartTls: own };
  const ca = await readPem(config.clientCaFile, ports.files);
  return { forLdaps: { ...own, ca, requestCert: true, rejectUnauthorized: false }, forStartTls: own };
}

// A server that was killed leaves its socket behind. One that answers is in use and is not taken away.
async function removeStaleSocket(path: string, { files, network }: Ports): Promise<void> {
  const live = await network.connect({ path, timeoutMs: 2000 }).catch(() => undefined);
  live?.destroy();
  if (live !== undefined) throw new PlatformError('NET_CONNECT_FAILED', `another server listens on ${path}`);
  await files.unlink(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}

function socketIdentityOf(config: DirectoryConfig, tree: Tree, identities: readonly Identity[]): string | undefined {
  const { ldapiIdentity } = config;
  if (ldapiIdentity === undefined) return undefined;
  const key = tree.keyOf(tree.parseName(ldapiIdentity));
  if (config.ldapiPath !== undefined && identities.some((one) => one.key === key)) return key;
  const known = identities.map(({ dn }) => dn).join('; ');
  throw new PlatformError(
    'CONFIG_INVALID',
    `directory ${config.name}: ldapiIdentity needs ldapiPath and names one of the identities; "${ldapiIdentity}" is none of ${known}`,
  );
}

async function readIdentities(config: DirectoryConfig, tree: Tree, ports: Ports, env: Environment): Promise<Identity[]> {
  const identities: Identity[] = [];
  for (const { dn, rights, password, certificateName, actsForOthers } of config.identities) {
    const key = tree.keyOf(tree.parseName(dn));
    if (identities.some((known) => known.key === key))
      throw new PlatformError('CONFIG_INVALID', `directory ${config.name}: identity ${dn} is given twice`);
    identities.push({
      dn,
      key,
      rights,
      isProxy: actsForOthers ?? false,
      password: await readSecret(password, ports.files, env),
      certificateName,
    });
  }
  return identities;
}
