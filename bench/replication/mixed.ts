/**
 * Mixed sites under load: a master with several kinds of replicas at once, all kinds of changes, and one replica after the other killed and
 * brought back. At the end every replica's content must be the master's, as sorted LDIF; the lag of each is printed.
 *
 *   node bin/run.mjs bench/replication/mixed.ts [--accounts N] [--rounds N]        default 500 and 30
 *
 *   1. slapd ─┬─ our service ─► slapd            2. ours ─┬─ its own syncrepl ─► slapd
 *             └─ our service ─► ours                      ├─ our service ──────► slapd
 *                                                         └─ our service ──────► ours
 *
 *   3. as 2 without the first replica: OpenLDAP's own consumer (2.5.13) mixes entries up when two of them exchanged their names while it was
 *      away, from a slapd as well as from us; so only here and in 1 names are exchanged.
 *
 * Ends with 1 when anything differs.
 */
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { readAllEntries } from '#replication/replica.ts';
import { type OwnServer, startOwnReplication, startOwnServer } from '#test/interop/server-process.ts';
import { type Slapd, startSlapd } from '#test/interop/slapd-server.ts';
import { accountAttributes, at, fill, kinds, quantile, timeChanges } from './measure.ts';

const { values } = parseArgs({ options: { accounts: { type: 'string' }, rounds: { type: 'string' } } });
const accounts = Number(values.accounts ?? 500);
const rounds = Number(values.rounds ?? 30);

interface Target {
  readonly name: string;
  readonly server: Slapd | OwnServer;
  killAndRestart(): Promise<void>;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Changes of all kinds, one after the other, until the signal; gives their number. */
async function load(master: Slapd | OwnServer, swaps: boolean, signal: AbortSignal): Promise<number> {
  await using admin = await master.connect();
  let done = 0;
  for (let i = 0; !signal.aborted; i += 1) {
    const [old, other] = [`user${(i * 7) % accounts}`, `user${(i * 7 + 3) % accounts}`];
    await admin.add(at(`mixed${i}`), accountAttributes(`mixed${i}`));
    await admin.modify(at(old), [{ kind: 'replace', attribute: attribute('description', `${i}`) }]);
    // Two accounts get each other's name, or one an own new one.
    await rename(admin, old, `swap${i}`);
    if (swaps) {
      await rename(admin, other, old);
      await rename(admin, `swap${i}`, other);
    } else {
      await rename(admin, `swap${i}`, old);
      await rename(admin, `mixed${i}`, `renamed${i}`);
    }
    if (i % 2 === 0) await admin.delete(at(swaps ? `mixed${i}` : `renamed${i}`));
    done += i % 2 === 0 ? 6 : 5;
    await new Promise((wake) => setTimeout(wake, 5));
  }
  return done;
}

function rename(admin: LdapConnection, from: string, to: string): Promise<unknown> {
  return admin.modifyDn({ dn: at(from), newRdn: `uid=${to}`, deleteOldRdn: true, newSuperior: undefined });
}

/** A server's content as sorted LDIF lines. */
async function ldifOf(server: Slapd | OwnServer): Promise<string> {
  await using connection = await server.connect();
  const entries: string[] = [];
  for await (const { dn, uuid, attributes } of readAllEntries(connection, 'o=mail', ['*'])) {
    const lines = attributes.flatMap((one) => one.values.map((value) => `${one.type}: ${value.toString('utf8')}`));
    entries.push([`dn: ${dn}`, `entryUUID: ${uuid}`, ...lines.filter((line) => !/^entryuuid:/i.test(line)).sort()].join('\n'));
  }
  return entries.sort().join('\n\n');
}

async function run(title: string, master: Slapd | OwnServer, targets: readonly Target[], swaps = true): Promise<boolean> {
  say(`\n${title}`);
  const stop = new AbortController();
  const loading = load(master, swaps, stop.signal);
  const lags: { name: string; lags: Awaited<ReturnType<typeof timeChanges>> }[] = [];
  for (const { name, server, killAndRestart } of targets) {
    lags.push({ name, lags: await timeChanges(master, server, rounds, 0) });
    await killAndRestart();
    say(`  killed and brought back under load: ${name}`);
  }
  stop.abort();
  say(`  ${await loading} changes beside those whose lag was measured`);
  const wanted = await ldifOf(master);
  let isEqual = true;
  for (const { name, server } of targets) {
    const deadlineMs = performance.now() + 30_000;
    let found = await ldifOf(server);
    while (found !== wanted && performance.now() < deadlineMs) {
      await new Promise((wake) => setTimeout(wake, 200));
      found = await ldifOf(server);
    }
    isEqual &&= found === wanted;
    if (found !== wanted) sayDifference(wanted, found);
    say(`  ${found === wanted ? 'equal' : 'DIFFERENT'}: ${name}, ${found.split('\n\n').length} entries, LDIF SHA-256 ${sha256(found)}`);
  }
  say(`  master: ${wanted.split('\n\n').length} entries, LDIF SHA-256 ${sha256(wanted)}`);
  say(`  lag in ms under load, from sending a change to the master until the replica shows it: p50 p99`);
  say(`  ${''.padEnd(34)}${kinds.map((kind) => kind.padStart(18)).join('')}`);
  for (const one of lags) {
    const cells = kinds.map((kind) => {
      const { sent } = one.lags[kind];
      return `${quantile(sent, 0.5).toFixed(2).padStart(9)}${quantile(sent, 0.99).toFixed(2).padStart(9)}`;
    });
    say(`  ${one.name.padEnd(34)}${cells.join('')}`);
  }
  return isEqual;
}

/** The first entries that one side has and the other has not so. */
function sayDifference(wanted: string, found: string): void {
  const [ofMaster, ofReplica] = [new Set(wanted.split('\n\n')), new Set(found.split('\n\n'))];
  for (const [side, entries, others] of [
    ['master', ofMaster, ofReplica],
    ['replica', ofReplica, ofMaster],
  ] as const) {
    for (const entry of [...entries].filter((one) => !others.has(one)).slice(0, 3))
      say(`  only at the ${side}: ${entry.replaceAll('\n', ' | ')}`);
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

function slapdTarget(name: string, server: Slapd): Target {
  return {
    name,
    server,
    async killAndRestart() {
      await server.stop('SIGKILL');
      await new Promise((wake) => setTimeout(wake, 500));
      await server.start();
    },
  };
}

function ownTarget(name: string, server: OwnServer): Target {
  return { name, server, killAndRestart: () => server.killAndRestart() };
}

async function fromSlapd(): Promise<boolean> {
  await using master = await startSlapd({ isProvider: true, sessionLog: 10_000 });
  await using slapd = await startSlapd({ withSuffix: false });
  await using own = await startOwnServer('replica');
  await fill(master, accounts);
  await using _service = await startOwnReplication(master, { slapd, own });
  return await run('1. The master is slapd', master, [slapdTarget('slapd, by our service', slapd), ownTarget('ours, by our service', own)]);
}

async function fromOurs(): Promise<boolean> {
  await using master = await startOwnServer('master');
  await fill(master, accounts);
  await using syncrepl = await startSlapd({ syncrepl: master });
  await using slapd = await startSlapd({ withSuffix: false });
  await using own = await startOwnServer('replica');
  await using _service = await startOwnReplication(master, { slapd, own });
  const targets = [
    slapdTarget('slapd, by its own syncrepl', syncrepl),
    slapdTarget('slapd, by our service', slapd),
    ownTarget('ours, by our service', own),
  ];
  return await run('2. The master is ours', master, targets, false);
}

async function fromOursWithSwaps(): Promise<boolean> {
  await using master = await startOwnServer('master');
  await fill(master, accounts);
  await using slapd = await startSlapd({ withSuffix: false });
  await using own = await startOwnServer('replica');
  await using _service = await startOwnReplication(master, { slapd, own });
  const targets = [slapdTarget('slapd, by our service', slapd), ownTarget('ours, by our service', own)];
  return await run('3. The master is ours, accounts exchange their names', master, targets);
}

const outcomes = [await fromSlapd(), await fromOurs(), await fromOursWithSwaps()];
process.exitCode = outcomes.every((one) => one) ? 0 : 1;
