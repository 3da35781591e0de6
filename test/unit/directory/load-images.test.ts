import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { Tree } from '#directory/server/tree.ts';
import { ImageWriter } from '#directory/server/write-images.ts';
import { BodyBuilder, bodyHead, decodeBody, encodeBody } from '#directory/store/entry-body.ts';
import { EntryStore } from '#directory/store/entry-store.ts';
import { UuidSieve } from '#directory/store/uuid-sieve.ts';
import { entryFunctions } from '#directory/tools/offline.ts';
import { encodeImageBatch, type Image, type ImageBatch, readImageBatch } from '#protocol/ldap/image-batch.ts';
import { type Attribute, attribute } from '#protocol/ldap/messages.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const uuidOf = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
const csnOf = (number: number): string => `20261127120000.${String(number).padStart(6, '0')}Z#000000#000#000000`;

function image(number: number, dn: string, ...attributes: readonly Attribute[]): Image {
  return { uuid: uuidOf(number), dn, attributes: [...attributes, attribute('entryCSN', csnOf(number))] };
}
const frame = [
  image(1, 'o=mail', attribute('objectClass', 'organization'), attribute('o', 'mail')),
  image(2, 'cn=isp.example,o=mail', attribute('objectClass', 'mailDomain'), attribute('cn', 'isp.example')),
];
const classes = attribute('objectClass', 'top', 'person', 'organizationalPerson', 'inetOrgPerson', 'mailAccount');
function account(number: number, uid: string, ...more: readonly Attribute[]): Image {
  const own = [classes, attribute('uid', uid), attribute('cn', 'x'), attribute('sn', uid), attribute('mail', `${uid}@isp.example`)];
  return image(number, `uid=${uid},cn=isp.example,o=mail`, ...own, ...more);
}

/** A replica to which the same batches go as octets, taken as rows, or as attributes, looked at one by one. */
class Side implements Disposable {
  readonly store: EntryStore;
  readonly tree: Tree;
  readonly #writer: ImageWriter;
  readonly #isFromOctets: boolean;

  constructor(isFromOctets: boolean) {
    const schema = createMailSchema();
    this.store = new EntryStore(':memory:', entryFunctions(schema));
    this.tree = new Tree({ store: this.store, schema, suffix: 'o=mail', clock: new FakeClock(), mode: 'replica' });
    this.#writer = new ImageWriter(this.tree);
    this.#isFromOctets = isFromOctets;
  }

  write(changes: readonly Image[], own: Partial<ImageBatch> = {}) {
    const batch = { mayDisplace: false, contextCsn: undefined, only: undefined, without: undefined, changes, ...own };
    const sent = this.#isFromOctets ? (readImageBatch(encodeImageBatch(batch)) as ImageBatch) : batch;
    return this.store.write(() => this.#writer.write(sent), 'relaxed');
  }

  content() {
    const { store } = this;
    const entries = store.idsAfter(0, 1000).map((id) => {
      const entry = store.byId(id);
      if (entry === undefined) throw new Error(`entry ${id} is not there`);
      const { rdn, rdnNorm, uuid, csn, attributes } = entry;
      expect(store.byUuid(uuid)?.id).toBe(id);
      expect(store.childId(entry.parentId, rdnNorm)).toBe(id);
      const shown = attributes.map(({ type, values }) => `${type}: ${values.map((one) => one.toString('latin1')).join(' | ')}`);
      return { dn: store.dnOf(entry), rdn, rdnNorm, uuid, csn, shown };
    });
    const keyed = ['uid', 'cn', 'mail', 'hostserver', 'displayname', 'objectclass'].map((name) =>
      ['a', 'b', 'x', 'a@isp.example', 'a@other.example', 'east', 'straße', 'maildomain', 'a b'].map((value) =>
        store
          .idsWithKey({ attribute: name, value }, 0, 100)
          .map((id) => store.byId(id)?.rdn)
          .sort(),
      ),
    );
    const counted = ['entries', 'accounts', 'hostServer=east', 'referrals'].map((name) => store.tally(name));
    const journal = store.journalAfter(0, 1000).map(({ op, uuid, csn, newRdn }) => ({ op, uuid, csn, newRdn }));
    // Which id an entry has may differ: whoever is refused as a row is looked at behind the others that wait.
    entries.sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
    return { entries, keyed, counted, journal };
  }

  [Symbol.dispose](): void {
    this.store[Symbol.dispose]();
  }
}

const batches: readonly { readonly name: string; readonly write: readonly (readonly [readonly Image[], Partial<ImageBatch>?])[] }[] = [
  { name: 'plain accounts', write: [[[...frame, account(10, 'a'), account(11, 'b')]]] },
  {
    name: 'values of every kind: several, none that is common, long ones, options, unknown types, classes nobody knows',
    write: [
      [
        [
          ...frame,
          account(10, 'a', attribute('mailAlternateAddress', 'a@other.example', 'a@third.example'), attribute('hostServer', 'East')),
          account(11, 'b', attribute('description', 'd'.repeat(300), 'e'), attribute('accountStatus', 'active')),
          account(12, 'c', attribute('cn;lang-de', 'x'), attribute('somethingUnknown', 'kept', ''), attribute('hostServer', 'east')),
          account(13, 'd', attribute('displayName', 'Straße'), attribute('description', 'x'), attribute('title', 'x')),
          image(14, 'cn=odd,cn=isp.example,o=mail', attribute('objectClass', 'nobodyKnows'), attribute('cn', 'odd')),
          image(15, 'cn=ref,cn=isp.example,o=mail', attribute('objectClass', 'referral', 'extensibleObject'), attribute('cn', 'ref')),
          ...Array.from({ length: 70 }, (_, i) => account(20 + i, `user${i}`)),
        ],
      ],
    ],
  },
  {
    name: 'what is not plain',
    write: [
      [
        [
          ...frame,
          image(10, 'UID=A,CN=ISP.Example,O=mail', classes, attribute('uid', 'A'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(11, 'uid=a\\,b,cn=isp.example,o=mail', classes, attribute('uid', 'a,b'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(12, 'uid=b,cn=isp.example,o=mail', classes, attribute('cn', 'x'), attribute('sn', 'x')),
          image(13, 'uid=c,cn=isp.example,o=mail', classes, attribute('uid', 'C'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(14, 'uid=d+cn=x,cn=isp.example,o=mail', classes, attribute('uid', 'd'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(15, 'uid=e,cn=isp.example,o=mail', classes, attribute('userid', 'e'), attribute('cn', 'x'), attribute('CN', 'y')),
          image(
            16,
            'uid=straße,cn=isp.example,o=mail',
            classes,
            attribute('uid', 'straße'),
            attribute('cn', 'Straße'),
            attribute('sn', 'x'),
          ),
          image(17, 'uid=f,cn=missing,o=mail', classes, attribute('uid', 'f'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(18, 'uid=g,cn=isp.example,o=mail', classes, attribute('uid', 'g'), { type: 'cn', values: [] }, attribute('sn', 'x')),
          {
            uuid: uuidOf(19),
            dn: 'uid=h,cn=isp.example,o=mail',
            attributes: [classes, attribute('uid', 'h'), attribute('entryCSN', 'bad')],
          },
          { uuid: uuidOf(20), dn: 'no name', attributes: [] },
        ],
      ],
    ],
  },
  {
    name: 'names and UUIDs that are taken, within a batch and before it',
    write: [
      [[...frame, account(10, 'a'), account(11, 'a'), account(10, 'a'), account(12, 'b')]],
      [[account(13, 'b'), account(14, 'c'), account(10, 'a2'), account(15, 'd')]],
    ],
  },
  {
    name: 'displaced holders of names',
    write: [
      [[...frame, account(10, 'a'), account(11, 'b')]],
      [[account(12, 'a'), account(13, 'c'), account(10, 'b'), account(11, 'a2')], { mayDisplace: true }],
    ],
  },
  {
    name: 'containers that come and go in one batch',
    write: [
      [
        [
          ...frame,
          account(10, 'a'),
          image(3, 'cn=new,o=mail', attribute('objectClass', 'mailDomain'), attribute('cn', 'new')),
          image(11, 'uid=b,cn=new,o=mail', classes, attribute('uid', 'b'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(3, 'cn=newer,o=mail', attribute('objectClass', 'mailDomain'), attribute('cn', 'newer')),
          image(12, 'uid=b,cn=new,o=mail', classes, attribute('uid', 'b'), attribute('cn', 'x'), attribute('sn', 'x')),
          image(13, 'uid=c,cn=newer,o=mail', classes, attribute('uid', 'c'), attribute('cn', 'x'), attribute('sn', 'x')),
          { uuid: uuidOf(10), dn: undefined, csn: csnOf(40) },
          account(14, 'a'),
        ],
      ],
    ],
  },
  {
    name: 'additions after the content was whole, which followers are told',
    write: [
      [[...frame, account(10, 'a')], { contextCsn: csnOf(10) }],
      [[account(11, 'b'), account(12, 'c'), { uuid: uuidOf(10), dn: undefined, csn: csnOf(30) }, account(10, 'a')]],
      [[account(13, 'd')], { contextCsn: csnOf(50) }],
    ],
  },
];

describe('entries of a batch that become rows without being taken apart', () => {
  let fast: Side;
  let careful: Side;

  beforeEach(() => {
    fast = new Side(true);
    careful = new Side(false);
  });
  afterEach(() => {
    fast[Symbol.dispose]();
    careful[Symbol.dispose]();
  });

  it.each(batches)('are the same as those that are: $name', async ({ write }) => {
    for (const [changes, own] of write) {
      const result = await fast.write(changes, own);
      expect(result).toEqual(await careful.write(changes, own));
    }
    expect(fast.content()).toEqual(careful.content());
    // And again, as after a connection that was lost before the answer.
    for (const [changes, own] of write) expect(await fast.write(changes, own)).toEqual(await careful.write(changes, own));
    expect(fast.content()).toEqual(careful.content());
  });

  it('are undone with the work that wrote them, and may come again', async () => {
    const { store } = fast;
    await fast.write(frame);
    const writer = new ImageWriter(fast.tree);
    const batch = { mayDisplace: false, contextCsn: undefined, only: undefined, without: undefined, changes: [account(10, 'a')] };
    const failing = store.write(() => {
      writer.write(readImageBatch(encodeImageBatch(batch)) as ImageBatch);
      throw new Error('not today');
    });
    await expect(failing).rejects.toThrow('not today');
    expect(store.byUuid(uuidOf(10))).toBeUndefined();
    expect(store.tally('accounts')).toBe(0);
    expect(store.idsWithKey({ attribute: 'uid', value: 'a' }, 0, 10)).toEqual([]);
    expect(await fast.write([account(10, 'a')])).toMatchObject({ added: 1, remarks: [] });
    expect(await fast.write([account(10, 'a')])).toMatchObject({ added: 0, modified: 0, remarks: [] });
    expect(store.tally('accounts')).toBe(1);
  });
});

describe('the parts that rows are made with', () => {
  it('give the body that the attributes give', () => {
    const attributes = [
      attribute('cn', 'x'),
      attribute('sn', 'abc'),
      attribute('createTimestamp', '20261127120000Z'),
      attribute('description', 'one', 'two'),
      attribute('modifyTimestamp', '20261127120000Z'),
      attribute('accountStatus', 'active'),
      attribute('displayName', 'abc'),
      attribute('somethingUnknown', 'y'.repeat(20_000)),
    ];
    const builder = new BodyBuilder();
    const source = Buffer.concat(attributes.flatMap((one) => one.values));
    builder.begin(source, source.length + 256);
    let start = 0;
    for (const { type, values } of attributes) {
      const places = values.flatMap(({ length }) => {
        start += length;
        return [start - length, length];
      });
      if (values.length === 1) builder.single(bodyHead(type), places[0] as number, places[1] as number);
      else builder.several(bodyHead(type), places);
    }
    const body = builder.take();
    expect(body).toEqual(encodeBody(attributes));
    expect(decodeBody(body)).toEqual(attributes);
  });

  it('never take a UUID for new that came before', () => {
    const sieve = new UuidSieve();
    const octetsOf = (number: number): Buffer => Buffer.from(uuidOf(number).replaceAll('-', ''), 'hex');
    let wronglyOld = 0;
    for (let i = 0; i < 20_000; i += 1) if (!sieve.add(octetsOf(i))) wronglyOld += 1;
    for (let i = 0; i < 20_000; i += 1) expect(sieve.add(octetsOf(i))).toBe(false);
    expect(wronglyOld).toBeLessThan(20);
  });
});
