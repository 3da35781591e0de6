/** More binds than the queue of password checks takes: what is too much is refused as busy and nothing else, and whoever is bound goes on. */
import { expect, test } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { present } from '#protocol/ldap/filter.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { accountDn, accountEntry, addFrame, startTestDirectory } from './test-directory.ts';

const connectionsInStorm = 12;

test('a full queue of password checks answers busy, while searches and the binds in the queue go on', async () => {
  // One is checked and two wait: twelve connections with a bind each are more, however slow the machine is.
  await using directory = await startTestDirectory({}, { passwordChecks: { runningMax: 1, waitingMax: 2 } });
  await using admin = await directory.connect();
  await addFrame(admin);
  await admin.add(accountDn('alice'), accountEntry('alice', attribute('userPassword', 'secret')));

  const outcomes = new Map<number, number>();
  let searched = 0;
  const isOver = (): boolean =>
    (outcomes.get(resultCodes.busy) ?? 0) > 0 && (outcomes.get(resultCodes.success) ?? 0) >= 3 && searched >= 20;
  const storm = Array.from({ length: connectionsInStorm }, async () => {
    await using connection = await LdapConnection.open(systemNetwork, systemClock, { url: directory.url, timeoutMs: 60_000 });
    while (!isOver()) {
      const code = await connection.bind(accountDn('alice'), new Secret('secret')).then(
        () => resultCodes.success,
        (error: unknown) => resultCodeOf(error) ?? -1,
      );
      outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
    }
  });
  const innocent = (async () => {
    while (!isOver()) {
      const found = await admin.searchAll({ baseDn: 'cn=isp.example,o=mail', filter: present('uid'), attributes: ['uid'] }, 2);
      expect(found.map(({ dn }) => dn)).toEqual([accountDn('alice')]);
      searched += 1;
    }
  })();
  await Promise.all([...storm, innocent]);

  expect([...outcomes.keys()].sort((a, b) => a - b)).toEqual([resultCodes.success, resultCodes.busy]);
  await using after = await directory.connect(accountDn('alice'), 'secret');
  expect(after).toBeDefined();
}, 120_000);
