import { describe, expect, it } from 'vitest';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { LdapOperation } from '#protocol/ldap/messages.ts';
import { plainSuccessId } from '#protocol/ldap/plain-success.ts';

const success = { resultCode: 0, matchedDn: '', diagnosticMessage: '' } as const;
const idOf = (operation: LdapOperation, id = 5, controls: Parameters<typeof encodeMessage>[0]['controls'] = []): number | undefined => {
  const bytes = encodeMessage({ id, operation, controls });
  return plainSuccessId(Buffer.concat([Buffer.from('before'), bytes, Buffer.from('behind')]), 6, 6 + bytes.length);
};

describe('the answer that says success and nothing else', () => {
  it.each(['addResponse', 'modifyResponse', 'deleteResponse', 'modifyDnResponse'] as const)('is known when it is a %s', (type) => {
    for (const id of [1, 127, 128, 70_000, 0x7fffffff]) expect(idOf({ type, ...success }, id)).toBe(id);
  });

  it('is nothing else', () => {
    expect(idOf({ type: 'bindResponse', ...success, serverSaslCredentials: undefined })).toBeUndefined();
    expect(idOf({ type: 'searchResultDone', ...success })).toBeUndefined();
    expect(idOf({ type: 'addResponse', ...success, resultCode: 68 })).toBeUndefined();
    expect(idOf({ type: 'addResponse', ...success, matchedDn: 'o=x' })).toBeUndefined();
    expect(idOf({ type: 'addResponse', ...success, diagnosticMessage: 'x' })).toBeUndefined();
    expect(idOf({ type: 'addResponse', ...success }, 5, [{ oid: '1.2', critical: false, value: undefined }])).toBeUndefined();
    const whole = encodeMessage({ id: 5, operation: { type: 'addResponse', ...success }, controls: [] });
    for (let length = 0; length < whole.length; length += 1) expect(plainSuccessId(whole.subarray(0, length), 0, length)).toBeUndefined();
  });
});
