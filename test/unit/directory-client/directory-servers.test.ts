import { expect, it } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { DirectoryServers } from '#directory/client/directory-servers.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { scriptedNetwork, success } from './scripted-server.ts';

const url = 'ldap://ldap.isp.example';
const access = { urls: [url], master: url, suffix: 'o=mail', bindDn: 'cn=reader', password: new Secret('secret'), timeoutMs: 1000 };

it('leaves a connection on which nothing came for the whole time of a question, and keeps one on which something did', async () => {
  const clock = new FakeClock();
  let mute = 0;
  const { network, connections } = scriptedNetwork({
    389: (message, server) => {
      const { operation } = message;
      if (operation.type === 'bindRequest') server.send(message.id, { type: 'bindResponse', ...success });
      // Those that came first are as if something between had forgotten them; what is asked for `slow` takes longer than anybody waits.
      else if (operation.type === 'deleteRequest' && operation.dn !== 'cn=slow' && (connections.get(389)?.indexOf(server) ?? 0) >= mute)
        server.send(message.id, { type: 'deleteResponse', ...success });
    },
  });
  await using servers = new DirectoryServers(access, { clock, random: systemRandom, network, log: silentLogger });
  const ask = (dn: string) => servers.ask(url, (connection: LdapConnection) => connection.delete(dn));
  const count = (): number => connections.get(389)?.length ?? 0;

  await ask('cn=a');
  const slow = expect(ask('cn=slow')).rejects.toMatchObject({ code: 'NET_TIMEOUT' });
  await settle();
  await clock.advance(600);
  await ask('cn=b');
  await clock.advance(900);
  await slow;
  await ask('cn=c');
  expect(count()).toBe(1);

  mute = 1;
  const lost = expect(ask('cn=d')).rejects.toMatchObject({ code: 'NET_TIMEOUT' });
  await settle();
  await clock.advance(1500);
  await lost;
  await ask('cn=e');
  expect(count()).toBe(2);
});
