/**
 * Starts one member of a Dynamic Cluster from its configuration: reads secrets and certificates, probes the shared storage, joins.
 */

import { PlatformError } from '#common/errors/platform-error.ts';
import { parseMemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import { openTokenVerifier } from '#common/oauth/token-verifier.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { resolveAccess } from '#directory/client/access.ts';
import { followDirectory } from '#directory/client/follow.ts';
import { openDirectoryReader } from '#directory/client/lookup.ts';
import { openConfiguredWriter } from '#replication/client/open-writer.ts';
import { linkSettingsOf } from './client/link-settings.ts';
import { readLinkTls } from './client/link-tls.ts';
import type { BackendConfig } from './config.ts';
import type { EmbeddedCoordinators } from './coordination/embedded.ts';
import { openLeases } from './coordination/open-leases.ts';
import { type RunningBackend, startMember } from './member.ts';
import { createImapServer, imapCapabilities } from './sessions/imap/server.ts';
import { serveManageSieve } from './sessions/managesieve/server.ts';
import { pop3Capabilities, servePop3 } from './sessions/pop3/server.ts';
import { openConfiguredStore } from './storage/open-configured.ts';

export type { RunningBackend };

/** What the members of one process share. */
export interface SharedByMembers {
  readonly coordinators: EmbeddedCoordinators;
  /** Environment variables, for secrets that are named by one. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * Starts a member. Rejects with `CONFIG_*`, `STORE_UNSAFE` (the shared storage failed its probe) or `NET_CONNECT_FAILED` (the address is
 * taken). The directory need not answer yet: `readiness` says what is missing.
 */
export async function startBackend(config: BackendConfig, ports: Ports, shared: SharedByMembers): Promise<RunningBackend> {
  const name = parseMemberName(config.name);
  if (config.leaseMs <= 3 * config.heartbeatMs) {
    throw new PlatformError(
      'CONFIG_INVALID',
      `leaseMs is ${config.leaseMs} and heartbeatMs ${config.heartbeatMs}; a lease must be longer than three heartbeats`,
    );
  }
  const advertise = parseAdvertise(config.advertise);
  const tls = await readLinkTls(config.link, ports.files);
  const access = await resolveAccess(config.directory, ports.files, shared.env);
  const leases = await openLeases(config, ports, shared);
  const { store, ...storage } = await openConfiguredStore(config.storage, ports, shared.env);
  const hasher = createPasswordHasher(ports.random);
  return startMember({
    name,
    listen: config.listen,
    advertise,
    tls,
    clusterNetwork: config.clusterNetwork,
    links: linkSettingsOf(config.interCluster),
    heartbeatMs: config.heartbeatMs,
    leaseMs: config.leaseMs,
    idleCloseMs: config.idleCloseMs,
    openAccountsBytesMax: config.openAccountsMegabytes * 1024 * 1024,
    tombstoneGraceHours: config.tombstoneGraceHours,
    defaultQuotaBytes: config.defaultQuotaBytes,
    scrub: { bytesPerSecond: config.scrubBytesPerSecond, everyMs: config.scrubEveryHours * 3_600_000 },
    duties: { httpClient: config.httpClient, remotePolling: config.remotePolling },
    ports,
    leases,
    store,
    storage,
    directory: {
      follow: (onChange) => followDirectory({ access, withPasswords: true, onChange, ports }),
      reader: openDirectoryReader({ access, withPasswords: true, ports }),
      writer: await openConfiguredWriter(config.directory, ports, { hasher }),
    },
    hasher,
    tokens: config.oauth === undefined ? undefined : await openTokenVerifier(config.oauth, ports, shared.env),
    protocols: {
      imap: { serve: createImapServer(), capabilities: imapCapabilities },
      pop3: { serve: servePop3, capabilities: pop3Capabilities },
      managesieve: { serve: serveManageSieve, capabilities: [] },
    },
  });
}

function parseAdvertise(text: string | undefined): { host: string; port: number } | undefined {
  if (text === undefined) return undefined;
  const parts = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(parts?.[3]);
  if (parts === null || port < 1 || port > 65_535) {
    throw new PlatformError('CONFIG_INVALID', `advertise: "${text}" is not host:port`);
  }
  return { host: (parts[1] ?? parts[2]) as string, port };
}
