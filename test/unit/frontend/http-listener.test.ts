import { afterEach, expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import { type HttpListener, startHttpListener } from '#frontend/listeners/http.ts';

let listener: HttpListener | undefined;

afterEach(async () => {
  await listener?.[Symbol.asyncDispose]();
});

async function start(isReady: boolean, domain: string | undefined): Promise<string> {
  const listeners = [
    { protocol: 'imap', tls: 'starttls', address: '127.0.0.1', port: 143, sessions: 0 },
    { protocol: 'imap', tls: 'implicit', address: '127.0.0.1', port: 993, sessions: 0 },
    { protocol: 'submission', tls: 'starttls', address: '127.0.0.1', port: 587, sessions: 0 },
  ];
  listener = await startHttpListener({
    listener: {
      protocol: 'http',
      tls: 'none',
      address: '127.0.0.1',
      port: 0,
      perAddressMax: 1,
      connectionsMax: 1,
      allowPlaintextLogin: false,
    },
    tls: undefined,
    hostName: 'front1.eu.isp.example',
    domain,
    frontend: {
      role: 'frontend',
      name: 'front1.eu.isp.example',
      readiness: () => [{ name: 'routes', ok: isReady, detail: isReady ? 'following' : 'no directory server answers' }],
      status: () => ({ listeners }) as unknown as FrontendStatus,
    },
    log: silentLogger,
    metrics: createMetrics(),
    network: systemNetwork,
  });
  return `http://127.0.0.1:${listener.port}`;
}

it('tells the load balancer why a frontend is not ready', async () => {
  const url = await start(false, undefined);
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  const ready = await fetch(`${url}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.text()).toContain('no directory server answers');
});

it('gives mail clients the settings of its listeners, implicit TLS first, and the same for every address', async () => {
  const url = await start(true, 'isp.example');
  const settings = await (await fetch(`${url}/mail/config-v1.1.xml?emailaddress=alice@isp.example`)).text();
  expect(settings).toContain('<hostname>front1.eu.isp.example</hostname>');
  expect(settings.indexOf('<port>993</port>')).toBeLessThan(settings.indexOf('<port>143</port>'));
  expect(settings).toContain('<socketType>STARTTLS</socketType>');
  expect(await (await fetch(`${url}/mail/config-v1.1.xml?emailaddress=nobody@isp.example`)).text()).toBe(settings);
});
