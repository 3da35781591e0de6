/**
 * What the parts of this folder need to reach the directory, with secrets and certificates read.
 */
import type { Clock } from '#common/clock.ts';
import type { DirectoryAccess } from '#common/config/options.ts';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import type { Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Network } from '#common/network/network.ts';
import type { Random } from '#common/random.ts';
import type { Secret } from '#common/secret.ts';
import type { AttributeNames } from '#directory/client/attribute-names.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';

/** `DirectoryAccess` of a service's configuration, resolved. */
export interface ResolvedAccess {
  /** URLs in the order they are tried. */
  readonly urls: readonly string[];
  /** URL of the master. */
  readonly master: string;
  readonly suffix: string;
  readonly bindDn: string;
  readonly password: Secret<string>;
  /** PEM text. */
  readonly ca?: string | undefined;
  readonly timeoutMs?: number;
  readonly names?: AttributeNames;
}

/** The outside world of this folder. */
export interface DirectoryPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly log: Logger;
}

/** Reads the files that a configuration names. Throws `CONFIG_UNREADABLE` or `CONFIG_INVALID`. */
export async function resolveAccess(access: DirectoryAccess, files: Files, env?: Environment): Promise<ResolvedAccess> {
  return {
    urls: access.servers,
    master: access.master,
    suffix: access.suffix,
    bindDn: access.bindDn,
    password: await readSecret(access.bindPassword, files, env),
    ca: access.caFile === undefined ? undefined : await readPem(access.caFile, files),
    timeoutMs: access.timeoutMs,
  };
}

/** Connects to one of the servers and binds; `entriesAreLazy`: see `LdapConnectionOptions`. */
export async function openBound(
  url: string,
  access: Pick<ResolvedAccess, 'bindDn' | 'password' | 'ca' | 'timeoutMs'>,
  ports: Pick<DirectoryPorts, 'network' | 'clock'>,
  entriesAreLazy = false,
): Promise<LdapConnection> {
  const connection = await LdapConnection.open(ports.network, ports.clock, {
    url,
    ca: access.ca,
    entriesAreLazy,
    ...(access.timeoutMs === undefined ? {} : { timeoutMs: access.timeoutMs }),
  });
  try {
    await connection.bind(access.bindDn, access.password);
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}
