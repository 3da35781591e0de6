import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type AccountName, parseDomainName } from '#common/account-name.ts';
import { sleep, systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { readRole } from '#directory/client/authority.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { openDirectoryWriter } from '#directory/client/write.ts';
import { type ServiceProcess, startReplicationProcess, startServiceProcess } from './replication-process.ts';
import { exportOf, type TestServer } from './replication-suite.ts';
import { freePort } from './slapd-server.ts';

const names = ['ldap-a', 'ldap-b', 'ldap-c'] as const;
type Name = (typeof names)[number];
const replicator = { rootDn: 'cn=replicator,ou=services,o=mail', rootPassword: new Secret('replicator-secret') };
const cluster = { dn: 'cn=cluster,ou=services,o=mail', password: new Secret('cluster-secret') };
const admin = { dn: 'cn=admin,ou=services,o=mail', password: new Secret('admin-secret') };

/** A TCP relay that can be cut: how a promoter loses sight of a master that lives on. */
interface Relay {
  readonly url: string;
  cut(): void;
  close(): Promise<void>;
}

async function startRelay(port: number): Promise<Relay> {
  const open = new Set<Socket>();
  let isCut = false;
  const server: Server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connectTcp(port, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on('data', (chunk) => other.write(chunk));
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    url: `ldap://127.0.0.1:${(server.address() as { port: number }).port}`,
    cut() {
      isCut = true;
      for (const socket of open) socket.destroy();
    },
    close: () => {
      for (const socket of open) socket.destroy();
      return new Promise((closed) => server.close(() => closed()));
    },
  };
}

/** Accounts made one after the other, as a cluster makes them, and what was answered. */
class Provisioning {
  readonly acknowledged = new Map<string, number>();
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(urls: readonly string[], master: string) {
    this.#done = this.#run(urls, master);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(urls: readonly string[], master: string): Promise<void> {
    const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger };
    const access = { urls, master, suffix: 'o=mail', bindDn: cluster.dn, password: cluster.password, timeoutMs: 2000 };
    await using writer = openDirectoryWriter({ access, ports });
    for (let i = 0; !this.#stop.signal.aborted; i += 1) {
      const name = `p${i}@isp.example` as AccountName;
      try {
        await writer.createAccount({ name });
        this.acknowledged.set(`uid=p${i},`, performance.now());
      } catch (error) {
        // Not answered: it may be there or not. The next one has another name.
        if (!(error instanceof PlatformError)) throw error;
      }
      await sleep(systemClock, 5, this.#stop.signal);
    }
  }
}

describe('promotion of a replica', { timeout: 120_000 }, () => {
  let directory: string;
  let adminPort: number;
  const portOf = new Map<Name, number>();
  const running = new Map<string, ServiceProcess>();
  const url = (name: Name): string => `ldap://127.0.0.1:${portOf.get(name)}`;

  const server = (name: Name): Pick<TestServer, 'url' | 'rootDn' | 'rootPassword' | 'connect'> => ({
    url: url(name),
    ...replicator,
    async connect() {
      const connection = await LdapConnection.open(systemNetwork, systemClock, { url: url(name) });
      await connection.bind(replicator.rootDn, replicator.rootPassword);
      return connection;
    },
  });

  const startDirectoryProcess = async (name: Name): Promise<void> => {
    const secret = (of: string): object => ({ file: join(directory, `${of}.password`) });
    const service = {
      role: 'directory',
      name: `${name}.isp.example`,
      mode: name === 'ldap-a' ? 'master' : 'replica',
      ...(name === 'ldap-a' ? {} : { master: url('ldap-a') }),
      peers: names.filter((other) => other !== name).map(url),
      writesNeed: 'majority',
      dataDirectory: join(directory, name),
      listeners: [{ port: portOf.get(name), tls: 'none' }],
      identities: [
        { dn: replicator.rootDn, rights: 'replicator', password: secret('replicator') },
        { dn: cluster.dn, rights: 'cluster', password: secret('cluster') },
        { dn: admin.dn, rights: 'admin', password: secret('admin') },
      ],
      placement: 'none',
    };
    // Of an attempt before this one.
    await running.get(name)?.kill();
    running.set(name, await startServiceProcess(`${name}.isp.example`, { services: [service] }, directory));
    await expect.poll(() => roleOf(name), { timeout: 20_000 }).not.toBe('away');
  };

  const roleOf = async (name: Name): Promise<string> => {
    try {
      await using connection = await LdapConnection.open(systemNetwork, systemClock, { url: url(name) });
      const role = await readRole(connection);
      return `${role?.mode} ${role?.term}${role?.master === undefined ? '' : ` of ${names.find((one) => url(one) === role.master)}`}`;
    } catch {
      return 'away';
    }
  };

  const startReplication = async (masterUrl: string): Promise<void> => {
    const replicas = { 'ldap-b': server('ldap-b'), 'ldap-c': server('ldap-c') };
    const master = { ...server('ldap-a'), url: masterUrl };
    running.set(
      'replication',
      await startReplicationProcess(master, replicas, directory, {
        service: { refreshDeletesMaxPercent: 100 },
        node: { admin: { port: adminPort, tokenFile: join(directory, 'token') } },
      }),
    );
    const answers = (): Promise<boolean> =>
      fetch(`http://127.0.0.1:${adminPort}/`).then(
        () => true,
        () => false,
      );
    await expect.poll(answers, { timeout: 60_000 }).toBe(true);
  };

  const promote = (name: string, ...more: string[]): Promise<{ code: number; text: string }> =>
    new Promise((done) => {
      const args = ['bin/archipelago.mjs', 'directory', 'promote', name, ...more];
      const connection = ['--url', `http://127.0.0.1:${adminPort}`, '--token-file', join(directory, 'token')];
      execFile(process.execPath, [resolve(args[0] as string), ...args.slice(1), ...connection], (error, out, err) => {
        done({ code: error === null ? 0 : Number(error.code), text: `${out}${err}` });
      });
    });

  const equal = async (...those: Name[]): Promise<string> => {
    const [first, ...others] = those as [Name, ...Name[]];
    for (const other of others) {
      await expect
        .poll(() => exportOf(server(other) as TestServer, true), { timeout: 30_000, interval: 200 })
        .toBe(await exportOf(server(first) as TestServer, true));
    }
    return exportOf(server(first) as TestServer, true);
  };

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'archipelago-promotion-'));
    adminPort = await freePort();
    for (const name of names) portOf.set(name, await freePort());
    await writeFile(join(directory, 'replicator.password'), replicator.rootPassword.reveal());
    await writeFile(join(directory, 'cluster.password'), cluster.password.reveal());
    await writeFile(join(directory, 'admin.password'), admin.password.reveal());
    await writeFile(join(directory, 'token'), 'a-token-that-is-long-enough');
  });

  // A master in doubt takes no writes at first.
  const addDomain = async (): Promise<boolean> => {
    const ports = { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger };
    const access = { urls: [], master: url('ldap-a'), suffix: 'o=mail', bindDn: admin.dn, password: admin.password, timeoutMs: 2000 };
    await using writer = openDirectoryWriter({ access, ports });
    try {
      await writer.createDomain(parseDomainName('isp.example'));
      return true;
    } catch {
      return false;
    }
  };

  afterAll(async () => {
    await Promise.all([...running.values()].map((one) => one.kill()));
    await rm(directory, { recursive: true, force: true });
  });

  it('loses no answered change when it is planned, and writers find the new master by themselves', async () => {
    await Promise.all(names.map(startDirectoryProcess));
    await expect.poll(() => addDomain(), { timeout: 20_000 }).toBe(true);
    await startReplication(url('ldap-a'));
    await equal('ldap-a', 'ldap-b', 'ldap-c');
    const provisioning = new Provisioning(names.map(url), url('ldap-a'));
    await expect.poll(() => provisioning.acknowledged.size, { timeout: 20_000 }).toBeGreaterThan(50);
    // A replica that has everything is refused all the same until replication has told it so.
    await expect
      .poll(() => promote('ldap-b'), { timeout: 20_000 })
      .toMatchObject({ code: 0, text: expect.stringContaining('is the master, term 2') });
    const before = provisioning.acknowledged.size;
    await expect.poll(() => provisioning.acknowledged.size, { timeout: 20_000 }).toBeGreaterThan(before + 50);
    await provisioning.stop();
    const content = await equal('ldap-b', 'ldap-a', 'ldap-c');
    expect([...provisioning.acknowledged.keys()].filter((uid) => !content.includes(uid))).toEqual([]);
    await expect.poll(() => Promise.all(names.map(roleOf))).toEqual(['replica 2 of ldap-b', 'master 2', 'replica 2 of ldap-b']);
    await using old = await LdapConnection.open(systemNetwork, systemClock, { url: url('ldap-a') });
    await old.bind(cluster.dn, cluster.password);
    await expect(old.delete('uid=p0,cn=isp.example,o=mail')).rejects.toThrow(`refers to ${url('ldap-b')}`);
  });

  it('is refused while the master is away, unless it is forced; a master that comes back is a replica', async () => {
    await running.get('ldap-b')?.kill();
    const refused = await promote('ldap-c');
    expect(refused.text).toContain('If the master is lost for good, say --force');
    expect(refused.code).not.toBe(0);
    const { text } = await promote('ldap-c', '--force');
    expect(text).toMatch(
      /is the master, term 4; to be told when they answer: ldap-b\. everything that was received from the old master is there/,
    );
    const provisioning = new Provisioning(names.map(url), url('ldap-a'));
    await expect.poll(() => provisioning.acknowledged.size, { timeout: 20_000 }).toBeGreaterThan(20);
    // Its configuration says replica, its database master of term 2: it must not take a single write.
    await startDirectoryProcess('ldap-b');
    await expect.poll(() => roleOf('ldap-b'), { timeout: 20_000 }).toBe('replica 4 of ldap-c');
    await provisioning.stop();
    const content = await equal('ldap-c', 'ldap-a', 'ldap-b');
    expect([...provisioning.acknowledged.keys()].filter((uid) => !content.includes(uid))).toEqual([]);
  });

  it('lets a cut-off master stop by itself: nothing it answers after the promotion, or while most others know better, is lost unseen', async () => {
    await running.get('replication')?.kill();
    await promoteBack();
    const relay = await startRelay(portOf.get('ldap-a') as number);
    await startReplication(relay.url);
    await equal('ldap-a', 'ldap-b', 'ldap-c');
    // The writer reaches the old master all the time; the replication service does not.
    const provisioning = new Provisioning(names.map(url), url('ldap-a'));
    await expect.poll(() => provisioning.acknowledged.size, { timeout: 20_000 }).toBeGreaterThan(20);
    relay.cut();
    const { text } = await promote('ldap-b', '--force');
    const promotedMs = performance.now();
    expect(text).toContain('is the master, term');
    const before = provisioning.acknowledged.size;
    await expect.poll(() => provisioning.acknowledged.size, { timeout: 20_000 }).toBeGreaterThan(before + 20);
    await provisioning.stop();
    const content = await exportOf(server('ldap-b') as TestServer, true);
    const lost = [...provisioning.acknowledged].filter(([uid]) => !content.includes(uid));
    expect(lost.filter(([, atMs]) => atMs >= promotedMs)).toEqual([]);
    await expect.poll(() => roleOf('ldap-a'), { timeout: 20_000 }).toMatch(/^replica \d+ of ldap-b$/);
    await relay.close();
  });

  it('is done by the service that stood by, where the other one is lost with the master; its API also says so of a replica nobody feeds', async () => {
    await running.get('replication')?.kill();
    await promoteBack();
    const [active, standby] = ['one.isp.example', 'two.isp.example'];
    onTestFinished(async () => {
      await Promise.all([active, standby].map((name) => running.get(name)?.kill()));
      if ((await roleOf('ldap-a')) === 'away') await startDirectoryProcess('ldap-a');
    });
    const peerPort = await freePort();
    const replicas = { 'ldap-b': server('ldap-b'), 'ldap-c': server('ldap-c') };
    const start = async (name: string, port: number, other: string, otherPort: number): Promise<void> => {
      const peers = [{ name: other, url: `http://127.0.0.1:${otherPort}` }];
      const service = { leaseMs: 1500, refreshDeletesMaxPercent: 100 };
      const node = { admin: { port, tokenFile: join(directory, 'token'), peers } };
      running.set(name, await startReplicationProcess(server('ldap-a'), replicas, directory, { name, service, node }));
    };
    await start(active, peerPort, standby, adminPort);
    const states = async (port: number): Promise<string> => {
      const headers = { authorization: 'Bearer a-token-that-is-long-enough' };
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/node`, { headers }).catch(() => undefined);
      const { services = [] } = ((await answer?.json()) ?? {}) as {
        services?: { status: { replicas?: { name: string; state: string }[] } }[];
      };
      return services.flatMap(({ status }) => status.replicas?.map((one) => `${one.name} ${one.state}`) ?? []).join(', ');
    };
    await expect.poll(() => states(peerPort), { timeout: 60_000 }).toBe('ldap-b following, ldap-c following');
    await start(standby, adminPort, active, peerPort);
    await expect.poll(() => states(adminPort), { timeout: 60_000 }).toBe('ldap-b standby, ldap-c standby');
    await Promise.all(['ldap-a', active].map((name) => running.get(name)?.kill()));
    // At once, while the lease is the lost one's still.
    const { text, code } = await promote('ldap-b', '--force');
    expect(text).toContain('is the master, term');
    expect(code).toBe(0);
    await expect.poll(() => roleOf('ldap-c'), { timeout: 20_000 }).toMatch(/^replica \d+ of ldap-b$/);
    const nobody = await promote('ldap-z', '--force');
    expect(nobody.text).toContain(`no node that answered has a replication service that feeds a replica ldap-z; silent: ${active}`);
    expect(nobody.text).toContain('start a replication service elsewhere');
  });

  // By hand, as an operator would: the first server is the master again.
  const promoteBack = async (): Promise<void> => {
    if ((await roleOf('ldap-a')).startsWith('master')) return;
    await startReplication(url('ldap-a'));
    await expect.poll(async () => (await promote(url('ldap-a'))).code, { timeout: 30_000, interval: 500 }).toBe(0);
    await running.get('replication')?.kill();
  };
});
