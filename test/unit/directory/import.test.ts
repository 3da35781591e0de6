import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { systemRandom } from '#common/random.ts';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { exportLdif } from '#directory/tools/export.ts';
import { importLdif } from '#directory/tools/import.ts';
import type { ImportCounts } from '#directory/tools/import-by-adds.ts';
import { databaseFile, entryFunctions, openOffline } from '#directory/tools/offline.ts';
import { createPrepareBlock } from '#directory/tools/prepare-block.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'archipelago-import-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const ports = { clock: systemClock, random: systemRandom, files: nodeFiles, hasher: createPasswordHasher(systemRandom) };

interface Imported extends ImportCounts {
  readonly mistakes: string[];
  readonly steps: string[];
}

/** Imports pieces of text, each a chunk. */
async function importText(...pieces: readonly string[]): Promise<Imported> {
  const mistakes: string[] = [];
  const steps: string[] = [];
  async function* chunks(): AsyncGenerator<Buffer> {
    for (const piece of pieces) yield Buffer.from(piece);
  }
  const context = { dataDirectory: folder, suffix: 'o=mail', ...ports, prepare: createPrepareBlock(ports), blocksAtOnce: 2 };
  const counts = await importLdif(context, chunks(), {
    mistake: (line, detail) => mistakes.push(`${line}: ${detail}`),
    progress: () => {},
    step: (step) => steps.push(step),
  });
  return { ...counts, mistakes, steps };
}

function open() {
  return openOffline({ dataDirectory: folder, suffix: 'o=mail' }, ports);
}

function problems(): string[] {
  const found: string[] = [];
  verifyDatabase(join(folder, databaseFile), entryFunctions(), { problem: (text) => found.push(text), progress: () => {} });
  return found;
}

const frame = [
  'dn: o=mail\nobjectClass: organization\no: mail\n',
  'dn: ou=topology,o=mail\nobjectClass: organizationalUnit\nou: topology\n',
  'dn: ou=clusters,ou=topology,o=mail\nobjectClass: organizationalUnit\nou: clusters\n',
  'dn: cn=west.isp.example,ou=clusters,ou=topology,o=mail\nobjectClass: mailCluster\ncn: west.isp.example\n',
  'dn: cn=isp.example,o=mail\nobjectClass: mailDomain\ncn: isp.example\nmailDomainAlias: alias.example\n',
].join('\n');

function account(uid: string, ...lines: readonly string[]): string {
  const fields = [
    'objectClass: inetOrgPerson',
    'objectClass: mailAccount',
    `uid: ${uid}`,
    `cn: ${uid}`,
    `sn: ${uid}`,
    'hostServer: west.isp.example',
  ];
  return `\ndn: uid=${uid},cn=isp.example,o=mail\n${[...fields, ...lines].join('\n')}\n`;
}

const uuid = (n: number): string => `6f7f6a10-0000-4000-8000-${String(n).padStart(12, '0')}`;

describe('an import into a new directory', () => {
  test('keeps UUIDs and CSNs, completes what an Add would, and leaves a directory that verifies and nothing beside it', async () => {
    const csn = '20260101000000.000000Z#000001#000#000000';
    const done = await importText(
      frame,
      account('alice', `entryUUID: ${uuid(1)}`, `entryCSN: ${csn}`),
      account('bob', 'userPassword: secret'),
    );
    expect(done).toMatchObject({ added: 7, skipped: 0, failed: 0, mistakes: [], steps: ['names', 'uuids', 'index', 'addresses'] });
    expect(await readdir(folder)).toEqual([databaseFile]);
    expect(problems()).toEqual([]);
    const { tree } = open();
    using store = tree.store;
    const alice = store.byUuid(uuid(1));
    expect([alice?.csn, store.dnOf(alice ?? { parentId: 0, rdn: '' })]).toEqual([csn, 'uid=alice,cn=isp.example,o=mail']);
    expect(store.idsWithKey({ attribute: 'mail', value: 'alice@isp.example' }, 0, 10)).toEqual([alice?.id]);
    const text = [...exportLdif(tree)].join('');
    expect(text).toMatch(/^userPassword: \{ARGON2\}/m);
    expect(text).not.toContain('userPassword: secret');
    // What a directory begins with is there too, and the state is above every CSN of the file.
    expect([store.tally('entries'), store.tally('accounts'), store.tally('hostServer=west.isp.example')]).toEqual([8, 2, 2]);
    expect(tree.contextCsn > csn && tree.isFilled).toBe(true);
  });

  test('is the same however the file is cut into chunks, line ends, comments and folded lines included', async () => {
    const text = `version: 1\r\n\r\n${(frame + account('alice', 'description:: w6k=', '# a comment', 'cn: a', ' nother')).replaceAll('\n', '\r\n')}`;
    const done = await importText(...(text.match(/[\s\S]{1,7}/g) as string[]));
    expect(done).toMatchObject({ added: 6, failed: 0, mistakes: [] });
    const { tree } = open();
    using _store = tree.store;
    expect([...exportLdif(tree)].join('')).toMatch(/^cn: another\n/m);
  });

  test('tells what it does not take by line, and takes the rest', async () => {
    const wrong = [
      account('nohost').replace('west.isp.example', 'north.isp.example'),
      '\ndn: uid=lost,cn=nowhere.example,o=mail\nobjectClass: inetOrgPerson\nuid: lost\ncn: l\nsn: l\n',
      '\ndn: uid=x,ou=topology,o=mail\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: x\ncn: x\nsn: x\n',
      account('odd', 'color: red'),
      '\ndn: cn=two.example,o=mail\nobjectClass: mailDomain\ncn: two.example\nmailDomainAlias: alias.example\n',
      '\nnonsense\n',
    ];
    const done = await importText(frame, ...wrong, account('good'));
    expect(done).toMatchObject({ added: 6, skipped: 0, failed: 6 });
    expect(done.mistakes).toEqual([
      expect.stringMatching(/^22: uid=nohost,.*names no cluster of the topology; known clusters: west\.isp\.example$/),
      expect.stringMatching(/^30: uid=lost,.*there is no entry "cn=nowhere\.example,o=mail" above it$/),
      expect.stringMatching(/^36: uid=x,.*directly below its mailDomain entry/),
      expect.stringMatching(/^43: uid=odd,.*attribute color is not known here$/),
      expect.stringMatching(/^52: cn=two\.example,.*the domain name alias\.example belongs to another domain/),
      expect.stringMatching(/^57: expected "name: value"$/),
    ]);
    expect(problems()).toEqual([]);
  });

  test('takes the first of two entries with one name, UUID or address', async () => {
    const done = await importText(
      frame,
      account('alice', `entryUUID: ${uuid(1)}`, 'mail: alice@isp.example', 'mailAlternateAddress: sales@isp.example'),
      account('ALICE'),
      account('bob', `entryUUID: ${uuid(1)}`),
      account('carol', 'mailAlternateAddress: sales@isp.example'),
      account('dave', 'mailAlternateAddress: alice@alias.example'),
    );
    expect(done).toMatchObject({ added: 6, skipped: 1, failed: 3 });
    expect(done.mistakes).toEqual([
      '0: uid=bob,cn=isp.example,o=mail: its entryUUID belongs to an entry before it',
      '0: uid=carol,cn=isp.example,o=mail: the address sales@isp.example belongs to uid=alice,cn=isp.example,o=mail already',
      '0: uid=dave,cn=isp.example,o=mail: the address alice@alias.example belongs to uid=alice,cn=isp.example,o=mail already',
    ]);
    expect(problems()).toEqual([]);
  });

  test('finds parents below accounts too, which it does not remember', async () => {
    const below = (parent: string): string => `\ndn: cn=device,${parent}\nobjectClass: organizationalRole\ncn: device\n`;
    const alice = 'uid=alice,cn=isp.example,o=mail';
    const done = await importText(
      frame,
      account('alice'),
      below(alice),
      below(alice),
      account('alice'),
      account('bob'),
      below('uid=Bob,cn=isp.example,o=mail'),
    );
    expect(done).toMatchObject({ added: 9, skipped: 2, failed: 0, mistakes: [] });
    expect(problems()).toEqual([]);
  });

  test('goes below the frame of a new directory when the file does not hold the base of the tree', async () => {
    const done = await importText('dn: cn=isp.example,o=mail\nobjectClass: mailDomain\ncn: isp.example\n');
    expect(done).toMatchObject({ added: 1, failed: 0 });
    const { tree } = open();
    using store = tree.store;
    expect(store.tally('entries')).toBe(5);
  });

  test('that fails leaves the directory as it was', async () => {
    await importText(frame);
    async function* broken(): AsyncGenerator<Buffer> {
      yield Buffer.from(account('alice'));
      throw new Error('the disk is gone');
    }
    const context = { dataDirectory: folder, suffix: 'o=mail', ...ports, prepare: createPrepareBlock(ports), blocksAtOnce: 2 };
    const handlers = { mistake: () => {}, progress: () => {}, step: () => {} };
    await expect(importLdif(context, broken(), handlers)).rejects.toThrow('the disk is gone');
    expect((await readdir(folder)).filter((name) => name.includes('import'))).toEqual([]);
    const { tree } = open();
    using store = tree.store;
    expect(store.tally('accounts')).toBe(0);
    expect(store.tally('entries')).toBe(6);
  });
});

describe('an import into a directory that is in use', () => {
  test('gives one without accounts a new identity, so that followers refresh, and adds to one with accounts change by change', async () => {
    await importText(frame);
    const identity = (): string | undefined => {
      const { tree } = open();
      using store = tree.store;
      return store.meta('databaseId');
    };
    const first = identity();
    expect(await importText(account('alice'))).toMatchObject({ added: 1, skipped: 0, failed: 0 });
    const second = identity();
    expect(second).not.toBe(first);
    expect(await importText(account('alice'), account('bob'))).toMatchObject({ added: 1, skipped: 1, failed: 0, steps: [] });
    expect(identity()).toBe(second);
    const { tree } = open();
    using store = tree.store;
    expect(store.journalAfter(store.lastChangeNumber() - 1, 10)).toMatchObject([{ op: 'add', newRdn: 'uid=bob' }]);
  });
});
