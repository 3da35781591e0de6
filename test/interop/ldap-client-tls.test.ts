import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { textsOf } from '#protocol/ldap/messages.ts';
import { startOwnDirectory } from './own-directory.ts';

describe('the LDAP client under TLS', () => {
  let directory: string;
  let ca: string;
  let otherCa: string;
  let files: { certFile: string; keyFile: string };

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'archipelago-tls-'));
    const authority = await createThrowawayCa(systemClock, systemRandom);
    const issued = await authority.issue(['ldap.isp.example', '127.0.0.1']);
    ca = authority.certificate;
    otherCa = (await createThrowawayCa(systemClock, systemRandom)).certificate;
    files = { certFile: join(directory, 'cert.pem'), keyFile: join(directory, 'key.pem') };
    await writeFile(files.certFile, issued.certificate);
    await writeFile(files.keyFile, issued.key);
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it.each(['implicit', 'starttls'] as const)('binds and searches (%s)', async (listen) => {
    await using server = await startOwnDirectory('master', { listen, ca, ...files });
    await using connection = await server.connect();
    const entry = await connection.readEntry('o=mail', ['objectClass']);
    expect(textsOf(entry?.attributes ?? [], 'objectClass')).toContain('organization');
  });

  it.each(['implicit', 'starttls'] as const)('refuses a server whose certificate comes from elsewhere (%s)', async (listen) => {
    await using server = await startOwnDirectory('master', { listen, ca, ...files });
    const open = LdapConnection.open(systemNetwork, systemClock, { url: server.url, ca: otherCa });
    await expect(open).rejects.toMatchObject({ code: 'NET_TLS_FAILED' });
  });

  it('sends no password to a server that does not offer the StartTLS it was told to use', async () => {
    await using server = await startOwnDirectory('master');
    const open = LdapConnection.open(systemNetwork, systemClock, { url: server.url, ca });
    await expect(open).rejects.toThrow('1.3.6.1.4.1.1466.20037');
  });
});
