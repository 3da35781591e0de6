/** What a frontend says of the certificates that it shows. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { nodeFiles } from '#common/files/node-files.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa, type IssuedCertificate } from '#deploy/dev/throwaway-ca.ts';
import { registerGauges } from '#frontend/gauges.ts';
import type { Routes } from '#frontend/routing/routes.ts';
import { FrontendTls } from '#frontend/tls/frontend-tls.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { keepingLogger } from './fakes.ts';

let folder: string;
const clock = new FakeClock();
const issue = async (name: string): Promise<IssuedCertificate> => (await createThrowawayCa(clock, systemRandom)).issue([name]);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'certificates-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(name: string, { certificate, key }: IssuedCertificate): Promise<{ certFile: string; keyFile: string }> {
  const pair = { certFile: join(folder, `${name}.pem`), keyFile: join(folder, `${name}.key`) };
  await writeFile(pair.certFile, certificate);
  await writeFile(pair.keyFile, key);
  return pair;
}

describe('certificates of a frontend', () => {
  it('are known with their age, and so is why new files are not used, until they are mended', async () => {
    const further = await write('further', await issue('further.isp.example'));
    const first = await write('first', await issue('mail.isp.example'));
    const tls = await FrontendTls.read({ ...first, further: [further] }, { files: nodeFiles, clock, log: keepingLogger().log });
    onTestFinished(() => tls.stop());
    const metrics = createMetrics();
    const routes = { index: { accounts: 0, bytes: 0 } } as Routes;
    registerGauges(metrics, 'front1', {
      listeners: () => [],
      routes,
      silentMs: () => 0,
      snapshotAgeMs: () => undefined,
      certificates: () => tls.certificates(),
    });
    const named = (): string[] => tls.certificates().shown.map(({ names }) => names);
    expect(named()).toEqual(['DNS:mail.isp.example', 'DNS:further.isp.example']);
    const before = tls.certificates().shown[0]?.leftMs ?? 0;
    await clock.advance(5000);
    expect(tls.certificates().shown[0]?.leftMs).toBe(before - 5000);
    expect(await metrics.render()).toMatch(
      new RegExp(`^archipelago_frontend_certificate_left_seconds{.*} ${Math.floor((before - 5000) / 1000)}`, 'm'),
    );

    const renewed = await issue('renewed.isp.example');
    await writeFile(further.certFile, renewed.certificate);
    expect(await tls.reload()).toBe(false);
    expect(named()).toEqual(['DNS:mail.isp.example', 'DNS:further.isp.example']);
    expect(tls.certificates().refused).toBe(`${further.keyFile} is not the key of the certificate in ${further.certFile}`);
    expect(await metrics.render()).toMatch(/^archipelago_frontend_certificates_refused{.*} 1$/m);

    await writeFile(further.keyFile, renewed.key);
    expect(await tls.reload()).toBe(true);
    expect(named()).toEqual(['DNS:mail.isp.example', 'DNS:renewed.isp.example']);
    expect(tls.certificates().refused).toBeUndefined();
    expect(await metrics.render()).toMatch(/^archipelago_frontend_certificates_refused{.*} 0$/m);
  });
});
