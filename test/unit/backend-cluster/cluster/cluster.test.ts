import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { RunningBackend } from '#backend-cluster/member.ts';
import { parseAccountName } from '#common/account-name.ts';
import { parseClusterName } from '#common/host-server.ts';
import type { Connection } from '#common/network/network.ts';
import { formatScramKeys, scramKeys } from '#common/passwords/scram-keys.ts';
import { Secret } from '#common/secret.ts';
import { Dialogue, TestCluster, until } from './test-cluster.ts';

let cluster: TestCluster;
beforeEach(async () => {
  cluster = await TestCluster.create();
});
afterEach(async () => {
  await cluster[Symbol.asyncDispose]();
});

async function pair(): Promise<[RunningBackend, RunningBackend]> {
  const a = await cluster.start('back1');
  await until(() => a.status().isController);
  const b = await cluster.start('back2');
  await until(() => b.status().cluster.controller === a.name && a.status().cluster.members.length === 2);
  return [a, b];
}

async function messageCount(channel: Connection | undefined): Promise<string> {
  if (channel === undefined) throw new Error('expected a channel');
  const dialogue = new Dialogue(channel);
  channel.write('STAT\r\n');
  const text = await dialogue.until(/\r\n$/);
  channel.destroy();
  return text.split(' ')[1] ?? '';
}

describe('two members of a cluster', () => {
  it('give an account one current host, and send sessions from the other one there', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    const first = await cluster.open(b, alice);
    expect(first.answer).toMatchObject({ outcome: 'opened', accountName: 'alice@isp.example' });
    expect((await cluster.open(a, alice)).answer).toEqual({
      outcome: 'at',
      member: b.name,
      host: '127.0.0.1',
      port: cluster.address(b).port,
    });
    const second = await cluster.open(b, alice);
    expect(second.answer.outcome).toBe('opened');
    expect(b.status()).toMatchObject({ openAccounts: 1, isController: false });
    expect(b.status().sessions).toHaveLength(2);
    first.channel?.destroy();
    second.channel?.destroy();
    await until(() => b.status().sessions.length === 0);
  });

  it('serve an account with all its mail from the other member once its host was killed', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    await cluster.open(b, alice);
    for (let i = 0; i < 5; i += 1) expect(await cluster.deliver(i % 2 === 0 ? a : b, 'alice@isp.example', `m${i}`)).toMatch(/^250 /);
    const startedAt = Date.now();
    await b.kill();
    let opened = await cluster.open(a, alice);
    await until(async () => {
      if (opened.answer.outcome !== 'opened') opened = await cluster.open(a, alice);
      return opened.answer.outcome === 'opened';
    });
    expect(Date.now() - startedAt).toBeLessThan(2_000);
    expect(await messageCount(opened.channel)).toBe('5');
  });

  it('elect another Controller when the Controller is killed, with a higher term, and open accounts go on', async () => {
    const [a, b] = await pair();
    const term = b.status().cluster.term;
    const alice = cluster.directory.add('alice@isp.example');
    const bob = cluster.directory.add('bob@isp.example');
    const open = await cluster.open(b, alice);
    await a.kill();
    expect(await messageCount(open.channel)).toBe('0');
    // The open waits for the election instead of failing.
    expect((await cluster.open(b, bob)).answer.outcome).toBe('opened');
    expect(b.status().isController).toBe(true);
    expect(b.status().cluster.term).toBeGreaterThan(term);
    const c = await cluster.start('back3');
    await until(() => c.status().cluster.controller === b.name);
    expect((await cluster.open(c, alice)).answer).toMatchObject({ outcome: 'at', member: b.name });
  });

  it('hand everything over at once when a member stops in good order', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    const { channel } = await cluster.open(a, alice);
    expect(await cluster.deliver(b, 'alice@isp.example', 'hello')).toMatch(/^250 /);
    const dialogue = new Dialogue(channel as Connection);
    const startedAt = Date.now();
    await a[Symbol.asyncDispose]();
    await dialogue.closed();
    const again = await cluster.open(b, alice);
    expect(again.answer.outcome).toBe('opened');
    expect(await messageCount(again.channel)).toBe('1');
    expect(Date.now() - startedAt).toBeLessThan(2_000);
    expect(cluster.warnings.filter((line) => line.includes('deposed'))).toEqual([]);
  });

  it('move accounts away from a member that drains, and refuse new ones there', async () => {
    const [a, b] = await pair();
    const alice = cluster.directory.add('alice@isp.example');
    await cluster.open(a, alice);
    await a.drain();
    expect((await cluster.open(a, alice)).answer).toMatchObject({ outcome: 'refused', code: 'CLUSTER_DRAINING' });
    expect((await cluster.open(b, alice)).answer.outcome).toBe('opened');
    await until(() => b.status().isController);
    expect(cluster.client.health(cluster.address(a)).state).toBe('draining');
    expect(a.readiness().find((check) => check.name === 'member')).toMatchObject({ ok: false });
  });

  it('refuse calls of a lower term', async () => {
    const [a, b] = await pair();
    const params = { term: b.status().cluster.term - 1, after: '' };
    await using old = cluster.dialAs('backend-cluster', 'back7.west.isp.example');
    await expect(old.call(cluster.address(b), 'cluster.open-accounts', params)).rejects.toMatchObject({ code: 'CLUSTER_STALE_TERM' });
    await expect(cluster.client.call(cluster.address(a), 'cluster.open-accounts', params)).rejects.toMatchObject({ code: 'LINK_REFUSED' });
  });
});

describe('a member', () => {
  it('answers moved, refused or later according to what the directory says', async () => {
    const a = await cluster.start('back1');
    const alice = cluster.directory.add('alice@isp.example');
    const east = cluster.directory.add('eve@isp.example', parseClusterName('east.isp.example'));
    expect((await cluster.open(a, east)).answer).toEqual({ outcome: 'moved', hostServer: 'east.isp.example' });
    const nobody = { ...alice, uuid: east.uuid.replace(/^./, east.uuid.startsWith('0') ? '1' : '0') as typeof east.uuid };
    expect((await cluster.open(a, nobody)).answer).toMatchObject({ outcome: 'refused', code: 'LINK_NOT_HERE' });
    cluster.directory.isDown = true;
    expect((await cluster.open(a, nobody)).answer).toMatchObject({ outcome: 'refused', kind: 'unavailable' });
    expect((await cluster.open(a, alice)).answer.outcome).toBe('opened');
  });

  it('verifies the password, the authorization identity and the status', async () => {
    const a = await cluster.start('back1');
    const alice = cluster.directory.add('alice@isp.example');
    const login = { mechanism: 'PLAIN', authorizationId: '', authenticationId: alice.name, password: 'secret' } as const;
    expect((await cluster.open(a, alice, { login: { ...login, password: 'wrong' } })).answer).toMatchObject({ code: 'AUTH_FAILED' });
    expect((await cluster.open(a, alice, { login: { ...login, password: '' } })).answer).toMatchObject({ code: 'AUTH_FAILED' });
    expect((await cluster.open(a, alice, { login: { ...login, authorizationId: 'bob@isp.example' } })).answer).toMatchObject({
      code: 'AUTH_FAILED',
    });
    expect((await cluster.open(a, alice, { login: { ...login, authorizationId: alice.name } })).answer.outcome).toBe('opened');
    cluster.directory.put({ ...alice, status: 'locked' });
    expect((await cluster.open(a, alice)).answer).toMatchObject({ code: 'AUTH_ACCOUNT_LOCKED' });
    cluster.directory.put({ ...alice, status: 'maintenance' });
    expect((await cluster.open(a, alice)).answer).toMatchObject({ code: 'AUTH_ACCOUNT_MAINTENANCE', kind: 'unavailable' });
  });

  it('keeps a session open while its account is renamed, and ends it when the account is removed', async () => {
    const a = await cluster.start('back1');
    const alice = cluster.directory.add('alice@isp.example');
    const { channel } = await cluster.open(a, alice);
    const dialogue = new Dialogue(channel as Connection);
    expect(await cluster.deliver(a, 'alice@isp.example', 'one')).toMatch(/^250 /);
    cluster.directory.put({ ...alice, name: 'alicia@isp.example' as typeof alice.name });
    expect(a.status().sessions[0]?.account).toBe('alicia@isp.example');
    expect(await cluster.deliver(a, 'alicia@isp.example', 'two')).toMatch(/^250 /);
    expect(await cluster.deliver(a, 'alice@isp.example', 'gone')).toMatch(/^5/);
    expect(dialogue.isClosed).toBe(false);
    cluster.directory.remove(alice.uuid);
    await dialogue.closed();
    const store = await cluster.openStore();
    await until(async () => (await store.state(alice.uuid)) === 'tombstone');
    expect((await cluster.open(a, alice)).answer).toMatchObject({ outcome: 'refused', code: 'LINK_NOT_HERE' });
  });

  it('knows a renamed account by its new name at once, and never says that a stale name has a wrong password', async () => {
    const a = await cluster.start('back1');
    const alice = cluster.directory.add('alice@isp.example');
    const renamed = { ...alice, name: parseAccountName('alicia@isp.example') };
    // Only the master knows yet.
    cluster.directory.records.set(alice.uuid, { ...renamed, csn: '999999999' });
    expect((await cluster.open(a, renamed)).answer).toMatchObject({ outcome: 'opened', accountName: 'alicia@isp.example' });
    expect((await cluster.open(a, alice)).answer).toMatchObject({ outcome: 'refused', code: 'LINK_NOT_HERE' });
  });

  it('verifies a password for submission without opening the account', async () => {
    const a = await cluster.start('back1');
    const alice = cluster.directory.add('alice@isp.example');
    const client = { address: '192.0.2.1', port: 1, tls: true };
    const params = { uuid: alice.uuid, name: alice.name, password: 'secret', sessionId: 'one-of-the-frontend', client };
    const ask = (more: object) => cluster.client.call(cluster.address(a), 'authenticate', { ...params, ...more });
    expect(await ask({})).toEqual({ ok: true, name: 'alice@isp.example' });
    await expect(ask({ password: 'wrong' })).rejects.toMatchObject({ code: 'AUTH_FAILED' });
    await expect(ask({ name: 'bob@isp.example' })).rejects.toMatchObject({ code: 'LINK_NOT_HERE' });
    // The session as the frontend calls it, and whose it is.
    const whose = { sessionId: 'one-of-the-frontend', protocol: 'submission', clientIp: '192.0.2.1', tls: true };
    expect(cluster.said.filter(({ fields }) => fields.protocol === 'submission')).toMatchObject([
      { message: 'login verified', fields: { ...whose, account: 'alice@isp.example' } },
      { message: 'login refused', fields: { ...whose, account: 'alice@isp.example', errCode: 'AUTH_FAILED' } },
      { message: 'login refused', fields: { ...whose, account: 'bob@isp.example', errCode: 'LINK_NOT_HERE' } },
    ]);
    expect(a.status().openAccounts).toBe(0);
  });

  it('lets an access token open the account that it is for, by whatever name, and no other', async () => {
    const tokens = { accountOf: async (token: Secret<string>) => token.reveal() };
    const a = await cluster.start('back1', { tokens });
    const alice = cluster.directory.add('alice@isp.example', undefined, { addresses: [parseAccountName('al@isp.example')] });
    const bob = cluster.directory.add('bob@isp.example');
    const bearer = (owner: string) => ({ mechanism: 'BEARER', authenticationId: alice.name, token: owner }) as const;
    expect((await cluster.open(a, alice, { login: bearer('alice@isp.example') })).answer.outcome).toBe('opened');
    expect((await cluster.open(a, alice, { login: bearer('al@isp.example') })).answer.outcome).toBe('opened');
    for (const owner of [bob.name, 'nobody@isp.example', 'no account name', '']) {
      expect((await cluster.open(a, alice, { login: bearer(owner) })).answer).toMatchObject({ code: 'AUTH_FAILED' });
    }
    const b = await cluster.start('back2');
    expect((await cluster.open(b, bob, { login: bearer(bob.name) })).answer).toMatchObject({ code: 'AUTH_MECHANISM', kind: 'unavailable' });
  });

  it('checks a SCRAM proof by the account’s keys and gives its own signature', async () => {
    // The exchange of RFC 7677 §3, whose password is pencil.
    const keys = await scramKeys('pencil', Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'), 4096);
    const nonce = 'rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
    const login = {
      mechanism: 'SCRAM-SHA-256',
      authenticationId: 'alice@isp.example',
      authMessage: `n=user,r=rOprNGfwEbeRWgbNEkqO,r=${nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=${nonce}`,
      proof: 'dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
    } as const;
    const a = await cluster.start('back1');
    const passwords = new Secret([`{SCRAM-SHA-256}${formatScramKeys(keys)}`]);
    const alice = cluster.directory.add('alice@isp.example', undefined, { passwords });
    const keyless = cluster.directory.add('bob@isp.example');
    const serverSignature = '6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=';
    expect((await cluster.open(a, alice, { login })).answer).toMatchObject({ outcome: 'opened', serverSignature });
    expect((await cluster.open(a, alice, { login: { ...login, authMessage: 'another' } })).answer).toMatchObject({ code: 'AUTH_FAILED' });
    expect((await cluster.open(a, keyless, { login })).answer).toMatchObject({ code: 'AUTH_FAILED' });
    const call = (method: string, more: object) => cluster.client.call(cluster.address(a), method, more);
    const whose = { uuid: '', name: alice.name };
    expect(await call('scram.salt', whose)).toEqual({ salt: 'W22ZaJ0SNY7soEsUEjb6gQ==', iterations: 4096 });
    expect(await call('scram.salt', { uuid: '', name: keyless.name })).toEqual({});
    const client = { address: '192.0.2.1', port: 1, tls: true };
    expect(await call('authenticate.login', { ...whose, password: '', login, client })).toEqual({
      ok: true,
      name: alice.name,
      serverSignature,
    });
  });

  it('closes an account that nobody uses', async () => {
    const a = await cluster.start('back1', { idleCloseMs: 30 });
    const alice = cluster.directory.add('alice@isp.example');
    const { channel } = await cluster.open(a, alice);
    expect(a.status().openAccounts).toBe(1);
    channel?.destroy();
    await until(() => a.status().openAccounts === 0);
    expect(cluster.warnings).toEqual([]);
  });
});
