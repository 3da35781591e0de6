import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { ImageEncoder } from '#protocol/ldap/image-batch.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { decideKnown } from '#replication/decide.ts';
import { Shadow } from '#replication/store/shadow.ts';

const key = Buffer.from('0123456789abcdef', 'hex');
const uuid = '11111111-2222-4333-8444-555555555555';
const dn = 'uid=a,cn=isp.example,o=mail';
const content = [
  attribute('uid', 'a'),
  attribute('cn', 'A'),
  attribute('mail', 'a@isp.example', 'b@isp.example'),
  attribute('modifyTimestamp', '1'),
];
const state = { master: 'ldap://m', scope: '', cookie: Buffer.from('c1') };

let directory: string;
const open = async (): Promise<Shadow> => {
  const shadow = await Shadow.open(join(directory, 'x.sqlite'), key, silentLogger, (path) => rm(path, { force: true }));
  if (shadow === undefined) throw new Error('it was not opened');
  return shadow;
};

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'archipelago-shadow-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('what a replica is known to hold', () => {
  it('tells what differs, whatever the order of values, and what is gone', async () => {
    using shadow = await open();
    shadow.put(uuid, dn, content);
    const master = {
      dn,
      attributes: [
        attribute('mail', 'b@isp.example', 'a@isp.example'),
        attribute('CN', 'B'),
        attribute('uid', 'a'),
        attribute('modifyTimestamp', '2'),
      ],
    };
    const known = shadow.find(uuid);
    expect(known?.dn).toBe(dn);
    const steps = known === undefined ? [] : decideKnown(master, known, false);
    expect(steps).toMatchObject([
      { kind: 'modify', dn, changes: [{ attribute: { type: 'CN' } }, { attribute: { type: 'modifyTimestamp' } }] },
    ]);
    const without = known === undefined ? [] : decideKnown({ dn, attributes: content.slice(0, 2) }, known, false);
    expect(without).toMatchObject([{ changes: [{ attribute: { type: 'mail', values: [] } }, { attribute: { type: 'modifytimestamp' } }] }]);
  });

  it('keeps the same of an entry as it came from the master', async () => {
    using shadow = await open();
    const many = Array.from({ length: 100 }, (_, i) => attribute(`x${i}`, `${i}`));
    for (const attributes of [content, [...content].reverse(), [...content, ...many], [{ type: 'seeAlso', values: [] }]]) {
      const encoder = new ImageEncoder();
      encoder.add({ uuid, dn, attributes });
      shadow.putAll(encoder.take(), new Set());
      const known = shadow.find(uuid);
      expect(known?.dn).toBe(dn);
      expect([...(known?.types ?? [])]).toEqual(attributes.map((one) => one.type.toLowerCase()));
      for (const one of attributes) {
        expect(known?.holds(one, one.type.toLowerCase()), one.type).toBe(true);
        expect(known?.holds(attribute(one.type, 'other'), one.type.toLowerCase()), one.type).toBe(false);
      }
    }
  });

  it('keeps the names of entries as they came from the master, and nothing of those that the replica refused', async () => {
    using shadow = await open();
    const names = [
      'o=mail',
      'cn=a\\,b,o=mail',
      'uid=1,cn=a\\,b,o=mail',
      'uid=2,cn=a\\,b,o=mail',
      'uid=refused,cn=a\\,b,o=mail',
      'uid=3\\\\,cn=c,o=mail',
      'uid=ö,cn=c,o=mail',
      'uid=4,cn=C,o=mail',
      'uid=5\\ ,cn=C,o=mail',
    ];
    const uuidAt = (at: number): string => `11111111-2222-4333-8444-00000000000${at}`;
    const encoder = new ImageEncoder();
    for (const [at, name] of [...names, 'uid=6 , cn=d'].entries()) encoder.add({ uuid: uuidAt(at), dn: name, attributes: content });
    shadow.putAll(encoder.take(), new Set([4]));
    for (const [at, name] of names.entries()) expect(shadow.find(uuidAt(at))?.dn, name).toBe(at === 4 ? undefined : name);
    expect(shadow.find(uuidAt(9))?.dn).toBe('uid=6,cn=d');
    // What lies below a renamed entry goes with it, what comes afterwards below its new name too.
    shadow.renamed('cn=a\\,b,o=mail', 'cn=new,o=mail');
    encoder.add({ uuid, dn: 'uid=7,cn=a\\,b,o=mail', attributes: content });
    shadow.putAll(encoder.take(), new Set());
    expect([shadow.find(uuidAt(2))?.dn, shadow.find(uuid)?.dn]).toEqual(['uid=1,cn=new,o=mail', 'uid=7,cn=a\\,b,o=mail']);
  });

  it('asks for a rename and writes the naming attribute, whose values it cannot tell', async () => {
    using shadow = await open();
    shadow.put(uuid, dn, content);
    const known = shadow.find(uuid);
    const to = 'uid=b,cn=other.example,o=mail';
    const attributes = [attribute('uid', 'b'), ...content.slice(1)];
    expect(known === undefined ? [] : decideKnown({ dn: to, attributes }, known, false)).toMatchObject([
      { kind: 'rename', dn, newRdn: 'uid=b', newSuperior: 'cn=other.example,o=mail', deleteOldRdn: true },
      { kind: 'modify', dn: to, changes: [{ attribute: { type: 'uid' } }, { attribute: { type: 'modifyTimestamp' } }] },
    ]);
  });

  it('tells two values from one with the same bytes, and none from an empty one', async () => {
    using shadow = await open();
    shadow.put(uuid, dn, [attribute('mail', 'ab', 'c'), attribute('cn', '')]);
    const known = shadow.find(uuid);
    for (const values of [['abc'], ['a', 'bc'], ['ab'], ['ab', 'c', 'c'], ['AB', 'c']])
      expect(known?.holds(attribute('mail', ...values), 'mail'), values.join()).toBe(false);
    expect(known?.holds(attribute('mail', 'c', 'ab'), 'mail')).toBe(true);
    expect(known?.holds(attribute('cn'), 'cn')).toBe(false);
  });

  it('gives what is below a renamed entry its new name, at every depth', async () => {
    using shadow = await open();
    const deep = uuid.replace('1111', '2222');
    shadow.put(uuid, dn, content);
    shadow.put(deep, 'cn=x,uid=a,cn=isp.example,o=mail', content);
    shadow.renamed('cn=isp.example,o=mail', 'cn=new.example,o=mail');
    expect(shadow.find(uuid)?.dn).toBe('uid=a,cn=new.example,o=mail');
    expect(shadow.find(deep)?.dn).toBe('cn=x,uid=a,cn=new.example,o=mail');
  });

  it('is believed after a restart with the checkpoint it was stored for, or the one before, and with no other', async () => {
    {
      using shadow = await open();
      expect(shadow.resume(state)).toBe(false);
      shadow.put(uuid, dn, content);
      shadow.store(state);
      shadow.put(uuid.replace('1111', '3333'), dn, content);
      shadow.store({ ...state, cookie: Buffer.from('c2') });
    }
    for (const cookie of ['c2', 'c1']) {
      using shadow = await open();
      expect(shadow.resume({ ...state, cookie: Buffer.from(cookie) }), cookie).toBe(true);
      expect(shadow.find(uuid)?.dn).toBe(dn);
    }
    using shadow = await open();
    expect(shadow.resume({ ...state, cookie: Buffer.from('c3') })).toBe(false);
    expect(shadow.find(uuid)).toBeUndefined();
  });

  it('does not believe what a comparison found otherwise', async () => {
    using shadow = await open();
    const other = uuid.replace('1111', '2222');
    for (const one of [uuid, other]) shadow.put(one, dn, content);
    shadow.doubt({ differences: [{ uuid }], isCut: false });
    expect([shadow.find(uuid), shadow.find(other)?.dn]).toEqual([undefined, dn]);
    shadow.doubt({ differences: [], isCut: true });
    expect(shadow.find(other)).toBeUndefined();
  });

  it('is emptied for another master, another scope, and none', async () => {
    for (const other of [{ ...state, master: 'ldap://other' }, { ...state, scope: 'less' }, undefined]) {
      using shadow = await open();
      shadow.put(uuid, dn, content);
      shadow.store(state);
      expect(shadow.resume(other)).toBe(false);
      expect(shadow.find(uuid)).toBeUndefined();
    }
  });

  it('loses what was not stored when the service is killed', async () => {
    {
      using shadow = await open();
      shadow.put(uuid, dn, content);
      shadow.store(state);
      shadow.forget(uuid);
    }
    using shadow = await open();
    expect(shadow.resume(state)).toBe(true);
    expect(shadow.find(uuid)?.dn).toBe(dn);
  });

  it('is begun anew where its file is damaged', async () => {
    await writeFile(join(directory, 'x.sqlite'), Buffer.alloc(8192, 'no database '));
    using shadow = await open();
    expect(shadow.resume(state)).toBe(false);
    shadow.put(uuid, dn, content);
    expect(shadow.find(uuid)?.dn).toBe(dn);
  });

  it('does without where it cannot be opened', async () => {
    const path = join(directory, 'missing', 'x.sqlite');
    expect(await Shadow.open(path, key, silentLogger, () => Promise.resolve())).toBeUndefined();
  });
});
