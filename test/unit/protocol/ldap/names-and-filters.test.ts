import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatDn, isWithin, normalizeDnText, parseDn, parseRdn, splitDn } from '#protocol/ldap/dn.ts';
import { filterFromText, formatFilter, parseFilter } from '#protocol/ldap/filter.ts';
import { filter } from './arbitraries.ts';

describe('distinguished names', () => {
  // The examples of RFC 4514 §4 and the names that ldapjs gets wrong.
  it.each([
    ['UID=jsmith,DC=example,DC=net', [[['UID', 'jsmith']], [['DC', 'example']], [['DC', 'net']]]],
    [
      'OU=Sales+CN=J.  Smith,DC=example,DC=net',
      [
        [
          ['OU', 'Sales'],
          ['CN', 'J.  Smith'],
        ],
        [['DC', 'example']],
        [['DC', 'net']],
      ],
    ],
    ['CN=James \\"Jim\\" Smith\\, III,DC=net', [[['CN', 'James "Jim" Smith, III']], [['DC', 'net']]]],
    ['CN=Before\\0dAfter,DC=net', [[['CN', 'Before\rAfter']], [['DC', 'net']]]],
    ['1.3.6.1.4.1.1466.0=#04024869', [[['1.3.6.1.4.1.1466.0', 'Hi']]]],
    ['CN=Lu\\C4\\8Di\\C4\\87', [[['CN', 'Lučić']]]],
    ['cn=\\ lead\\20', [[['cn', ' lead ']]]],
    ['cn=a\\\\b', [[['cn', 'a\\b']]]],
    ['uid=a\\=b\\+c', [[['uid', 'a=b+c']]]],
    ['uid=a=b,o=mail', [[['uid', 'a=b']], [['o', 'mail']]]],
    ['uid = alice , o = mail', [[['uid', 'alice']], [['o', 'mail']]]],
    ['', []],
  ])('parses %s', (text, expected) => {
    expect(parseDn(text)?.map((rdn) => rdn.map((ava) => [ava.type, ava.value]))).toEqual(expected);
  });

  it.each([
    'alice',
    'uid=a,',
    'uid=a,,o=mail',
    'uid=a"b',
    'uid=a;o=mail',
    'uid=\\zz',
    'uid=\\ff',
    'u id=a',
    'uid=a\\',
    `cn=${'x'.repeat(9000)}`,
  ])('refuses %s', (text) => {
    expect(parseDn(text)).toBeUndefined();
  });

  it('formats every name so that it parses to the same', () => {
    const value = fc.string({ unit: 'grapheme', maxLength: 20 });
    const rdn = fc.array(fc.record({ type: fc.constantFrom('cn', 'uid', '2.5.4.3'), value }), { minLength: 1, maxLength: 2 });
    fc.assert(
      fc.property(fc.array(rdn, { maxLength: 4 }), (dn) => {
        expect(parseDn(formatDn(dn))).toEqual(dn);
      }),
    );
  });

  it('never throws on arbitrary text', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 60, unit: fc.constantFrom('a', '=', ',', '+', '\\', ' ', '#', '4', '"', 'é') }), (text) => {
        parseDn(text);
        splitDn(text);
        parseFilter(text);
      }),
    );
  });

  it.each([
    ['UID=Alice , CN=ISP.Example,O=Mail', 'uid=alice,cn=isp.example,o=mail'],
    ['cn=b+uid=A,o=mail', 'UID=a+CN=B,o=mail'],
    ['2.5.4.3=x,o=mail', 'commonName=X,o=mail'],
    ['cn=a  b,o=mail', 'cn=A B,o=mail'],
  ])('takes %s and %s for one name', (one, other) => {
    expect(normalizeDnText(one)).toBe(normalizeDnText(other));
  });

  it('knows what is below a base and what only looks like it', () => {
    expect(isWithin('uid=a,o=mail', 'o=mail')).toBe(true);
    expect(isWithin('o=mail', 'o=mail')).toBe(true);
    expect(isWithin('uid=a\\,o=mail', 'o=mail')).toBe(false);
    expect(isWithin('uid=a,oo=mail', 'o=mail')).toBe(false);
    expect(isWithin('anything=x', '')).toBe(true);
  });

  it('splits off the first RDN and keeps the spelling', () => {
    expect(splitDn('UID=a\\,b, CN=x,o=Mail')).toEqual({ rdn: 'UID=a\\,b', parent: 'CN=x,o=Mail' });
    expect(splitDn('o=mail')).toEqual({ rdn: 'o=mail', parent: '' });
    // RFC 4514 §2.4: an escaped space belongs to the value, one after an escaped backslash does not.
    expect(splitDn('uid=a\\  ,o=mail')).toEqual({ rdn: 'uid=a\\ ', parent: 'o=mail' });
    expect(splitDn('uid=a\\\\ ,o=mail')).toEqual({ rdn: 'uid=a\\\\', parent: 'o=mail' });
    expect(parseRdn('uid=a,o=mail')).toBeUndefined();
  });
});

describe('filters', () => {
  it.each([
    '(cn=Babs Jensen)',
    '(!(cn=Tim Howes))',
    '(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))',
    '(o=univ*of*mich*)',
    '(seeAlso=)',
    '(cn:caseExactMatch:=Fred Flintstone)',
    '(cn:=Betty Rubble)',
    '(sn:dn:2.4.6.8.10:=Barney Rubble)',
    '(o:dn:=Ace Industry)',
    '(:1.2.3:=Wilma Flintstone)',
    '(:dn:2.4.6.8.10:=Dino)',
    '(o=Parens R Us \\28for all your parenthetical needs\\29)',
    '(cn=*\\2a*)',
    '(filename=C:\\5cMyFile)',
    '(bin=\\00\\00\\00\\04)',
    '(sn=Lu\\c4\\8di\\c4\\87)',
    '(&)',
    '(|)',
    '(cn;lang-en=x)',
    '(mail=*)',
    '(quota>=5)',
    '(quota<=5)',
    '(cn~=x)',
    '(a=b=c)',
  ])('writes %s as it was read', (text) => {
    expect(formatFilter(filterFromText(text))).toBe(text);
  });

  it('decodes escapes into octets', () => {
    expect(filterFromText('(cn=star\\2a\\c3\\a9)')).toEqual({ kind: 'equal', attribute: 'cn', value: Buffer.from('star*é') });
    expect(filterFromText('(cn=é)')).toEqual({ kind: 'equal', attribute: 'cn', value: Buffer.from('é') });
  });

  it.each([
    '',
    'cn=a',
    '(cn=a',
    '(cn=a))',
    '(cn)',
    '(=a)',
    '(c n=a)',
    '(cn=a\\2)',
    '(cn=a(b)',
    '(cn=a**b)',
    '(:=x)',
    '(!)',
    '(a:b:c:=x)',
    '()',
  ])('refuses %j and says where', (text) => {
    expect(parseFilter(text)).toMatchObject({ outcome: 'malformed', position: expect.any(Number) });
  });

  it('refuses nesting beyond the limit', () => {
    expect(parseFilter(`${'(!'.repeat(100)}(a=b)${')'.repeat(100)}`).outcome).toBe('malformed');
    expect(parseFilter(`${'(!'.repeat(100_000)}`).outcome).toBe('malformed');
  });

  it('gives every tree back from its text', () => {
    fc.assert(
      fc.property(filter, (tree) => {
        expect(filterFromText(formatFilter(tree))).toEqual(tree);
      }),
    );
  });
});
