import { describe, expect, it } from 'vitest';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { syncEvents } from '#directory/client/sync-session.ts';
import { present } from '#protocol/ldap/filter.ts';
import { startDs389 } from './ds389-server.ts';
import { startOwnDirectory } from './own-directory.ts';
import { addAccount, addDomain, replicationSuite } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

describe('replication from 389 Directory Server to our server', () => {
  replicationSuite((role) => (role === 'master' ? startDs389() : startOwnDirectory('replica')));
});

describe('replication from 389 Directory Server to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startDs389() : startSlapd({ withSuffix: false })));
});

describe('following 389 Directory Server', () => {
  it('misses nothing when it begins anew, again and again, while accounts come and go', async () => {
    await using server = await startDs389();
    await using admin = await server.connect();
    await addDomain(admin, 'isp.example');
    const known = new Map<string, string>();
    let cookie: Buffer | undefined;
    const connections = new Set<LdapConnection>();
    let isOver = false;
    /** One session, until it has told of so much after its refresh. */
    const follow = async (events: number): Promise<void> => {
      await using connection = await server.connect();
      // Everything may have been known before it was connected.
      if (isOver) return;
      connections.add(connection);
      let live = -1;
      try {
        for await (const event of syncEvents(connection, { baseDn: 'o=mail', filter: present('objectClass'), attributes: ['*'], cookie })) {
          if (event.type === 'entry') known.set(event.uuid, event.dn);
          if (event.type === 'delete') for (const uuid of event.uuids) known.delete(uuid);
          if (live >= 0 || event.type === 'refreshed') live += 1;
          if (live >= 0 && event.cookie !== undefined) cookie = Buffer.from(event.cookie);
          if (live >= events) return;
        }
      } catch (error) {
        // It says so when it has told of a change twice, and the next session goes on.
        if (!/lost count|given up here/.test(String(error))) throw error;
      } finally {
        connections.delete(connection);
      }
    };
    const stop = new AbortController();
    const writing = (async () => {
      for (let i = 0; !stop.signal.aborted; i += 1) {
        await addAccount(admin, `user${i}`);
        if (i % 3 === 0) await admin.delete(`uid=user${i},cn=isp.example,o=mail`);
      }
    })();
    try {
      for (let session = 0; session < 60; session += 1) await follow(6);
    } finally {
      stop.abort();
      await writing;
    }
    const wanted: string[] = [];
    for await (const item of admin.search({ baseDn: 'o=mail', attributes: ['1.1'] })) if (item.kind === 'entry') wanted.push(item.dn);
    const last = follow(Number.POSITIVE_INFINITY);
    try {
      await expect.poll(() => [...known.values()].sort(), { timeout: 20_000 }).toEqual(wanted.sort());
    } finally {
      isOver = true;
      for (const connection of connections) connection.destroy();
      await last;
    }
  }, 120_000);
});
