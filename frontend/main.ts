/**
 * Starts a frontend server: reads what the configuration names, opens the doors to the directory and the clusters, and hands both to
 * service.ts, where the parts are put together.
 */
import { dirname, join } from 'node:path';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { readLinkTls } from '#backend-cluster/client/link-tls.ts';
import type { Environment } from '#common/config/resolve.ts';
import type { Ports } from '#common/lifecycle.ts';
import { resolveAccess } from '#directory/client/access.ts';
import { followDirectory } from '#directory/client/follow.ts';
import { openDirectoryReader } from '#directory/client/lookup.ts';
import { passwordVerifier } from '#directory/client/verify-password.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import { readForeignSettings } from './foreign/settings.ts';
import { startSmtp } from './listeners/smtp.ts';
import { noMail } from './listeners/smtp-contract.ts';
import { RouteSnapshots } from './routing/route-snapshot.ts';
import { type FrontendDoors, type RunningFrontend, startFrontendService } from './service.ts';
import { readSaslSettings, tokenJudge } from './session/sasl-settings.ts';
import { FrontendTls } from './tls/frontend-tls.ts';

export type { Inheritance, RunningFrontend } from './service.ts';

/**
 * Starts the frontend; it serves when the promise resolves, if need be by look-up and with `readiness` saying what is missing. Rejects with
 * `CONFIG_*` or `NET_CONNECT_FAILED` (a port that cannot be bound).
 *
 * @param environment for secrets that are named as environment variables
 * @param localMembers members of clusters that run in this process too (a symmetric node)
 * @param beside other processes of this frontend: what one hands over, whose place this one takes; `helper`: this one serves sessions only, and another
 *   the rest; `processes`: how many serve sessions; `indexMemory`: where those read the route index
 */
export async function startFrontend(
  config: FrontendConfig,
  ports: Ports,
  environment?: Environment,
  localMembers: readonly string[] = [],
  beside: Partial<Pick<FrontendDoors, 'inheritance' | 'helper' | 'processes' | 'indexMemory'>> = {},
): Promise<RunningFrontend> {
  const access = await resolveAccess(config.directory, ports.files, environment);
  const tls =
    config.tls === undefined
      ? undefined
      : await FrontendTls.read(config.tls, { ...ports, log: ports.log.child({ service: 'frontend', node: config.name }) }, environment);
  const linkTls = await readLinkTls(config.link, ports.files);
  const log = ports.log.child({ service: 'frontend', node: config.name, subset: config.subset });
  const { clock, random, network } = ports;
  const directoryPorts = { clock, random, network, log: log.child({ component: 'directory' }) };
  const isFollowing = config.routing.mode === 'follow';
  const snapshots = new RouteSnapshots({
    directory: config.routing.snapshotDirectory ?? join(dirname(config.queueDirectory), `${config.name}.routes`),
    origin: access,
    files: ports.files,
    clock,
    log: log.child({ component: 'routes' }),
  });
  const sasl = await readSaslSettings(config, { ...ports, log: log.child({ component: 'sasl' }) }, environment);
  const tokens = sasl.tokens?.verifier;
  const reader = openDirectoryReader({ access, withPasswords: false, ports: directoryPorts });
  return startFrontendService(
    config,
    tls,
    {
      link: createLinkClient({
        name: config.name,
        role: 'frontend',
        tls: linkTls,
        ports: { clock, random, network, metrics: ports.metrics, log: log.child({ component: 'link' }) },
      }),
      reader,
      follow: (routes, from) =>
        followDirectory({
          access,
          withPasswords: false,
          onChange: (change) => routes.apply(change),
          content: routes,
          from,
          withoutAccounts: !isFollowing,
          ports: directoryPorts,
        }),
      linkTls,
      snapshots: isFollowing ? snapshots : undefined,
      startSmtp: beside.helper !== undefined ? async () => noMail : startSmtp,
      localMembers,
      foreign: {
        settings: await readForeignSettings(config.foreignClusters ?? [], ports.files, environment),
        verifyPassword: passwordVerifier({ access, reader, ports: directoryPorts }),
        ...(tokens === undefined ? {} : { verifyToken: tokenJudge(tokens, reader) }),
      },
      sasl,
      ...beside,
    },
    ports,
  );
}
