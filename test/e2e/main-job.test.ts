/**
 * The main job with clients that are not ours: accounts are born, renamed and removed over LDAP; mail goes in and out through two
 * subsets; members and replicas die. The federation is the demo's, on ports that the system chose.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImapFlow } from 'imapflow';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import type { ReadyDocument } from '#deploy/dev/ready-document.ts';
import { accountLdif, curlFetch, curlImap, curlPop3, curlSend, ldapAdmin, ok, run, until } from './clients.ts';

const base = 'cn=isp.example,o=mail';
const eu = (ready: ReadyDocument) => ready.subsets.eu as ReadyDocument['subsets'][string];
const us = (ready: ReadyDocument) => ready.subsets.us as ReadyDocument['subsets'][string];

let root: string;
let federation: Federation;
let ready: ReadyDocument;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-e2e-'));
  federation = await startFederation({
    root,
    ports: systemPorts(createLogger('debug', {}, logFileOf(root))),
  });
  ready = federation.ready;
});

afterAll(async () => {
  await federation?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

async function imapSession(address: string, user: string, password: string): Promise<ImapFlow> {
  const [host, port] = address.split(':') as [string, string];
  const client = new ImapFlow({
    host,
    port: Number(port),
    secure: true,
    auth: { user, pass: password },
    tls: { rejectUnauthorized: false },
    logger: false,
  });
  await client.connect();
  return client;
}

async function searchOne(url: string, uid: string, attribute: string): Promise<string> {
  const out = await ok('ldapsearch', [...ldapAdmin(ready, url), '-LLL', '-b', base, `(uid=${uid})`, attribute]);
  return new RegExp(`^${attribute}: (.*)$`, 'mi').exec(out)?.[1] ?? '';
}

describe('an account added over LDAP', () => {
  beforeAll(async () => {
    await ok('ldapadd', ldapAdmin(ready), { input: accountLdif('erin', 'erin-secret', 'west.isp.example') });
  });

  it('is on both replicas within a second, as the same entry', async () => {
    const onMaster = await searchOne(ready.directory.master.url, 'erin', 'entryUUID');
    expect(onMaster).toMatch(/^[0-9a-f-]{36}$/);
    for (const replica of ready.directory.replicas) {
      const { answer } = await until(
        () => searchOne(replica.url, 'erin', 'entryUUID'),
        (uuid) => uuid !== '',
        1000,
      );
      expect(answer).toBe(onMaster);
    }
  });

  it('logs in by IMAP and POP3 through either subset and lands on its cluster', async () => {
    for (const subset of [eu(ready), us(ready)]) {
      const imap = await curlImap(ready, subset.imaps, 'erin@isp.example', 'erin-secret', 'STATUS INBOX (MESSAGES)');
      expect(imap.err).toBe('');
      expect(imap.out).toContain('MESSAGES 0');
      expect((await curlPop3(ready, subset.pop3s, 'erin@isp.example', 'erin-secret')).code).toBe(0);
    }
    const session = await imapSession(us(ready).imaps, 'erin@isp.example', 'erin-secret');
    try {
      const hosts = [...federation.members.values()].filter((member) =>
        member.status().sessions.some((each) => each.account === 'erin@isp.example'),
      );
      expect(hosts.map((member) => member.status().cluster.cluster)).toEqual(['west.isp.example']);
    } finally {
      await session.logout();
    }
  });

  it('gets mail that is sent to either subset', async () => {
    for (const [name, subset] of [
      ['eu', eu(ready)],
      ['us', us(ready)],
    ] as const) {
      const sent = await curlSend(ready, subset.smtp, 'alice@isp.example', 'erin@isp.example', `by ${name}`, 'Hello Erin.');
      expect(sent).toMatchObject({ code: 0, err: '' });
    }
    await until(
      () => curlImap(ready, eu(ready).imaps, 'erin@isp.example', 'erin-secret', 'STATUS INBOX (MESSAGES)'),
      ({ out }) => out.includes('MESSAGES 2'),
      5000,
    );
    const fetched = await curlFetch(ready, us(ready).imaps, 'erin@isp.example', 'erin-secret', 1);
    expect(fetched.out).toContain('Subject: by ');
    expect(fetched.out).toContain('Hello Erin.');
    const dropped = await curlPop3(ready, eu(ready).pop3s, 'erin@isp.example', 'erin-secret', '2');
    expect(dropped.out).toContain('Hello Erin.');
  });

  it('is refused with a wrong password, as an unknown account is', async () => {
    const wrong = await curlImap(ready, eu(ready).imaps, 'erin@isp.example', 'wrong', 'NOOP');
    const unknown = await curlImap(ready, eu(ready).imaps, 'nobody@isp.example', 'wrong', 'NOOP');
    expect(wrong.code).toBe(67);
    expect(unknown).toEqual(wrong);
  });
});

describe('a domain with a catch-all', () => {
  const modify = (change: string) => ok('ldapmodify', ldapAdmin(ready), { input: `dn: ${base}\nchangetype: modify\n${change}\n` });
  const send = (to: string) => curlSend(ready, us(ready).smtp, 'alice@isp.example', to, 'for nobody', 'Hello whoever you are.');

  it('has mail for addresses that nobody has go to the account it names, and refuses it again without', async () => {
    await ok('ldapadd', ldapAdmin(ready), { input: accountLdif('office', 'office-secret', 'east.isp.example') });
    expect((await send('no.one@isp.example')).code).toBe(55);
    await modify('replace: mailCatchAll\nmailCatchAll: office@isp.example');
    await until(
      () => send('no.one@isp.example'),
      ({ code }) => code === 0,
      10_000,
    );
    await until(
      () => curlImap(ready, eu(ready).imaps, 'office@isp.example', 'office-secret', 'STATUS INBOX (MESSAGES)'),
      ({ out }) => out.includes('MESSAGES 1'),
      10_000,
    );
    // Nobody logs in by it.
    expect((await curlImap(ready, eu(ready).imaps, 'no.one@isp.example', 'office-secret', 'NOOP')).code).toBe(67);
    await modify('delete: mailCatchAll');
    await until(
      () => send('no.one@isp.example'),
      ({ code }) => code === 55,
      10_000,
    );
    const after = await curlImap(ready, us(ready).imaps, 'office@isp.example', 'office-secret', 'STATUS INBOX (MESSAGES)');
    expect(after.out).toContain('MESSAGES 1');
    expect(
      await run('ldapmodify', ldapAdmin(ready), { input: `dn: ${base}\nchangetype: modify\nadd: mailCatchAll\nmailCatchAll: a b\n` }),
    ).toMatchObject({
      code: 19,
      err: expect.stringContaining('must be an account such as'),
    });
  });
});

describe('an account added without hostServer', () => {
  it('is placed, and the entry says where', async () => {
    await ok('ldapadd', ldapAdmin(ready), { input: accountLdif('frank', 'frank-secret') });
    const hostServer = await searchOne(ready.directory.master.url, 'frank', 'hostServer');
    expect(['east.isp.example', 'west.isp.example']).toContain(hostServer);
    const login = await curlImap(ready, us(ready).imaps, 'frank@isp.example', 'frank-secret', 'NOOP');
    expect(login).toMatchObject({ code: 0 });
  });

  it('is refused when hostServer names no cluster, and the message lists those there are', async () => {
    const refused = await run('ldapadd', ldapAdmin(ready), { input: accountLdif('grace', 'grace-secret', 'north.isp.example') });
    expect(refused.code).not.toBe(0);
    expect(refused.err).toContain('east.isp.example');
  });
});

describe('a rename', () => {
  it('keeps mail and open sessions, and the old name stops', async () => {
    const session = await imapSession(eu(ready).imaps, 'erin@isp.example', 'erin-secret');
    await session.mailboxOpen('INBOX');
    await ok('ldapmodrdn', [...ldapAdmin(ready), '-r', `uid=erin,${base}`, 'uid=erin.ebb']);

    await until(
      () => curlImap(ready, us(ready).imaps, 'erin.ebb@isp.example', 'erin-secret', 'STATUS INBOX (MESSAGES)'),
      ({ out }) => out.includes('MESSAGES 2'),
      1000,
    );
    await until(
      () => curlImap(ready, eu(ready).imaps, 'erin@isp.example', 'erin-secret', 'NOOP'),
      ({ code }) => code === 67,
      5000,
    );
    const kept = await session.fetchOne('1', { envelope: true });
    expect(kept === false ? '' : kept?.envelope?.subject).toContain('by ');
    await session.logout();

    const toOld = await curlSend(ready, us(ready).smtp, 'alice@isp.example', 'erin@isp.example', 'too late', 'Hello?');
    expect(toOld.err).toContain('550');
  });
});

describe('a removal', () => {
  it('refuses logins and recipients and keeps the storage as a tombstone', async () => {
    const uuid = await searchOne(ready.directory.master.url, 'erin.ebb', 'entryUUID');
    await ok('ldapdelete', [...ldapAdmin(ready), `uid=erin.ebb,${base}`]);
    await until(
      () => curlImap(ready, us(ready).imaps, 'erin.ebb@isp.example', 'erin-secret', 'NOOP'),
      ({ code }) => code === 67,
      5000,
    );
    const sent = await curlSend(ready, eu(ready).smtp, 'alice@isp.example', 'erin.ebb@isp.example', 'gone', 'Hello?');
    expect(sent.err).toContain('550');
    const storage = join(root, 'storage', 'west.isp.example');
    await until(
      async () => (await ok('find', [storage, '-path', `*tombstone*${uuid}*`])).trim(),
      (found) => found !== '',
      5000,
    );
  });
});

describe('ldapjs as a provisioning system', () => {
  it('creates, renames and removes accounts and finds every answer right', async () => {
    const passwordFile = join(root, 'secrets', 'provisioner');
    const out = await ok(
      process.execPath,
      [
        'deploy/examples/provision.ts',
        '--url',
        ready.directory.master.url,
        '--bind-dn',
        ready.directory.provisionerDn,
        '--password-file',
        passwordFile,
        '--count',
        '200',
        '--rename',
        '20',
        '--remove',
        '20',
      ],
      { limitMs: 60_000 },
    );
    expect(out).toMatch(/created 200 \(.*\), renamed 20, removed 20; every answer was checked/);
    const login = await curlImap(ready, us(ready).imaps, 'user00001.renamed@isp.example', 'secret-user00001', 'NOOP');
    expect(login.code).toBe(0);
  });
});

describe('when something dies', () => {
  it('a stopped replica: its subset goes on from the next server, for old accounts and new ones', async () => {
    await federation.directories.eu[Symbol.asyncDispose]();
    expect((await curlImap(ready, eu(ready).imaps, 'alice@isp.example', 'alice-secret', 'NOOP')).code).toBe(0);
    await ok('ldapadd', ldapAdmin(ready), { input: accountLdif('heidi', 'heidi-secret') });
    await until(
      () => curlImap(ready, eu(ready).imaps, 'heidi@isp.example', 'heidi-secret', 'NOOP'),
      ({ code }) => code === 0,
      10_000,
    );
    expect((await curlSend(ready, eu(ready).smtp, 'alice@isp.example', 'heidi@isp.example', 'still here', 'Hello.')).code).toBe(0);
  });

  it('a killed Controller: the other member serves its accounts within the lease, with all their mail', async () => {
    const before = await curlImap(ready, us(ready).imaps, 'carol@isp.example', 'carol-secret', 'STATUS INBOX (MESSAGES UIDNEXT)');
    const controller = [...federation.members.values()].find(
      (member) => member.status().cluster.cluster === 'west.isp.example' && member.status().isController,
    );
    expect(controller).toBeDefined();
    await federation.killMember(controller?.name ?? '');
    const { answer } = await until(
      () => curlImap(ready, us(ready).imaps, 'carol@isp.example', 'carol-secret', 'STATUS INBOX (MESSAGES UIDNEXT)'),
      ({ code }) => code === 0,
      15_000,
    );
    expect(answer.out).toBe(before.out);
    const other = [...federation.members.values()].find(
      (member) => member.name !== controller?.name && member.status().cluster.cluster === 'west.isp.example',
    );
    await until(
      async () => other?.status().isController,
      (isController) => isController === true,
      15_000,
    );
  });
});
