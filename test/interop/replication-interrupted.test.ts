import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Network } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { controlOids, encodeSyncInfo, findControl, makeSyncState, readSyncRequest, type SyncInfo } from '#protocol/ldap/controls.ts';
import { attribute, type LdapMessage } from '#protocol/ldap/messages.ts';
import type { RunningReplication } from '#replication/main.ts';
import { type ScriptedConnection, scriptedNetwork, success } from '../unit/directory-client/scripted-server.ts';
import { startOwnDirectory } from './own-directory.ts';
import { exportOf, replicate, type TestServer } from './replication-suite.ts';

const csn = (number: number): string => `20261128120000.${String(number).padStart(6, '0')}Z#000000#000#000000`;
const cookie = (number: number): Buffer => Buffer.from(`rid=000,csn=${csn(number)}`);
const uuidOf = (uid: string): string => `00000000-0000-4000-8000-${Buffer.from(uid).toString('hex').padStart(12, '0')}`;
const patience = { timeout: 30_000, interval: 20 };

/** A master in memory that does what the test tells it when changes are asked for. */
class ScriptedMaster {
  /** Of the requests for changes, the cookies in their order. */
  readonly asked: string[] = [];
  at = 1;
  /** Answers the next request for changes. */
  onSync: (send: (info: SyncInfo) => void, entries: () => void, server: ScriptedConnection) => void = () => {};
  readonly #uids: () => readonly string[];

  constructor(uids: () => readonly string[]) {
    this.#uids = uids;
  }

  answer = ({ id, operation, controls }: LdapMessage, server: ScriptedConnection): void => {
    if (operation.type === 'bindRequest') server.send(id, { type: 'bindResponse', ...success });
    if (operation.type !== 'searchRequest') return;
    const entry = (name: string, ...more: ReturnType<typeof attribute>[]) => {
      const [type, dn, classes] =
        name === 'mail'
          ? (['o', 'o=mail', ['organization']] as const)
          : name === 'isp.example'
            ? (['cn', 'cn=isp.example,o=mail', ['mailDomain']] as const)
            : (['uid', `uid=${name},cn=isp.example,o=mail`, ['person', 'organizationalPerson', 'inetOrgPerson', 'mailAccount']] as const);
      const person = type === 'uid' ? [attribute('cn', name), attribute('sn', name), attribute('mail', `${name}@isp.example`)] : [];
      const attributes = [attribute('objectClass', 'top', ...classes), attribute(type, name), ...person];
      const own = [attribute('entryUUID', uuidOf(name)), attribute('entryCSN', csn(1))];
      return { type: 'searchResultEntry', dn, attributes: [...attributes, ...own, ...more] } as const;
    };
    const sync = findControl(controls, controlOids.syncRequest);
    if (sync !== undefined) {
      this.asked.push(readSyncRequest(sync.value)?.cookie?.toString() ?? 'none');
      const send = (info: SyncInfo): void =>
        server.send(id, { type: 'intermediateResponse', oid: controlOids.syncInfo, value: encodeSyncInfo(info) });
      const entries = (): void => {
        for (const uid of this.#uids())
          server.send(id, entry(uid), [makeSyncState({ state: 'add', uuid: uuidOf(uid), cookie: undefined })]);
      };
      this.onSync(send, entries, server);
      return;
    }
    if (operation.baseDn === '') server.send(id, { type: 'searchResultEntry', dn: '', attributes: [attribute('objectClass', 'top')] });
    else if (operation.scope === 'base') server.send(id, entry('mail', attribute('contextCSN', csn(this.at))));
    server.send(id, { type: 'searchResultDone', ...success });
  };
}

describe('a present phase that is interrupted', () => {
  it.each(['the connection', 'the service'])('begins anew, and what was named before counts no more, when %s is cut off', async (what) => {
    const uids = ['mail', 'isp.example', 'a', 'b', 'c', 'd'];
    let there: readonly string[] = uids;
    const master = new ScriptedMaster(() => there);
    const scripted = scriptedNetwork({ 1: master.answer });
    const network: Network = {
      connect: (options) => (options.port === 1 ? scripted.network : systemNetwork).connect(options),
      listen: (...given) => systemNetwork.listen(...given),
    };
    const directory = await mkdtemp(join(tmpdir(), 'archipelago-interrupted-'));
    await using replica = await startOwnDirectory('replica');
    const source = { url: 'ldap://127.0.0.1:1', rootDn: 'cn=root', rootPassword: new Secret('secret') } as TestServer;
    const start = (): Promise<RunningReplication> => replicate(source, replica, directory, { ports: { network } });
    const names = async (): Promise<string[]> =>
      [...(await exportOf(replica, false)).matchAll(/^dn: \w+=([\w.]+)/gm)].map((one) => one[1] ?? '').sort();
    const present = (uuids: readonly string[]): SyncInfo => ({
      kind: 'syncIdSet',
      cookie: undefined,
      refreshDeletes: false,
      uuids: uuids.map(uuidOf),
    });
    master.onSync = (send, entries) => {
      entries();
      send({ kind: 'refreshPresent', cookie: cookie(1), refreshDone: true });
    };
    let service = await start();
    try {
      await expect.poll(names, patience).toEqual([...uids].sort());
      await service.waitFor(csn(1), undefined, AbortSignal.timeout(20_000));
      // The second one ends in the middle: b was named, c and d were not.
      let wasCut = false;
      master.onSync = (send, _entries, server) => {
        send(present(['mail', 'isp.example', 'a', 'b']));
        wasCut = true;
        if (what === 'the connection') server.connection.destroy();
      };
      await service[Symbol.asyncDispose]();
      service = await start();
      await expect.poll(() => wasCut, patience).toBe(true);
      if (what === 'the service') await service[Symbol.asyncDispose]();
      // Meanwhile b is deleted.
      there = uids.filter((uid) => uid !== 'b');
      master.at = 2;
      master.onSync = (send) => {
        send(present(there));
        send({ kind: 'refreshPresent', cookie: cookie(2), refreshDone: true });
      };
      if (what === 'the service') service = await start();
      await service.waitFor(csn(2), undefined, AbortSignal.timeout(20_000));
      expect(await names()).toEqual([...there].sort());
      expect(service.status().replicas[0]).toMatchObject({ conflicts: 0, applied: { add: 0, delete: 1 } });
      // Each time from the last checkpoint: there is none between.
      expect(master.asked[0]).toBe('none');
      expect(new Set(master.asked.slice(1))).toEqual(new Set([cookie(1).toString()]));
      expect(master.asked.length).toBeGreaterThanOrEqual(3);
    } finally {
      await service[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  });
});
