import { describe, expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { Secret } from '#common/secret.ts';
import type { DirectoryChange } from '#directory/client/directory.ts';
import { followDirectory } from '#directory/client/follow.ts';
import { controlOids, encodeSyncInfo, findControl, makeSyncState, readSyncRequest, type SyncInfo } from '#protocol/ldap/controls.ts';
import { attribute, type LdapMessage } from '#protocol/ldap/messages.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { type ScriptedConnection, scriptedNetwork, success } from './scripted-server.ts';

const uuidOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;

/** Answers binds and signs of life; the search that persists is for the test. */
function answerBasics(message: LdapMessage, server: ScriptedConnection): void {
  if (message.operation.type === 'bindRequest') server.send(message.id, { type: 'bindResponse', ...success });
  if (message.operation.type === 'searchRequest' && message.operation.scope === 'base') {
    server.send(message.id, { type: 'searchResultDone', ...success });
  }
}

class Provider {
  readonly server: ScriptedConnection;
  readonly id: number;
  readonly cookie: string | undefined;

  constructor(server: ScriptedConnection) {
    this.server = server;
    const search = server.last('searchRequest');
    this.id = search.id;
    this.cookie = readSyncRequest(findControl(search.controls, controlOids.syncRequest)?.value)?.cookie?.toString();
  }

  account(n: number, name = `u${n}`, cookie?: string): void {
    this.server.send(
      this.id,
      { type: 'searchResultEntry', dn: `uid=${name},cn=isp.example,o=mail`, attributes: [attribute('objectClass', 'mailAccount')] },
      [makeSyncState({ state: 'add', uuid: uuidOf(n), cookie: cookie === undefined ? undefined : Buffer.from(cookie) })],
    );
  }

  info(info: SyncInfo): void {
    this.server.send(this.id, { type: 'intermediateResponse', oid: controlOids.syncInfo, value: encodeSyncInfo(info) });
  }

  refreshed(kind: 'refreshDelete' | 'refreshPresent', cookie: string): void {
    this.info({ kind, cookie: Buffer.from(cookie), refreshDone: true });
  }
}

function start(
  ports: Parameters<typeof scriptedNetwork>[0],
  urls: readonly string[],
  more: Partial<Parameters<typeof followDirectory>[0]> = {},
) {
  const clock = new FakeClock();
  const { network, connections } = scriptedNetwork(ports);
  const changes: DirectoryChange[] = [];
  const follower = followDirectory({
    access: { urls, suffix: 'o=mail', bindDn: 'cn=frontend', password: new Secret('x'), ca: undefined, timeoutMs: 1000 },
    withPasswords: false,
    ports: { clock, random: seededRandom(1), network, log: silentLogger },
    onChange: (change) => changes.push(change),
    ...more,
  });
  const provider = (port: number): Provider => {
    const found = connections.get(port)?.at(-1);
    if (found === undefined) throw new Error(`nobody connected to ${port}`);
    return new Provider(found);
  };
  const names = (): string[] =>
    changes.map((one) => (one.type === 'put' ? `put ${one.record.name}` : one.type === 'remove' ? 'remove' : 'refreshed'));
  return { clock, follower, provider, changes, names, connections };
}

describe('following the directory', () => {
  it('reports the content, then changes, and removes what a present phase does not name', async () => {
    const { clock, follower, provider, names, changes } = start({ 389: answerBasics }, ['ldap://a:389']);
    await settle();
    let server = provider(389);
    expect(server.cookie).toBeUndefined();
    for (const n of [1, 2, 3]) server.account(n);
    server.refreshed('refreshDelete', 'c1');
    await follower.whenRefreshed();
    expect(names()).toEqual(['put u1@isp.example', 'put u2@isp.example', 'put u3@isp.example', 'refreshed']);
    server.account(2, 'renamed', 'c2');
    await settle();
    expect(names().at(-1)).toBe('put renamed@isp.example');
    // Lost and found again: the cookie of the last change is shown, and the provider answers with a present phase.
    server.server.connection.destroy();
    await clock.advance(1000);
    server = provider(389);
    expect(server.cookie).toBe('c2');
    server.info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: false, uuids: [uuidOf(1), uuidOf(2)] });
    server.refreshed('refreshPresent', 'c3');
    await settle();
    expect(changes.slice(-2)).toMatchObject([{ type: 'remove', uuid: uuidOf(3) }, { type: 'refreshed' }]);
    await follower[Symbol.asyncDispose]();
  });

  it('removes nothing unnamed after a delete phase', async () => {
    const { clock, follower, provider, names } = start({ 389: answerBasics }, ['ldap://a:389']);
    await settle();
    for (const n of [1, 2]) provider(389).account(n);
    provider(389).refreshed('refreshDelete', 'c1');
    await settle();
    provider(389).server.connection.destroy();
    await clock.advance(1000);
    provider(389).info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: true, uuids: [uuidOf(1)] });
    provider(389).refreshed('refreshDelete', 'c2');
    await settle();
    expect(names().slice(3)).toEqual(['remove', 'refreshed']);
    await follower[Symbol.asyncDispose]();
  });

  it('starts from nothing when the provider asks for a refresh', async () => {
    const { clock, follower, provider } = start({ 389: answerBasics }, ['ldap://a:389']);
    await settle();
    provider(389).account(1);
    provider(389).refreshed('refreshDelete', 'c1');
    await settle();
    provider(389).server.connection.destroy();
    await clock.advance(1000);
    const asked = provider(389);
    expect(asked.cookie).toBe('c1');
    asked.server.send(asked.id, { type: 'searchResultDone', ...success, resultCode: 4096 });
    await clock.advance(1000);
    expect(provider(389).cookie).toBeUndefined();
    await follower[Symbol.asyncDispose]();
  });

  it('notices within seconds that a server is silent, goes to the next without its cookie, and returns when the first is back', async () => {
    let isDead = false;
    const { clock, follower, provider, names } = start(
      {
        389: (message, server) => {
          if (!isDead) answerBasics(message, server);
        },
        390: answerBasics,
      },
      ['ldap://a:389', 'ldap://b:390'],
    );
    await settle();
    for (const n of [1, 2]) provider(389).account(n);
    provider(389).refreshed('refreshDelete', 'c1');
    await follower.whenRefreshed();
    isDead = true;
    await clock.advance(8000);
    const second = provider(390);
    expect(second.cookie).toBeUndefined();
    second.account(2);
    second.refreshed('refreshDelete', 'other');
    await settle();
    expect(follower.status()).toMatchObject({ server: 'ldap://b:390', state: 'following' });
    expect(names().slice(-3)).toEqual(['put u2@isp.example', 'remove', 'refreshed']);
    isDead = false;
    await clock.advance(60_000);
    expect(follower.status()).toMatchObject({ server: 'ldap://a:389', state: 'refreshing' });
    expect(provider(389).cookie).toBeUndefined();
    await follower[Symbol.asyncDispose]();
  });

  it('keeps the little that it knows when a refresh names nothing at all', async () => {
    const { clock, follower, provider, changes } = start({ 389: answerBasics }, ['ldap://a:389']);
    await settle();
    for (let n = 0; n < 3; n += 1) provider(389).account(n);
    provider(389).refreshed('refreshDelete', 'c1');
    await follower.whenRefreshed();
    provider(389).server.connection.destroy();
    await clock.advance(1000);
    provider(389).refreshed('refreshPresent', 'c2');
    await settle();
    expect(changes.filter((one) => one.type === 'remove')).toEqual([]);
    expect(follower.status().lastError).toContain('no longer has 3 of 3 entries');
    await follower[Symbol.asyncDispose]();
  });

  it('keeps what it knows when a refresh would drop most of it', async () => {
    const { clock, follower, provider, changes } = start({ 389: answerBasics }, ['ldap://a:389']);
    await settle();
    for (let n = 0; n < 60; n += 1) provider(389).account(n);
    provider(389).refreshed('refreshDelete', 'c1');
    await follower.whenRefreshed();
    provider(389).server.connection.destroy();
    await clock.advance(1000);
    provider(389).account(1);
    provider(389).refreshed('refreshPresent', 'c2');
    await settle();
    expect(changes.filter((one) => one.type === 'remove')).toEqual([]);
    expect(follower.status()).toMatchObject({ state: 'frozen', lastError: expect.stringContaining('not believed') });
    // Later it is asked again, from nothing.
    await clock.advance(120_000);
    expect(provider(389).cookie).toBeUndefined();
    expect(follower.status().state).toBe('refreshing');
    await follower[Symbol.asyncDispose]();
  });

  it.each([
    { gone: 60, known: 80 },
    { gone: 4, known: 4 },
  ])('leaves it to those who keep their own account of the content what a refresh did not name, $gone of $known', async (unnamed) => {
    const told: string[] = [];
    const content = {
      beginRefresh: () => told.push('begin'),
      unnamed: { gone: 1, known: 2 },
      endRefresh: (isBelieved: boolean) => told.push(isBelieved ? 'believed' : 'not believed'),
      putAccount: (name: string) => told.push(name),
    };
    const { clock, provider, follower, names } = start({ 389: answerBasics }, ['ldap://a:389'], { content });
    await settle();
    provider(389).account(1);
    provider(389).refreshed('refreshDelete', 'c1');
    await settle();
    expect([told, names()]).toEqual([
      ['begin', 'believed'],
      ['put u1@isp.example', 'refreshed'],
    ]);
    // What it never named itself may have been known all the same, from a snapshot.
    provider(389).info({ kind: 'syncIdSet', cookie: Buffer.from('c2'), refreshDeletes: true, uuids: [uuidOf(9)] });
    await settle();
    expect([names().at(-1), follower.position()?.cookie?.toString()]).toEqual(['remove', 'c2']);
    // UUIDs that are unchanged are of no use to it: everything is read anew.
    provider(389).server.connection.destroy();
    await clock.advance(1000);
    expect(provider(389).cookie).toBe('c2');
    provider(389).info({ kind: 'syncIdSet', cookie: undefined, refreshDeletes: false, uuids: [uuidOf(1)] });
    await clock.advance(1000);
    expect(provider(389).cookie).toBeUndefined();
    content.unnamed = unnamed;
    provider(389).refreshed('refreshPresent', 'c3');
    await settle();
    expect(told).toEqual(['begin', 'believed', 'begin', 'not believed']);
    expect(follower.status().lastError).toContain('not believed');
    await follower[Symbol.asyncDispose]();
  });

  it('goes on from where an earlier process was, and reads everything anew when asked to', async () => {
    const content = { beginRefresh: () => {}, unnamed: { gone: 0, known: 0 }, endRefresh: () => {}, putAccount: () => {} };
    const from = { url: 'ldap://a:389', cookie: Buffer.from('c7'), domainDns: [] };
    const { clock, provider, follower } = start({ 389: answerBasics }, ['ldap://a:389'], { content, from });
    await settle();
    expect([provider(389).cookie, follower.status().refreshedOnce]).toEqual(['c7', true]);
    provider(389).refreshed('refreshDelete', 'c8');
    await settle();
    expect(follower.position()).toEqual({ ...from, cookie: Buffer.from('c8') });
    follower.refresh();
    await settle();
    await clock.advance(1000);
    expect([provider(389).cookie, follower.position()]).toEqual([undefined, undefined]);
    await follower[Symbol.asyncDispose]();
  });

  it('names the account of an entry that is deleted alone', async () => {
    const { provider, follower, changes } = start({ 389: answerBasics }, ['ldap://a:389']);
    await settle();
    const { server, id } = provider(389);
    provider(389).account(1);
    provider(389).refreshed('refreshDelete', 'c1');
    server.send(id, { type: 'searchResultEntry', dn: 'uid=u1,cn=isp.example,o=mail', attributes: [] }, [
      makeSyncState({ state: 'delete', uuid: uuidOf(1), cookie: Buffer.from('c2') }),
    ]);
    await settle();
    expect(changes.at(-1)).toEqual({ type: 'remove', uuid: uuidOf(1), name: 'u1@isp.example' });
    await follower[Symbol.asyncDispose]();
  });

  it('rejects those who wait when it is stopped before its first refresh', async () => {
    const { follower } = start({}, ['ldap://a:389']);
    const waiting = expect(follower.whenRefreshed()).rejects.toMatchObject({ code: 'DIR_UNAVAILABLE' });
    await follower[Symbol.asyncDispose]();
    await waiting;
  });
});
