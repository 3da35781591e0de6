/** Accounts that travel whole: command, admin API, link and member, between real members over real sockets. */

import { mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createClusterAccounts } from '#backend-cluster/client/cluster-accounts.ts';
import type { StoredAccount } from '#backend-cluster/storage/account-store.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { Secret } from '#common/secret.ts';
import { systemPorts } from '#common/system-ports.ts';
import { startAdmin } from '#operate/api/admin-server.ts';
import { runCli } from '#operate/cli/program.ts';
import { opening } from '#test/unit/backend-cluster/storage/ledger.ts';
import { TestCluster, west } from './test-cluster.ts';

let cluster: TestCluster;
let undo: AsyncDisposableStack;
let home: string;
let url: string;

beforeEach(async () => {
  undo = new AsyncDisposableStack();
  cluster = undo.use(await TestCluster.create());
  await cluster.start('back1');
  await cluster.start('back2');
  home = await mkdtemp(join(tmpdir(), 'archipelago-archive-'));
  undo.defer(() => rm(home, { recursive: true, force: true }));
  const link = undo.use(cluster.dialAs('operate', 'node-1'));
  const admin = undo.use(
    await startAdmin({
      node: 'node-1',
      listen: { address: '127.0.0.1', port: 0 },
      token: new Secret('token'),
      peers: [],
      services: [],
      directory: { reader: cluster.directory.reader },
      accounts: createClusterAccounts({
        link,
        clusters: () => [{ name: west, members: [...cluster.members.values()].map((member) => cluster.address(member)) }],
      }),
      ports: systemPorts(silentLogger),
    }),
  );
  url = admin.url;
  await writeFile(join(home, 'token'), 'token\n');
});
afterEach(() => undo.disposeAsync());

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const printed = { out: '', err: '' };
  const code = await runCli(['--url', url, '--token-file', join(home, 'token'), ...args], {
    env: { XDG_CONFIG_HOME: home },
    clock: systemClock,
    isTerminal: false,
    isInteractive: false,
    flushed: async () => true,
    out: (text) => {
      printed.out += text;
    },
    err: (text) => {
      printed.err += text;
    },
    readInput: async () => '',
    ask: async () => '',
    readFile: (path) => readFile(path, 'utf8'),
  });
  return { code, ...printed };
}

/** What an account holds, as mail programs see it. */
async function picture(account: StoredAccount) {
  const mailboxes = [];
  for (const mailbox of account.mailboxes()) {
    const messages = [];
    for (const uid of mailbox.uids()) {
      const { flags, internalDateMs, emailId, modseq } = mailbox.message(uid) ?? {};
      messages.push({ uid, flags, internalDateMs, emailId, modseq, raw: (await account.readRaw(mailbox.id, uid)).toString() });
    }
    const { name, uidValidity, uidNext, specialUse, subscribed } = mailbox;
    mailboxes.push({ name, uidValidity, uidNext, specialUse, subscribed, messages });
  }
  return { mailboxes, subscriptions: account.subscriptions(), scripts: account.scripts() };
}

async function withAccount<T>(uuid: AccountUuid, work: (account: StoredAccount) => Promise<T>): Promise<T> {
  const store = await cluster.openStore();
  const account = await store.open(uuid, { ...opening('tool'), member: parseMemberName('tool.west.isp.example') });
  try {
    return await work(account);
  } finally {
    await account.close();
  }
}

const text = (i: number): Buffer => Buffer.from(`Subject: message ${i}\r\n\r\n${'x'.repeat(i * 997)}\r\n`);

async function fill(account: StoredAccount): Promise<void> {
  const work = await account.createMailbox('Work/2026');
  const requests = Array.from({ length: 300 }, (_, i) => ({
    raw: text(i % 40),
    summary: Buffer.from('{}'),
    flags: i % 3 === 0 ? ['\\Seen', `k${i % 5}`] : [],
    internalDateMs: 1_700_000_000_000 + i * 1000,
  }));
  await account.append(work.id, requests);
  await account.append((account.mailbox('INBOX') as { id: number }).id, [
    { ...requests[0], raw: Buffer.from(`Subject: big\r\n\r\n${'y'.repeat(3_000_000)}\r\n`) } as (typeof requests)[0],
  ]);
  await account.expunge(work.id, [1, 7, 299, 300], true);
  await account.subscribe('Gone', true);
  await account.putScript('sort', 'require "fileinto"; fileinto "Work/2026";');
  await account.putScript('Früher', 'keep;');
  await account.activateScript('sort');
}

describe('an account as an archive', () => {
  it('comes back with mailboxes, UIDs, UIDVALIDITY, flags, dates, subscriptions and scripts, and importing it again changes nothing', async () => {
    const alice = cluster.directory.add('alice@isp.example');
    const bob = cluster.directory.add('bob@isp.example');
    await withAccount(alice.uuid, fill);
    const file = join(home, 'alice.tar');
    const exported = await run('account', 'export', 'alice@isp.example', '--to', file);
    expect(exported).toMatchObject({ code: 0, err: '' });
    expect(exported.out).toContain('297 messages');
    expect(((await stat(file)).mode & 0o777).toString(8)).toBe('600');
    expect((await run('account', 'export', 'alice@isp.example', '--to', file)).code).toBe(1);

    expect(await run('account', 'import', 'bob@isp.example', file)).toMatchObject({
      code: 0,
      out: expect.stringContaining('297 messages stored'),
    });
    const [before, after] = [await withAccount(alice.uuid, picture), await withAccount(bob.uuid, picture)];
    expect(after).toEqual(before);
    const again = await run('account', 'import', 'bob@isp.example', file, '-o', 'json');
    expect(JSON.parse(again.out)).toMatchObject({ messages: 0, skipped: 297, renumbered: [], scripts: 2, scriptsLeft: [] });
    expect(await withAccount(bob.uuid, picture)).toEqual(before);
  });

  it('that was cut off is refused at its end, and goes on from where it was when it comes whole', async () => {
    const alice = cluster.directory.add('alice@isp.example');
    const bob = cluster.directory.add('bob@isp.example');
    await withAccount(alice.uuid, fill);
    const [file, cut] = [join(home, 'alice.tar'), join(home, 'cut.tar')];
    await run('account', 'export', 'alice@isp.example', '--to', file);
    await writeFile(cut, await readFile(file));
    await truncate(cut, 5_000_000);
    const refused = await run('account', 'import', 'bob@isp.example', cut);
    expect(refused.code).toBe(2);
    expect(refused.err).toContain('the archive was cut off');
    expect((await run('account', 'import', 'bob@isp.example', file)).code).toBe(0);
    expect(await withAccount(bob.uuid, picture)).toEqual(await withAccount(alice.uuid, picture));
  });

  it('goes into mailboxes that are in use with new UIDs, once, also when UIDVALIDITY is the same by chance', async () => {
    const alice = cluster.directory.add('alice@isp.example');
    const carol = cluster.directory.add('carol@isp.example');
    await withAccount(alice.uuid, fill);
    const [back1] = [...cluster.members.values()] as [never];
    expect(await cluster.deliver(back1, 'carol@isp.example', 'hers')).toMatch(/^250/);
    const file = join(home, 'alice.tar');
    await run('account', 'export', 'alice@isp.example', '--to', file);
    expect(JSON.parse((await run('account', 'import', 'carol@isp.example', file, '-o', 'json')).out)).toMatchObject({
      messages: 297,
    });
    expect(JSON.parse((await run('account', 'import', 'carol@isp.example', file, '-o', 'json')).out)).toMatchObject({
      messages: 0,
      skipped: 297,
    });
    await withAccount(carol.uuid, async (account) => {
      expect(account.mailbox('INBOX')?.messageCount).toBe(2);
      expect(account.mailbox('Work/2026')?.messageCount).toBe(296);
    });
  });

  it('leaves scripts and their choice as they are, and says which it left out', async () => {
    const alice = cluster.directory.add('alice@isp.example');
    const bob = cluster.directory.add('bob@isp.example');
    await withAccount(alice.uuid, async (account) => {
      await account.putScript('sort', 'keep;');
      await account.putScript('new', 'require "experiment";');
      await account.activateScript('sort');
    });
    await withAccount(bob.uuid, async (account) => {
      await account.putScript('sort', 'discard;');
      await account.putScript('mine', 'keep;');
      await account.activateScript('mine');
    });
    const file = join(home, 'alice.tar');
    await run('account', 'export', 'alice@isp.example', '--to', file);
    const imported = await run('account', 'import', 'bob@isp.example', file);
    expect(imported.code).toBe(0);
    expect(imported.out).toContain('Sieve script left out: "sort": there is another one of that name');
    expect(imported.out).toContain('Sieve script left out: "new": ');
    const texts = new Map([
      ['sort', 'discard;'],
      ['mine', 'keep;'],
    ]);
    expect(await withAccount(bob.uuid, async (account) => account.scripts())).toEqual({ texts, active: 'mine' });
    const damaged = await readFile(file);
    damaged[damaged.indexOf('keep;')] = 0x4b;
    await writeFile(join(home, 'damaged.tar'), damaged);
    const refused = await run('account', 'import', 'bob@isp.example', join(home, 'damaged.tar'));
    expect([refused.code, refused.err]).toEqual([2, expect.stringContaining('its SHA-256 is another')]);
  });

  it('is neither given nor taken for an account that is not there, nor what is no archive', async () => {
    cluster.directory.add('bob@isp.example');
    await writeFile(join(home, 'x'), 'no archive');
    expect((await run('account', 'export', 'nobody@isp.example', '--to', join(home, 'y'))).code).toBe(3);
    expect((await run('account', 'import', 'nobody@isp.example', join(home, 'x'))).code).toBe(3);
    expect(await run('account', 'import', 'bob@isp.example', join(home, 'x'))).toMatchObject({ code: 2 });
    expect((await run('account', 'import', 'bob@isp.example', join(home, 'missing'))).code).not.toBe(0);
  });
});

describe('mailboxes of other programs', () => {
  it('an mbox file and a Maildir come in with flags, dates and folders, once', async () => {
    const bob = cluster.directory.add('bob@isp.example');
    const mbox = join(home, 'mbox');
    await writeFile(
      mbox,
      'From a Thu Nov 24 18:22:48 1986\nSubject: one\nStatus: R\n\n>From text\n\nFrom b Thu Nov 24 18:22:49 1986\nSubject: two\n\nx\n',
    );
    expect((await run('account', 'import', 'bob@isp.example', mbox, '--format', 'mbox', '--mailbox', 'Old')).out).toContain(
      '2 messages stored',
    );
    expect((await run('account', 'import', 'bob@isp.example', mbox, '--format', 'mbox', '--mailbox', 'Old')).out).toContain(
      '0 messages stored',
    );
    const maildir = join(home, 'Maildir');
    for (const folder of ['', '.Sent.2024'])
      for (const part of ['cur', 'new', 'tmp']) await mkdir(join(maildir, folder, part), { recursive: true });
    await writeFile(join(maildir, 'cur', '1.a:2,FS'), 'Subject: three\n\nx\n');
    await writeFile(join(maildir, 'new', '2.a'), 'Subject: four\n\nx\n');
    await writeFile(join(maildir, '.Sent.2024', 'cur', '3.a:2,R'), 'Subject: five\n\nx\n');
    const imported = await run('account', 'import', 'bob@isp.example', maildir, '--format', 'maildir');
    expect(imported.out).toContain('3 messages stored in 2 mailboxes');
    const { mailboxes } = await withAccount(bob.uuid, picture);
    const of = (name: string) => mailboxes.find((mailbox) => mailbox.name === name)?.messages;
    expect(of('Old')).toMatchObject([
      { raw: 'Subject: one\r\nStatus: R\r\n\r\nFrom text\r\n', flags: ['\\Seen'], internalDateMs: Date.UTC(1986, 10, 24, 18, 22, 48) },
      { raw: 'Subject: two\r\n\r\nx\r\n', flags: [] },
    ]);
    expect(of('INBOX')).toMatchObject([{ flags: ['\\Flagged', '\\Seen'] }, { flags: [] }]);
    expect(of('Sent/2024')).toMatchObject([{ flags: ['\\Answered'] }]);
  });
});
