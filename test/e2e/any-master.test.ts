/**
 * The life of accounts on the whole federation, the same with our own server as the master directory and with a stock slapd: two subsets, two
 * clusters, two replicas of ours. Where a master that is not ours does less by itself, the case says what holds then.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeFiles } from '#common/files/node-files.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import { layoutOf } from '#deploy/dev/plan.ts';
import type { ReadyDocument } from '#deploy/dev/ready-document.ts';
import { accountLdif, curlFetch, curlImap, curlPop3, curlSend, ldapAdmin, ok, type Ran, run, until } from './clients.ts';
import { startOpenldapMaster } from './openldap-master.ts';

const base = 'cn=isp.example,o=mail';
const clusters = ['east.isp.example', 'west.isp.example'];
/** Time that a change may take from the master to every frontend, milliseconds; the machine may be busy. */
const followedMs = 15_000;

describe.each([
  { make: 'our own server', isOwn: true },
  { make: 'OpenLDAP', isOwn: false },
])('with $make as the master directory', ({ isOwn }) => {
  let root: string;
  let federation: Federation;
  let ready: ReadyDocument;
  let subsets: ReadyDocument['subsets'][string][];

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'archipelago-master-'));
    federation = await startFederation({
      root,
      ports: systemPorts(createLogger('debug', {}, logFileOf(root))),
      ...(isOwn ? {} : { startMaster: startOpenldapMaster }),
    });
    ready = federation.ready;
    subsets = [ready.subsets.eu, ready.subsets.us] as typeof subsets;
  });

  afterAll(async () => {
    await federation?.[Symbol.asyncDispose]();
    await rm(root, { recursive: true, force: true });
  });

  const cli = (...args: string[]): Promise<Ran> =>
    run(process.execPath, [
      'bin/archipelago.mjs',
      ...args,
      ...['--url', ready.console, '--token-file', layoutOf(root).secret('console'), '--ca-file', ready.caFile],
    ]);

  const attributeOf = async (uid: string, attribute: string, url?: string): Promise<string> => {
    const out = await ok('ldapsearch', [...ldapAdmin(ready, url), '-LLL', '-o', 'ldif-wrap=no', '-b', base, `(uid=${uid})`, attribute]);
    return new RegExp(`^${attribute}: (.*)$`, 'mi').exec(out)?.[1] ?? '';
  };

  /** Whether the account logs in through every subset, and how many messages it has. */
  const inboxes = (name: string): Promise<string[]> =>
    Promise.all(
      subsets.map(async ({ imaps }) => {
        const { code, out } = await curlImap(
          ready,
          imaps,
          `${name}@isp.example`,
          `${name.split('.')[0]}-secret`,
          'STATUS INBOX (MESSAGES)',
        );
        return code === 0 ? (/MESSAGES (\d+)/.exec(out)?.[1] ?? out) : `refused ${code}`;
      }),
    );
  const inboxesBecome = (name: string, wanted: string): Promise<unknown> =>
    until(
      () => inboxes(name),
      (seen) => seen.every((one) => one === wanted),
      followedMs,
    );

  const provisioner = (): string[] => [
    ...['-x', '-H', ready.directory.master.url, '-D', ready.directory.provisionerDn, '-w', ready.directory.provisionerPassword],
  ];

  it('takes an account by ldapadd: both replicas have the same entry, and it logs in through both subsets', async () => {
    await ok('ldapadd', provisioner(), { input: accountLdif('erin', 'erin-secret', 'west.isp.example') });
    const uuid = await attributeOf('erin', 'entryUUID');
    for (const { url } of ready.directory.replicas) {
      await until(
        () => attributeOf('erin', 'entryUUID', url),
        (seen) => seen === uuid,
        followedMs,
      );
    }
    await inboxesBecome('erin', '0');
    expect((await curlPop3(ready, subsets[0]?.pop3s ?? '', 'erin@isp.example', 'erin-secret')).code).toBe(0);
  });

  it('brings mail in and out through either subset, and tells an unknown recipient for good', async () => {
    for (const { smtp } of subsets) {
      expect(await curlSend(ready, smtp, 'alice@isp.example', 'erin@isp.example', 'hello', 'Hello Erin.')).toMatchObject({
        code: 0,
        err: '',
      });
    }
    await inboxesBecome('erin', '2');
    expect((await curlFetch(ready, subsets[1]?.imaps ?? '', 'erin@isp.example', 'erin-secret', 1)).out).toContain('Hello Erin.');
    const unknown = await curlSend(ready, subsets[0]?.smtp ?? '', 'alice@isp.example', 'nobody@isp.example', 'x', 'x');
    expect(unknown.err).toContain('550');
  });

  it('takes accounts by the command, on a cluster that is named and on one that is chosen', async () => {
    const password = join(root, 'password');
    await nodeFiles.replace(password, 'gina-secret\n');
    const named = await cli('account', 'create', 'gina@isp.example', '--cluster', 'east.isp.example', '--password-file', password);
    expect(named, named.err).toMatchObject({ code: 0 });
    await inboxesBecome('gina', '0');
    expect(await attributeOf('gina', 'hostServer')).toBe('east.isp.example');
    await nodeFiles.replace(password, 'hugo-secret\n');
    const placed = await cli('account', 'create', 'hugo@isp.example', '--password-file', password);
    expect(placed, placed.err).toMatchObject({ code: 0 });
    expect(clusters).toContain(await attributeOf('hugo', 'hostServer'));
    await inboxesBecome('hugo', '0');
  });

  it('an account that is added without hostServer is placed by our master; on another one it waits until somebody sets it', async () => {
    await ok('ldapadd', provisioner(), { input: accountLdif('frank', 'frank-secret') });
    if (isOwn) {
      expect(clusters).toContain(await attributeOf('frank', 'hostServer'));
    } else {
      expect(await attributeOf('frank', 'hostServer')).toBe('');
      const { answer: why } = await until(
        () => cli('user', 'why', 'frank@isp.example'),
        ({ out }) => out.includes('hostServer is missing'),
        followedMs,
      );
      expect(why.out).toContain('hostServer is missing');
      const refused = await curlSend(ready, subsets[0]?.smtp ?? '', 'alice@isp.example', 'frank@isp.example', 'early', 'x');
      // Not for good: the account is there.
      expect(refused.err).not.toMatch(/ 55\d/);
      await ok('ldapmodify', provisioner(), {
        input: `dn: uid=frank,${base}\nchangetype: modify\nadd: hostServer\nhostServer: east.isp.example\n`,
      });
    }
    await until(
      () => inboxes('frank'),
      (seen) => seen.every((one) => /^\d+$/.test(one)),
      followedMs,
    );
  });

  it('refuses another hostServer for an account that has mail where it is', async () => {
    const change = `dn: uid=erin,${base}\nchangetype: modify\nreplace: hostServer\nhostServer: east.isp.example\n`;
    const refused = await run('ldapmodify', provisioner(), { input: change });
    // Ours says that the mail must be moved first; slapd's rules of access let nobody take the value away.
    expect(refused.code).toBe(isOwn ? 53 : 50);
    expect(await attributeOf('erin', 'hostServer')).toBe('west.isp.example');
    expect(await inboxes('erin')).toEqual(['2', '2']);
  });

  it('refuses an address that another account has', async () => {
    const twice = `${accountLdif('ivy', 'ivy-secret', 'west.isp.example')}mail: bob@isp.example\n`;
    expect((await run('ldapadd', provisioner(), { input: twice })).code).toBe(19);
  });

  it('renames by ldapmodrdn: mail stays, the old name stops', async () => {
    await ok('ldapmodrdn', [...provisioner(), '-r', `uid=erin,${base}`, 'uid=erin.ebb']);
    await inboxesBecome('erin.ebb', '2');
    await until(
      () => inboxes('erin'),
      (seen) => seen.every((one) => one === 'refused 67'),
      followedMs,
    );
    const why = await cli('user', 'why', 'erin.ebb@isp.example');
    expect(why.out).toContain('west.isp.example');
    expect(why.out).toContain('+ Served');
  });

  it('renames and removes by the command', async () => {
    const renamed = await cli('account', 'rename', 'gina@isp.example', 'gina.new@isp.example');
    expect(renamed, renamed.err).toMatchObject({ code: 0 });
    await inboxesBecome('gina.new', '0');
    expect(await attributeOf('gina.new', 'mail')).toBe('gina.new@isp.example');
    const removed = await cli('account', 'remove', 'gina.new@isp.example', '--yes');
    expect(removed, removed.err).toMatchObject({ code: 0 });
    expect(await attributeOf('gina.new', 'uid')).toBe('');
  });

  it('removes by ldapdelete: logins and recipients are refused, the storage is a tombstone', async () => {
    const uuid = await attributeOf('erin.ebb', 'entryUUID');
    await ok('ldapdelete', [...provisioner(), `uid=erin.ebb,${base}`]);
    await until(
      () => inboxes('erin.ebb'),
      (seen) => seen.every((one) => one === 'refused 67'),
      followedMs,
    );
    const sent = await curlSend(ready, subsets[0]?.smtp ?? '', 'alice@isp.example', 'erin.ebb@isp.example', 'gone', 'x');
    expect(sent.err).toContain('550');
    await until(
      async () => (await ok('find', [join(root, 'storage', 'west.isp.example'), '-path', `*tombstone*${uuid}*`])).trim(),
      (found) => found !== '',
      followedMs,
    );
  });
});
