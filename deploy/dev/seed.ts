/**
 * What a new federation is filled with: the topology entries that name clusters and members, a domain, sample accounts, sample messages.
 * Each step looks first: nothing is made twice.
 */
import { createTransport } from 'nodemailer';
import { parseAccountName, parseDomainName } from '#common/account-name.ts';
import type { DirectoryAccess } from '#common/config/options.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { parseClusterName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import { Secret } from '#common/secret.ts';
import { openBound, resolveAccess } from '#directory/client/access.ts';
import { openDirectoryWriter } from '#directory/client/write.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { siteDomain, suffix } from './plan.ts';
import type { ReadyDocument } from './ready-document.ts';
import { sampleAccounts, sampleMessages } from './sample-mail.ts';

/** Writes one entry per cluster with its members' addresses, which may be others than last time. */
export async function registerTopology(access: DirectoryAccess, clusters: ReadyDocument['clusters'], ports: Ports): Promise<void> {
  await using master = await openBound(access.master, await resolveAccess(access, ports.files), ports);
  for (const [cluster, { members }] of Object.entries(clusters)) {
    const dn = `cn=${cluster},ou=clusters,ou=topology,${suffix}`;
    const addresses = attribute('clusterMember', ...members.map(({ name, link }) => `${name} ${link}`));
    try {
      await master.add(dn, [attribute('objectClass', 'top', 'mailCluster'), attribute('cn', cluster), addresses]);
    } catch (error) {
      if (!isCode(error, 'DIR_EXISTS')) throw error;
      await master.modify(dn, [{ kind: 'replace', attribute: addresses }]);
    }
  }
}

/** Makes the domain and the sample accounts; returns whether they are new. */
export async function provisionSamples(access: DirectoryAccess, ports: Ports): Promise<boolean> {
  await using writer = openDirectoryWriter({ access: await resolveAccess(access, ports.files), ports });
  try {
    await writer.createDomain(parseDomainName(siteDomain));
  } catch (error) {
    if (isCode(error, 'DIR_EXISTS')) return false;
    throw error;
  }
  await Promise.all(
    sampleAccounts.map((account) =>
      writer.createAccount({
        name: parseAccountName(account.name),
        displayName: account.displayName,
        hostServer: parseClusterName(account.hostServer),
        password: new Secret(account.password),
      }),
    ),
  );
  return true;
}

/** Delivers the sample messages by SMTP through the first frontend and resolves once every account has its own. */
export async function deliverSamples(ready: ReadyDocument, caPem: string, dateMs: number): Promise<void> {
  const [host, port] = (ready.subsets.eu?.smtp ?? '').split(':') as [string, string];
  const transport = createTransport({
    host,
    port: Number(port),
    requireTLS: true,
    tls: { ca: caPem, servername: 'localhost' },
    pool: true,
    maxConnections: 2,
  });
  try {
    await Promise.all(sampleMessages(dateMs).map(({ from, to, raw }) => transport.sendMail({ envelope: { from, to: [to] }, raw })));
  } finally {
    transport.close();
  }
}

function isCode(error: unknown, code: PlatformError['code']): boolean {
  return error instanceof PlatformError && error.code === code;
}
