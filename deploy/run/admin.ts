/**
 * Gives the admin API what it speaks to: the services of this process, the directory, the clusters.
 */
import { createClusterAccounts } from '#backend-cluster/client/cluster-accounts.ts';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import type { AdminConfig } from '#common/config/node-file.ts';
import type { DirectoryAccess, LinkTls, ServerTls } from '#common/config/options.ts';
import { readPem, readSecret } from '#common/config/resolve.ts';
import type { Ports, RunningService } from '#common/lifecycle.ts';
import type { Secret } from '#common/secret.ts';
import { resolveAccess } from '#directory/client/access.ts';
import { openDirectoryReader } from '#directory/client/lookup.ts';
import { type AdminOptions, type RunningAdmin, startAdmin } from '#operate/api/admin-server.ts';
import { openConfiguredWriter } from '#replication/client/open-writer.ts';

/** What the admin API of one process is made of, with certificates still in their files. */
export interface AdminApiOptions {
  readonly node: string;
  readonly listen: { readonly address: string; readonly port: number };
  readonly tls: ServerTls | undefined;
  readonly token: Secret<string>;
  readonly peers: AdminOptions['peers'];
  readonly services: readonly RunningService<unknown>[];
  readonly directory: DirectoryAccess | undefined;
  readonly link: LinkTls | undefined;
  readonly demo?: AdminOptions['demo'];
  readonly ports: Ports;
}

/** Starts the admin API; disposing of it also closes what it spoke through. */
export async function startAdminApi(options: AdminApiOptions): Promise<RunningAdmin> {
  const { ports } = options;
  const opened = new AsyncDisposableStack();
  try {
    const admin = opened.use(
      await startAdmin({
        node: options.node,
        listen: options.listen,
        tls:
          options.tls === undefined
            ? undefined
            : { cert: await readPem(options.tls.certFile, ports.files), key: await readPem(options.tls.keyFile, ports.files) },
        token: options.token,
        peers: options.peers,
        services: options.services,
        ...(await directoryAndClusters(options, opened)),
        demo: options.demo,
        ports,
      }),
    );
    return { url: admin.url, port: admin.port, [Symbol.asyncDispose]: () => opened.disposeAsync() };
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

/** The admin API that a node file asks for. */
export async function startAdminFromConfig(
  config: AdminConfig,
  node: string,
  services: readonly RunningService<unknown>[],
  ports: Ports,
): Promise<RunningAdmin> {
  const peers = await Promise.all(
    config.peers.map(async ({ name, url, caFile }) => ({
      name,
      url,
      ca: caFile === undefined ? undefined : await readPem(caFile, ports.files),
    })),
  );
  return startAdminApi({
    node: config.name ?? node,
    listen: { address: config.address, port: config.port },
    tls: config.tls,
    token: await readSecret({ file: config.tokenFile }, ports.files),
    peers,
    services,
    directory: config.directory,
    link: config.link,
    ports,
  });
}

async function directoryAndClusters(
  options: AdminApiOptions,
  opened: AsyncDisposableStack,
): Promise<Pick<AdminOptions, 'directory' | 'accounts'>> {
  if (options.directory === undefined) return {};
  const { ports } = options;
  const access = await resolveAccess(options.directory, ports.files);
  const reader = opened.use(openDirectoryReader({ access, withPasswords: false, ports }));
  const writer = opened.use(await openConfiguredWriter(options.directory, ports));
  const tls =
    options.link === undefined
      ? undefined
      : {
          ca: await readPem(options.link.caFile, ports.files),
          cert: await readPem(options.link.certFile, ports.files),
          key: await readPem(options.link.keyFile, ports.files),
        };
  const link = opened.use(createLinkClient({ name: options.node, role: 'operate', tls, ports }));
  const accounts = createClusterAccounts({ link, clusters: () => reader.listClusters() });
  return { directory: { reader, writer }, accounts };
}
