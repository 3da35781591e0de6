/** What RFC 4511 and its companions ask of a server and no usual client shows: order, twice, too late, and what is elsewhere. */
import { execFileSync } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Secret } from '#common/secret.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { controlOids, makeAssertion, makePagedResults, makeSyncRequest, manageDsaIt, readPagedResults } from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { filterFromText, present } from '#protocol/ldap/filter.ts';
import { attribute, type Control, extendedOids, type LdapMessage, type LdapRequest } from '#protocol/ldap/messages.ts';
import { resultName } from '#protocol/ldap/result-codes.ts';
import {
  accountDn,
  accountEntry,
  addFrame,
  identityDn,
  servicePassword,
  startTestDirectory,
  type TestDirectory,
} from './test-directory.ts';

let directory: TestDirectory;
let admin: LdapConnection;
const sockets: Socket[] = [];

beforeAll(async () => {
  directory = await startTestDirectory();
  admin = await directory.connect();
  await addFrame(admin);
  for (let i = 0; i < 20; i += 1) await admin.add(accountDn(`u${i}`), accountEntry(`u${i}`));
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});
afterAll(async () => {
  await admin[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

function rawClient(url = directory.url) {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => {});
  const decoder = new LdapDecoder({ messageBytesMax: 1_000_000 });
  const messages: LdapMessage[] = [];
  let closed = false;
  socket.on('data', (chunk: Buffer) => {
    decoder.push(chunk);
    for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) messages.push(next.message);
  });
  socket.on('close', () => {
    closed = true;
  });
  const code = (id: number): string | undefined => {
    const found = messages.find((message) => message.id === id && 'resultCode' in message.operation)?.operation;
    return found !== undefined && 'resultCode' in found ? resultName(found.resultCode) : undefined;
  };
  return {
    messages,
    isClosed: () => closed,
    code,
    ask: (id: number, operation: LdapRequest, ...controls: Control[]) => socket.write(encodeMessage({ id, operation, controls })),
    answered: async (id: number) => {
      await expect.poll(() => code(id), { timeout: 10_000 }).toBeDefined();
      return code(id);
    },
  };
}

const bindAs = (name: string, password = servicePassword): LdapRequest => ({
  type: 'bindRequest',
  version: 3,
  name,
  authentication: { method: 'simple', password: new Secret(Buffer.from(password)) },
});
const search: LdapRequest & { type: 'searchRequest' } = {
  type: 'searchRequest',
  baseDn: 'o=mail',
  scope: 'sub',
  derefAliases: 'never',
  sizeLimit: 0,
  timeLimitSeconds: 0,
  typesOnly: false,
  filter: present('objectClass'),
  attributes: ['1.1'],
};
const startTls: LdapRequest = { type: 'extendedRequest', oid: extendedOids.startTls, value: undefined };
const whoAmI: LdapRequest = { type: 'extendedRequest', oid: extendedOids.whoAmI, value: undefined };
const follow = makeSyncRequest({ mode: 'refreshAndPersist', cookie: undefined, reloadHint: false });

describe('bind (RFC 4511 §4.2)', () => {
  test('ends what would go on with the rights of who was bound before', async () => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('replicator')));
    client.ask(2, search, follow);
    await expect.poll(() => directory.running.status().followers).toBe(1);
    client.ask(3, bindAs(identityDn('frontend')));
    expect(await client.answered(3)).toBe('success');
    expect(directory.running.status().followers).toBe(0);
    const seen = client.messages.length;
    await admin.modify(accountDn('u1'), [{ kind: 'replace', attribute: attribute('description', 'x') }]);
    client.ask(4, whoAmI);
    await client.answered(4);
    expect(client.messages.slice(seen).map(({ id }) => id)).toEqual([4]);
  });

  test('waits for a search before it, and leaves anonymous behind when it fails', async () => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('admin')));
    client.ask(2, search);
    client.ask(3, bindAs(identityDn('admin'), 'wrong'));
    client.ask(4, whoAmI);
    await client.answered(4);
    expect(['1', '2', '3', '4'].map((id) => client.code(Number(id)))).toEqual(['success', 'success', 'invalidCredentials', 'success']);
    const order = client.messages.filter(({ operation }) => 'resultCode' in operation).map(({ id }) => id);
    expect(order).toEqual([1, 2, 3, 4]);
    expect(client.messages.at(-1)?.operation).toMatchObject({ type: 'extendedResponse', value: Buffer.alloc(0) });
  });

  test('cannot be abandoned, and other versions are refused', async () => {
    const client = rawClient();
    client.ask(1, bindAs(accountDn('u1'), 'wrong'));
    client.ask(2, { type: 'abandonRequest', abandonedId: 1 });
    expect(await client.answered(1)).toBe('invalidCredentials');
    client.ask(3, { ...bindAs(identityDn('admin')), version: 2 } as LdapRequest);
    expect(await client.answered(3)).toBe('protocolError');
  });
});

describe('abandon (RFC 4511 §4.11)', () => {
  test('ends a search without an answer, and is no fault for what is over or never was', async () => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('replicator')));
    client.ask(2, search, follow);
    await expect.poll(() => directory.running.status().followers).toBe(1);
    for (const id of [2, 2, 1, 77]) client.ask(id + 100, { type: 'abandonRequest', abandonedId: id });
    await expect.poll(() => directory.running.status().followers).toBe(0);
    client.ask(3, whoAmI);
    expect(await client.answered(3)).toBe('success');
    expect(client.code(2)).toBeUndefined();
  });
});

describe('StartTLS (RFC 4511 §4.14)', () => {
  test('is a protocol error where it is not on offer, and does not go with proxied authorization', async () => {
    const client = rawClient();
    client.ask(1, startTls);
    expect(await client.answered(1)).toBe('protocolError');
    client.ask(2, startTls, { oid: controlOids.proxiedAuthorization, critical: true, value: Buffer.alloc(0) });
    expect(await client.answered(2)).toBe('unavailableCriticalExtension');
  });

  test('waits for nothing: with operations under way it is an operations error, and the second one is too', async () => {
    const [key, cert] = ['key.pem', 'cert.pem'].map((name) => join(directory.folder, name)) as [string, string];
    const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert, '-subj', '/CN=127.0.0.1'];
    execFileSync('openssl', made, { stdio: 'ignore' });
    await using secure = await startTestDirectory({ tls: { certFile: cert, keyFile: key } });
    const client = rawClient(secure.url);
    client.ask(1, bindAs(identityDn('replicator')));
    client.ask(2, search, follow);
    await expect.poll(() => secure.running.status().followers).toBe(1);
    client.ask(3, startTls);
    expect(await client.answered(3)).toBe('operationsError');
    // The first is answered and the handshake begins; a request in clear then breaks it.
    const other = rawClient(secure.url);
    other.ask(1, startTls);
    expect(await other.answered(1)).toBe('success');
    other.ask(2, startTls);
    await expect.poll(other.isClosed, { timeout: 10_000 }).toBe(true);
    expect(other.code(2)).toBeUndefined();
  });
});

describe('controls (RFC 4511 §4.1.11)', () => {
  test.each<[string, Control[], string]>([
    ['unknown and critical', [{ oid: '1.2.3', critical: true, value: undefined }], 'unavailableCriticalExtension'],
    ['unknown and not critical', [{ oid: '1.2.3', critical: false, value: undefined }], 'success'],
    [
      'known, critical and for another operation',
      [{ oid: controlOids.treeDelete, critical: true, value: undefined }],
      'unavailableCriticalExtension',
    ],
    ['given twice', [manageDsaIt, manageDsaIt], 'protocolError'],
    ['paged results without a value', [{ oid: controlOids.pagedResults, critical: false, value: undefined }], 'protocolError'],
    ['paged results with a cookie of nobody', [makePagedResults({ size: 5, cookie: Buffer.from('not ours') })], 'unwillingToPerform'],
    ['paged results with a cookie too long', [makePagedResults({ size: 5, cookie: Buffer.from('9'.repeat(400)) })], 'unwillingToPerform'],
    ['a sort of nothing', [{ oid: controlOids.serverSideSort, critical: true, value: Buffer.from([0x30, 0x00]) }], 'protocolError'],
    ['sync with nonsense', [{ oid: controlOids.syncRequest, critical: true, value: Buffer.from('x') }], 'protocolError'],
  ])('%s', async (_what, controls, expected) => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('admin')));
    client.ask(2, search, ...controls);
    expect(await client.answered(2)).toBe(expected);
  });

  test('a page asked for with another search’s cookie gives entries of its own search only, and a size of 0 ends it', async () => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('admin')));
    const accounts = { ...search, filter: filterFromText('(uid=u*)') };
    client.ask(2, accounts, makePagedResults({ size: 5, cookie: Buffer.alloc(0) }));
    await client.answered(2);
    const done = client.messages.find(({ id, operation }) => id === 2 && operation.type === 'searchResultDone');
    const cookie = readPagedResults(done?.controls[0]?.value)?.cookie ?? Buffer.alloc(0);
    expect(cookie.length).toBeGreaterThan(0);
    client.ask(3, { ...search, filter: filterFromText('(objectClass=mailDomain)') }, makePagedResults({ size: 500, cookie }));
    await client.answered(3);
    const names = client.messages.flatMap(({ id, operation }) =>
      id === 3 && operation.type === 'searchResultEntry' ? [operation.dn] : [],
    );
    expect(names.every((dn) => /^cn=[^,]*,o=mail$/.test(dn))).toBe(true);
    client.ask(4, accounts, makePagedResults({ size: 0, cookie }));
    expect(await client.answered(4)).toBe('success');
    expect(client.messages.filter(({ id }) => id === 4)).toHaveLength(1);
  });
});

test('an assertion holds searches and comparisons too (RFC 4528 §3), of a search by its base', async () => {
  const asserted = (filter: string): Control => makeAssertion(filterFromText(filter));
  const client = rawClient();
  client.ask(1, bindAs(identityDn('admin')));
  const base = { ...search, baseDn: accountDn('u1'), scope: 'base' } as const;
  client.ask(2, base, asserted('(uid=u1)'));
  client.ask(3, base, asserted('(uid=u2)'));
  const comparison: LdapRequest = { type: 'compareRequest', dn: accountDn('u1'), attribute: 'uid', value: Buffer.from('u1') };
  client.ask(4, comparison, asserted('(sn=u1)'));
  client.ask(5, comparison, asserted('(sn=u2)'));
  await client.answered(5);
  expect([2, 3, 4, 5].map((id) => client.code(id))).toEqual(['success', 'assertionFailed', 'compareTrue', 'assertionFailed']);
});

describe('limits and faults of requests', () => {
  test.each<[string, LdapRequest, string]>([
    ['a base that is no name', { ...search, baseDn: 'nonsense' }, 'invalidDNSyntax'],
    ['a base that is nowhere', { ...search, baseDn: 'o=other' }, 'noSuchObject'],
    ['an attribute of a filter that is not known', { ...search, filter: filterFromText('(!(noSuch=x))') }, 'success'],
    ['more entries than wanted', { ...search, sizeLimit: 2 }, 'sizeLimitExceeded'],
    ['an add without values', { type: 'addRequest', dn: accountDn('none'), attributes: [{ type: 'cn', values: [] }] }, 'protocolError'],
    ['an add of nothing', { type: 'addRequest', dn: accountDn('none'), attributes: [] }, 'objectClassViolation'],
    [
      'an add to a name with an unknown type',
      { type: 'addRequest', dn: 'noSuch=x,o=mail', attributes: accountEntry('x') },
      'undefinedAttributeType',
    ],
    ['an extended operation that is not known', { type: 'extendedRequest', oid: '1.2.3', value: undefined }, 'protocolError'],
    [
      'a new name of two levels',
      { type: 'modifyDnRequest', dn: accountDn('u1'), newRdn: 'uid=a,cn=b', deleteOldRdn: true, newSuperior: undefined },
      'invalidDNSyntax',
    ],
    [
      'a deletion of what is kept by the server',
      { type: 'modifyRequest', dn: accountDn('u1'), changes: [{ kind: 'delete', attribute: attribute('entryUUID') }] },
      'constraintViolation',
    ],
  ])('%s', async (_what, request, expected) => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('admin')));
    client.ask(2, request);
    expect(await client.answered(2)).toBe(expected);
  });
});

test('a server that stops tells every connection so (RFC 4511 §4.4.1)', async () => {
  await using other = await startTestDirectory();
  const client = rawClient(other.url);
  client.ask(1, whoAmI);
  await client.answered(1);
  await other.stop();
  await expect.poll(client.isClosed).toBe(true);
  expect(client.messages.at(-1)).toMatchObject({
    id: 0,
    operation: { type: 'extendedResponse', oid: extendedOids.noticeOfDisconnection, resultCode: 52 },
  });
});

describe('named referrals (RFC 3296)', () => {
  const elsewhere = 'ou=elsewhere,o=mail';
  beforeAll(async () => {
    await admin.add(elsewhere, [
      attribute('objectClass', 'referral', 'extensibleObject'),
      attribute('ou', 'elsewhere'),
      attribute('ref', 'ldap://there.example/ou=here,dc=there', 'ldaps://other.example'),
    ]);
  });
  afterAll(async () => {
    await admin.delete(elsewhere, [manageDsaIt]);
    expect((await admin.searchAll({ baseDn: 'o=mail', scope: 'one', attributes: ['1.1'] })).length).toBeGreaterThan(1);
  });
  const below = `uid=x,${elsewhere}`;

  test.each<[string, LdapRequest, string[]]>([
    [
      'a search at it',
      { ...search, baseDn: elsewhere },
      ['ldap://there.example/ou=here,dc=there??sub', `ldaps://other.example/${elsewhere}??sub`],
    ],
    [
      'a search below it',
      { ...search, baseDn: below, scope: 'base' },
      ['ldap://there.example/uid=x,ou=here,dc=there??base', `ldaps://other.example/${below}??base`],
    ],
    [
      'a change',
      { type: 'modifyRequest', dn: below, changes: [] },
      ['ldap://there.example/uid=x,ou=here,dc=there', `ldaps://other.example/${below}`],
    ],
    [
      'an add',
      { type: 'addRequest', dn: below, attributes: accountEntry('x') },
      ['ldap://there.example/uid=x,ou=here,dc=there', `ldaps://other.example/${below}`],
    ],
    [
      'a deletion',
      { type: 'deleteRequest', dn: elsewhere },
      ['ldap://there.example/ou=here,dc=there', `ldaps://other.example/${elsewhere}`],
    ],
    [
      'a comparison',
      { type: 'compareRequest', dn: elsewhere, attribute: 'ou', value: Buffer.from('x') },
      ['ldap://there.example/ou=here,dc=there', `ldaps://other.example/${elsewhere}`],
    ],
    [
      'a rename',
      { type: 'modifyDnRequest', dn: elsewhere, newRdn: 'ou=x', deleteOldRdn: true, newSuperior: undefined },
      ['ldap://there.example/ou=here,dc=there', `ldaps://other.example/${elsewhere}`],
    ],
  ])('%s is sent there', async (_what, request, urls) => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('admin')));
    client.ask(2, request);
    expect(await client.answered(2)).toBe('referral');
    expect(client.messages.at(-1)?.operation).toMatchObject({ matchedDn: elsewhere, referrals: urls });
  });

  test.each<['one' | 'sub', string]>([
    ['one', 'base'],
    ['sub', 'sub'],
  ])('a search of scope %s that comes by tells it beside its entries', async (scope, there) => {
    const client = rawClient();
    client.ask(1, bindAs(identityDn('admin')));
    client.ask(2, { ...search, scope, filter: filterFromText('(|(ou=elsewhere)(cn=isp.example))') });
    await client.answered(2);
    const told = client.messages.filter(({ id }) => id === 2).map(({ operation }) => operation);
    expect(told.flatMap((one) => (one.type === 'searchResultReference' ? [one.urls] : []))).toEqual([
      [`ldap://there.example/ou=here,dc=there??${there}`, `ldaps://other.example/${elsewhere}??${there}`],
    ]);
    expect(told.flatMap((one) => (one.type === 'searchResultEntry' ? [one.dn] : []))).toEqual(['cn=isp.example,o=mail']);
  });

  test('with ManageDsaIT it is an entry', async () => {
    const [entry] = await admin.searchAll({ baseDn: elsewhere, scope: 'base', attributes: ['ou', 'ref'] }, 10, [manageDsaIt]);
    expect(entry?.attributes.map(({ type }) => type)).toEqual(['ou', 'ref']);
    await admin.modify(elsewhere, [{ kind: 'add', attribute: attribute('description', 'moved') }], [manageDsaIt]);
    const outcome = await admin.modify(elsewhere, [{ kind: 'delete', attribute: attribute('description') }]).then(() => 0, resultCodeOf);
    expect(outcome).toBe(10);
  });

  test('who may not know of it is told nothing', async () => {
    const client = rawClient();
    client.ask(1, { ...search, baseDn: elsewhere });
    expect(await client.answered(1)).toBe('noSuchObject');
  });
});

test('the schema has everything that RFC 4519 defines, under all its names', () => {
  const schema = createMailSchema();
  const types =
    'businessCategory c countryName cn commonName dc domainComponent description destinationIndicator distinguishedName dnQualifier enhancedSearchGuide ' +
    'facsimileTelephoneNumber generationQualifier givenName houseIdentifier initials internationalISDNNumber l localityName member name o organizationName ou ' +
    'organizationalUnitName owner physicalDeliveryOfficeName postalAddress postalCode postOfficeBox preferredDeliveryMethod registeredAddress roleOccupant ' +
    'searchGuide seeAlso serialNumber sn surname st stateOrProvinceName street streetAddress telephoneNumber teletexTerminalIdentifier telexNumber title uid ' +
    'userid uniqueMember userPassword x121Address x500UniqueIdentifier';
  const classes =
    'applicationProcess country dcObject device groupOfNames groupOfUniqueNames locality organization organizationalPerson organizationalRole ' +
    'organizationalUnit person residentialPerson uidObject';
  expect(types.split(' ').filter((name) => schema.attributeType(name) === undefined)).toEqual([]);
  expect(classes.split(' ').filter((name) => schema.objectClass(name) === undefined)).toEqual([]);
});

test.each(['c=DE', 'l=Ulm,c=DE', 'st=BW', 'dc=isp,dc=example', 'o=mail', 'ou=mail', 'cn=mail'])(
  'a tree can begin at %s',
  async (suffix) => {
    await using directory = await startTestDirectory({ suffix });
    expect(directory.running.status().entries).toBe(4);
  },
);
