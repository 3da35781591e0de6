/** The short way of a refresh and the ordinary one give the same of every entry that the short one takes. */
import { describe, expect, it } from 'vitest';
import { AccountLane } from '#directory/client/account-lane.ts';
import { archipelagoNames } from '#directory/client/attribute-names.ts';
import { recordFromEntry } from '#directory/client/records-from-entry.ts';
import { BerWriter } from '#protocol/ldap/ber.ts';
import { makeSyncState } from '#protocol/ldap/controls.ts';
import { writeOperation } from '#protocol/ldap/encode.ts';
import type { Attribute, Control } from '#protocol/ldap/messages.ts';
import { parseMessage } from '#protocol/ldap/parse.ts';
import { seededRandom } from '#test/fakes/random.ts';

const uuid = '11111111-2222-4333-8444-555555555555';
const added = makeSyncState({ state: 'add', uuid, cookie: undefined });

interface Told {
  readonly name: string;
  readonly hostServer: string | undefined;
  readonly addresses: readonly string[];
}

function attribute(type: string, ...values: string[]): Attribute {
  return { type, values: values.map((value) => Buffer.from(value)) };
}

function usual(...more: Attribute[]): Attribute[] {
  return [attribute('objectClass', 'inetOrgPerson', 'mailAccount'), attribute('hostServer', 'west.isp.example'), ...more];
}

function message(dn: string, attributes: readonly Attribute[], controls: readonly Control[] = [added]): Buffer {
  const writer = new BerWriter();
  writeOperation(writer, 7, { type: 'searchResultEntry', dn, attributes }, controls);
  return writer.take();
}

function laneTo(told: Told[]): AccountLane {
  return new AccountLane(archipelagoNames, (name, hostServer, addresses) => told.push({ name, hostServer, addresses }));
}

/** What the short way tells; `undefined` when it leaves the message to the other one. */
function shortly(bytes: Buffer, lane?: AccountLane): Told | undefined {
  const told: Told[] = [];
  const around = Buffer.concat([Buffer.from('before'), bytes, Buffer.from('after')]);
  const taken = (lane ?? laneTo(told)).take(around, 6, 6 + bytes.length);
  expect(told.length).toBe(taken ? 1 : 0);
  return told[0];
}

/** What the ordinary way makes of it. */
function ordinarily(bytes: Buffer): Told | undefined {
  const parsed = parseMessage(bytes);
  if (parsed.outcome !== 'message' || parsed.message.operation.type !== 'searchResultEntry') return undefined;
  const made = recordFromEntry(parsed.message.operation, { uuid });
  if (made.outcome !== 'record' || made.record.kind !== 'account') return undefined;
  const { name, hostServer, addresses } = made.record;
  return { name, hostServer, addresses };
}

describe('the short way of an account’s entry', () => {
  it.each([
    ['like most', 'uid=alice,cn=isp.example,o=mail', usual(attribute('mail', 'alice@isp.example'))],
    [
      'with further addresses',
      'uid=a.b,cn=isp.example,o=mail',
      usual(attribute('MAIL', 'A.B@isp.example'), attribute('mailAlternateAddress', 'x@isp.example', 'X@ISP.example', 'no address')),
    ],
    ['of other attributes', 'UID=bob,CN=Isp.Example,O=Mail', usual(attribute('description', 'd'), attribute('mail;x-a', 'no@isp.example'))],
    ['of a domain in other letters', 'uid=bob,cn=b\u00fccher.example,o=mail', usual()],
    [
      'of a class in capitals',
      'uid=bob,cn=isp.example,o=mail',
      [attribute('OBJECTCLASS', 'MAILACCOUNT'), attribute('HOSTSERVER', 'West.isp.example')],
    ],
    [
      'with many values',
      'uid=bob,cn=isp.example,o=mail',
      usual(attribute('mail', ...Array.from({ length: 300 }, (_, i) => `m${i}@isp.example`))),
    ],
  ])('takes one %s', (_, dn, attributes) => {
    const bytes = message(dn, attributes);
    expect(shortly(bytes)).toEqual(ordinarily(bytes));
    expect(shortly(bytes)).toBeDefined();
  });

  it.each([
    ['a domain', 'cn=isp.example,o=mail', [attribute('objectClass', 'mailDomain')], undefined],
    ['letters that are folded', 'uid=Alice,cn=isp.example,o=mail', usual(), undefined],
    ['a name with an escape', 'uid=a\\2Cb,cn=isp.example,o=mail', usual(), undefined],
    ['a name of two parts', 'uid=a+cn=b,cn=isp.example,o=mail', usual(), undefined],
    ['a name that ends in a dot', 'uid=a.,cn=isp.example,o=mail', usual(), undefined],
    ['a name with spaces', 'uid= a,cn=isp.example,o=mail', usual(), undefined],
    ['a name of 65 octets', `uid=${'a'.repeat(65)},cn=isp.example,o=mail`, usual(), undefined],
    ['no domain above', 'uid=a,o=mail', usual(), undefined],
    [
      'another class',
      'uid=a,cn=isp.example,o=mail',
      [attribute('objectClass', 'person'), attribute('hostServer', 'w.isp.example')],
      undefined,
    ],
    ['no hostServer', 'uid=a,cn=isp.example,o=mail', [attribute('objectClass', 'mailAccount')], undefined],
    [
      'two of them',
      'uid=a,cn=isp.example,o=mail',
      [attribute('objectClass', 'mailAccount'), attribute('hostServer', 'a.b', 'c.d')],
      undefined,
    ],
    ['a bad one', 'uid=a,cn=isp.example,o=mail', [attribute('objectClass', 'mailAccount'), attribute('hostServer', 'no name!')], undefined],
    ['an attribute that comes twice', 'uid=a,cn=isp.example,o=mail', usual(attribute('hostServer', 'east.isp.example')), undefined],
    ['a cookie', 'uid=a,cn=isp.example,o=mail', usual(), [makeSyncState({ state: 'add', uuid, cookie: Buffer.from('c') })]],
    ['a deletion', 'uid=a,cn=isp.example,o=mail', usual(), [makeSyncState({ state: 'delete', uuid, cookie: undefined })]],
    ['an unchanged one', 'uid=a,cn=isp.example,o=mail', usual(), [makeSyncState({ state: 'present', uuid, cookie: undefined })]],
    ['no state', 'uid=a,cn=isp.example,o=mail', usual(), []],
    ['two controls', 'uid=a,cn=isp.example,o=mail', usual(), [added, { oid: '1.2.3', critical: false, value: undefined }]],
  ])('leaves to the ordinary way %s', (_, dn, attributes, controls) => {
    expect(shortly(message(dn, attributes, controls ?? [added]))).toBeUndefined();
  });

  it('tells the same as the ordinary way of whatever is damaged, or nothing', () => {
    const random = seededRandom(11);
    const told: Told[] = [];
    const lane = laneTo(told);
    let taken = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const bytes = message(
        `uid=u${round % 50},cn=isp.example,o=mail`,
        usual(attribute('mail', `u${round % 50}@isp.example`, 'other@isp.example')),
      );
      for (let hits = random.integer(3); hits >= 0; hits -= 1) bytes[random.integer(bytes.length)] = random.integer(256);
      told.length = 0;
      if (!lane.take(bytes, 0, bytes.length)) continue;
      taken += 1;
      expect(told).toEqual([ordinarily(bytes)]);
    }
    expect(taken).toBeGreaterThan(1000);
  });
});
