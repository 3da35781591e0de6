/**
 * A directory that answers after a minute, which is the same as never for whoever waits: accounts that a frontend knows log in as if nothing were, and for
 * those that it does not know it says so far, and in time, that it cannot tell.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { startFederation } from '#deploy/dev/federation.ts';
import { directoryAccess, frontendConfig, layoutOf } from '#deploy/dev/plan.ts';
import { startFrontend } from '#frontend/main.ts';
import { FaultProxy } from '#test/fakes/fault-proxy.ts';
import { accountLdif, ldapAdmin, ok, until } from './clients.ts';
import { imapRound, LineClient } from './frontend-process.ts';

const patienceMs = 60_000;
/** Longer than anybody here waits. */
const delayMs = 120_000;
const timeoutMs = 500;
const alice = ['alice@isp.example', 'alice-secret'] as const;

it('serves whom it knows while the directory takes minutes, and tells nobody that there is no such account', async () => {
  const root = await mkdtemp(join(tmpdir(), 'archipelago-slow-'));
  onTestFinished(() => rm(root, { recursive: true, force: true }));
  const federation = await startFederation({ root, ports: systemPorts(silentLogger) });
  onTestFinished(() => federation[Symbol.asyncDispose]());
  const { ldapsUrl } = federation.ready.directory.master;
  const proxy = await FaultProxy.before(ldapsUrl);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const between = new URL(ldapsUrl);
  between.port = new URL(proxy.url).port;
  const url = between.href.replace(/\/$/, '');
  const layout = layoutOf(root);
  const access = { ...directoryAccess(layout, 'frontend', [url], url), timeoutMs };
  const config = { ...frontendConfig(layout, 'eu', 'front1.eu.isp.example', () => 0, access), queueDirectory: join(root, 'queue-slow') };
  const frontend = await startFrontend(config, systemPorts(silentLogger));
  onTestFinished(() => frontend[Symbol.asyncDispose]());
  const port = (protocol: string): number => frontend.status().listeners.find((one) => one.protocol === protocol)?.port ?? 0;
  await until(
    async () => frontend.status().routes.state,
    (state) => state === 'following',
    patienceMs,
  );
  const guess = async (name: string): Promise<string> => {
    const client = new LineClient(port('imap'));
    try {
      await client.hears(/^\* OK [^\r]*\r\n/m);
      return await client.says(`a LOGIN ${name}@isp.example secret`, /^a [^\r]*\r\n/m);
    } finally {
      client.socket.destroy();
    }
  };
  const recipients = async (...names: string[]): Promise<string[]> => {
    const client = new LineClient(port('smtp'));
    try {
      await client.hears(/^220 [^\r]*\r\n/m);
      await client.says('EHLO client.example', /^250 [^\r]*\r\n/m);
      await client.says('MAIL FROM:<x@other.example>', /^250 [^\r]*\r\n/m);
      const answers: string[] = [];
      for (const name of names) answers.push(await client.says(`RCPT TO:<${name}@isp.example>`, /^\d+ [^\r]*\r\n/m));
      return answers;
    } finally {
      client.socket.destroy();
    }
  };
  /** The directory is asked, and says no. */
  const isRefused = (name: string) =>
    until(
      () => guess(name),
      (answer) => answer.startsWith('a NO [AUTHENTICATIONFAILED]'),
      patienceMs,
    );
  await isRefused('nobody');

  proxy.slow(delayMs, Number.POSITIVE_INFINITY);
  await ok('ldapadd', ldapAdmin(federation.ready), { limitMs: patienceMs, input: accountLdif('newcomer', 'secret', 'east.isp.example') });
  const startedAtMs = performance.now();
  for (let round = 0; round < 2; round += 1) {
    const unknown = Array.from({ length: 20 }, (_, i) => guess(i === 0 ? 'newcomer' : `nobody${round}-${i % 10}`));
    // Whoever had to ask the directory would not get an OK.
    for (let i = 0; i < 5; i += 1) await imapRound(port('imap'), ...alice);
    for (const answer of await Promise.all(unknown)) expect(answer).toMatch(/^a NO \[UNAVAILABLE\]/);
  }
  const [known, newcomer, nobody] = await recipients('alice', 'newcomer', 'nobody-at-all');
  expect(known).toMatch(/^250 /);
  expect([newcomer, nobody]).toEqual([expect.stringMatching(/^4\d\d 4\./), expect.stringMatching(/^4\d\d 4\./)]);
  // Two questions of `timeoutMs` each, subset and master, for each round; the rest is for a slow machine.
  expect(performance.now() - startedAtMs).toBeLessThan(delayMs / 2);
  // One connection that is followed and one for questions, whatever was asked, and those that are being given up.
  expect(proxy.connections).toBeLessThanOrEqual(8);
  await until(
    async () => frontend.connections(),
    (count) => count === 0,
    patienceMs,
  );

  proxy.heal();
  await until(
    () => guess('newcomer'),
    (answer) => answer.startsWith('a OK'),
    patienceMs,
  );
  await isRefused('nobody-at-all');
}, 180_000);
