/**
 * A frontend that several processes serve: clients find whichever has time, operators see one frontend, a process that dies takes its own sessions and
 * nobody else's, and a restart hands over all of them.
 */

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { readLinkTls } from '#backend-cluster/client/link-tls.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemRandom } from '#common/random.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import { layoutOf } from '#deploy/dev/plan.ts';
import type { FrontendSettings, GuardReport, KickReport, FrontendProcess as Process, RestartReport } from '#frontend/client/status.ts';
import { AddressRules } from '#frontend/guard/address-rules.ts';
import { LoginGuard } from '#frontend/guard/login-guard.ts';
import { SubsetSharing } from '#frontend/subset/sharing.ts';
import { ldapAdmin, ok, run, until } from './clients.ts';
import { type FrontendProcess, freePort, imapLogin, imapRound, LineClient, startFrontendProcess } from './frontend-process.ts';

const patienceMs = 60_000;
const alice = ['alice@isp.example', 'alice-secret'] as const;
const perAddressMax = 60;
/** Log-ins of one round: a process may count a round that has ended for a moment more (frontend/subset/shared-counts.ts), and still has to let a new one in. */
const roundSize = perAddressMax / 3;

let root: string;
let federation: Federation;
let frontend: FrontendProcess;
/** Where its peers find it. */
let frontendPeer: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-workers-'));
  federation = await startFederation({
    root,
    ports: systemPorts(createLogger('info', {}, logFileOf(root))),
  });
  const sharingPort = await freePort();
  frontendPeer = `front1.eu.isp.example 127.0.0.1:${sharingPort}`;
  frontend = await startFrontendProcess(federation, root, (config) => {
    const adjusted = {
      ...config,
      workers: 3,
      sharing: { address: '127.0.0.1', port: sharingPort },
      listeners: config.listeners.map((listener) => ({ ...listener, perAddressMax })),
    };
    delete adjusted.loginTimeoutMs;
    return adjusted;
  });
  await until(serving, (processes) => processes.length === 3, patienceMs);
});

afterAll(async () => {
  await frontend?.[Symbol.asyncDispose]();
  await federation?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

/** Those that accept. */
async function serving(): Promise<readonly Process[]> {
  return ((await frontend.status()).processes ?? []).filter(({ state }) => state === 'serving');
}

const act = <T>(action: string, body: object = {}): Promise<T> =>
  frontend.ask(`/api/v1/frontends/${frontend.name}/${action}`, 'POST', body);

/** Opens sessions so that every process has one; gives those that are open. */
async function oneEach(): Promise<LineClient[]> {
  let clients: LineClient[] = [];
  await until(
    async () => {
      // Who accepts is for the kernel to say, so a round that left one out is ended, and another one begun.
      for (const client of clients) client.socket.end('z LOGOUT\r\n');
      await until(serving, (processes) => processes.every(({ connections }) => connections === 0), patienceMs);
      // Many at once: whoever is busy leaves the next to the others.
      const opening = Array.from({ length: roundSize }, () => imapLogin(frontend.port('imap', 'starttls'), ...alice));
      onTestFinished(async () => {
        for (const client of await Promise.allSettled(opening)) if (client.status === 'fulfilled') client.value.socket.destroy();
      });
      // Some may be refused: for a quarter second a process counts what the others have not any more.
      clients = (await Promise.allSettled(opening)).flatMap((client) => (client.status === 'fulfilled' ? [client.value] : []));
      return serving();
    },
    (processes) => processes.length === 3 && processes.every(({ sessions }) => sessions > 0),
    patienceMs,
  );
  return clients;
}

const isAlive = async (client: LineClient): Promise<boolean> => {
  try {
    await client.says('n NOOP', /^n OK [^\r]*\r\n/m);
    return true;
  } catch {
    return false;
  }
};

it('looks like one frontend, and loses the sessions of a process that dies and no others', async () => {
  const clients = await oneEach();
  const status = await frontend.status();
  expect(status.sessionCount).toBe(clients.length);
  expect(status.listeners.find(({ protocol, tls }) => protocol === 'imap' && tls === 'starttls')?.sessions).toBe(clients.length);
  expect((await frontend.sessions()).total).toBe(clients.length);
  const exposition = await (await fetch(`http://127.0.0.1:${frontend.port('http', 'none')}/metrics`)).text();
  for (const worker of [1, 2, 3]) expect(exposition).toContain(`archipelago_frontend_connections{worker="${worker}",`);
  expect(exposition.match(/^# TYPE archipelago_frontend_connections /gm)).toHaveLength(1);
  // The first process has the routes; the others have looked there.
  expect(exposition).toMatch(/^archipelago_frontend_routes_total\{worker="2",.*source="index"\} [1-9]/m);

  const victim = (await serving()).find(({ pid }) => pid !== frontend.child.pid) as Process;
  process.kill(victim.pid, 'SIGKILL');
  await until(
    async () => clients.filter(({ isClosed }) => isClosed).length,
    (closed) => closed === victim.sessions,
    patienceMs,
  );
  for (let round = 0; round < 10; round += 1) await imapRound(frontend.port('imap', 'starttls'), ...alice);
  const left = clients.filter(({ isClosed }) => !isClosed);
  expect(await Promise.all(left.map(isAlive))).toEqual(left.map(() => true));

  const { answer } = await until(serving, (processes) => processes.length === 3, patienceMs);
  expect(answer.map(({ pid }) => pid)).not.toContain(victim.pid);
  const kicked = await act<KickReport>('kick', { what: alice[0] });
  expect(kicked.ended).toBe(left.length);
  for (const client of left) await client.hears(/^\* BYE /m);
});

it('routes in all its processes by the index of the first one, also while that stands still', async () => {
  const found = async (): Promise<{ readonly byIndex: number; readonly byDirectory: number }> => {
    const exposition = await (await fetch(`http://127.0.0.1:${frontend.port('http', 'none')}/metrics`)).text();
    const sum = (source: string): number =>
      [
        ...exposition.matchAll(new RegExp(`^archipelago_frontend_routes_total\\{worker="[23]",.*source="${source}"\\} (\\d+)`, 'gm')),
      ].reduce((total, [, count]) => total + Number(count), 0);
    return { byIndex: sum('index'), byDirectory: sum('subset') };
  };
  const before = await found();
  const first = frontend.child.pid as number;
  process.kill(first, 'SIGSTOP');
  try {
    for (let round = 0; round < 10; round += 1) await imapRound(frontend.port('imap', 'starttls'), ...alice);
  } finally {
    process.kill(first, 'SIGCONT');
  }
  const after = await found();
  expect({ byIndex: after.byIndex - before.byIndex, byDirectory: after.byDirectory - before.byDirectory }).toEqual({
    // On other processors they ask the first one, and the directory when that is silent.
    ...(process.arch === 'x64' ? { byIndex: 10, byDirectory: 0 } : { byIndex: 0, byDirectory: 10 }),
  });
});

it('counts failed log-ins and connections of an address over all processes', async () => {
  const port = frontend.port('imap', 'starttls');
  const clients = await Promise.all(
    Array.from({ length: 6 }, async () => {
      const client = new LineClient(port);
      await client.hears(/^\* OK [^\r]*\r\n/m);
      await client.says('a LOGIN bob@isp.example wrong', /^a NO [^\r]*\r\n/m);
      return client;
    }),
  );
  const { entries } = await act<GuardReport>('guard-why', { what: 'bob@isp.example' });
  // Some have begun to count less by now, none is missing.
  expect(entries.find(({ kind }) => kind === 'account')?.failures).toBeGreaterThan(5);
  await act('guard-forget', { what: 'bob@isp.example' });
  await act('guard-forget', { what: '127.0.0.1' });

  let answer = '';
  while (!answer.startsWith('* BYE [LIMIT]')) {
    const client = new LineClient(port);
    answer = await client.hears(/^\* (?:OK|BYE) [^\r]*\r\n/m);
    if (answer.startsWith('* OK')) clients.push(client);
    expect(clients.length).toBeLessThanOrEqual(3 * perAddressMax);
  }
  await until(
    async () => (await act<GuardReport>('guard-why', { what: '127.0.0.1' })).connections ?? 0,
    (connections) => connections === clients.length,
    patienceMs,
  );
  for (const client of clients) client.socket.destroy();
});

it('is drained and resumed, and goes on in new processes, as one', async () => {
  const port = frontend.port('imap', 'starttls');
  await until(serving, (processes) => processes.every(({ connections }) => connections === 0), patienceMs);
  await act('drain', { deadlineMs: 60_000 });
  await until(
    () => frontend.status(),
    ({ withdrawal }) => withdrawal.state === 'drained',
    patienceMs,
  );
  await expect(imapRound(port, ...alice)).rejects.toThrow('ECONNREFUSED');
  await act('resume');
  const clients = await oneEach();

  const before = await serving();
  const report = await act<RestartReport>('restart');
  expect(report.from.connections).toBe(clients.length);
  await imapRound(port, ...alice);
  const { answer } = await until(serving, (processes) => processes.length === 3, patienceMs);
  for (const { pid } of before) expect(answer.map((process) => process.pid)).not.toContain(pid);
  expect((await frontend.status()).processes?.filter(({ state }) => state === 'leaving')).toHaveLength(3);
  expect(await Promise.all(clients.map(isAlive))).toEqual(clients.map(() => true));
  for (const client of clients) client.socket.end('z LOGOUT\r\n');
  await until(
    () => frontend.status(),
    ({ processes }) => processes?.length === 3,
    patienceMs,
  );
});

it('takes what the directory says of its subset in all its processes, and shows where it comes from', { timeout: 400_000 }, async () => {
  const dn = 'cn=eu,ou=topology,o=mail';
  const ldap = (...lines: string[]) =>
    ok('ldapmodify', ldapAdmin(federation.ready), { input: `dn: ${dn}\n${lines.join('\n')}\n`, limitMs: patienceMs });
  const report = () => act<FrontendSettings>('settings');
  const says = (setting: string, value: number) => (now: FrontendSettings) =>
    now.settings.some((one) => one.setting === setting && one.value === value && one.origin === 'subset');
  await ldap('changetype: add', 'objectClass: top', 'objectClass: frontendSubset', 'cn: eu', 'frontendSetting: loginTimeoutMs 1000');
  await until(report, says('loginTimeoutMs', 1000), patienceMs);
  // Whichever processes have them: a silent client has a minute unless the directory says less.
  const silenceMs = async (): Promise<number> => {
    const beganAtMs = performance.now();
    const clients = Array.from({ length: 12 }, () => new LineClient(frontend.port('imap', 'starttls')));
    await Promise.all(clients.map((client) => client.hears(/^\* BYE [^\r]*\r\n/m)));
    return performance.now() - beganAtMs;
  };
  // A helper that has not heard of it yet keeps its clients for that minute once.
  await until(silenceMs, (tookMs) => tookMs < 40_000, 4 * patienceMs);
  await ldap('changetype: modify', 'replace: frontendSetting', 'frontendSetting: loginTimeoutMs soon', 'frontendSetting: weight 33');
  const { answer } = await until(report, says('weight', 33), patienceMs);
  expect(answer).toMatchObject({
    entry: dn,
    settings: expect.arrayContaining([{ setting: 'loginTimeoutMs', value: 1000, origin: 'subset' }]),
    refused: [{ entry: dn, seen: 'loginTimeoutMs soon', expected: '"soon" is not a whole number', stays: 1000 }],
  });
  const shown = await run(
    process.execPath,
    ['bin/archipelago.mjs', 'config', 'show', '--frontend', frontend.name, ...frontend.cliOptions],
    { limitMs: patienceMs },
  );
  expect([shown.code, shown.out]).toEqual([4, expect.stringMatching(/weight +33 +cn=eu,ou=topology,o=mail/)]);
  expect(shown.out).toContain('loginTimeoutMs soon');
  await ldap('changetype: delete');
  await until(report, (now) => now.entry === undefined, patienceMs);
});

it('shares penalties with another frontend of the subset, in all its processes, and goes on with that after a restart', async () => {
  const name = 'front2.eu.isp.example';
  const guard = new LoginGuard(systemClock, systemRandom);
  const rules = new AddressRules(systemClock, name);
  const other = await SubsetSharing.start({
    name,
    subset: 'eu',
    listen: { address: '127.0.0.1', port: 0 },
    tls: await readLinkTls(layoutOf(root).link(name), nodeFiles),
    guard,
    rules,
    heard: () => {},
    ports: systemPorts(silentLogger),
  });
  const ldap = (...lines: string[]) =>
    ok('ldapmodify', ldapAdmin(federation.ready), { input: `dn: cn=eu,ou=topology,o=mail\n${lines.join('\n')}\n`, limitMs: patienceMs });
  try {
    await ldap(
      ...['changetype: add', 'objectClass: top', 'objectClass: frontendSubset', 'cn: eu'],
      ...[frontendPeer, `${name} 127.0.0.1:${other.port}`].map((peer) => `subsetFrontend: ${peer}`),
    );
    const [, host = '', port = ''] = /^\S+ (.*):(\d+)$/.exec(frontendPeer) ?? [];
    other.setPeers([{ name: frontend.name, host, port: Number(port) }]);
    for (let i = 0; i < 400; i += 1) guard.failed('127.0.0.1', 'bob@isp.example', 0);
    // Enough clients for all processes to have some.
    const answers = async (): Promise<readonly string[]> => {
      const clients = Array.from({ length: 12 }, () => new LineClient(frontend.port('imap', 'starttls')));
      try {
        return await Promise.all(
          clients.map(async (client) => {
            await client.hears(/^\* OK [^\r]*\r\n/m);
            return (await client.says(`a LOGIN ${alice.join(' ')}`, /^a (?:OK|NO \[LIMIT\])/m)).slice(2);
          }),
        );
      } finally {
        for (const client of clients) client.socket.destroy();
      }
    };
    await until(answers, (all) => all.every((answer) => answer === 'NO [LIMIT]'), patienceMs);
    const why = await act<GuardReport>('guard-why', { what: '127.0.0.1' });
    expect(why.entries.find(({ kind }) => kind === 'address')?.elsewhere).toMatchObject([{ frontend: name }]);
    expect(why.peers).toEqual([{ name, isConnected: true }]);
    await act('guard-forget', { what: '127.0.0.1' });
    await until(answers, (all) => all.every((answer) => answer === 'OK'), patienceMs);
    await until(
      async () => guard.entries(10, '127.0.0.1').length,
      (left) => left === 0,
      patienceMs,
    );

    await act('guard-block', { what: '203.0.113.0/24', reason: 'ticket 17' });
    await until(
      async () => rules.find('203.0.113.9'),
      (rule) => rule?.setAt === frontend.name,
      patienceMs,
    );
    await act('restart');
    rules.set({ range: '198.51.100.0/24', verdict: 'block', reason: 'ticket 18', forMs: 600_000 });
    const shown = async () => (await act<GuardReport>('guard-ls')).rules.map(({ range, setAt }) => `${range} ${setAt}`).sort();
    await until(shown, (ranges) => ranges.length === 2, patienceMs);
    expect(await shown()).toEqual([`198.51.100.0/24 ${name}`, `203.0.113.0/24 ${frontend.name}`]);
  } finally {
    await other.stop();
    await ldap('changetype: delete');
    for (const what of ['198.51.100.0/24', '203.0.113.0/24', '127.0.0.1']) await act('guard-forget', { what }).catch(() => {});
  }
});

it('leaves its ports and no process when the first one dies, and the sessions of the others go on until they end', async () => {
  const port = frontend.port('imap', 'starttls');
  const clients = await oneEach();
  const processes = await serving();
  const first = processes.find(({ pid }) => pid !== frontend.child.pid) as Process;
  // The process that was started in the beginning only waits for this one by now.
  process.kill(first.pid, 'SIGKILL');
  await once(frontend.child, 'exit');
  expect(frontend.child.exitCode).toBe(1);
  await until(
    () => imapRound(port, ...alice).then(() => 'served', String),
    (outcome) => outcome.includes('ECONNREFUSED'),
    patienceMs,
  );
  const left = clients.filter(({ isClosed }) => !isClosed);
  expect(left).toHaveLength(clients.length - first.sessions);
  expect(await Promise.all(left.map(isAlive))).toEqual(left.map(() => true));
  for (const client of left) client.socket.end('z LOGOUT\r\n');
  const isThere = ({ pid }: Process): boolean => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  await until(
    async () => processes.filter(isThere),
    (there) => there.length === 0,
    patienceMs,
  );
});
