import { describe, expect, it } from 'vitest';
import { controlOids, makeSyncState, type SyncState } from '#protocol/ldap/controls.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { decodeImages, ImageEncoder, LazyImage } from '#protocol/ldap/image-batch.ts';
import { attribute, type Control } from '#protocol/ldap/messages.ts';
import { findSyncEntry, readSyncChange } from '#protocol/ldap/sync-entry.ts';

const uuid = '01234567-89ab-4cde-8f01-23456789abcd';
const dn = 'uid=alice,cn=isp.example,o=mail';
const attributes = [attribute('cn', 'Älice', 'A'), attribute('description', 'd'.repeat(300)), { type: 'seeAlso', values: [] }];
const stateOf = (own: Partial<SyncState> = {}): Control => makeSyncState({ state: 'add', uuid, cookie: undefined, ...own });

function message(controls: readonly Control[] = [stateOf()], own: { readonly id?: number; readonly dn?: string } = {}): Buffer {
  const operation = { type: 'searchResultEntry', dn: own.dn ?? dn, attributes } as const;
  return encodeMessage({ id: own.id ?? 2, operation, controls });
}

/** What is found of a message somewhere within other octets. */
function found(bytes: Buffer) {
  const within = Buffer.concat([Buffer.from('before'), bytes, Buffer.from('behind')]);
  const places = findSyncEntry(within, 6, 6 + bytes.length);
  if (places === undefined) return undefined;
  const encoder = new ImageEncoder();
  encoder.addFound(within, places);
  const [image] = decodeImages(encoder.take());
  return { id: places.id, image };
}

describe('an entry of a first load', () => {
  it('is found with its UUID, its name and its attributes, and passed on as it came', () => {
    for (const id of [1, 127, 128, 70_000, 0x7fffffff]) {
      const one = found(message([stateOf()], { id }));
      expect(one?.id).toBe(id);
      expect(one?.image).toMatchObject({ uuid, dn });
      expect(one?.image?.dn === undefined ? undefined : one.image.attributes).toEqual(attributes);
    }
  });

  it('is left to others when it is anything but a new one without a cookie, or its name is not plain', () => {
    const other = { oid: controlOids.pagedResults, critical: false, value: Buffer.alloc(0) };
    expect(found(message([stateOf({ cookie: Buffer.from('csn=1') })]))).toBeUndefined();
    for (const state of ['present', 'modify', 'delete'] as const) expect(found(message([stateOf({ state })]))).toBeUndefined();
    for (const controls of [[], [other], [stateOf(), other], [other, stateOf()]]) expect(found(message(controls))).toBeUndefined();
    expect(found(message([stateOf()], { dn: 'uid=älice,o=mail' }))).toBeUndefined();
    const done = { type: 'searchResultDone', resultCode: 0, matchedDn: '', diagnosticMessage: '' } as const;
    expect(found(encodeMessage({ id: 2, operation: done, controls: [stateOf()] }))).toBeUndefined();
  });

  it('is not found in what is cut or broken, and what is found can be read', () => {
    const whole = message();
    for (let length = 0; length < whole.length; length += 1) expect(found(whole.subarray(0, length))).toBeUndefined();
    for (let at = 0; at < whole.length; at += 1) {
      for (const octet of [0x00, 0x04, 0x30, 0x7f, 0x80, 0x84, 0xff]) {
        const broken = Buffer.from(whole);
        broken[at] = octet;
        const one = found(broken);
        if (one?.image?.dn !== undefined) expect(one.image.attributes.length).toBeGreaterThan(0);
      }
    }
  });
});

/** What is read of a message, which is overwritten afterwards. */
function read(bytes: Buffer) {
  const within = Buffer.concat([Buffer.from('before'), bytes, Buffer.from('behind')]);
  const change = readSyncChange(within, 6, 6 + bytes.length);
  within.fill(0);
  if (change === undefined) return undefined;
  const { state, cookie, uuidOctets, attributesBer } = change;
  return { state, cookie, image: new LazyImage(uuidOctets, change.dn, attributesBer) };
}

describe('a change that is told', () => {
  it('is read with its state, its cookie where it has one, and its content', () => {
    for (const state of ['add', 'modify', 'delete'] as const) {
      for (const cookie of [undefined, Buffer.from('rid=000,csn=1')]) {
        const change = read(message([stateOf({ state, cookie })]));
        expect(change?.state).toBe(state);
        expect(change?.cookie).toEqual(cookie);
        expect(change?.image).toMatchObject({ uuid, dn });
        expect(change?.image.attributes).toEqual(attributes);
      }
    }
  });

  it('is left to others when an entry is only said to be there, when its name is not plain, and when anything is cut', () => {
    const cookie = Buffer.from('csn=1');
    expect(read(message([stateOf({ state: 'present', cookie })]))).toBeUndefined();
    expect(read(message([stateOf({ state: 'modify', cookie })], { dn: 'uid=älice,o=mail' }))).toBeUndefined();
    const whole = message([stateOf({ state: 'modify', cookie })]);
    for (let length = 0; length < whole.length; length += 1) expect(read(whole.subarray(0, length))).toBeUndefined();
  });
});
