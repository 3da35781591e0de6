import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatLdifEntry, type LdifMistake, LdifReader, type LdifRecord } from '#protocol/ldap/ldif.ts';
import { attribute as attributeOf } from '#protocol/ldap/messages.ts';
import { parseLdapUrl } from '#protocol/ldap/url.ts';
import { bytes, text } from './arbitraries.ts';

function read(chunks: readonly Buffer[]): { records: LdifRecord[]; mistakes: LdifMistake[] } {
  const records: LdifRecord[] = [];
  const mistakes: LdifMistake[] = [];
  const reader = new LdifReader({ onRecord: (one) => records.push(one), onMistake: (one) => mistakes.push(one) });
  for (const chunk of chunks) reader.push(chunk);
  reader.end();
  return { records, mistakes };
}

describe('LDIF', () => {
  it('reads records of every kind', () => {
    const { records, mistakes } = read([
      Buffer.from(`version: 1
# a comment
 that goes on
dn: cn=Barbara Jensen,o=mail
objectClass: top
objectClass: person
cn: Barbara
  Jensen
description:: V2hhdCBhIGNhcmVmdWwgcmVhZGVyIHlvdSBhcmUh
title:

dn:: dWlkPcOpLG89bWFpbA==
changetype: add
uid: x

dn: uid=a,o=mail
changetype: delete

dn: uid=a,o=mail
changetype: modrdn
newrdn: uid=b
deleteoldrdn: 0
newsuperior: cn=x,o=mail

dn: uid=a,o=mail
control: 1.2.3 true
changetype: modify
add: mail
mail: one@isp.example
mail: two@isp.example
-
delete: cn
-
replace: sn
sn: New
-
`),
    ]);
    expect(mistakes).toEqual([]);
    expect(records).toEqual([
      {
        line: 4,
        dn: 'cn=Barbara Jensen,o=mail',
        change: 'entry',
        attributes: [
          attributeOf('objectClass', 'top', 'person'),
          attributeOf('cn', 'Barbara Jensen'),
          attributeOf('description', 'What a careful reader you are!'),
          attributeOf('title', ''),
        ],
      },
      { line: 12, dn: 'uid=é,o=mail', change: 'add', attributes: [attributeOf('uid', 'x')] },
      { line: 16, dn: 'uid=a,o=mail', change: 'delete' },
      { line: 19, dn: 'uid=a,o=mail', change: 'modrdn', newRdn: 'uid=b', deleteOldRdn: false, newSuperior: 'cn=x,o=mail' },
      {
        line: 25,
        dn: 'uid=a,o=mail',
        change: 'modify',
        changes: [
          { kind: 'add', attribute: attributeOf('mail', 'one@isp.example', 'two@isp.example') },
          { kind: 'delete', attribute: attributeOf('cn') },
          { kind: 'replace', attribute: attributeOf('sn', 'New') },
        ],
      },
    ]);
  });

  it.each([
    ['no dn first', 'cn: a\n', 1],
    ['a line that is none', 'dn: cn=a\nwhat is this\n', 2],
    ['a value that is no base64', 'dn: cn=a\ncn:: !!!\n', 2],
    ['a value in a file', 'dn: cn=a\njpegPhoto:< file:///etc/passwd\n', 2],
    ['an unknown changetype', 'dn: cn=a\nchangetype: explode\n', 2],
    ['a value of another attribute in a change', 'dn: cn=a\nchangetype: modify\nadd: mail\ncn: x\n', 4],
    ['a continuation of nothing', ' cn: a\n', 1],
  ])('reports %s with its line and goes on', (_what, ldif, line) => {
    const { records, mistakes } = read([Buffer.from(`${ldif}\ndn: cn=next,o=mail\ncn: next\n`)]);
    expect(mistakes.map((one) => one.line)).toEqual([line]);
    expect(records.map((one) => one.dn)).toEqual(['cn=next,o=mail']);
  });

  it('gives back what it writes, however it is split', () => {
    const entry = fc.record({ dn: text, values: fc.array(bytes, { minLength: 1, maxLength: 4 }) });
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 3 }), fc.integer({ min: 1, max: 50 }), (entries, size) => {
        const ldif = Buffer.from(
          entries.map((one) => formatLdifEntry({ dn: one.dn, attributes: [{ type: 'cn', values: one.values }] })).join(''),
        );
        const chunks = Array.from({ length: Math.ceil(ldif.length / size) }, (_, i) =>
          Buffer.from(ldif.subarray(i * size, (i + 1) * size)),
        );
        const { records, mistakes } = read(chunks);
        expect(mistakes).toEqual([]);
        expect(records.map((one) => (one.change === 'entry' ? { dn: one.dn, values: one.attributes[0]?.values } : one))).toEqual(entries);
      }),
    );
  });
});

describe('LDAP URLs', () => {
  it.each([
    ['ldap://127.0.0.1:3890', { scheme: 'ldap', host: '127.0.0.1', port: 3890, dn: '' }],
    ['LDAPS://ldap.isp.example', { scheme: 'ldaps', host: 'ldap.isp.example', port: 636 }],
    ['ldap://[::1]:389/', { host: '::1', port: 389 }],
    ['ldap:///o=University%20of%20Michigan,c=US?postalAddress?sub?(cn=a)', { host: '', dn: 'o=University of Michigan,c=US', scope: 'sub' }],
  ])('parses %s', (url, expected) => {
    expect(parseLdapUrl(url)).toMatchObject(expected);
  });

  it.each(['http://x', 'ldap:/x', 'ldap://x:99999', 'ldap://x/o=a?cn?deep', 'ldap://x/o=a???(cn'])('refuses %s', (url) => {
    expect(parseLdapUrl(url)).toBeUndefined();
  });
});
