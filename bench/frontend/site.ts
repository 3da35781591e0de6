/**
 * What a frontend of ours stands before, in a process of its own: the federation of the demo, and beside its clusters a foreign one that is the plain
 * backend. Prints where configuration and certificate of the frontend to be measured are. Ends with its standard input.
 */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { startFederation } from '#deploy/dev/federation.ts';
import { directoryAccess, frontendConfig, layoutOf } from '#deploy/dev/plan.ts';
import { accountLdif, ldapAdmin, ok } from '#test/e2e/clients.ts';

const [root = '', backendPort = '', accounts = '0'] = process.argv.slice(2);
const foreign = 'plain.isp.example';
const federation = await startFederation({
  root,
  ports: systemPorts(silentLogger),
});
const numbers = Array.from({ length: Number(accounts) }, (_, i) => i);
await ok('ldapadd', ldapAdmin(federation.ready), {
  limitMs: 60_000,
  input: [
    `dn: cn=${foreign},ou=topology,o=mail\nobjectClass: mailCluster\nobjectClass: foreignCluster\ncn: ${foreign}\nclusterMember: host1.${foreign} 127.0.0.1\nforeignService: imap ${backendPort} none\n`,
    ...numbers.flatMap((i) => [accountLdif(`plain${i}`, 'secret', foreign), accountLdif(`own${i}`, 'secret', 'east.isp.example')]),
  ].join('\n'),
});
const layout = layoutOf(root);
const name = 'front1.eu.isp.example';
const urls = [federation.ready.directory.master.ldapsUrl];
const own = frontendConfig(layout, 'eu', name, () => 0, directoryAccess(layout, 'frontend', urls, urls[0] as string));
const limits = { address: '127.0.0.1', port: 0, perAddressMax: 20_000, perPrefixMax: 100_000, acceptPerSecond: 100_000 };
const listener = (tls: 'none' | 'implicit') =>
  ({ ...limits, protocol: 'imap', tls, connectionsMax: 100_000, allowPlaintextLogin: false }) as const;
const config = join(root, 'measured.json');
await writeFile(
  config,
  JSON.stringify({ ...own, listeners: [listener('none'), listener('implicit')], queueDirectory: join(root, 'queue-measured') }),
);
process.stdout.write(`${JSON.stringify({ config, ...layout.tls(name) })}\n`);
process.stdin.resume().once('end', () => void federation[Symbol.asyncDispose]().then(() => process.exit(0)));
