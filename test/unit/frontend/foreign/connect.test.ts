import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { systemNetwork } from '#common/network/system-network.ts';
import { dial } from '#frontend/foreign/connect.ts';
import { FakeClock } from '#test/fakes/clock.ts';

it('gives up a server that takes the PROXY header and makes no handshake', async () => {
  const server = createServer();
  onTestFinished(() => void server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const clock = new FakeClock();
  const service = { protocol: 'imap', port: (server.address() as AddressInfo).port, tls: 'implicit' } as const;
  const target = {
    host: '127.0.0.1',
    service,
    serverName: 'dove1.isp.example',
    ca: undefined,
    connectTimeoutMs: 5000,
    loginTimeoutMs: 20_000,
  };
  const connected = once(server, 'connection');
  const outcome = dial(systemNetwork, clock, target, () => Buffer.from('PROXY UNKNOWN\r\n')).catch((error: unknown) => error);
  const [socket] = (await connected) as [Socket];
  onTestFinished(() => void socket.destroy());
  const [first] = (await once(socket, 'data')) as [Buffer];
  expect(first.toString('latin1')).toMatch(/^PROXY UNKNOWN\r\n/);
  await clock.advance(5000);
  expect(await outcome).toMatchObject({ code: 'NET_TIMEOUT', message: expect.stringContaining('dove1.isp.example') });
});
