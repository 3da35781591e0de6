/**
 * The route index: `bench/frontend/routes.ts [--accounts N] [--ldap N] [--from own,slapd] [--snapshot N]`.
 *
 * Accounts are made in the process and taken in as the follower reports them; then look-ups, hits and misses in turn; a snapshot to the
 * temporary directory, and what a restart takes until it knows all routes again; and the same road over LDAP, from our server and from slapd
 * as processes of their own, with fewer accounts.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type AccountName, parseAccountName, parseAccountUuid, parseDomainName } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseClusterName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { followDirectory } from '#directory/client/follow.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import { RouteSnapshots } from '#frontend/routing/route-snapshot.ts';
import { Routes } from '#frontend/routing/routes.ts';
import { adminDn, adminPassword, suffix, writeLdif } from '../directory/accounts.ts';
import {
  type BenchServer,
  configureSlapd,
  importOwn,
  importSlapd,
  makeCertificate,
  startOwn,
  startSlapd,
  type TlsFiles,
} from '../directory/servers.ts';

const { values } = parseArgs({
  options: { accounts: { type: 'string' }, ldap: { type: 'string' }, from: { type: 'string' }, snapshot: { type: 'string' } },
});
const accounts = Number(values.accounts ?? 4_000_000);
const snapshotAccounts = Number(values.snapshot ?? 10_000_000);
const ldapAccounts = Number(values.ldap ?? 200_000);
const from = (values.from ?? 'own,slapd').split(',');
const lookups = 4_000_000;
const origin = { urls: ['ldap://bench'], suffix, bindDn: adminDn };

const seconds = (sinceMs: number): number => (performance.now() - sinceMs) / 1000;
const show = (what: string, value: string): void => void process.stdout.write(`${what.padEnd(58)} ${value}\n`);
const millions = (count: number): string => `${(count / 1e6).toFixed(count < 1e6 ? 2 : 1)} M`;
const freshRoutes = (): Routes => new Routes({ random: systemRandom, clock: systemClock });
const nameOf = (number: number): AccountName => `user${String(number).padStart(8, '0')}@isp.example` as AccountName;

async function directoryOf<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-routes-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Fills an index as the follower would, and says how long it took. */
function filled(count: number): { routes: Routes; took: number; worstMs: number } {
  const routes = freshRoutes();
  const common = { uuid: parseAccountUuid('00000000-0000-4000-8000-000000000000'), csn: '', dn: '' };
  routes.apply({ type: 'put', record: { ...common, kind: 'domain', name: parseDomainName('isp.example'), aliases: [] } });
  const hosts = Array.from({ length: 20 }, (_, i) => parseClusterName(`c${i}.isp.example`));
  const rest = { hostServerProblem: undefined, addresses: [], status: 'active', quotaBytes: undefined, region: undefined } as const;
  const passwords = new Secret([]);
  let worstMs = 0;
  const began = performance.now();
  for (let i = 0; i < count; i += 1) {
    const record: AccountRecord = {
      ...common,
      ...rest,
      kind: 'account',
      name: nameOf(i),
      hostServer: hosts[i % hosts.length],
      passwords,
      displayName: undefined,
    };
    const before = performance.now();
    routes.apply({ type: 'put', record });
    worstMs = Math.max(worstMs, performance.now() - before);
  }
  return { routes, took: seconds(began), worstMs };
}

function measureMemory(): void {
  for (const count of [...new Set([accounts, 1_000_000])].sort((a, b) => a - b)) {
    const { routes, took, worstMs } = filled(count);
    const { bytes } = routes.index;
    show(`bytes an account, ${millions(count)} accounts`, (bytes / count).toFixed(2));
    show(`  taken in, accounts a second`, Math.round(count / took).toLocaleString('en'));
    show(`  longest single step (growth, garbage collection), ms`, worstMs.toFixed(2));
    const known = Array.from({ length: 1024 }, (_, i) => nameOf(Math.floor((i * count) / 1024)));
    const unknown = known.map((name) => parseAccountName(`no.${name}`));
    let found = 0;
    const began = performance.now();
    for (let i = 0; i < lookups; i += 1) {
      const name = ((i & 1) === 0 ? known : unknown)[(i * 7) & 1023] as AccountName;
      if (routes.find(name) !== undefined) found += 1;
    }
    if (found !== lookups / 2) throw new Error(`${found} of ${lookups} found`);
    show(`  look-ups a second, half of them misses, one thread`, Math.round(lookups / seconds(began)).toLocaleString('en'));
  }
}

async function measureSnapshot(): Promise<void> {
  await directoryOf(async (directory) => {
    const snapshots = new RouteSnapshots({ directory, origin, files: nodeFiles, clock: systemClock, log: silentLogger });
    const { routes } = filled(snapshotAccounts);
    const position = { url: 'ldap://bench', cookie: Buffer.from('c'), domainDns: [] };
    let began = performance.now();
    await snapshots.write(routes, position);
    show(`snapshot written, ${millions(snapshotAccounts)} accounts, s`, seconds(began).toFixed(2));
    began = performance.now();
    const known = await snapshots.read();
    const again = new Routes({ random: systemRandom, clock: systemClock, known });
    show(`  read again until all routes are known, s`, seconds(began).toFixed(2));
    if (again.index.accounts !== snapshotAccounts) throw new Error(`${again.index.accounts} came back`);
  });
}

async function filledOwn(folder: string, tls: TlsFiles, ldif: string): Promise<BenchServer> {
  const own = join(folder, 'own');
  await mkdir(own);
  await importOwn(own, ldif);
  return startOwn(own, tls);
}

async function filledSlapd(folder: string, tls: TlsFiles, ldif: string): Promise<BenchServer> {
  const configuration = await configureSlapd(join(folder, 'slapd'), tls, { isProvider: true });
  await importSlapd(configuration, ldif);
  return startSlapd(configuration);
}

async function measureLdap(): Promise<void> {
  await directoryOf(async (folder) => {
    const tls = makeCertificate(folder);
    const ldif = join(folder, 'accounts.ldif');
    await writeLdif(ldif, ldapAccounts);
    for (const name of from) {
      const server = await (name === 'own' ? filledOwn(folder, tls, ldif) : filledSlapd(folder, tls, ldif));
      try {
        const routes = freshRoutes();
        const began = performance.now();
        const cpu = process.cpuUsage();
        await using follower = followDirectory({
          access: {
            urls: [`ldap://127.0.0.1:${server.port}`],
            suffix,
            bindDn: adminDn,
            password: new Secret(adminPassword),
            ca: undefined,
            timeoutMs: 60_000,
          },
          withPasswords: false,
          onChange: (change) => routes.apply(change),
          content: routes,
          ports: { clock: systemClock, random: systemRandom, network: systemNetwork, log: silentLogger },
        });
        await follower.whenRefreshed();
        const took = seconds(began);
        const { user, system } = process.cpuUsage(cpu);
        if (routes.index.accounts !== ldapAccounts) throw new Error(`${routes.index.accounts} accounts came`);
        show(`filled over LDAP from ${server.name}, accounts a second`, Math.round(ldapAccounts / took).toLocaleString('en'));
        show(`  our own CPU for each, µs`, ((user + system) / ldapAccounts).toFixed(1));
      } finally {
        await server.stop();
      }
    }
  });
}

measureMemory();
await measureSnapshot();
await measureLdap();
