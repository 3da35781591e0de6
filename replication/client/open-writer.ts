/** The directory writer that a service's configuration asks for: on the master alone, or on all servers at once. */
import type { DirectoryAccess } from '#common/config/options.ts';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import { resolveAccess } from '#directory/client/access.ts';
import type { DirectoryWriter } from '#directory/client/directory.ts';
import { DirectoryServers } from '#directory/client/directory-servers.ts';
import { openDirectoryWriter } from '#directory/client/write.ts';
import { AllAtOnce } from './all-at-once.ts';

/** Opens it. Rejects when its configuration cannot be used; servers that are away are waited for. */
export async function openConfiguredWriter(
  config: DirectoryAccess,
  ports: Ports,
  options: { readonly hasher?: PasswordHasher; readonly env?: Environment } = {},
): Promise<DirectoryWriter> {
  const access = await resolveAccess(config, ports.files, options.env);
  const hasher = options.hasher === undefined ? {} : { hasher: options.hasher };
  const { allAtOnce } = config;
  if (allAtOnce === undefined) return openDirectoryWriter({ access, ports, ...hasher });
  const servers = await Promise.all(
    allAtOnce.servers.map(async (one) => ({
      name: one.name,
      access: {
        url: one.url,
        bindDn: one.bindDn,
        password: await readSecret(one.bindPassword, ports.files, options.env),
        ca: one.caFile === undefined ? undefined : await readPem(one.caFile, ports.files),
        timeoutMs: config.timeoutMs,
      },
    })),
  );
  const quorum = allAtOnce.quorum === 'master' ? 1 : allAtOnce.quorum === 'all' ? servers.length + 1 : Number(allAtOnce.quorum);
  if (quorum > servers.length + 1) {
    throw new PlatformError(
      'CONFIG_INVALID',
      `allAtOnce.quorum is ${quorum}, but there are ${servers.length + 1} directory servers, the master counted`,
    );
  }
  // Its own connection to the master: questions wait behind nobody's writes.
  const masters = new DirectoryServers(access, ports);
  const copies = await AllAtOnce.open({
    suffix: access.suffix,
    servers,
    quorum,
    outboxDirectory: allAtOnce.outboxDirectory,
    outboxChangesMax: allAtOnce.outboxChangesMax,
    answerWithinMs: allAtOnce.answerWithinMs,
    master: () => masters.askMaster((connection) => Promise.resolve(connection)),
    masterUrl: () => masters.master,
    ports,
  });
  return openDirectoryWriter({
    access,
    ports,
    ...hasher,
    copies,
    onClose: () => masters[Symbol.asyncDispose](),
  });
}
