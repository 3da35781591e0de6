import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Secret } from '#common/secret.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { makeSyncRequest } from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { equal, type Filter, present } from '#protocol/ldap/filter.ts';
import { attribute, extendedOids, type LdapMessage, type LdapRequest } from '#protocol/ldap/messages.ts';
import { resultCodes, resultName } from '#protocol/ldap/result-codes.ts';
import { makeCancel } from '#protocol/ldap/sort.ts';
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
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  // Whatever one connection did, the others go on.
  expect((await admin.readEntry('o=mail', ['o']))?.dn).toBe('o=mail');
});
afterAll(async () => {
  await admin[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

/** A connection that sends any bytes and keeps what comes. */
function rawClient() {
  const socket = connect(Number(new URL(directory.url).port), '127.0.0.1');
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
  return {
    socket,
    messages,
    send: (bytes: Uint8Array) => socket.write(bytes),
    ask: (id: number, operation: LdapRequest) => socket.write(encodeMessage({ id, operation, controls: [] })),
    isClosed: () => closed,
  };
}

const bindAsAdmin: LdapRequest = {
  type: 'bindRequest',
  version: 3,
  name: identityDn('admin'),
  authentication: { method: 'simple', password: new Secret(Buffer.from(servicePassword)) },
};
const readBase: LdapRequest = {
  type: 'searchRequest',
  baseDn: 'o=mail',
  scope: 'base',
  derefAliases: 'never',
  sizeLimit: 0,
  timeLimitSeconds: 0,
  typesOnly: false,
  filter: present('objectClass'),
  attributes: [],
};

describe('a client that breaks the protocol', () => {
  test.each<[string, Buffer]>([
    ['text that is no LDAP', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['an indefinite length', Buffer.from([0x30, 0x80, 0x02, 0x01, 0x01, 0x42, 0x00, 0x00, 0x00])],
    ['a message of 200 MB announced', Buffer.from([0x30, 0x84, 0x0b, 0xeb, 0xc2, 0x00, 0x02])],
    ['a message above 64 kB before bind', Buffer.from([0x30, 0x83, 0x01, 0x00, 0x01, 0x02, 0x01, 0x01])],
    ['a request that does not exist', Buffer.from([0x30, 0x05, 0x02, 0x01, 0x01, 0x7e, 0x00])],
    [
      'a response as a request',
      encodeMessage({ id: 1, operation: { type: 'deleteResponse', resultCode: 0, matchedDn: '', diagnosticMessage: '' }, controls: [] }),
    ],
    ['message ID 0', encodeMessage({ id: 0, operation: readBase, controls: [] })],
  ])('by %s gets a notice of disconnection', async (_what, bytes) => {
    const client = rawClient();
    client.send(bytes);
    await expect.poll(client.isClosed).toBe(true);
    const last = client.messages.at(-1);
    expect(last?.id).toBe(0);
    expect(last?.operation).toMatchObject({
      type: 'extendedResponse',
      oid: extendedOids.noticeOfDisconnection,
      resultCode: resultCodes.protocolError,
    });
  });

  test('by a bind with a DN and no password is refused and stays anonymous', async () => {
    const client = rawClient();
    client.ask(1, { ...bindAsAdmin, authentication: { method: 'simple', password: new Secret(Buffer.alloc(0)) } });
    client.ask(2, readBase);
    await expect.poll(() => client.messages.length).toBe(2);
    expect(client.messages[0]?.operation).toMatchObject({ type: 'bindResponse', resultCode: resultCodes.unwillingToPerform });
    expect(client.messages[1]?.operation).toMatchObject({ resultCode: resultCodes.insufficientAccessRights });
  });
});

describe('a client that pipelines', () => {
  test('has a request behind its bind run with the rights of that bind', async () => {
    const client = rawClient();
    client.ask(1, bindAsAdmin);
    client.ask(2, readBase);
    await expect.poll(() => client.messages.length).toBe(3);
    expect(client.messages.map((message) => message.operation.type)).toEqual(['bindResponse', 'searchResultEntry', 'searchResultDone']);
  });

  test('has its writes done in order, children behind parents, with passwords to hash in between', async () => {
    const client = rawClient();
    client.ask(1, bindAsAdmin);
    const dn = accountDn('first', 'pipe.example');
    client.ask(2, {
      type: 'addRequest',
      dn: 'cn=pipe.example,o=mail',
      attributes: [attribute('objectClass', 'mailDomain'), attribute('cn', 'pipe.example')],
    });
    client.ask(3, { type: 'addRequest', dn, attributes: accountEntry('first', attribute('userPassword', 'clear')) });
    for (let i = 0; i < 20; i += 1) {
      client.ask(4 + i, { type: 'modifyRequest', dn, changes: [{ kind: 'replace', attribute: attribute('title', `${i}`) }] });
    }
    client.ask(30, { type: 'deleteRequest', dn });
    client.ask(31, { type: 'deleteRequest', dn: 'cn=pipe.example,o=mail' });
    await expect.poll(() => client.messages.length).toBe(25);
    expect(client.messages.map((message) => (message.operation as { resultCode: number }).resultCode)).toEqual(
      Array.from({ length: 25 }, () => 0),
    );
  });
});

describe('an entry that is too much', () => {
  test('is refused: more values of an attribute, or more addresses, than anybody has', async () => {
    const values = Array.from({ length: 10_001 }, (_, i) => `value ${i}`);
    await expect(admin.add(accountDn('wide'), accountEntry('wide', attribute('description', ...values)))).rejects.toThrow(
      /description holds at most 10000 values; 10001 were given/,
    );
    const addresses = Array.from({ length: 1000 }, (_, i) => `wide${i}@isp.example`);
    await expect(admin.add(accountDn('wide'), accountEntry('wide', attribute('mailAlternateAddress', ...addresses)))).rejects.toThrow(
      /at most 1000 addresses; this one would have 1001/,
    );
    await admin.add(accountDn('wide'), accountEntry('wide', attribute('mailAlternateAddress', ...addresses.slice(1))));
  });
});

describe('a client that does not read', () => {
  test('is held back: its answers do not pile up in the server', async () => {
    const photo = { type: 'jpegPhoto', values: [Buffer.alloc(200_000, 1)] };
    await admin.add(accountDn('big'), accountEntry('big', photo));
    const client = rawClient();
    client.ask(1, bindAsAdmin);
    await expect.poll(() => client.messages.length).toBe(1);
    client.socket.pause();
    for (let i = 0; i < 200; i += 1) client.ask(2 + i, { ...readBase, baseDn: accountDn('big') });
    const begun = (): number => directory.running.status().operations.search ?? 0;
    const start = begun();
    // Far fewer than 200 are begun, and the number stands still while others are served.
    for (let i = 0; i < 50; i += 1) await admin.readEntry('o=mail', ['o']);
    expect(begun() - start - 50).toBeLessThan(120);
    client.socket.resume();
    await expect.poll(() => client.messages.length, { timeout: 15_000 }).toBe(1 + 400);
  });
});

describe('a client that cancels (RFC 3909)', () => {
  test('gets an answer to the operation and to the cancel, and cannot cancel what is no search', async () => {
    const client = rawClient();
    client.ask(1, bindAsAdmin);
    await expect.poll(() => client.messages.length).toBe(1);
    const follow = makeSyncRequest({ mode: 'refreshAndPersist', cookie: undefined, reloadHint: false });
    client.send(encodeMessage({ id: 2, operation: { ...readBase, scope: 'sub' } as LdapRequest, controls: [follow] }));
    await expect.poll(() => directory.running.status().followers).toBe(1);
    client.ask(3, { type: 'extendedRequest', oid: extendedOids.cancel, value: makeCancel(2) });
    client.ask(4, { type: 'extendedRequest', oid: extendedOids.cancel, value: makeCancel(2) });
    client.ask(5, { type: 'extendedRequest', oid: extendedOids.cancel, value: makeCancel(5) });
    await expect.poll(() => client.messages.at(-1)?.id).toBe(5);
    const answers = client.messages.filter(({ operation }) => 'resultCode' in operation && operation.type !== 'bindResponse');
    expect(answers.map(({ id, operation }) => [id, 'resultCode' in operation && resultName(operation.resultCode)]).sort()).toEqual([
      [2, 'canceled'],
      [3, 'success'],
      [4, 'noSuchOperation'],
      [5, 'cannotCancel'],
    ]);
    await expect.poll(() => directory.running.status().followers).toBe(0);
  });
});

test('a filter of too many parts or levels is refused by itself, and the connection goes on', async () => {
  await using directory = await startTestDirectory();
  await using admin = await directory.connect();
  const baseDn = 'o=mail';
  const wide: Filter = { kind: 'or', filters: Array.from({ length: 4200 }, (_, i) => equal('mail', `x${i}@isp.example`)) };
  let deep: Filter = equal('mail', 'x');
  for (let level = 0; level < 40; level += 1) deep = { kind: 'not', filter: deep };
  await expect(admin.searchAll({ baseDn, filter: wide, attributes: ['cn'] })).rejects.toThrow(
    /adminLimitExceeded.*filter of more than 4096 parts/,
  );
  await expect(admin.searchAll({ baseDn, filter: deep, attributes: ['cn'] })).rejects.toThrow(
    /adminLimitExceeded.*filter nested deeper than 32/,
  );
  expect((await admin.searchAll({ baseDn, filter: present('ou'), attributes: ['ou'] })).length).toBe(3);
});
