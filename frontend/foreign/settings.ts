/** What this frontend knows of a foreign cluster beside what the directory says: how it logs in there, and what it tells of the client. */
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import type { Files } from '#common/files/files.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import type { Secret } from '#common/secret.ts';
import type { ForeignClusterOptions } from '#frontend/config.ts';

/** How an account's session is opened at a foreign server. */
export type ForeignLoginAs =
  /** With the client's own name and password: the foreign server judges them. */
  | { readonly kind: 'passed' }
  /**
   * As a master user on behalf of the account, once the client's password has been verified by a bind at the directory. `sasl`: PLAIN with the account as
   * authorization identity; `separator`: the login name is account, separator, master user.
   */
  | {
      readonly kind: 'master-user';
      readonly name: string;
      readonly password: Secret<string>;
      readonly form: 'sasl' | 'separator';
      readonly separator: string;
    };

/** See the header of this file. */
export interface ForeignSettings {
  readonly login: ForeignLoginAs;
  /** What the servers call an account: its full name, or its local part. */
  readonly names: 'full' | 'local';
  /**
   * How the server learns the client's address: `commands` is ID for IMAP (x-originating-ip) and XCLIENT for the others, `proxy-v1` and `proxy-v2`
   * the PROXY header before everything else.
   */
  readonly forward: 'none' | 'commands' | 'proxy-v1' | 'proxy-v2';
  /** PEM of the CA of its certificates; `undefined`: the system's. */
  readonly ca: string | undefined;
  /** `automatic`: accounts leave a host that this frontend finds down; `operator`: only when the directory says so. */
  readonly failover: 'automatic' | 'operator';
  /** Sends the login without waiting for the server's greeting, which saves a round trip. Not over STARTTLS. */
  readonly early: boolean;
  readonly connectTimeoutMs: number;
  readonly loginTimeoutMs: number;
}

/** Settings of a foreign cluster that the node file does not mention. */
export const defaultForeignSettings: ForeignSettings = {
  login: { kind: 'passed' },
  names: 'full',
  forward: 'none',
  ca: undefined,
  failover: 'automatic',
  early: true,
  connectTimeoutMs: 3000,
  loginTimeoutMs: 20_000,
};

/** Reads what the node file names. Throws `CONFIG_INVALID` or `CONFIG_UNREADABLE`. */
export async function readForeignSettings(
  clusters: readonly ForeignClusterOptions[],
  files: Files,
  environment?: Environment,
): Promise<ReadonlyMap<ClusterName, ForeignSettings>> {
  const found = new Map<ClusterName, ForeignSettings>();
  for (const cluster of clusters) {
    const { masterUser, masterPassword } = cluster;
    const login: ForeignLoginAs =
      cluster.login === 'master-user' && masterUser !== undefined && masterPassword !== undefined
        ? {
            kind: 'master-user',
            name: masterUser,
            password: await readSecret(masterPassword, files, environment),
            form: cluster.masterForm,
            separator: cluster.masterSeparator,
          }
        : { kind: 'passed' };
    const { names, forward, failover, early, connectTimeoutMs, loginTimeoutMs } = cluster;
    const ca = cluster.caFile === undefined ? undefined : await readPem(cluster.caFile, files);
    found.set(parseClusterName(cluster.name), { login, names, forward, ca, failover, early, connectTimeoutMs, loginTimeoutMs });
  }
  return found;
}
