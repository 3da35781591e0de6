import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { afterFailure, afterSuccess, isLocked, type PasswordPolicy } from '#directory/access/password-policy.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { type Attribute, attribute, extendedOids, type Modification, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { resultName } from '#protocol/ldap/result-codes.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory, type TestDirectory } from './test-directory.ts';

const policy: PasswordPolicy = { failuresMax: 3, windowSeconds: 60, lockoutSeconds: 120 };

describe('the lockout', () => {
  const startMs = Date.UTC(2026, 10, 22, 12, 0, 0);
  const failures = (atSeconds: readonly number[]): readonly Attribute[] =>
    atSeconds.reduce<readonly Attribute[]>(
      (attributes, second) => afterFailure(policy, attributes, startMs + second * 1000).attributes,
      [attribute('uid', 'a')],
    );

  test('comes with the last failure that the window holds, also of failures in one moment', () => {
    expect(isLocked(policy, failures([0, 0]), startMs)).toBe(false);
    expect(isLocked(policy, failures([0, 0, 0]), startMs)).toBe(true);
    expect(textsOf(failures([0, 0, 0]), 'pwdFailureTime')).toHaveLength(3);
    expect(isLocked(policy, failures([0, 10, 70]), startMs + 70_000)).toBe(false);
  });

  test('ends by itself and begins the count anew, except when it is for good', () => {
    const locked = failures([0, 0, 0]);
    expect(isLocked(policy, locked, startMs + 119_000)).toBe(true);
    expect(isLocked(policy, locked, startMs + 121_000)).toBe(false);
    expect(isLocked({ ...policy, lockoutSeconds: 0 }, locked, startMs + 1e9)).toBe(true);
    const long = { ...policy, windowSeconds: 3600 };
    expect(afterFailure(long, locked, startMs + 121_000).locks).toBe(false);
    expect(isLocked(policy, [attribute('pwdAccountLockedTime', '000001010000Z')], startMs)).toBe(true);
  });

  test('is forgotten after a success', () => {
    expect(afterSuccess(failures([0]))?.map(({ type }) => type)).toEqual(['uid']);
    expect(afterSuccess([attribute('uid', 'a')])).toBeUndefined();
  });
});

describe('a server with the policy', () => {
  let directory: TestDirectory;
  let admin: LdapConnection;

  beforeAll(async () => {
    directory = await startTestDirectory({ passwordPolicy: { failuresMax: 3, windowSeconds: 3600, lockoutSeconds: 0 } });
    admin = await directory.connect();
    await addFrame(admin);
    for (const uid of ['alice', 'bob']) await admin.add(accountDn(uid), accountEntry(uid, attribute('userPassword', 'secret')));
  });
  afterAll(async () => {
    await admin[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
  });

  async function bindOutcome(uid: string, password: string): Promise<string> {
    try {
      await using _bound = await directory.connect(accountDn(uid), password);
      return 'success';
    } catch (error) {
      return resultName(resultCodeOf(error) ?? -1);
    }
  }
  const replace = (type: string, ...values: string[]): Modification => ({ kind: 'replace', attribute: attribute(type, ...values) });

  test('locks an entry after failures, says nothing more than before, and lets an administrator unlock', async () => {
    const csnBefore = directory.running.status().contextCsn;
    for (let i = 0; i < 3; i += 1) expect(await bindOutcome('alice', 'wrong')).toBe('invalidCredentials');
    expect(await bindOutcome('alice', 'secret')).toBe('invalidCredentials');
    const entry = await admin.readEntry(accountDn('alice'), ['pwdAccountLockedTime', 'pwdFailureTime']);
    expect(textOf(entry?.attributes ?? [], 'pwdAccountLockedTime')).toMatch(/^\d{14}\.\d{3}Z$/);
    expect(directory.running.status().contextCsn).toBe(csnBefore);
    await admin.modify(accountDn('alice'), [replace('pwdAccountLockedTime')]);
    expect(await bindOutcome('alice', 'secret')).toBe('success');
    const after = await admin.readEntry(accountDn('alice'), ['+']);
    expect(textsOf(after?.attributes ?? [], 'pwdFailureTime')).toEqual([]);
  });

  test('lets one who must change the password do that first', async () => {
    await admin.modify(accountDn('bob'), [replace('pwdReset', 'TRUE')]);
    await using bob = await directory.connect(accountDn('bob'), 'secret');
    const refused = await bob.readEntry(accountDn('bob'), ['uid']).catch((error: unknown) => resultName(resultCodeOf(error) ?? -1));
    expect(refused).toBe('insufficientAccessRights');
    expect((await bob.extended(extendedOids.whoAmI)).value?.toString()).toBe(`dn:${accountDn('bob')}`);
    await bob.modify(accountDn('bob'), [replace('userPassword', 'new-secret')]);
    expect((await bob.readEntry(accountDn('bob'), ['uid']))?.dn).toBe(accountDn('bob'));
    const entry = await admin.readEntry(accountDn('bob'), ['pwdReset']);
    expect(textOf(entry?.attributes ?? [], 'pwdReset')).toBeUndefined();
  });
});
