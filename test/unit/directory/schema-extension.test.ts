import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { verifyDatabase } from '#directory/store/integrity.ts';
import { databaseFile, entryFunctions } from '#directory/tools/offline.ts';
import { attribute, textsOf } from '#protocol/ldap/messages.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory } from './test-directory.ts';

const olc = `# what an operator adds
dn: cn=isp,cn=schema,cn=config
objectClass: olcSchemaConfig
cn: isp
olcObjectIdentifier: isp 1.3.6.1.4.1.99999
olcObjectIdentifier: {1}ispAttribute isp:1
olcAttributeTypes: {0}( ispAttribute:1 NAME ( 'tariff' 'ispTariff' ) DESC 'What
  is paid' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGL
 E-VALUE )
olcAttributeTypes: {1}( ispAttribute:2 NAME 'boughtBy' SUP distinguishedName )
olcObjectClasses: {0}( isp:2.1 NAME 'ispCustomer' SUP top AUXILIARY MUST tariff MAY boughtBy )
`;
const ldif389 = `dn: cn=schema
objectClasses: ( 1.3.6.1.4.1.99999.2.1 NAME 'ispCustomer' SUP top AUXILIARY MUST tariff X-ORIGIN ( 'isp' 'user defined' ) )
`;
const conf = `# as slapd.conf includes it
objectidentifier isp 1.3.6.1.4.1.99999
attributetype ( isp:1.1 NAME 'tariff'
\tDESC 'What is paid'
# in between
\tEQUALITY caseIgnoreMatch
\tSYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )

objectclass ( isp:2.1 NAME 'ispCustomer'
  SUP top AUXILIARY
  MUST tariff )
`;
const file = (text: string, path = 'isp.ldif') => ({ path, text });

describe('schema files', () => {
  test.each([
    ['OpenLDAP’s cn=config', [file(olc)]],
    ['OpenLDAP’s .schema', [file(conf, 'isp.schema')]],
    ['several', [file(conf.slice(0, conf.indexOf('objectclass')), 'a.schema'), file(ldif389, 'b.ldif')]],
    ['twice the same', [file(olc), file(olc)]],
    ['with Windows’ line ends', [file(olc.replaceAll('\n', '\r\n'))]],
  ])('%s', (_form, files) => {
    const schema = createMailSchema(files);
    expect(schema.attributeType('tariff')?.oid).toBe('1.3.6.1.4.1.99999.1.1');
    expect([...(schema.objectClass('1.3.6.1.4.1.99999.2.1')?.must ?? [])].sort()).toEqual(['objectclass', 'tariff']);
    expect(schema.extension).toContain('object class ispCustomer');
  });

  test.each([
    ['', /isp\.ldif:1: the file defines nothing/],
    ["dn: cn=x\n\nattributeTypes: ( 1.2.3 NAME 'x'\n", /isp\.ldif:3: .*parentheses/],
    ["\nattributeTypes: ( 1.2.3 NAME 'x' SYNTAX 1.2.3.4 )\n", /isp\.ldif:2: attribute type x: no syntax 1\.2\.3\.4/],
    [
      "attributeTypes: ( 1.2.3 NAME 'x' EQUALITY noMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )",
      /:1: attribute type x: no matching rule noMatch/,
    ],
    ["attributeTypes: ( 1.2.3 NAME 'x' SUP y )", /:1: x refers to attribute type y, which is not defined before/],
    ["attributeTypes: ( 1.2.3 NAME 'mail' SUP name )", /:1: mail belongs to attribute type mail \(0\.9\.2342/],
    ["attributeTypes: ( 2.5.4.3 NAME 'other' SUP name )", /:1: 2\.5\.4\.3 belongs to attribute type cn/],
    ["objectClasses: ( 1.2.3 NAME 'x' SUP nothing MUST cn )", /:1: x refers to object class nothing/],
    ["objectClasses: ( 1.2.3 NAME 'x' MUST nothing )", /:1: x refers to attribute type nothing/],
    ["olcObjectClasses: ( isp:3 NAME 'x' MUST cn )", /:1: the object identifier isp is not defined before/],
    ["ldapSyntaxes: ( 1.2.3 DESC 'x' )", /:1: syntaxes cannot be defined/],
    [
      "something else\nattributeTypes: ( 1.2.3 NAME 'x' SUP y )",
      /2 mistake\(s\):\nisp\.ldif:1: "something else" is neither.*\nisp\.ldif:2: /,
    ],
    ['x'.repeat(4_194_305), /:1: the file has 4194305 characters/],
  ])('mistakes are told with their line: %#', (text, expected) => {
    expect(() => createMailSchema([file(text)])).toThrow(expected);
  });

  test('those of OpenLDAP are taken', () => {
    const names = ['core', 'cosine', 'inetorgperson', 'nis', 'misc', 'openldap', 'dyngroup', 'java', 'duaconf'];
    const path = (name: string): string => `/etc/ldap/schema/${name}.ldif`;
    if (!existsSync(path('core'))) throw new Error('/etc/ldap/schema is missing: install slapd (apt-get install slapd)');
    const schema = createMailSchema(names.map((name) => ({ path: path(name), text: readFileSync(path(name), 'utf8') })));
    expect([...(schema.objectClass('posixAccount')?.must ?? [])]).toContain('uidnumber');
    // Our own definitions, as they are shipped for OpenLDAP, are there already.
    const own = readFileSync(new URL('../../../deploy/openldap/archipelago.ldif', import.meta.url), 'utf8');
    expect(createMailSchema([file(own)]).extension).toEqual([]);
  });
});

test('a server enforces and publishes what files add, and a master does not open a tree that uses what is gone', async () => {
  await using directory = await startTestDirectory({ schemaFiles: ['/dev/null'] }).catch(async (error: unknown) => {
    expect(String(error)).toContain('/dev/null:1: the file defines nothing');
    const { path } = await writtenSchema();
    return startTestDirectory({ schemaFiles: [path] });
  });
  const customer = (uid: string, ...tariffs: string[]) => [
    ...accountEntry(uid).filter(({ type }) => type !== 'objectClass'),
    attribute('objectClass', 'inetOrgPerson', 'mailAccount', 'ispCustomer'),
    ...(tariffs.length === 0 ? [] : [attribute('tariff', ...tariffs)]),
  ];
  {
    await using admin = await directory.connect();
    await addFrame(admin);
    await admin.add(accountDn('alice'), customer('alice', 'Flat'));
    const outcome = (work: Promise<unknown>) => work.then(() => 0, resultCodeOf);
    expect(await outcome(admin.add(accountDn('bob'), customer('bob')))).toBe(65);
    expect(await outcome(admin.add(accountDn('bob'), customer('bob', 'a', 'b')))).toBe(19);
    expect(await outcome(admin.modify(accountDn('alice'), [{ kind: 'add', attribute: attribute('boughtBy', 'nobody') }]))).toBe(21);
    const subschema = await admin.readEntry('cn=Subschema', ['attributeTypes', 'objectClasses']);
    expect(textsOf(subschema?.attributes ?? [], 'attributeTypes').some((text) => text.startsWith('( 1.3.6.1.4.1.99999.1.1 NAME'))).toBe(
      true,
    );
    expect(textsOf(subschema?.attributes ?? [], 'objectClasses').some((text) => text.includes("'ispCustomer'"))).toBe(true);
  }
  await directory.stop();
  await expect(startTestDirectory({ dataDirectory: join(directory.folder, 'data') })).rejects.toThrow(
    /the schema lacks what entries use: .*(?:attribute tariff|object class ispCustomer) \(in uid=alice,cn=isp\.example,o=mail\).*schemaFiles/,
  );
  const problems: string[] = [];
  const handlers = { problem: (text: string) => problems.push(text), progress: () => {} };
  verifyDatabase(join(directory.folder, 'data', databaseFile), entryFunctions(), handlers);
  expect(problems.some((text) => /uid=alice\) uses attribute tariff, which the schema does not define/.test(text))).toBe(true);
  await directory.restart();
  {
    await using admin = await directory.connect();
    await admin.delete(accountDn('alice'));
  }
  await directory.stop();
  await using without = await startTestDirectory({ dataDirectory: join(directory.folder, 'data') });
  expect(without.running.status().accounts).toBe(0);
});

async function writtenSchema(): Promise<{ path: string }> {
  const { mkdtemp } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  const path = join(await mkdtemp(join(tmpdir(), 'archipelago-schema-')), 'isp.ldif');
  await writeFile(path, olc);
  return { path };
}
