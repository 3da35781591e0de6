import { describe, expect, it } from 'vitest';
import { uuidFromBytes } from '#protocol/ldap/controls.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { decide, type EntryImage } from '#replication/decide.ts';
import { entryDigest, RangeDigests, rangeOf } from '#replication/digest.ts';
import { Scope } from '#replication/scope.ts';
import { compareEntry, describeReport, Findings } from '#replication/verify.ts';
import { seededRandom } from '#test/fakes/random.ts';

const csn = '20261128000000.000001Z#000000#001#000000';

function account(uid: string, uuid: string, own: { dn?: string; mail?: string; password?: string; csn?: string } = {}): EntryImage {
  return {
    dn: own.dn ?? `uid=${uid},cn=isp.example,o=mail`,
    attributes: [
      attribute('objectClass', 'top', 'mailAccount'),
      attribute('uid', uid),
      attribute('mail', own.mail ?? `${uid}@isp.example`),
      attribute('userPassword', own.password ?? 'secret'),
      attribute('entryUUID', uuid),
      attribute('entryCSN', own.csn ?? csn),
    ],
  };
}

const random = seededRandom(7);
const uuids = Array.from({ length: 500 }, () => uuidFromBytes(random.bytes(16)));
const all = new Map(uuids.map((uuid, i) => [uuid, account(`user${i}`, uuid)]));

/** Ranges that differ, as the UUIDs of `all` and of the replica that are in them. */
function differing(replica: ReadonlyMap<string, EntryImage>, scope = new Scope()): string[] {
  const ranges = new RangeDigests();
  for (const [uuid, entry] of all) ranges.addMaster(uuid, entryDigest(uuid, scope.trim(entry), true));
  for (const [uuid, entry] of [...replica].reverse()) ranges.addReplica(uuid, entryDigest(uuid, scope.trim(entry), true));
  const known = [...new Set([...all.keys(), ...replica.keys()])];
  const lot = ranges.differing();
  return known.filter((uuid) => lot?.has(uuid) === true);
}

function changed(...changes: readonly (readonly [string, EntryImage | undefined])[]): Map<string, EntryImage> {
  const replica = new Map(all);
  for (const [uuid, entry] of changes) {
    if (entry === undefined) replica.delete(uuid);
    else replica.set(uuid, entry);
  }
  return replica;
}

const [first, second, third] = uuids as [string, string, string];

describe('digests of ranges', () => {
  it('are equal for equal sides, whatever the order they are read in', () => {
    expect(differing(all)).toEqual([]);
  });

  it.each([
    ['missing', undefined],
    ['with other content', account('user0', first, { mail: 'wrong@isp.example' })],
    ['with another name', account('user0', first, { dn: 'uid=other,cn=isp.example,o=mail' })],
    ['with a name of another case', account('user0', first, { dn: 'uid=USER0,cn=isp.example,o=mail' })],
    ['below another domain', account('user0', first, { dn: 'uid=user0,cn=other.example,o=mail' })],
    ['of another change', account('user0', first, { csn: csn.replace('000001Z', '000002Z') })],
  ])('find an entry that is %s', (_, entry) => {
    expect(differing(changed([first, entry]))).toEqual([first]);
  });

  it('find an entry that only the replica has, and two that have changed places', () => {
    const extra = uuidFromBytes(random.bytes(16));
    expect(differing(changed([extra, account('extra', extra)]))).toEqual([extra]);
    const swapped = differing(changed([first, account('user1', first)], [second, account('user0', second)]));
    expect(swapped.sort()).toEqual([first, second].sort());
  });

  it('leave alone what selective replication does not carry', () => {
    const replica = changed([first, account('user0', first, { password: 'its own' })]);
    expect(differing(replica)).toEqual([first]);
    expect(differing(replica, new Scope({ excludeAttributes: ['userPassword'] }))).toEqual([]);
  });

  it('agree with what replication would do', () => {
    const entry = account('user0', first);
    const same: EntryImage = {
      dn: 'UID=user0, CN=ISP.example,o=mail',
      attributes: [...entry.attributes].reverse().map((one) => ({ type: one.type.toUpperCase(), values: [...one.values].reverse() })),
    };
    expect(decide(entry, same, true)).toEqual([]);
    expect(entryDigest(first, same, true).equals(entryDigest(first, entry, true))).toBe(true);
  });

  it('spread UUIDs that were made one after the other', () => {
    const ranges = new Set(
      Array.from({ length: 1000 }, (_, i) => rangeOf(`${(i * 10).toString(16).padStart(8, '0')}-1111-1041-8000-0123456789ab`)),
    );
    expect(ranges.size).toBe(1000);
  });
});

describe('differences', () => {
  it('are named by kind and attribute', () => {
    const entry = account('user0', first);
    expect(compareEntry(first, entry, entry, true)).toBeUndefined();
    expect(compareEntry(first, undefined, undefined, true)).toBeUndefined();
    expect(compareEntry(first, entry, undefined, true)).toMatchObject({ kind: 'missing', dn: entry.dn });
    expect(compareEntry(first, undefined, entry, true)).toMatchObject({ kind: 'extra', dn: entry.dn });
    const other = account('user0', first, { mail: 'x@isp.example', dn: 'uid=x,cn=isp.example,o=mail' });
    const found = compareEntry(first, entry, other, true);
    expect(found?.kind).toBe('different');
    expect(found?.what).toEqual(expect.arrayContaining(['dn', 'mail']));
  });

  it('beyond what is listed are counted, and the report says that its list is cut', () => {
    const findings = new Findings(2);
    for (const uuid of [first, first, second]) findings.add({ uuid, dn: uuid, kind: 'missing', what: [] });
    expect(findings.report('ldap-eu', 500)).toMatchObject({ differing: 2, extra: 0, isCut: false });
    findings.add({ uuid: third, dn: 'uid=c', kind: 'extra', what: [] });
    const report = findings.report('ldap-eu', 500);
    expect(report).toMatchObject({ differing: 3, extra: 1, isCut: true });
    expect(report.differences).toHaveLength(2);
    expect(describeReport(report)).toContain('3 of 500 entries differ');
  });
});
