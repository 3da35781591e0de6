import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { requestJson } from '#common/http/client.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import type { ClusterRecord } from '#directory/client/records.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import { startAdmin } from '#operate/api/admin-server.ts';
import type { AdminOptions, RunningAdmin } from '#operate/api/options.ts';
import type { SessionsReport, StatusReport, WhyReport } from '#operate/api/reports.ts';
import {
  aliceRecord,
  aliceUuid,
  fakeClusterAccounts,
  fakeDirectoryAccess,
  fakeFrontend,
  fakeMember,
  fakeReplication,
  fakeServices,
} from '#test/fakes/installation.ts';

const token = new Secret('a-token-of-the-test');
const ports = (): Ports => ({
  clock: systemClock,
  random: systemRandom,
  network: {} as Ports['network'],
  files: nodeFiles,
  log: silentLogger,
  metrics: createMetrics(),
});
const running: RunningAdmin[] = [];

async function start(options: Partial<AdminOptions> = {}): Promise<RunningAdmin> {
  const admin = await startAdmin({
    node: 'node-1',
    listen: { address: '127.0.0.1', port: 0 },
    token,
    peers: [],
    services: fakeServices(),
    ports: ports(),
    ...options,
  });
  running.push(admin);
  return admin;
}

async function ask<T>(admin: RunningAdmin, path: string, method: 'GET' | 'POST' | 'PUT' | 'DELETE' = 'GET', body?: unknown): Promise<T> {
  const answer = await requestJson(systemClock, { url: `${admin.url}${path}`, token, method, ...(body === undefined ? {} : { body }) });
  return answer.body as T;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'it was accepted',
    (error: PlatformError) => error.code,
  );
}

afterEach(async () => {
  for (const admin of running.splice(0)) await admin[Symbol.asyncDispose]();
});

describe('health', () => {
  it('answers load balancers and collectors without a token', async () => {
    const registry = ports();
    registry.metrics.counter('archipelago_test_total', 'Test.').add();
    const admin = await start({ ports: registry });
    expect(await (await fetch(`${admin.url}/livez`)).text()).toBe('ok\n');
    expect((await fetch(`${admin.url}/readyz`)).status).toBe(200);
    expect(await (await fetch(`${admin.url}/readyz?verbose`)).text()).toContain(
      '[+] frontend front1.eu.isp.example: routes: 204 accounts known',
    );
    expect(await (await fetch(`${admin.url}/metrics`)).text()).toContain('archipelago_test_total 1');
  });

  it('is not ready, with the reason, while a check of a service fails', async () => {
    const admin = await start({ services: [fakeFrontend('front1.eu.isp.example', 'eu', 0, false)] });
    const answer = await fetch(`${admin.url}/readyz`);
    expect(answer.status).toBe(503);
    expect(await answer.text()).toContain('[-] frontend front1.eu.isp.example: routes: the directory was never reached');
  });

  it('is not ready when nothing runs or a service was never ready', async () => {
    const empty = await start({ services: [] });
    expect((await fetch(`${empty.url}/readyz`)).status).toBe(503);
    const early = await start({ services: [{ role: 'frontend', name: 'f', status: () => ({}), readiness: () => [] }] });
    expect((await fetch(`${early.url}/readyz`)).status).toBe(503);
  });
});

describe('authentication', () => {
  it('refuses a wrong token and a missing one, as a problem document', async () => {
    const admin = await start();
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic eA==' }]) {
      const answer = await fetch(`${admin.url}/api/v1/status`, { headers });
      expect(answer.status).toBe(401);
      expect(answer.headers.get('content-type')).toContain('application/problem+json');
      expect(await answer.json()).toMatchObject({ code: 'ADMIN_UNAUTHORIZED', hint: expect.stringContaining('Bearer') });
    }
  });

  it.each([
    'GET /%61pi/v1/status',
    'GET /api/%761/status',
    'GET http://elsewhere.example/api/v1/status',
    'HEAD /%61pi/v1/status',
    'DELETE /%61pi/v1/accounts/alice@isp.example',
    'GET /%61pi/v1/nothing',
    'GET /api/v1/login/../status',
  ])('lets nobody in without a token by writing the path differently: %s', async (requestLine) => {
    const admin = await start({ directory: fakeDirectoryAccess([aliceRecord()]) });
    const socket = connect(Number(new URL(admin.url).port), '127.0.0.1');
    socket.end(`${requestLine} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(await text(socket)).toMatch(/^HTTP\/1.1 40[14] /);
  });

  it('lets the console in with a cookie that scripts cannot read, and its changes only from its own page', async () => {
    const directory = fakeDirectoryAccess([aliceRecord()]);
    const admin = await start({ directory });
    const own = { 'x-archipelago-console': '1', 'content-type': 'application/json' };
    const login = await fetch(`${admin.url}/api/v1/login`, {
      method: 'POST',
      headers: own,
      body: JSON.stringify({ password: token.reveal() }),
    });
    expect(login.status).toBe(204);
    const cookie = login.headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/HttpOnly; SameSite=Strict/);
    const session = { cookie: cookie.split(';')[0] ?? '' };
    expect((await fetch(`${admin.url}/api/v1/status`, { headers: session })).status).toBe(200);
    const change = (headers: Record<string, string>) =>
      fetch(`${admin.url}/api/v1/accounts/alice@isp.example/password`, { method: 'PUT', headers, body: '{"password":"new"}' });
    expect((await change({ ...session, 'content-type': 'application/json' })).status).toBe(403);
    expect((await change({ ...session, ...own, origin: 'https://elsewhere.example' })).status).toBe(403);
    expect((await change({ ...session, ...own, origin: admin.url })).status).toBe(204);
    expect(directory.passwords.get(aliceUuid)).toBe('new');
    await fetch(`${admin.url}/api/v1/logout`, { method: 'POST', headers: { ...session, 'x-archipelago-console': '1' } });
    expect((await fetch(`${admin.url}/api/v1/status`, { headers: session })).status).toBe(401);
  });
});

describe('the installation', () => {
  it('is one picture of subsets, directories, replicas and clusters', async () => {
    const status = await ask<StatusReport>(await start(), '/api/v1/status');
    expect(status.verdict).toBe('ok');
    expect(status.findings).toEqual([]);
    expect(status.subsets.map((subset) => [subset.name, subset.frontends.length, subset.sessions])).toEqual([
      ['eu', 2, 5],
      ['us', 2, 1],
    ]);
    expect(status.directories.map((directory) => directory.mode)).toEqual(['master', 'replica', 'replica']);
    expect(status.clusters[0]).toMatchObject({ name: 'east.isp.example', controller: 'back1.east.isp.example', term: 3, accounts: 104 });
    expect(status.clusters[0]?.members.map((member) => member.isController)).toEqual([true, false]);
    expect(status.totals).toEqual({ sessions: 6, accounts: 200, replicaLagMs: 0, queued: 0 });
  });

  it('names the process that does not answer, and still shows the others', async () => {
    const east = await start({
      node: 'east',
      services: [fakeMember('back1.east.isp.example', 'east.isp.example', { states: ['active'] })],
    });
    const admin = await start({
      services: [fakeFrontend('front1.eu.isp.example', 'eu', 1)],
      peers: [
        { name: 'east', url: east.url },
        { name: 'gone', url: 'http://127.0.0.1:9' },
      ],
    });
    const status = await ask<StatusReport>(admin, '/api/v1/status');
    expect([status.replies.asked, status.replies.replied]).toEqual([3, 2]);
    expect(status.clusters.map((cluster) => cluster.name)).toEqual(['east.isp.example']);
    expect(status.verdict).toBe('degraded');
    expect(status.findings[0]).toMatchObject({ severity: 'failure', about: 'gone' });
  });

  it('takes the view of the highest term and shows who sees something else', async () => {
    const services = [
      fakeMember('back1.west.isp.example', 'west.isp.example', { term: 3 }),
      fakeMember('back2.west.isp.example', 'west.isp.example', {
        term: 4,
        controller: 'back2.west.isp.example',
        states: ['dead', 'active'],
      }),
    ];
    const status = await ask<StatusReport>(await start({ services }), '/api/v1/status');
    expect(status.clusters[0]).toMatchObject({ controller: 'back2.west.isp.example', term: 4 });
    expect(status.clusters[0]?.disagreement).toEqual(['back1.west.isp.example sees back1.west.isp.example in term 3']);
    expect(status.clusters[0]?.members[0]).toMatchObject({ state: 'dead', disagreement: ['back1.west.isp.example says active'] });
    expect(status.findings.map((finding) => finding.what)).toContain('is dead');
  });

  it('warns of what an operator has ordered, once each, and calls none of it a failure', async () => {
    const ordered = (detail: string) => () => [{ name: 'serving', ok: false, detail, isOrdered: true }];
    const member = fakeMember('back1.west.isp.example', 'west.isp.example', { states: ['draining', 'active'] });
    const services = [
      { ...member, readiness: ordered('draining: takes no more accounts') },
      { ...fakeFrontend('front1.eu.isp.example', 'eu', 0), readiness: ordered('the frontend is cordoned') },
      fakeFrontend('front2.eu.isp.example', 'eu', 1),
    ];
    const { findings } = await ask<StatusReport>(await start({ services }), '/api/v1/status');
    expect(findings.map((each) => [each.severity, each.about, each.what, each.fix])).toEqual([
      ['warning', 'front1.eu.isp.example', 'the frontend is cordoned', 'archipelago frontend resume front1.eu.isp.example'],
      ['warning', 'back1.west.isp.example', 'is draining', 'wait, or: archipelago backend drain back1.west.isp.example --abort'],
    ]);
  });

  it('warns of certificates that expire soon and of files that are not used, and calls one that has expired a failure', async () => {
    const frontend = fakeFrontend('front1.eu.isp.example', 'eu', 0);
    const day = 86_400_000;
    const shown = [
      { names: 'DNS:mail.isp.example', leftMs: 15 * day },
      { names: 'DNS:soon.isp.example', leftMs: 3 * day },
      { names: 'DNS:old.isp.example', leftMs: -1 },
    ];
    const status = { ...(frontend.status() as FrontendStatus), certificates: { shown, refused: 'mail.key is not the key' } };
    const services = [{ ...frontend, status: () => status }];
    const { findings } = await ask<StatusReport>(await start({ services }), '/api/v1/status');
    expect(findings.map(({ severity, what }) => [severity, what])).toEqual([
      ['failure', 'the certificate for DNS:old.isp.example has expired'],
      ['warning', 'the certificate for DNS:soon.isp.example expires in 3 days'],
      ['warning', 'certificate files that have changed are not used: mail.key is not the key'],
    ]);
  });

  it('calls a replica behind when it is', async () => {
    const status = await ask<StatusReport>(await start({ services: [fakeReplication(45_000)] }), '/api/v1/status');
    expect(status.findings).toMatchObject([{ about: 'ldap-us.isp.example', what: 'is 45 s and 17 changes behind' }]);
  });

  it('lists live sessions of all frontends, filtered, counted past the limit', async () => {
    const admin = await start();
    const all = await ask<SessionsReport>(admin, '/api/v1/sessions?limit=2');
    expect([all.total, all.sessions.length]).toEqual([6, 2]);
    const some = await ask<SessionsReport>(admin, '/api/v1/sessions?account=USER1@isp.example');
    expect(some.sessions.map((session) => session.frontend).sort()).toEqual(['front1.eu.isp.example', 'front2.eu.isp.example']);
    expect(await codeOf(ask(admin, '/api/v1/sessions?limit=-1'))).toBe('ADMIN_BAD_REQUEST');
  });

  it('verifies a replica through the node that runs the replication service', async () => {
    const replication = fakeReplication();
    const far = await start({ node: 'far', services: [replication] });
    const admin = await start({ services: [], peers: [{ name: 'far', url: far.url }] });
    const answer = await ask<{ result: string }>(admin, '/api/v1/replicas/ldap-us.isp.example/verify', 'POST');
    expect(answer.result).toBe('214 entries compared, none differs');
    expect(replication.verified).toEqual(['ldap-us.isp.example']);
    expect(await codeOf(ask(admin, '/api/v1/replicas/nowhere/verify', 'POST'))).toBe('ADMIN_NOT_FOUND');
  });

  it('passes on what a peer says of something that does not answer, and does not take it for silence', async () => {
    const far = await start({ node: 'far', services: [fakeReplication()] });
    const admin = await start({ services: [], peers: [{ name: 'far', url: far.url }] });
    const body = { csn: '29991122120000.000001Z#000000#001#000000', withinMs: 20 };
    await expect(ask(admin, '/api/v1/replicas/ldap-us.isp.example/wait', 'POST', body)).rejects.toThrow(
      'ldap-us.isp.example does not have 29991122120000.000001Z#000000#001#000000 after 20 ms: it is following',
    );
  });
});

describe('user why', () => {
  const directory = () => fakeDirectoryAccess([aliceRecord()]);

  it('leads from the address to the member, with every frontend of every process asked', async () => {
    const us = await start({ node: 'us', services: [fakeFrontend('front1.us.isp.example', 'us', 0)] });
    const admin = await start({
      services: [fakeFrontend('front1.eu.isp.example', 'eu', 0)],
      peers: [{ name: 'us', url: us.url }],
      directory: directory(),
      accounts: fakeClusterAccounts(),
    });
    const why = await ask<WhyReport>(admin, '/api/v1/users/Alice@ISP.example/why');
    expect(why.directory).toMatchObject({ server: 'ldap://ldap-eu.isp.example', lagMs: 12 });
    expect(why.account).toMatchObject({ name: 'alice@isp.example', uuid: aliceUuid, hostServer: 'west.isp.example' });
    expect(why.whereabouts).toMatchObject({ state: 'open', currentHost: 'back1.west.isp.example', epoch: 7 });
    expect(why.explanations.map((each) => each.subset)).toEqual(['eu', 'us']);
    expect(why.verdict).toMatchObject({ state: 'served' });
    expect(JSON.stringify(why)).not.toContain('passwords');
  });

  it('shows that frontends disagree', async () => {
    const stale = fakeFrontend('front1.us.isp.example', 'us', 0);
    const services = [
      fakeFrontend('front1.eu.isp.example', 'eu', 0),
      { ...stale, explain: async (address: string) => ({ ...(await stale.explain?.(address)), verdict: 'unknown-account' as const }) },
    ] as AdminOptions['services'];
    const why = await ask<WhyReport>(await start({ services, directory: directory() }), '/api/v1/users/alice@isp.example/why');
    expect(why.disagreement).toBe('front1.eu.isp.example routes to west.isp.example; front1.us.isp.example says unknown-account');
    expect(why.verdict.state).toBe('unavailable');
  });

  it('says what to do for an unknown account, a locked one and one without hostServer', async () => {
    const verdict = async (records: Parameters<typeof fakeDirectoryAccess>[0]): Promise<WhyReport['verdict']> => {
      const admin = await start({ services: [], directory: fakeDirectoryAccess(records), accounts: fakeClusterAccounts() });
      return (await ask<WhyReport>(admin, '/api/v1/users/alice@isp.example/why')).verdict;
    };
    expect(await verdict([])).toMatchObject({ state: 'unknown', fix: 'archipelago account create alice@isp.example' });
    expect(await verdict([aliceRecord({ status: 'locked' })])).toMatchObject({ state: 'refused' });
    expect(await verdict([aliceRecord({ hostServer: undefined, hostServerProblem: 'two values' })])).toMatchObject({
      state: 'unavailable',
      text: 'The account has no usable hostServer: two values.',
    });
  });

  it('says that several accounts have the address, and what to do', async () => {
    const access = fakeDirectoryAccess([]);
    access.reader.findAccount = async () => {
      throw new PlatformError('DIR_ADDRESS_AMBIGUOUS', '2 accounts have the address');
    };
    const services = [fakeFrontend('front1.eu.isp.example', 'eu', 0)];
    const why = await ask<WhyReport>(await start({ services, directory: access }), '/api/v1/users/alice@isp.example/why');
    expect(why.verdict).toMatchObject({ state: 'unavailable', text: expect.stringContaining('2 accounts have the address') });
    expect(why.verdict.fix).toContain('mailAlternateAddress');
  });

  it('never calls an account unknown when the master cannot be asked', async () => {
    const access = fakeDirectoryAccess([]);
    access.reader.findAccount = async (_name, options) => {
      if (options?.authoritative) throw new Error('no route to the master');
      return { record: undefined, server: 'ldap://ldap-eu.isp.example', authoritative: false };
    };
    const why = await ask<WhyReport>(await start({ services: [], directory: access }), '/api/v1/users/alice@isp.example/why');
    expect(why.verdict.state).toBe('unavailable');
  });

  it('refuses what is no address', async () => {
    expect(await codeOf(ask(await start(), '/api/v1/users/%00@x/why'))).toBe('NAME_ACCOUNT_INVALID');
  });
});

describe('account operations', () => {
  it('run at the given cluster, or at the one with the fewest accounts', async () => {
    const accounts = fakeClusterAccounts();
    const admin = await start({ accounts });
    await ask(admin, '/api/v1/accounts', 'POST', { name: 'bob@isp.example', cluster: 'east.isp.example', password: 'p' });
    expect(await ask(admin, '/api/v1/accounts', 'POST', { name: 'eve@isp.example' })).toMatchObject({ cluster: 'west.isp.example' });
    expect(accounts.asked).toEqual(['create bob@isp.example at east.isp.example', 'create eve@isp.example at west.isp.example']);
    expect(await codeOf(ask(admin, '/api/v1/accounts', 'POST', { name: 'taken@isp.example' }))).toBe('ACCT_EXISTS');
  });

  it('place by the topology: fewest accounts for the weight, of the clusters that take any and answer', async () => {
    const cluster = (name: string, weight: number) =>
      ({ ...aliceRecord(), kind: 'cluster', name, weight, members: [] }) as unknown as ClusterRecord;
    const topology = [
      cluster('full.example', 100),
      cluster('heavy.example', 50),
      cluster('closed.example', 0),
      cluster('silent.example', 100),
    ];
    const accounts = fakeClusterAccounts({}, { 'full.example': 300, 'heavy.example': 100, 'closed.example': 0 });
    const admin = await start({ services: [], accounts, directory: fakeDirectoryAccess([], topology) });
    // 300 for 100 is 3 each, 100 for 50 is 2 each.
    expect(await ask(admin, '/api/v1/accounts', 'POST', { name: 'eve@isp.example' })).toMatchObject({ cluster: 'heavy.example' });
  });

  it('rename and remove at the hosting cluster, by UUID', async () => {
    const accounts = fakeClusterAccounts();
    const admin = await start({ accounts, directory: fakeDirectoryAccess([aliceRecord()]) });
    expect(await ask(admin, '/api/v1/accounts/alice@isp.example/rename', 'POST', { to: 'anna@isp.example' })).toMatchObject({
      name: 'anna@isp.example',
    });
    await ask(admin, '/api/v1/accounts/alice@isp.example', 'DELETE');
    expect(accounts.asked).toEqual([
      `rename ${aliceUuid} to anna@isp.example at west.isp.example`,
      `remove ${aliceUuid} at west.isp.example`,
    ]);
    expect(await codeOf(ask(admin, '/api/v1/accounts/nobody@isp.example', 'DELETE'))).toBe('ACCT_NOT_FOUND');
  });

  it('fail for now, not for good, when no cluster or no directory can be asked', async () => {
    const alone = await start({ services: [] });
    expect(await codeOf(ask(alone, '/api/v1/accounts', 'POST', { name: 'bob@isp.example' }))).toBe('ADMIN_NOT_ABLE');
    const headless = await start({
      services: [fakeMember('back1.west.isp.example', 'west.isp.example', { controller: undefined })],
      accounts: fakeClusterAccounts(),
    });
    expect(await codeOf(ask(headless, '/api/v1/accounts', 'POST', { name: 'bob@isp.example' }))).toBe('CLUSTER_NO_CONTROLLER');
  });

  it.each([
    ['no JSON', 'application/json', '{"name":', 400],
    ['a list', 'application/json', '[]', 400],
    ['a name of another type', 'application/json', '{"name":5}', 400],
    ['a body past the limit', 'application/json', JSON.stringify({ name: 'x'.repeat(70_000) }), 413],
    ['another media type', 'text/xml', '<a/>', 415],
  ])('refuse %s with a clear problem', async (_what, type, body, status) => {
    const admin = await start({ accounts: fakeClusterAccounts() });
    const answer = await fetch(`${admin.url}/api/v1/accounts`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token.reveal()}`, 'content-type': type },
      body,
    });
    expect(answer.status).toBe(status);
    expect(await answer.json()).toMatchObject({ code: 'ADMIN_BAD_REQUEST', status });
  });
});
