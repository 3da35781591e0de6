import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFiles } from '#common/files/node-files.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { noteOpening } from '#directory/server/opening.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore } from '#directory/store/entry-store.ts';
import { entryFunctions } from '#directory/tools/offline.ts';
import {
  encodeImageBatch,
  type Image,
  type ImageBatch,
  imageBatchOid,
  readImageBatch,
  readImageResult,
} from '#protocol/ldap/image-batch.ts';
import { attribute, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { startTestDirectory, type TestDirectory } from './test-directory.ts';

const uuidOf = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const csnOf = (number: number): string => `20261127120000.${String(number).padStart(6, '0')}Z#000000#000#000000`;
const at = (uid: string, domain = 'isp.example'): string => `uid=${uid},cn=${domain},o=mail`;

const suffix: Image = { uuid: uuidOf(1), dn: 'o=mail', attributes: [attribute('objectClass', 'organization'), attribute('o', 'mail')] };
const domain = (number: number, cn: string): Image => ({
  uuid: uuidOf(number),
  dn: `cn=${cn},o=mail`,
  attributes: [attribute('objectClass', 'mailDomain'), attribute('cn', cn)],
});
const account = (number: number, dn: string, csn = csnOf(number), description = 'first'): Image => ({
  uuid: uuidOf(number),
  dn,
  attributes: [
    attribute('objectClass', 'inetOrgPerson', 'mailAccount'),
    attribute('cn', 'x'),
    attribute('sn', 'x'),
    attribute('description', description),
    attribute('entryCSN', csn),
    attribute('somethingUnknown', 'kept'),
  ],
});

describe('entries written in batches to a replica', () => {
  let directory: TestDirectory;
  let replicator: LdapConnection;

  beforeEach(async () => {
    directory = await startTestDirectory({ mode: 'replica' });
    replicator = await directory.connect('replicator');
  });
  afterEach(async () => {
    await replicator[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
  });

  async function write(changes: readonly Image[], own: Partial<ImageBatch> = {}) {
    const batch = { mayDisplace: false, contextCsn: undefined, only: undefined, without: undefined, changes, ...own };
    return readImageResult((await replicator.extended(imageBatchOid, encodeImageBatch(batch))).value);
  }
  const read = (dn: string) => replicator.readEntry(dn, ['*', 'entryUUID', 'entryCSN', 'contextCSN']);

  it('are found by UUID: added, changed, renamed, moved, removed, and left alone when they are so already', async () => {
    const alice = account(10, at('alice'));
    expect(await write([suffix, domain(2, 'isp.example'), domain(3, 'other.example'), alice])).toMatchObject({ added: 4, remarks: [] });
    expect(await write([alice])).toEqual({ added: 0, modified: 0, renamed: 0, deleted: 0, remarks: [] });
    expect(await write([account(10, at('Alice', 'other.example'), csnOf(11), 'second')])).toMatchObject({ renamed: 1 });
    const moved = await read(at('alice', 'other.example'));
    expect(moved?.dn).toBe(at('Alice', 'other.example'));
    expect(textOf(moved?.attributes ?? [], 'entryCSN')).toBe(csnOf(11));
    expect(textOf(moved?.attributes ?? [], 'description')).toBe('second');
    expect(textOf(moved?.attributes ?? [], 'somethingUnknown')).toBe('kept');
    expect(await read(at('alice'))).toBeUndefined();
    expect(await write([{ uuid: uuidOf(10), dn: undefined, csn: csnOf(12) }])).toMatchObject({ deleted: 1 });
    expect(await write([{ uuid: uuidOf(10), dn: undefined, csn: csnOf(12) }])).toMatchObject({ deleted: 0, remarks: [] });
  });

  it('refuse by themselves what cannot be done, and leave their neighbours alone', async () => {
    await write([suffix, domain(2, 'isp.example'), account(10, at('alice'))]);
    const result = await write([
      account(11, at('alice')),
      account(12, at('bob', 'missing.example')),
      { uuid: uuidOf(2), dn: undefined, csn: undefined },
      account(13, at('carol')),
    ]);
    expect(result?.remarks.map((one) => [one.index, one.kind, one.resultCode])).toEqual([
      [0, 'refused', resultCodes.entryAlreadyExists],
      [1, 'refused', resultCodes.noSuchObject],
      [2, 'refused', resultCodes.notAllowedOnNonLeaf],
    ]);
    expect(result?.added).toBe(1);
    expect(await read(at('carol'))).toBeDefined();
  });

  it('may displace the holder of a name when told so, and say who gave way', async () => {
    await write([suffix, domain(2, 'isp.example'), account(10, at('a')), account(11, at('b'))]);
    const result = await write([account(10, at('b'), csnOf(20)), account(11, at('a'), csnOf(21))], { mayDisplace: true });
    expect(result?.remarks).toMatchObject([{ index: 0, kind: 'displaced', text: uuidOf(11) }]);
    const [a, b] = [await read(at('a')), await read(at('b'))];
    expect([textOf(a?.attributes ?? [], 'entryUUID'), textOf(b?.attributes ?? [], 'entryUUID')]).toEqual([uuidOf(11), uuidOf(10)]);
    expect(textsOf(a?.attributes ?? [], 'uid')).toEqual(['a']);
  });

  it('say when what was renamed has entries below it', async () => {
    await write([suffix, domain(2, 'isp.example'), account(10, at('a'))]);
    expect((await write([domain(2, 'new.example')]))?.remarks).toMatchObject([{ index: 0, kind: 'container' }]);
    expect(await read(at('a', 'new.example'))).toBeDefined();
  });

  it('leave attributes alone that they do not speak of', async () => {
    await write([suffix, domain(2, 'isp.example'), account(10, at('a'))]);
    await write([{ uuid: uuidOf(10), dn: at('a'), attributes: [attribute('objectClass', 'inetOrgPerson'), attribute('cn', 'y')] }], {
      without: ['description', 'sn'],
    });
    const entry = await read(at('a'));
    expect([textOf(entry?.attributes ?? [], 'description'), textOf(entry?.attributes ?? [], 'sn')]).toEqual(['first', 'x']);
    expect(textOf(entry?.attributes ?? [], 'somethingUnknown')).toBeUndefined();
  });

  it('make the replica current as of a change, from where on it may be followed', async () => {
    await write([suffix]);
    expect(directory.running.readiness().find((one) => one.name === 'content')?.ok).toBe(false);
    await write([], { contextCsn: csnOf(1) });
    expect(textOf((await read('o=mail'))?.attributes ?? [], 'contextCSN')).toBe(csnOf(1));
    expect(directory.running.readiness().find((one) => one.name === 'content')?.ok).toBe(true);
    await directory.restart();
  });

  it('are for the right replicator only, well-formed, and not too many', async () => {
    await using frontend = await directory.connect('frontend');
    const batch = encodeImageBatch({ mayDisplace: false, contextCsn: undefined, only: undefined, without: undefined, changes: [suffix] });
    const codeOf = (connection: LdapConnection, value: Buffer) => connection.extended(imageBatchOid, value).catch(resultCodeOf);
    expect(await codeOf(frontend, batch)).toBe(resultCodes.insufficientAccessRights);
    for (let length = 0; length < batch.length; length += 1) {
      const cut = batch.subarray(0, length);
      expect(readImageBatch(cut)).toBeUndefined();
    }
    expect(await codeOf(replicator, batch.subarray(0, 20))).toBe(resultCodes.protocolError);
    const many = Array.from({ length: 1025 }, (_, i): Image => ({ uuid: uuidOf(i), dn: undefined, csn: undefined }));
    expect(await write(many).catch(resultCodeOf)).toBe(resultCodes.adminLimitExceeded);
  });
});

describe('the identity of a replica’s database', () => {
  it('is another one after a start of the machine under an open database, and the same after an orderly end', async () => {
    using store = new EntryStore(':memory:', entryFunctions());
    const tree = new Tree({ store, schema: createMailSchema(), suffix: 'o=mail', clock: new FakeClock(), mode: 'replica' });
    await store.write(() => store.setMeta('databaseId', 'first'));
    const startIn = (boot: string) => {
      const files = { ...nodeFiles, read: async () => Buffer.from(`${boot}\n`) };
      return noteOpening(tree, { files, random: seededRandom(1) });
    };
    await startIn('monday');
    await startIn('monday');
    expect(store.meta('databaseId')).toBe('first');
    const closed = await startIn('monday');
    await closed();
    await startIn('tuesday');
    expect(store.meta('databaseId')).toBe('first');
    await startIn('wednesday');
    expect(store.meta('databaseId')).not.toBe('first');
  });
});
