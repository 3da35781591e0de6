import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import type { LinkTlsPems } from '#backend-cluster/client/link-tls.ts';
import { type LinkServer, startLinkServer } from '#backend-cluster/link/server.ts';
import { systemClock } from '#common/clock.ts';
import { parseClusterName, parseMemberName } from '#common/host-server.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa, type ThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { type LinkRole, roleUri } from '#protocol/link/hello.ts';

const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger };
const back1 = parseMemberName('back1.west.isp.example');
let ca: ThrowawayCa;
let stranger: ThrowawayCa;
let server: LinkServer;
const seen: string[] = [];
const warnings: string[] = [];
const log: Logger = { ...silentLogger, child: () => log, warn: (_fields: object, text: string) => void warnings.push(text) };

async function pems(by: ThrowawayCa, name: string, role: LinkRole): Promise<LinkTlsPems> {
  const { certificate, key } = await by.issue([name, roleUri(role)]);
  return { ca: ca.certificate, cert: certificate, key };
}

beforeAll(async () => {
  ca = await createThrowawayCa(systemClock, systemRandom);
  stranger = await createThrowawayCa(systemClock, systemRandom);
  server = await start();
});
afterAll(async () => {
  await server.close();
});

async function start(): Promise<LinkServer> {
  return startLinkServer({
    name: back1,
    cluster: parseClusterName('west.isp.example'),
    incarnation: 'i1',
    listen: { address: '127.0.0.1', port: 0 },
    tls: await pems(ca, back1, 'backend-cluster'),
    clusterNetwork: ['127.0.0.1'],
    clock: systemClock,
    network: systemNetwork,
    log,
    metrics: createMetrics(),
    status: () => ({ sessions: 0, openAccounts: 0, state: 'active' }),
    open: async () => ({ answer: { outcome: 'moved' } }),
    call: async (peer) => {
      seen.push(`${peer.role} ${peer.name}`);
      return 'done';
    },
  });
}

/** Calls the member as `claimed`, with the given certificate. */
async function call(
  claimed: { name: string; role: LinkRole },
  tls: LinkTlsPems | undefined,
  port = server.port,
  member = back1,
): Promise<unknown> {
  await using client = createLinkClient({ ...claimed, tls, ports });
  return await client.call({ name: member, host: '127.0.0.1', port }, 'x', {}, 5_000);
}

const front = { name: 'front1.eu.isp.example', role: 'frontend' } as const;

describe('the link under TLS', () => {
  it('lets in who proves name and role', async () => {
    expect(await call(front, await pems(ca, front.name, 'frontend'))).toBe('done');
    expect(seen).toEqual(['frontend front1.eu.isp.example']);
  });

  it('refuses a certificate of another role', async () => {
    const tls = await pems(ca, front.name, 'frontend');
    await expect(call({ ...front, role: 'backend-cluster' }, tls)).rejects.toMatchObject({
      code: 'LINK_REFUSED',
      message: expect.stringContaining('urn:archipelago:role:backend-cluster'),
    });
  });

  it('refuses a certificate of another name', async () => {
    const tls = await pems(ca, 'front2.eu.isp.example', 'frontend');
    await expect(call(front, tls)).rejects.toMatchObject({ code: 'LINK_REFUSED' });
  });

  it('refuses a certificate of another authority, and none at all, and names the peer once', async () => {
    const other = await start();
    try {
      warnings.length = 0;
      for (const tls of [await pems(stranger, front.name, 'frontend'), undefined]) {
        await expect(call(front, tls, other.port)).rejects.toMatchObject({ kind: 'unavailable' });
      }
      await expect.poll(() => warnings.length, { timeout: 20_000 }).toBe(1);
    } finally {
      await other.close();
    }
    expect(seen).toHaveLength(1);
    expect(warnings[0]).toContain('link connection from 127.0.0.1 refused: the TLS handshake failed');
  });

  it('does not speak to a member whose certificate is another’s', async () => {
    const tls = await pems(ca, front.name, 'frontend');
    await expect(call(front, tls, server.port, parseMemberName('back2.west.isp.example'))).rejects.toMatchObject({
      code: 'NET_TLS_FAILED',
    });
  });

  it('does not leave this machine in clear', async () => {
    await using client = createLinkClient({ ...front, tls: undefined, ports });
    await expect(client.call({ name: back1, host: '192.0.2.1', port: 1 }, 'x', {})).rejects.toMatchObject({ code: 'LINK_REFUSED' });
  });
});
