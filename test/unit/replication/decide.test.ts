import { describe, expect, it } from 'vitest';
import { attribute } from '#protocol/ldap/messages.ts';
import { decide, type EntryImage, type Step } from '#replication/decide.ts';
import { entryDigest } from '#replication/digest.ts';

const stamps = ['entryCSN=2', 'modifyTimestamp=2', 'modifiersName=cn=a'];

function entry(dn: string, ...pairs: readonly string[]): EntryImage {
  const byType = new Map<string, string[]>();
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    const type = pair.slice(0, at);
    byType.set(type, [...(byType.get(type) ?? []), pair.slice(at + 1)]);
  }
  return { dn, attributes: [...byType].map(([type, values]) => attribute(type, ...values)) };
}

/** A step on one line. */
function line(step: Step): string {
  if (step.kind === 'add') return `add ${step.dn} ${step.attributes.map((one) => one.type).join(' ')}`;
  if (step.kind === 'rename') {
    return `rename ${step.dn} to ${step.newRdn}${step.newSuperior === undefined ? '' : ` below ${step.newSuperior}`}${step.deleteOldRdn ? '' : ' keeping the old'}`;
  }
  return `modify ${step.dn} ${step.changes.map((change) => `${change.attribute.type}=${change.attribute.values.map(String).join('+')}`).join(' ')}`;
}

const written = 'entryCSN=2 modifyTimestamp=2 modifiersName=cn=a';

describe('deciding what a replica needs', () => {
  const cases: readonly [string, EntryImage, EntryImage | undefined, readonly string[]][] = [
    [
      'an entry that is not there is added',
      entry('uid=a,o=mail', 'uid=a', 'structuralObjectClass=x', ...stamps),
      undefined,
      ['add uid=a,o=mail uid entryCSN modifyTimestamp modifiersName'],
    ],
    ['an equal entry needs nothing', entry('uid=a,o=mail', 'uid=a', ...stamps), entry('UID=a,O=Mail', 'uid=a', ...stamps), []],
    [
      'the order of values does not count',
      entry('uid=a,o=mail', 'mail=x', 'mail=y', ...stamps),
      entry('uid=a,o=mail', 'mail=y', 'mail=x', ...stamps),
      [],
    ],
    [
      'changed values are replaced as a whole, with the stamps',
      entry('uid=a,o=mail', 'mail=x', 'mail=z', ...stamps),
      entry('uid=a,o=mail', 'mail=x', 'mail=y', 'entryCSN=1', 'modifyTimestamp=2', 'modifiersName=cn=a'),
      [`modify uid=a,o=mail mail=x+z ${written}`],
    ],
    [
      'an attribute that is gone at the master is removed',
      entry('uid=a,o=mail', ...stamps),
      entry('uid=a,o=mail', 'mail=x', ...stamps),
      [`modify uid=a,o=mail mail= ${written}`],
    ],
    [
      'another name is a rename, and the naming attribute needs no further write',
      entry('uid=b,o=mail', 'uid=b', ...stamps),
      entry('uid=a,o=mail', 'uid=a', ...stamps),
      ['rename uid=a,o=mail to uid=b', `modify uid=b,o=mail ${written}`],
    ],
    [
      'another domain is a rename with a new superior',
      entry('uid=a,cn=y,o=mail', 'uid=a', ...stamps),
      entry('uid=a,cn=x,o=mail', 'uid=a', ...stamps),
      ['rename uid=a,cn=x,o=mail to uid=a below cn=y,o=mail keeping the old', `modify uid=a,cn=y,o=mail ${written}`],
    ],
    [
      'a rename that kept the old name as a value keeps it here too',
      entry('uid=b,o=mail', 'uid=a', 'uid=b', ...stamps),
      entry('uid=a,o=mail', 'uid=a', ...stamps),
      ['rename uid=a,o=mail to uid=b keeping the old', `modify uid=b,o=mail ${written}`],
    ],
    [
      'another spelling of the name is a rename',
      entry('uid=Alice,o=mail', 'uid=Alice', ...stamps),
      entry('uid=alice,o=mail', 'uid=alice', ...stamps),
      ['rename uid=alice,o=mail to uid=Alice keeping the old', `modify uid=Alice,o=mail uid=Alice ${written}`],
    ],
    [
      'a displaced entry gets its name back',
      entry('uid=b,o=mail', 'uid=b', ...stamps),
      entry('uid=displaced-7,o=mail', 'uid=displaced-7', ...stamps),
      ['rename uid=displaced-7,o=mail to uid=b', `modify uid=b,o=mail ${written}`],
    ],
  ];

  it.each(cases)('%s', (_name, master, replica, expected) => {
    expect(decide(master, replica, true).map(line)).toEqual(expected);
  });

  it('finds nothing to do where a server spells names and object classes its own way, and writes what is another value', () => {
    const group = (objectClass: string, member: string, dn = 'cn=g+ou=x,o=mail'): EntryImage =>
      entry(dn, `objectClass=${objectClass}`, `member=${member}`, 'description=Text');
    const master = group('TOP', 'UID=alice , cn=Isp,o=mail', 'ou=x+cn=g,o=mail');
    expect(decide(master, group('top', 'uid=alice,cn=Isp,o=mail'), true)).toEqual([]);
    expect(entryDigest('', group('top', 'uid=alice,cn=Isp,o=mail'), true)).toEqual(entryDigest('', master, true));
    for (const other of [
      group('person', 'uid=alice,cn=Isp,o=mail'),
      group('top', 'uid=alice,cn=isp,o=mail'),
      group('top', 'uid=alicia,cn=Isp,o=mail'),
      group('top', 'uid=alice,cn=Isp,o=mail', 'cn=g+ou=y,o=mail'),
    ]) {
      expect(decide(master, other, true)).not.toEqual([]);
      expect(entryDigest('', other, true)).not.toEqual(entryDigest('', master, true));
    }
  });

  it('leaves entryCSN alone where the server keeps its own', () => {
    const steps = decide(entry('uid=a,o=mail', 'mail=x', ...stamps), entry('uid=a,o=mail', 'mail=y', 'entryCSN=9'), false);
    expect(steps.map(line)).toEqual(['modify uid=a,o=mail mail=x modifyTimestamp=2 modifiersName=cn=a']);
    expect(decide(entry('uid=a,o=mail', 'entryCSN=1'), entry('uid=a,o=mail', 'entryCSN=9'), false)).toEqual([]);
  });
});
