import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Clock } from '#common/clock.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import type { Schedule } from '#common/schedule.ts';
import { systemPorts } from '#common/system-ports.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import type { RunningReplication } from '#replication/main.ts';
import { queuedMax } from '#replication/pipeline.ts';
import { readAllEntries } from '#replication/replica.ts';
import { FaultProxy } from '#test/fakes/fault-proxy.ts';
import { cookieOf, csnOf, type HostileEntry, HostileMaster, roleEntry, suffixEntry, uuidOf } from './hostile-master.ts';
import { startOwnDirectory } from './own-directory.ts';
import { replicate, type TestServer } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

const patience = { timeout: 20_000, interval: 20 };

/** The suffix and entries 2 to `last`. */
const content = (last: number): HostileEntry[] => [suffixEntry(), ...Array.from({ length: last - 1 }, (_, i) => roleEntry(i + 2))];

/** Names that a server has. */
async function namesOf(server: TestServer): Promise<string[]> {
  await using connection = await server.connect();
  const names: string[] = [];
  for await (const { dn } of readAllEntries(connection, 'o=mail', ['1.1'])) names.push(dn);
  return names.sort();
}

/** What this process holds on to. */
function bytesKept(): number {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** A clock that goes so many times as fast. */
function fastClock(times: number): Clock {
  const { clock } = systemPorts(silentLogger);
  return {
    nowMs: () => clock.nowMs(),
    monotonicMs: () => times * clock.monotonicMs(),
    after: (delayMs, fire) => clock.after(delayMs / times, fire),
    every: (periodMs, fire) => clock.every(periodMs / times, fire),
  };
}

describe.each(['ours', 'slapd'] as const)('a replica of %s whose master', (kind) => {
  let master: HostileMaster;
  let replica: TestServer;
  let toReplica: FaultProxy;
  let directory: string;
  let service: RunningReplication | undefined;

  const state = () => service?.status().replicas[0];
  const start = async (own?: Parameters<typeof replicate>[3]): Promise<void> => {
    service = await replicate(master, { ...replica, url: toReplica.url }, directory, own);
  };
  /** It tells all that it has, at each refresh. */
  const tellsAll = (): void => {
    master.onStream = (stream) => {
      for (const entry of master.entries) stream.entry(entry);
      stream.refreshed(cookieOf(100), 'refreshPresent');
    };
  };

  beforeEach(async () => {
    master = await HostileMaster.start();
    replica = kind === 'ours' ? await startOwnDirectory('replica') : await startSlapd({ withSuffix: false });
    toReplica = await FaultProxy.before(replica.url);
    directory = await mkdtemp(join(tmpdir(), 'archipelago-hostile-'));
    master.entries = content(60);
    master.contextCsn = csnOf(100);
    tellsAll();
  });

  afterEach(async () => {
    await service?.[Symbol.asyncDispose]();
    service = undefined;
    for (const one of [master, toReplica, replica]) await one[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  /** The replica refuses a change of entry 2, which it has. */
  async function refuseChange(): Promise<void> {
    const odd = roleEntry(2);
    const changed = { ...odd, attributes: [...odd.attributes, attribute('objectClass', 'top', 'organizationalRole', 'unknownThing')] };
    master.entries = master.entries.map((one) => (one.uuid === odd.uuid ? changed : one));
    master.stream.entry(changed, 'modify', cookieOf(101));
    await expect.poll(() => state()?.refused.entries, patience).toBe(1);
  }

  const onOurs = kind === 'ours' ? it : () => {};
  // Ours takes every class, and refuses nothing here.
  const onSlapd = kind === 'slapd' ? it : () => {};

  onSlapd('shows nothing any more keeps what its master was asked about', async () => {
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    await refuseChange();
    master.entries = [];
    await expect.poll(() => state()?.lastError, patience).toContain('has no "o=mail"');
    expect(await namesOf(replica)).toHaveLength(60);
    await expect(service?.verify('ldap-eu')).rejects.toThrow('has no "o=mail"');
  });

  onSlapd('went back keeps what it had refused a change of, until an operator has decided', async () => {
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    await refuseChange();
    master.entries = master.entries.filter(({ dn }) => dn !== 'cn=a2,o=mail');
    master.contextCsn = csnOf(50);
    master.cut();
    await expect.poll(() => state()?.stoppedBy, patience).toBe('REPL_MASTER_WENT_BACK');
    toReplica.cut();
    await expect.poll(() => toReplica.connections, patience).toBe(0);
    toReplica.heal();
    await expect.poll(() => toReplica.connections, patience).toBe(1);
    // Refused entries were tried again as soon as the replica was back; comparisons give whoever does it time to.
    for (let i = 0; i < 5; i += 1) expect((await service?.verify())?.[0]?.differing).toBe(1);
    expect(await namesOf(replica)).toContain('cn=a2,o=mail');
  });

  it('went back to an older state is not repaired by the calendar', async () => {
    let compare: (() => unknown) | undefined;
    const schedule: Schedule = (_expression, _name, run) => {
      compare = run;
      return { cancel: () => {} };
    };
    const real = systemPorts(silentLogger);
    const random = { ...real.random, integer: () => 0, bytes: (length: number) => real.random.bytes(length) };
    await start({ service: { differences: 'repair' }, schedule, ports: { random } });
    await expect.poll(() => state()?.state, patience).toBe('following');
    master.entries = content(59);
    master.contextCsn = csnOf(50);
    master.cut();
    await expect.poll(() => state()?.stoppedBy, patience).toBe('REPL_MASTER_WENT_BACK');
    await compare?.();
    expect(state()?.lastVerifyResult).toContain('1 of 59 entries differ');
    expect(await namesOf(replica)).toHaveLength(60);
    service?.resume('ldap-eu');
    await expect.poll(() => state()?.state, patience).toBe('following');
    expect(await namesOf(replica)).toHaveLength(59);
  });

  it('is emptier still once deletions were allowed stops again, with the new count', async () => {
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    master.entries = content(30);
    master.cut();
    await expect.poll(() => state()?.lastError, patience).toContain('would delete 30 of 60 entries');
    master.entries = content(1);
    service?.allowDeletes('ldap-eu');
    await expect.poll(() => state()?.lastError, patience).toContain('would delete 59 of 60 entries');
    expect(await namesOf(replica)).toHaveLength(60);
    service?.allowDeletes('ldap-eu');
    await expect.poll(() => state()?.state, patience).toBe('following');
    await expect.poll(() => namesOf(replica), patience).toEqual(['o=mail']);
  });

  it('takes back its cookie while changes are under way is not gone on from there after a restart', async () => {
    const warnings: string[] = [];
    const log: Logger = { ...silentLogger, child: () => log, warn: (_fields, text) => void warnings.push(text) };
    await start({ ports: { log } });
    await expect.poll(() => state()?.state, patience).toBe('following');
    const { stream } = master;
    toReplica.silence();
    stream.entry(roleEntry(2, 'cn=a2,o=mail', 'changed'), 'modify', cookieOf(101));
    await expect.poll(() => state()?.backlogChanges, patience).toBeGreaterThan(0);
    master.onStream = () => {};
    stream.end(resultCodes.syncRefreshRequired);
    await expect.poll(() => warnings, patience).toContain('the whole replica is compared with the master');
    toReplica.heal();
    await expect.poll(() => state()?.backlogChanges, patience).toBe(0);
    await service?.[Symbol.asyncDispose]();
    const { length } = master.streams;
    await start();
    await expect.poll(() => master.streams.length, patience).toBeGreaterThan(length);
    expect(master.stream.cookie).toBeUndefined();
  });

  it('ends its stream after each refresh is not asked without end', async () => {
    const pauses: number[] = [];
    const log: Logger = { ...silentLogger, child: () => log, info: (fields) => void pauses.push(Number(fields.retryMs ?? 0)) };
    master.onStream = (stream) => {
      for (const entry of master.entries) stream.entry(entry);
      stream.refreshed(cookieOf(100), 'refreshPresent');
      stream.end(0);
    };
    await start({ ports: { log } });
    await expect.poll(() => Math.max(0, ...pauses), patience).toBeGreaterThan(1000);
    expect(state()?.lastError).toContain('it should persist');
  });

  it('names no CSN in its cookie lets nobody read what is not there', async () => {
    master.onStream = (stream) => {
      for (const entry of master.entries) stream.entry(entry);
      stream.refreshed(Buffer.from(`rid=000,csn=${csnOf(100)};zzz`), 'refreshPresent');
    };
    await start();
    await expect.poll(() => state()?.contextCsn, patience).toBe(csnOf(100));
    await expect(service?.waitFor(csnOf(101), undefined, AbortSignal.timeout(100))).rejects.toThrow();
  });

  it('is followed while the checkpoint cannot be stored: status says so, and it is stored later without a further change', async () => {
    const real = systemPorts(silentLogger);
    let isFull = true;
    const files = Object.assign(Object.create(real.files), {
      replace: (path: string, content: string) =>
        isFull && path.endsWith('.checkpoint.json')
          ? Promise.reject(new Error('ENOSPC: no space left on device'))
          : real.files.replace(path, content),
    });
    await start({ ports: { files } });
    await expect.poll(() => state()?.lastError, patience).toContain('no space left');
    expect(state()?.state).toBe('following');
    isFull = false;
    await expect.poll(() => state()?.lastError, patience).toBeUndefined();
    expect(await readFile(join(directory, 'state', 'ldap-eu.checkpoint.json'), 'utf8')).toContain(cookieOf(100).toString('base64'));
  });

  it('sends empty cookies is asked for everything again, and what is gone is heard of', async () => {
    master.onStream = (stream) => {
      for (const entry of master.entries) stream.entry(entry);
      stream.refreshed(Buffer.alloc(0));
    };
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    const added = roleEntry(61);
    master.stream.entry(added, 'add', Buffer.alloc(0));
    await expect.poll(() => namesOf(replica), patience).toContain(added.dn);
    master.entries = [...content(59), added];
    master.cut();
    await expect.poll(() => namesOf(replica), patience).not.toContain('cn=a60,o=mail');
    expect(await namesOf(replica)).toContain(added.dn);
    expect(master.streams.map(({ cookie }) => cookie)).toEqual(master.streams.map(() => undefined));
  });

  onOurs('names a million entries as gone in a refresh does not make the service grow, and what is gone is counted first', async () => {
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    master.onStream = () => {};
    const { length } = master.streams;
    master.cut();
    await expect.poll(() => master.streams.length, patience).toBeGreaterThan(length);
    const beforeBytes = bytesKept();
    for (let named = 0; named < 1_000_000; named += 50_000) {
      const uuids = Array.from({ length: 50_000 }, (_, i) => uuidOf(1_000_000 + named + i));
      master.stream.info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids });
      await expect.poll(() => state()?.refresh?.named, { ...patience, interval: 1 }).toBe(named + 50_000);
    }
    expect(bytesKept() - beforeBytes).toBeLessThan(20_000_000);
    const uuids = master.entries.slice(30).map(({ uuid }) => uuid);
    master.stream.info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids });
    master.stream.refreshed(cookieOf(101));
    await expect.poll(() => state()?.lastError, patience).toContain('would delete 30 of 60 entries');
    expect(await namesOf(replica)).toHaveLength(60);
    expect(await readdir(join(directory, 'state'))).toContain('ldap-eu.gone.sqlite');
  });

  it('names many entries as gone at a time while it is followed is not heard further than the replica comes along', async () => {
    await start();
    await expect.poll(() => state()?.backlogChanges, patience).toBe(0);
    await expect.poll(() => state()?.state, patience).toBe('following');
    toReplica.silence();
    const uuids = [...Array.from({ length: 20_000 }, (_, i) => uuidOf(1_000_000 + i)), uuidOf(60)];
    master.entries = content(59);
    master.stream.info({ kind: 'syncIdSet', cookie: cookieOf(101), refreshDeletes: true, uuids });
    await expect.poll(() => state()?.backlogChanges, patience).toBe(queuedMax);
    toReplica.heal();
    await expect.poll(() => state()?.contextCsn, patience).toBe(csnOf(101));
    expect(await namesOf(replica)).toHaveLength(59);
  });

  it('falls silent in the middle of a refresh and still answers is waited for, and status says so', async () => {
    const warnings: string[] = [];
    const log: Logger = { ...silentLogger, child: () => log, warn: (_fields, text) => void warnings.push(text) };
    master.onStream = (stream) => {
      for (const entry of master.entries.slice(0, 30)) stream.entry(entry);
    };
    await start({ ports: { log, clock: fastClock(5) } });
    await expect.poll(() => state()?.refresh?.waitsFor, patience).toMatch(/^the master: nothing came for \d+ s, the master still answers$/);
    expect(state()).toMatchObject({ state: 'refreshing', refresh: { entries: 30 } });
    await expect.poll(() => warnings, patience).toContain('the refresh waits');
    for (const entry of master.entries.slice(30)) master.stream.entry(entry);
    master.stream.refreshed(cookieOf(100), 'refreshPresent');
    await expect.poll(() => state()?.state, patience).toBe('following');
    expect(await namesOf(replica)).toHaveLength(60);
  });

  it('does not show its UUIDs is not followed, and status says what to do', async () => {
    master.entries = master.entries.map((one) => ({ ...one, attributes: one.attributes.filter(({ type }) => type !== 'entryUUID') }));
    await start();
    await expect.poll(() => state()?.lastError, patience).toContain('does not show the entryUUID of "o=mail"');
    expect(await namesOf(replica)).toEqual([]);
  });

  it.each([
    ['no entryUUID', []],
    ['two', [uuidOf(61), uuidOf(77)]],
    ['another', [uuidOf(77)]],
  ])('shows %s of an entry is taken by the word of its stream, and what it removes goes', async (_, shown) => {
    const odd = (n: number): HostileEntry => {
      const entry = roleEntry(n);
      const rest = entry.attributes.filter(({ type }) => type !== 'entryUUID');
      return { ...entry, attributes: shown.length === 0 ? rest : [...rest, attribute('entryUUID', ...shown)] };
    };
    master.entries = [suffixEntry(), odd(60), roleEntry(2)];
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    master.stream.entry(odd(61), 'add', cookieOf(101));
    await expect.poll(() => namesOf(replica), patience).toEqual(['cn=a2,o=mail', 'cn=a60,o=mail', 'cn=a61,o=mail', 'o=mail']);
    expect(state()?.refused.entries).toBe(0);
    for (const n of [60, 61]) master.stream.entry(odd(n), 'delete', cookieOf(42 + n));
    await expect.poll(() => namesOf(replica), patience).toEqual(['cn=a2,o=mail', 'o=mail']);
  });

  it('says things out of order, twice, or of nobody is followed all the same', async () => {
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    const { stream } = master;
    const nobody = uuidOf(999);
    stream.refreshed(cookieOf(101), 'refreshPresent');
    stream.refreshed(undefined);
    stream.info({ kind: 'refreshPresent', cookie: undefined, refreshDone: false });
    stream.info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: false, uuids: [nobody, uuidOf(2)] });
    stream.info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids: [nobody] });
    stream.entry(roleEntry(999), 'delete');
    stream.send({ type: 'searchResultReference', urls: ['ldap://elsewhere.isp.example/o=mail'] });
    stream.send({ type: 'intermediateResponse', oid: '1.2.3', value: Buffer.from('x') });
    stream.entry(roleEntry(61), 'modify', cookieOf(102));
    await expect.poll(() => namesOf(replica), patience).toContain('cn=a61,o=mail');
    expect(await namesOf(replica)).toHaveLength(61);
    expect(master.streams).toHaveLength(1);
    await expect.poll(() => state()?.contextCsn, patience).toBe(csnOf(102));
  });

  it.each([
    ['a message of two gigabytes', Buffer.from([0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01]), 'passes the limit'],
    ['what is no LDAP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'no LDAP message'],
    ['the end of the connection in mid-message', undefined, 'closed the connection'],
  ])('sends %s is asked again, from where it was, and status says why', async (_, bytes, reason) => {
    const errors: string[] = [];
    const log: Logger = { ...silentLogger, child: () => log, info: (_fields, text) => void errors.push(text) };
    await start({ ports: { log } });
    await expect.poll(() => state()?.state, patience).toBe('following');
    master.onStream = (stream) => stream.refreshed(cookieOf(100));
    const { socket } = master.stream;
    if (bytes === undefined) socket.end(Buffer.from([0x30, 0x20, 0x02, 0x01]));
    else socket.write(bytes);
    await expect.poll(() => errors.join(), patience).toContain(reason);
    await expect.poll(() => master.streams.length, patience).toBe(2);
    expect(master.stream.cookie).toEqual(cookieOf(100));
    await expect.poll(() => state()?.state, patience).toBe('following');
    expect(await namesOf(replica)).toHaveLength(60);
  });

  it('says that it will hang up is asked again, and status tells its reason', async () => {
    await start();
    await expect.poll(() => state()?.state, patience).toBe('following');
    const notice = { type: 'extendedResponse', resultCode: 52, matchedDn: '', diagnosticMessage: 'closing for the night' } as const;
    const bytes = encodeMessage({ id: 0, operation: { ...notice, oid: '1.3.6.1.4.1.1466.20036', value: undefined }, controls: [] });
    master.onStream = (stream) => void stream.socket.write(bytes);
    master.stream.socket.write(bytes);
    await expect.poll(() => state()?.lastError, patience).toContain('closing for the night');
    tellsAll();
    await expect.poll(() => state()?.state, patience).toBe('following');
  });
});
