import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseClusterName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import type { ClusterRecord } from '#directory/client/records.ts';
import { startAdmin } from '#operate/api/admin-server.ts';
import type { AdminOptions, RunningAdmin } from '#operate/api/options.ts';
import { readContexts, removeContext, writeContext } from '#operate/cli/context.ts';
import { runCli } from '#operate/cli/program.ts';
import type { Terminal } from '#operate/cli/terminal.ts';
import type { PromotionReport, ReplicaStatus, ReplicationStatus } from '#replication/client/status.ts';
import {
  aliceRecord,
  aliceUuid,
  fakeClusterAccounts,
  fakeDirectoryAccess,
  fakeMember,
  fakeReplication,
  fakeServices,
} from '#test/fakes/installation.ts';

const token = 'a-token-of-the-test';
let home: string;
let admin: RunningAdmin | undefined;

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function clusterRecord(label: string): ClusterRecord {
  const name = parseClusterName(`${label}.isp.example`);
  return {
    kind: 'cluster',
    uuid: aliceUuid,
    dn: `cn=${name},ou=topology,o=mail`,
    name,
    members: [],
    weight: 1,
    region: undefined,
    csn: 'x',
  };
}

/** Runs a command line as a script would: no terminal, nobody to ask. */
async function run(line: string, terminal: Partial<Terminal> = {}): Promise<Ran> {
  let out = '';
  let err = '';
  const code = await runCli(
    line.split(' ').filter((word) => word !== ''),
    {
      env: { XDG_CONFIG_HOME: home },
      clock: systemClock,
      isTerminal: false,
      isInteractive: false,
      flushed: async () => true,
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
      readInput: async () => 'typed-password\n',
      ask: async () => '',
      readFile: (path) => readFile(path, 'utf8'),
      ...terminal,
    },
  );
  return { code, out, err };
}

async function startWith(options: Partial<AdminOptions> = {}): Promise<void> {
  admin = await startAdmin({
    node: 'node-1',
    listen: { address: '127.0.0.1', port: 0 },
    token: new Secret(token),
    peers: [],
    services: fakeServices(),
    ports: {
      clock: systemClock,
      random: systemRandom,
      network: {} as Ports['network'],
      files: nodeFiles,
      log: silentLogger,
      metrics: createMetrics(),
    },
    ...options,
  });
  await writeContext({ XDG_CONFIG_HOME: home }, { name: 'test', url: admin.url, token, pid: process.pid });
}

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'archipelago-cli-'));
});

afterEach(async () => {
  await admin?.[Symbol.asyncDispose]();
  admin = undefined;
  await rm(home, { recursive: true, force: true });
});

describe('finding the installation', () => {
  it('says what to do when none is known', async () => {
    const ran = await run('status');
    expect(ran.code).toBe(1);
    expect(ran.err).toMatch(/no running installation is known.*\n.*archipelago demo/);
  });

  it('goes by a context file that only its owner can read, and not by one whose process is gone', async () => {
    const env = { XDG_CONFIG_HOME: home };
    const path = await writeContext(env, { name: 'mine', url: 'http://127.0.0.1:9', token });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    // No process has this id: the system's largest is far below.
    await writeContext(env, { name: 'gone', url: 'http://127.0.0.1:9', token, pid: 2 ** 30 });
    expect((await readContexts(env)).map((context) => context.name)).toEqual(['mine']);
    await removeContext(env, 'mine');
    expect(await readContexts(env)).toEqual([]);
  });

  it('asks which one when several are known', async () => {
    const env = { XDG_CONFIG_HOME: home };
    await writeContext(env, { name: 'a', url: 'http://127.0.0.1:9', token });
    await writeContext(env, { name: 'b', url: 'http://127.0.0.1:9', token });
    expect((await run('status')).err).toContain('several installations are known: a, b');
    expect((await run('status --context c')).err).toContain('no context "c"');
  });

  it('takes URL and token from options or from the environment, and says when the token is wrong', async () => {
    await startWith();
    await removeContext({ XDG_CONFIG_HOME: home }, 'test');
    const tokenFile = join(home, 'token');
    await writeFile(tokenFile, `${token}\nsecond line\n`);
    expect((await run(`version`)).code).toBe(0);
    expect((await run(`status --url ${admin?.url}`)).err).toContain('no token for');
    expect((await run(`status --url ${admin?.url} --token-file ${tokenFile}`)).code).toBe(0);
    const env = { XDG_CONFIG_HOME: home, ARCHIPELAGO_URL: admin?.url, ARCHIPELAGO_TOKEN_FILE: tokenFile };
    expect((await run('status', { env })).code).toBe(0);
    await writeFile(tokenFile, 'wrong\n');
    expect(await run('status', { env })).toMatchObject({ code: 6, err: expect.stringContaining('[ADMIN_UNAUTHORIZED]') });
  });
});

describe('verbs', () => {
  it('status: prints tables without borders, and 0 when all is well', async () => {
    await startWith();
    const ran = await run('status');
    expect(ran.code).toBe(0);
    expect(ran.out).toMatch(/^\+ ok {2}6 sessions, 200 accounts/);
    expect(ran.out).toMatch(/^front1\.eu\.isp\.example +eu +\+ ready +3 /m);
    expect(ran.out).toMatch(/^back1\.east\.isp\.example +east\.isp\.example +\+ active +controller +3 /m);
    for (const border of ['|', '│', '\u001b']) expect(ran.out).not.toContain(border);
  });

  it('status: shows the connections to members when asked for all', async () => {
    await startWith();
    expect((await run('status')).out).not.toContain('LINK FROM');
    const ran = await run('status -o wide');
    expect(ran.out).toMatch(/^front1\.eu\.isp\.example +back1\.west\.isp\.example +imap +2 shared +17 +40 +1 +0$/m);
    expect(ran.out).toMatch(/^back1\.west\.isp\.example +back2\.west\.isp\.example +calls +1 own +0 +900 +1 +3$/m);
  });

  it('status: ends with 4 when something is wrong and 7 when a node is silent', async () => {
    await startWith({ services: [fakeMember('back1.west.isp.example', 'west.isp.example', { states: ['active', 'dead'] })] });
    expect(await run('status')).toMatchObject({ code: 4, out: expect.stringContaining('x back2.west.isp.example is dead') });
    await admin?.[Symbol.asyncDispose]();
    await startWith({ peers: [{ name: 'far', url: 'http://127.0.0.1:9' }] });
    expect(await run('status')).toMatchObject({ code: 7, out: expect.stringContaining('1 of 2 nodes replied; silent: far') });
  });

  it('frontend drain: asks the frontend, with the terms, and not when its subset would have nobody left', async () => {
    const asked: unknown[] = [];
    const services = fakeServices().map((service) => ({
      ...service,
      ...(service.role === 'frontend'
        ? {
            control: async (action: string, body: object) => {
              asked.push({ name: service.name, action, ...body });
              return { state: 'draining', weight: 100, drain: { connectionsAtStart: 3, connectionsLeft: 3, perSecond: 1.5, leftMs: 2000 } };
            },
          }
        : {}),
    }));
    await startWith({ services });
    expect(await run('frontend drain front1.eu.isp.example --deadline 2 --pace 1.5')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^front1\.eu\.isp\.example +eu +.*draining +100 % +3 of 3 +1\.5\/s +2 s/m),
    });
    expect(asked).toEqual([{ name: 'front1.eu.isp.example', action: 'drain', deadlineMs: 2000, perSecond: 1.5 }]);
    for (const line of ['subset drain us', 'subset drain eu']) {
      expect(await run(line)).toMatchObject({ code: 2, err: expect.stringMatching(/no other frontend of subset .*\n.*--force/) });
    }
    expect(await run('subset drain us --force')).toMatchObject({ code: 0 });
    expect(await run('subset cordon nowhere')).toMatchObject({ code: 3, err: expect.stringContaining('known: eu, us') });
    await run('guard block 192.0.2.0/24 --for 60 --reason ticket');
    expect(asked.slice(-3)).toMatchObject([
      { action: 'guard-block', what: '192.0.2.0/24', forMs: 3_600_000, reason: 'ticket' },
      { action: 'guard-block' },
      { action: 'guard-block' },
    ]);
  });

  it('kick: asks every frontend, and says so when nobody had such a session', async () => {
    const services = fakeServices().map((service) => ({
      ...service,
      ...(service.role === 'frontend'
        ? {
            control: async (_action: string, body: Readonly<Record<string, unknown>>) => {
              const ended = body.what === 'alice@isp.example' && service.name === 'front1.eu.isp.example' ? 2 : 0;
              return { frontend: service.name, subset: 'eu', ended, sessions: ['s1', 's2'].slice(0, ended) };
            },
          }
        : {}),
    }));
    await startWith({ services });
    expect(await run('kick alice@isp.example')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^front1\.eu\.isp\.example +eu +2$/m),
    });
    expect((await run('kick alice@isp.example -o name')).out).toBe('s1\ns2\n');
    expect(await run('kick nobody@isp.example')).toMatchObject({
      code: 3,
      err: expect.stringContaining('no live session of nobody@isp.example'),
    });
  });

  it.each([
    ['json', (text: string) => expect(JSON.parse(text)).toMatchObject({ total: 6, sessions: expect.any(Array) })],
    [
      'jsonl',
      (text: string) =>
        expect(
          text
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line).protocol),
        ).toHaveLength(6),
    ],
    ['yaml', (text: string) => expect(text).toMatch(/^total: 6$/m)],
    ['name', (text: string) => expect(text.trim().split('\n')).toHaveLength(6)],
    ['wide', (text: string) => expect(text).toMatch(/2026-11-22T12:00:0\dZ?/)],
  ])('sessions: prints %s', async (format, check) => {
    await startWith();
    const ran = await run(`sessions -o ${format}`);
    expect(ran.code).toBe(0);
    check(ran.out);
  });

  it('user why: ends with what the user gets and with 3 for nobody', async () => {
    await startWith({ directory: fakeDirectoryAccess([aliceRecord()]), accounts: fakeClusterAccounts() });
    const served = await run('user why alice@isp.example');
    expect(served.code).toBe(0);
    expect(served.out).toMatch(/^hostServer +west\.isp\.example$/m);
    expect(served.out).toMatch(/^verdict +\+ Served by west\.isp\.example on back1\.west\.isp\.example/m);
    expect(await run('user why nobody@isp.example')).toMatchObject({ code: 3, out: expect.stringContaining('archipelago account create') });
    expect((await run('user why not-an-address')).code).toBe(2);
  });

  it('account: creates, shows, renames, sets passwords and removes', async () => {
    const directory = fakeDirectoryAccess([aliceRecord()]);
    const accounts = fakeClusterAccounts();
    await startWith({ directory, accounts });
    const created = await run('account create bob@isp.example --cluster west.isp.example --generate-password -o json');
    expect(JSON.parse(created.out)).toMatchObject({ name: 'bob@isp.example', password: expect.stringMatching(/^[\w-]{16}$/) });
    expect(await run('account create taken@isp.example --cluster west.isp.example')).toMatchObject({ code: 5 });
    expect((await run('account show alice@isp.example')).out).toMatch(/^hostServer +west\.isp\.example$/m);
    expect((await run('account passwd alice@isp.example')).code).toBe(0);
    expect(directory.passwords.get(aliceUuid)).toBe('typed-password');
    expect((await run('account rename alice@isp.example anna@isp.example')).out).toBe('alice@isp.example renamed to anna@isp.example\n');
    expect((await run('account remove alice@isp.example')).code).toBe(0);
    expect((await run('account remove nobody@isp.example')).code).toBe(3);
    expect(accounts.asked.at(-1)).toBe(`remove ${aliceUuid} at west.isp.example`);
  });

  it('account remove: removes nothing when somebody is asked and does not type the name', async () => {
    const accounts = fakeClusterAccounts();
    await startWith({ directory: fakeDirectoryAccess([aliceRecord()]), accounts });
    expect((await run('account remove alice@isp.example', { isInteractive: true, ask: async () => 'y' })).code).toBe(2);
    expect(accounts.asked).toEqual([]);
    expect((await run('account remove alice@isp.example', { isInteractive: true, ask: async () => 'alice@isp.example' })).code).toBe(0);
  });

  it('replica: shows lag and runs a comparison', async () => {
    await startWith();
    expect((await run('replica status')).out).toMatch(/^ldap-us\.isp\.example +\+ following +0 +0 ms /m);
    expect((await run('replica verify ldap-us.isp.example')).out).toContain('214 entries compared, none differs');
    expect((await run('replica verify nowhere')).code).toBe(3);
  });

  it('replica: says how far a refresh is and what it waits for', async () => {
    const replication = fakeReplication();
    const { replicas } = replication.status() as ReplicationStatus;
    const waitsFor = 'the master: nothing came for 75 s, the master still answers';
    const refresh = { entries: 12_345, named: 7, perSecond: 1, ofEntries: 20_000, etaMs: undefined, quietMs: 75_000, waitsFor };
    const status = { ...(replication.status() as ReplicationStatus), replicas: replicas.map((one) => ({ ...one, refresh })) };
    await startWith({ services: [{ ...replication, status: () => status }] });
    expect((await run('replica status')).out).toContain(
      `\nldap-us.isp.example refresh: 12,345 of 20,000 entries taken, 7 named; waits for ${waitsFor}\n`,
    );
  });

  it('directory promote: ends one that broke off on its way to the configured master, and says before what is so', async () => {
    const replication = fakeReplication();
    const lastError = 'no server takes writes: a promotion of ldap-master.isp.example broke off';
    const status = replication.status() as ReplicationStatus;
    const asked: string[] = [];
    let answer = (): Promise<PromotionReport> => Promise.reject(new PlatformError('REPL_NOT_PROMOTED', 'is the master already'));
    await startWith({
      services: [
        {
          ...replication,
          status: () => ({ ...status, master: { ...status.master, lastError } }),
          promote: (name) => {
            asked.push(name);
            return answer();
          },
        },
      ],
    });
    expect((await run('replica status')).out).toContain(`master ldap://ldap-master.isp.example following x ${lastError}\n`);
    expect(await run('directory promote ldap-master.isp.example')).toMatchObject({ err: expect.stringContaining('is the master already') });
    expect((await run('directory promote ldap-elsewhere.isp.example')).err).toContain('no node has');
    // As when the connection to the service breaks.
    answer = () => Promise.reject(new PlatformError('NET_CLOSED', 'closed the connection before answering'));
    expect((await run('directory promote ldap-us.isp.example')).err).toMatch(
      /whether ldap-us\.isp\.example is the master is not known: .*before answering.*\n.*ask for the same again/,
    );
    expect(asked).toEqual(['ldap-master.isp.example', 'ldap-us.isp.example']);
  });

  it('replica: lists what differs, repairs it, waits for a change and lets a stopped one go on', async () => {
    await startWith();
    const diff = await run('replica diff ldap-us.isp.example');
    expect(diff.out).toMatch(/^different +uid=bob,cn=isp\.example,o=mail +mail /m);
    expect(diff.code).toBe(4);
    expect((await run('replica repair ldap-us.isp.example --dry-run')).out).toContain('1 entries would be made the master’s');
    expect(await run('replica repair ldap-us.isp.example')).toMatchObject({
      code: 0,
      out: expect.stringContaining('1 entries differed, 0 do now'),
    });
    expect((await run('replica wait ldap-us.isp.example')).out).toContain('has everything up to 2026');
    const late = await run('replica wait ldap-us.isp.example --csn 20991122120000.000001Z#000000#001#000000 --within 1');
    expect(late).toMatchObject({ code: 7, err: expect.stringContaining('after 1000 ms') });
    expect((await run('replica resume ldap-us.isp.example')).code).toBe(0);
    expect((await run('replica allow-deletes ldap-us.isp.example')).code).toBe(0);
  });

  it('replica: verify ends with 4 when something differs', async () => {
    const replication = fakeReplication();
    replication.verify = async (replica) => [{ replica, entries: 214, differences: [], differing: 2, extra: 0, isCut: true, underWay: 0 }];
    await startWith({ services: [replication] });
    expect((await run('replica verify ldap-us.isp.example')).code).toBe(4);
  });

  it('replica: says that the answer was cut off when the service dies in the middle of it', async () => {
    const server = createServer((request, response) => {
      request.resume();
      response.writeHead(200, { 'content-type': 'application/x-ndjson' });
      response.write(`${JSON.stringify({ progress: { step: 'reading the master', entries: 0 } })}\n`, () => response.destroy());
    });
    try {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      await writeContext({ XDG_CONFIG_HOME: home }, { name: 'test', url: `http://127.0.0.1:${port}`, token, pid: process.pid });
      const { code, err } = await run('replica diff ldap-us.isp.example');
      expect([code, err]).toEqual([1, expect.stringMatching(/the answer about ldap-us.isp.example was cut off.*\[NET_CLOSED\]/)]);
    } finally {
      server.close();
    }
  });

  it('replica: status tells a comparison that came to no end from the last one that did', async () => {
    const replication = fakeReplication();
    const before = replication.status() as ReplicationStatus;
    const [replica] = before.replicas as [ReplicaStatus];
    const lastVerifyFailure = 'the replica cannot be asked';
    const verified = { ...replica, lastVerifiedAtMs: Date.UTC(2026, 10, 28), lastVerifyResult: 'equal: 214 entries', lastVerifyFailure };
    replication.status = () => ({ ...before, replicas: [verified] });
    await startWith({ services: [replication] });
    expect((await run('replica status')).out).toContain('equal: 214 entries; not since, see -o wide');
    expect((await run('replica status -o wide')).out).toContain('2026-11-28T00:00:00.000Z; after that: the replica cannot be asked');
  });

  it('replica: prints what differs as it comes, in every form, and says what a repair would do', async () => {
    const replication = fakeReplication();
    const made = Array.from({ length: 1200 }, (_, i) => ({
      uuid: `11111111-2222-4333-8444-${String(i).padStart(12, '0')}`,
      dn: `uid=u${i},cn=isp.example,o=mail`,
      ...(i === 0
        ? { kind: 'different' as const, what: ['dn', 'mail'], replicaDn: 'uid=old,cn=isp.example,o=mail' }
        : { kind: i === 1 ? ('extra' as const) : ('missing' as const), what: [] }),
    }));
    replication.repair = async (name, { onFound, isDryRun }) => {
      const report = { replica: name, entries: 5000, differences: made.slice(0, 2), differing: 1200, extra: 1, isCut: true, underWay: 3 };
      const refusal = isDryRun ? 'too much' : undefined;
      await onFound?.({ report, size: 1200, all: () => made, refusal, [Symbol.dispose]: () => {} });
      if (!isDryRun) throw new PlatformError('REPL_TOO_MANY_DELETES', 'too much', { fields: { hint: 'think' } });
      return { before: report, after: undefined };
    };
    await startWith({ services: [replication] });
    const json = await run('replica diff ldap-us.isp.example --json');
    const { before, result } = JSON.parse(json.out) as { before: { differences: { todo: string[] }[] }; result: string };
    expect(before).toMatchObject({ entries: 5000, differing: 1200, listed: 1200, isCut: false, underWay: 3, refusal: 'too much' });
    expect([before.differences.length, result, json.code]).toEqual([1200, '1200 entries differ', 4]);
    expect(before.differences.slice(0, 3).map(({ todo }) => todo)).toEqual([['rename', 'modify'], ['delete'], ['add']]);
    const yaml = (await run('replica diff ldap-us.isp.example -o yaml')).out;
    expect(parseYaml(yaml)).toEqual(JSON.parse(json.out));
    const lines = (await run('replica diff ldap-us.isp.example -o jsonl')).out.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(before.differences);
    expect((await run('replica diff ldap-us.isp.example -o name')).out.split('\n')[7]).toBe('uid=u7,cn=isp.example,o=mail');
    const dry = (await run('replica repair ldap-us.isp.example --dry-run')).out;
    expect(dry).toMatch(/^! a repair would not begin: too much\nTO DO +ENTRY +WHAT +UUID\n/);
    expect(dry).toMatch(/^rename, modify +uid=u0,\S+ +dn \(there "uid=old,cn=isp\.example,o=mail"\), mail +1111/m);
    expect(dry).toMatch(/^delete +uid=u1,/m);
    // A reader that has seen enough ends it.
    const early = await run('replica diff ldap-us.isp.example -o name', { flushed: async () => false });
    expect([early.code, early.out.split('\n').length]).toEqual([4, 501]);
    // What fails on the way is told, and what was printed is no whole document.
    const refused = await run('replica repair ldap-us.isp.example -o json');
    expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('too much [REPL_TOO_MANY_DELETES]\n  → think') });
    expect(() => JSON.parse(refused.out) as unknown).toThrow();
  });

  it('store: shows damage, checks and repairs, and ends with 4 while something is damaged', async () => {
    const accounts = fakeClusterAccounts();
    const clusters = ['east', 'west'].map(clusterRecord);
    await startWith({ accounts, directory: fakeDirectoryAccess([aliceRecord()], clusters) });
    const stat = await run('store stat');
    expect(stat.code).toBe(4);
    expect(stat.out).toContain('1 accounts are read-only');
    expect(stat.out).toContain(`${aliceUuid}  check`);
    expect((await run('store stat west.isp.example')).code).toBe(0);
    const check = await run(`store check ${aliceUuid}`);
    expect(check.code).toBe(4);
    expect(check.out).toContain('archipelago store repair');
    const all = await run('store check --cluster west.isp.example --no-wait -o json');
    expect(all.code).toBe(0);
    expect((await run('store check')).code).toBe(2);
    const repair = await run('store repair alice@isp.example');
    expect(repair.code).toBe(4);
    expect(repair.out).toContain('--discard-lost');
    const dry = await run('store repair alice@isp.example --dry-run');
    expect(dry.code).toBe(4);
    expect(dry.out).toContain('--discard-lost');
    expect((await run('store repair alice@isp.example --discard-lost --dry-run')).code).toBe(4);
    expect((await run('store repair alice@isp.example --discard-lost')).code).toBe(0);
    expect(accounts.asked).toEqual([
      `check ${aliceUuid} at west.isp.example`,
      'scrub at west.isp.example',
      `repair ${aliceUuid} at west.isp.example`,
      `repair ${aliceUuid} at west.isp.example dry`,
      `repair ${aliceUuid} at west.isp.example dry discarding`,
      `repair ${aliceUuid} at west.isp.example discarding`,
    ]);
  });

  it('backend: drains and waits for it, calls drains off, cordons, weighs, rebalances, hands over, removes, and has settings', async () => {
    const accounts = fakeClusterAccounts();
    await startWith({ accounts });
    const member = 'back1.west.isp.example';
    const drained = await run(`backend drain ${member} --deadline 2m`);
    expect(drained).toMatchObject({ code: 0, out: expect.stringContaining('12 accounts were closed') });
    expect((await run(`backend drain ${member} --no-wait`)).out).toContain('5 of 12');
    expect((await run(`backend drain ${member} --abort`)).out).toContain('takes accounts again');
    expect((await run(`backend cordon ${member}`)).code).toBe(0);
    expect((await run(`backend uncordon ${member}`)).code).toBe(0);
    expect((await run(`backend weight ${member} 200`)).out).toContain('weight 200');
    expect((await run('backend rebalance west.isp.example')).out).toMatch(/back1.west.isp.example +40 +25 +15/);
    expect((await run('backend hand-over west.isp.example --to back3.west.isp.example')).out).toContain('to back3.west.isp.example');
    expect((await run(`backend remove ${member}`)).out).toContain('forgotten');
    expect((await run('backend settings get west.isp.example')).out).toContain('version 4');
    const set = await run('backend settings set west.isp.example accounts.default-quota-bytes=1000 member.back1.west.isp.example.weight=');
    expect(set.code).toBe(0);
    expect(accounts.asked).toEqual([
      `members.drain {"deadlineMs":120000,"member":"${member}"} at west.isp.example`,
      `members.drain-status {"member":"${member}"} at west.isp.example`,
      `members.drain {"deadlineMs":60000,"member":"${member}"} at west.isp.example`,
      `members.drain-abort {"member":"${member}"} at west.isp.example`,
      `settings.set {"change":{"member.${member}.cordoned":"true"}} at west.isp.example`,
      `settings.set {"change":{"member.${member}.cordoned":null}} at west.isp.example`,
      `settings.set {"change":{"member.${member}.weight":"200"}} at west.isp.example`,
      'members.rebalance {} at west.isp.example',
      'members.hand-over {"to":"back3.west.isp.example"} at west.isp.example',
      `members.remove {"member":"${member}"} at west.isp.example`,
      'settings.get {} at west.isp.example',
      `settings.set {"change":{"accounts.default-quota-bytes":"1000","member.${member}.weight":null}} at west.isp.example`,
    ]);
    expect((await run('backend drain nonsense')).code).toBe(2);
    expect((await run(`backend drain ${member} --deadline soon`)).err).toContain('write 60s, 5m or 2h');
    expect((await run('backend settings set west.isp.example nonsense')).err).toContain('is not name=value');
  });

  it('account restore: asks all clusters, or the one that is named', async () => {
    const accounts = fakeClusterAccounts();
    const clusters = ['east', 'west'].map(clusterRecord);
    await startWith({ accounts, directory: fakeDirectoryAccess([], clusters) });
    const restored = await run('account restore gone@isp.example --generate-password');
    expect(restored.out).toMatch(/gone@isp.example restored at east.isp.example, uuid .*\npassword /);
    expect((await run('account restore never@isp.example')).code).toBe(3);
    expect((await run('account restore gone@isp.example --cluster west.isp.example')).out).toContain('account passwd');
    expect(accounts.asked).toEqual([
      'restore gone@isp.example at east.isp.example',
      'restore never@isp.example at east.isp.example',
      'restore never@isp.example at west.isp.example',
      'restore gone@isp.example at west.isp.example',
    ]);
  });

  it('config: checks and shows node files without any installation', async () => {
    const file = join(home, 'node.yaml');
    await writeFile(
      file,
      'services:\n  - {role: directory, name: l.isp.example, mode: mastr, dataDirectory: d, listeners: [{port: 0, tls: none}]}\n',
    );
    const bad = await run(`config check ${file}`);
    expect(bad.code).toBe(2);
    expect(bad.out).toContain(`${file}:2:50  services[0].mode: "mastr" is not one of master|replica; did you mean "master"?`);
    await writeFile(file, (await readFile(file, 'utf8')).replace('mastr', 'master'));
    expect((await run(`config check ${file}`)).code).toBe(0);
    expect((await run(`config show ${file}`)).out).toMatch(
      new RegExp(`dataDirectory: ${join(home, 'd')}\n.*placement: fewest-accounts`, 's'),
    );
    expect((await run('config check nowhere.yaml')).err).toContain('[CONFIG_UNREADABLE]');
  });

  it.each([
    ['an unknown verb', 'stauts', /Did you mean status\?/],
    ['an unknown option', 'status --jsno', /unknown option/],
    ['an unknown format', 'status -o xml', /Allowed choices are table/],
    ['a missing argument', 'user why', /missing required argument/],
    ['a limit of letters', 'sessions --limit many', /expected a whole number/],
  ])('answer %s with 2 and what is meant', async (_what, line, message) => {
    const ran = await run(line);
    expect(ran.code).toBe(2);
    expect(ran.err).toMatch(message);
  });

  it('list demo and up in the help', async () => {
    const ran = await run('--help');
    expect(ran.code).toBe(0);
    expect(ran.out).toMatch(/^ {2}demo +/m);
    expect(ran.out).toMatch(/^ {2}up +/m);
  });
});

describe('colour', () => {
  it('is for terminals, and gives way to NO_COLOR; the sign stays', async () => {
    await startWith();
    const env = { XDG_CONFIG_HOME: home };
    expect((await run('status', { isTerminal: true, env })).out).toContain('\u001b[32m✓ ok\u001b[39m');
    const plain = (await run('status', { isTerminal: true, env: { ...env, NO_COLOR: '1' } })).out;
    expect(plain).toContain('✓ ok');
    expect(plain).not.toContain('\u001b');
  });
});
