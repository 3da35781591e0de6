import { describe, expect, test } from 'vitest';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { compileFilter } from '#directory/server/filter-match.ts';
import { compileSelection } from '#directory/server/selection.ts';
import { filterFromText } from '#protocol/ldap/filter.ts';
import { attribute } from '#protocol/ldap/messages.ts';

const schema = createMailSchema([
  {
    path: 'test.ldif',
    text: [
      "attributeTypes: ( 1.3.6.1.4.1.99999.7.1 NAME 'exact' EQUALITY caseExactMatch ORDERING caseExactOrderingMatch SUBSTR caseExactSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )",
      "attributeTypes: ( 1.3.6.1.4.1.99999.7.2 NAME 'whenSeen' EQUALITY generalizedTimeMatch ORDERING generalizedTimeOrderingMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.24 )",
      "attributeTypes: ( 1.3.6.1.4.1.99999.7.3 NAME 'isOpen' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 )",
      "attributeTypes: ( 1.3.6.1.4.1.99999.7.4 NAME 'aboutClass' EQUALITY objectIdentifierMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.38 )",
      "attributeTypes: ( 1.3.6.1.4.1.99999.7.5 NAME 'plain' SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )",
    ].join('\n'),
  },
]);

const yes = true;
const no = false;
const undecided = undefined;

/** RFC 4511 §4.5.1.7 and RFC 4517: what one value makes of one filter. */
const cases: readonly [type: string, value: string, filter: string, expected: boolean | undefined][] = [
  // caseIgnoreMatch with string preparation (RFC 4518).
  ['cn', 'Alice Ångström', '(cn=alice  ångström)', yes],
  ['cn', 'Alice A\u030angstro\u0308m', '(cn=ALICE ÅNGSTRÖM)', yes],
  ['cn', ' Alice ', '(cn=alice)', yes],
  ['cn', 'A\u00adli\u200bce', '(cn=alice)', yes],
  ['cn', 'A\u00a0B', '(cn=a b)', yes],
  ['cn', 'Straße', '(cn=STRASSE)', no],
  ['cn', 'ﬁrm', '(cn=firm)', yes],
  ['cn', 'Ⅻ', '(cn=xii)', yes],
  ['cn', 'Σίσυφος', '(cn=ΣΊΣΥΦΟΣ)', yes],
  ['cn', 'a b', '(cn=ab)', no],
  ['cn', '', '(cn= )', yes],
  ['cn', 'Alice', '(cn~=alice)', yes],
  ['cn', 'Alice', '(cn>=alic)', undecided],
  ['exact', 'Alice', '(exact=Alice)', yes],
  ['exact', 'Alice', '(exact=alice)', no],
  ['exact', 'Alice  B', '(exact=Alice B)', yes],
  ['exact', 'b', '(exact>=a)', yes],
  ['exact', 'b', '(exact<=a)', no],
  // Substrings: pieces in order, each behind the one before, spaces at cuts.
  ['cn', 'Alice Smith', '(cn=al*)', yes],
  ['cn', 'Alice Smith', '(cn=*SMITH)', yes],
  ['cn', 'Alice Smith', '(cn=a*e*m*h)', yes],
  ['cn', 'Alice Smith', '(cn=a*h*m)', no],
  ['cn', 'Alice Smith', '(cn=alice *)', yes],
  ['cn', 'Alice Smith', '(cn=alice*smith)', yes],
  ['cn', 'AliceSmith', '(cn=alice *)', no],
  ['cn', 'aa', '(cn=aa*a)', no],
  ['cn', 'aba', '(cn=ab*ba)', no],
  ['cn', 'a*b', '(cn=a\\2ab)', yes],
  ['cn', 'axb', '(cn=a\\2ab)', no],
  ['exact', 'Alice', '(exact=al*)', no],
  // IA5 and telephone numbers.
  ['mail', 'A.B@Example.COM', '(mail=a.b@example.com)', yes],
  ['mail', 'a@b.c', '(mail=*@B.C)', yes],
  ['telephoneNumber', '+49 30-12 34', '(telephoneNumber=+49301234)', yes],
  ['telephoneNumber', '+49 30 1234', '(telephoneNumber=*30-12*)', yes],
  // Integers of any size.
  ['mailQuota', '7', '(mailQuota=007)', yes],
  ['mailQuota', '-0', '(mailQuota=0)', yes],
  ['mailQuota', '10', '(mailQuota>=9)', yes],
  ['mailQuota', '-10', '(mailQuota>=-9)', no],
  ['mailQuota', '-10', '(mailQuota<=-9)', yes],
  ['mailQuota', '-1', '(mailQuota<=0)', yes],
  ['mailQuota', '18446744073709551616', '(mailQuota>=18446744073709551615)', yes],
  ['mailQuota', '7', '(mailQuota=seven)', undecided],
  ['mailQuota', '7', '(mailQuota=7*)', undecided],
  // Times in any zone and precision.
  ['whenSeen', '20261122120000Z', '(whenSeen=20261122130000+0100)', yes],
  ['whenSeen', '20261122120000Z', '(whenSeen=202611221200Z)', yes],
  ['whenSeen', '20261122120000.5Z', '(whenSeen=20261122120000,500Z)', yes],
  ['whenSeen', '20261122123000Z', '(whenSeen=2026112212.5Z)', yes],
  ['whenSeen', '20261122120000.001Z', '(whenSeen>=20261122120000Z)', yes],
  ['whenSeen', '20261122120000Z', '(whenSeen<=20261122115959Z)', no],
  ['whenSeen', '20261122120000Z', '(whenSeen=yesterday)', undecided],
  ['isOpen', 'TRUE', '(isOpen=true)', yes],
  ['isOpen', 'TRUE', '(isOpen=1)', undecided],
  // Names, identifiers, UUIDs.
  ['member', 'UID=Alice, CN=isp.example,O=mail', '(member=uid=alice,commonName=ISP.example,o=Mail)', yes],
  ['member', 'cn=a\\,b,o=mail', '(member=cn=a\\5c2cb,o=mail)', yes],
  ['member', 'cn=a+uid=b,o=mail', '(member=uid=B+cn=A,o=mail)', yes],
  ['member', 'cn=a,o=mail', '(member=not a name)', undecided],
  ['uniqueMember', "cn=a,o=mail#'01'B", "(uniqueMember=CN=A,o=mail#'01'B)", yes],
  ['uniqueMember', "cn=a,o=mail#'01'B", '(uniqueMember=cn=a,o=mail)', no],
  ['aboutClass', 'mailAccount', '(aboutClass=2.25.11233386167282336856843219451289651251.2.1)', yes],
  ['aboutClass', 'surname', '(aboutClass=SN)', yes],
  ['objectClass', 'inetOrgPerson', '(objectClass=person)', yes],
  ['objectClass', 'inetOrgPerson', '(objectClass=2.5.6.6)', yes],
  ['objectClass', 'person', '(objectClass=inetOrgPerson)', no],
  ['objectClass', 'person', '(objectClass=noSuchClass)', undecided],
  ['entryUUID', '597ae2f6-16a6-1027-98f4-abcdefabcdef', '(entryUUID=597AE2F6-16A6-1027-98F4-ABCDEFABCDEF)', yes],
  ['entryUUID', '597ae2f6-16a6-1027-98f4-abcdefabcdef', '(entryUUID=597ae2f6)', undecided],
  // Types, their subtypes, names and options.
  ['sn', 'Smith', '(name=smith)', yes],
  ['sn', 'Smith', '(2.5.4.4=smith)', yes],
  ['sn', 'Smith', '(surname=*)', yes],
  ['cn;lang-de', 'Anna', '(cn=anna)', yes],
  ['cn;lang-de', 'Anna', '(cn;lang-de=anna)', yes],
  ['cn;lang-de', 'Anna', '(cn;lang-en=anna)', no],
  ['plain', 'x', '(plain=x)', undecided],
  ['plain', 'x', '(plain=*)', yes],
  ['cn', 'x', '(noSuchType=x)', undecided],
  // Three values (RFC 4511 §4.5.1.7), and absolute true and false (RFC 4526).
  ['cn', 'x', '(!(noSuchType=x))', undecided],
  ['cn', 'x', '(&(cn=x)(noSuchType=x))', undecided],
  ['cn', 'x', '(&(cn=y)(noSuchType=x))', no],
  ['cn', 'x', '(|(cn=x)(noSuchType=x))', yes],
  ['cn', 'x', '(|(cn=y)(noSuchType=x))', undecided],
  ['cn', 'x', '(&)', yes],
  ['cn', 'x', '(|)', no],
  ['cn', 'x', '(!(&))', no],
  // Extensible matches (RFC 4515 §3).
  ['cn', 'Alice', '(cn:=alice)', yes],
  ['cn', 'Alice', '(cn:caseExactMatch:=alice)', no],
  ['cn', 'Alice', '(cn:2.5.13.5:=Alice)', yes],
  ['cn', 'Alice', '(:caseIgnoreMatch:=ALICE)', yes],
  ['cn', 'Alice', '(cn:noSuchMatch:=alice)', undecided],
  ['cn', 'Alice', '(cn:caseIgnoreSubstringsMatch:=al\\2a)', undecided],
  ['mailQuota', '7', '(mailQuota:integerOrderingMatch:=8)', yes],
  ['mailQuota', '7', '(mailQuota:integerOrderingMatch:=7)', no],
  ['cn', 'Alice', '(ou:dn:=people)', yes],
  ['cn', 'Alice', '(ou:=people)', no],
  ['cn', 'Alice', '(:dn:caseIgnoreMatch:=PEOPLE)', yes],
  ['cn', 'Alice', '(ou:dn:caseExactMatch:=people)', no],
  ['cn', 'Alice', '(name:dn:=mail)', yes],
  ['cn', 'Alice', '(uid:dn:=people)', no],
];

describe('a filter', () => {
  test.each(cases)('%s: %j against %s', (type, value, filter, expected) => {
    const matches = compileFilter(schema, filterFromText(filter), () => true);
    const attributes = [attribute(schema.description(type)?.canonical ?? type, value), attribute('entryDN', 'cn=a,ou=People,o=mail')];
    expect(matches(attributes)).toBe(expected);
  });
});

/** RFC 4511 §4.5.1.8, RFC 3673, RFC 4529. */
describe('a selection', () => {
  const entry = [
    attribute('objectClass', 'inetOrgPerson'),
    attribute('cn', 'a'),
    attribute('sn', 'b'),
    attribute('cn;lang-de', 'c'),
    attribute('mailQuota', '7'),
    attribute('entryCSN', 'x'),
    attribute('createTimestamp', 'y'),
  ];
  const selections: readonly [requested: string[], expected: string][] = [
    [[], 'objectClass cn sn cn;lang-de mailQuota'],
    [['*'], 'objectClass cn sn cn;lang-de mailQuota'],
    [['+'], 'entryCSN createTimestamp'],
    [['*', '+'], 'objectClass cn sn cn;lang-de mailQuota entryCSN createTimestamp'],
    [['1.1'], ''],
    [['1.1', 'cn'], 'cn cn;lang-de'],
    [['CN'], 'cn cn;lang-de'],
    [['2.5.4.3'], 'cn cn;lang-de'],
    [['name'], 'cn sn cn;lang-de'],
    [['cn;lang-de'], 'cn;lang-de'],
    [['cn;lang-en'], ''],
    [['@person'], 'objectClass cn sn cn;lang-de'],
    [['@2.25.11233386167282336856843219451289651251.2.1'], 'objectClass mailQuota'],
    [['@noSuchClass'], ''],
    [['noSuchType'], ''],
    [['entryCSN', 'sn'], 'sn entryCSN'],
  ];
  test.each(selections)('%j', (requested, expected) => {
    const selected = compileSelection(schema, requested, false, () => true).select(entry);
    expect(selected.map(({ type }) => type).join(' ')).toBe(expected);
    const types = compileSelection(schema, requested, true, () => true).select(entry);
    expect(types.every(({ values }) => values.length === 0)).toBe(true);
  });
});
