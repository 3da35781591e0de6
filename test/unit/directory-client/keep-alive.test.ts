import { describe, expect, it } from 'vitest';
import { keepAlive } from '#directory/client/keep-alive.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { LdapMessage } from '#protocol/ldap/messages.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { type ScriptedConnection, scriptedNetwork, success } from './scripted-server.ts';

const entry = (id: number): Buffer =>
  encodeMessage({ id, operation: { type: 'searchResultEntry', dn: 'cn=a,o=mail', attributes: [] }, controls: [] });

/** A connection that is watched, with a search that persists. */
async function watched(answer: (message: LdapMessage, server: ScriptedConnection) => void, clock = new FakeClock()) {
  const { network, connections } = scriptedNetwork({ 389: answer });
  const connection = await LdapConnection.open(network, clock, { url: 'ldap://ldap.isp.example', timeoutMs: 1000 });
  const search = connection.search({ baseDn: 'o=mail', timeoutMs: 0 });
  await settle();
  keepAlive(connection, clock);
  const server = connections.get(389)?.[0] as ScriptedConnection;
  return { clock, connection, search, server, id: server.last('searchRequest').id };
}

function signOfLife({ id, operation }: LdapMessage, server: ScriptedConnection): void {
  if (operation.type === 'searchRequest' && operation.scope === 'base') server.send(id, { type: 'searchResultDone', ...success });
}

describe('a connection that is watched', () => {
  it('is dropped when the server gives no sign of life, and kept when it does', async () => {
    const silent = await watched(() => {});
    const alive = await watched(signOfLife);
    await silent.clock.advance(10_000);
    await alive.clock.advance(600_000);
    expect((await silent.connection.closed).message).toContain('no sign of life');
    expect(alive.connection.isOpen).toBe(true);
  });

  it('is kept while its reader has no room, however long that is, and watched again afterwards', async () => {
    let isMute = false;
    const { clock, connection, search, server, id } = await watched((message, to) => {
      if (!isMute) signOfLife(message, to);
    });
    for (let i = 0; i < 2000; i += 1) server.connection.write(entry(id));
    await clock.advance(600_000);
    expect(connection.isOpen).toBe(true);
    isMute = true;
    let read = 0;
    for await (const _ of search) {
      read += 1;
      if (read === 2000) break;
    }
    await clock.advance(4000);
    expect(connection.isOpen).toBe(true);
    await clock.advance(10_000);
    expect((await connection.closed).message).toContain('no sign of life');
  });

  it('is kept when this process stood still and the server answers as soon as it is asked, and dropped when it does not', async () => {
    class StoppedClock extends FakeClock {
      stoodMs = 0;
      override monotonicMs(): number {
        return super.monotonicMs() + this.stoodMs;
      }
    }
    const clock = new StoppedClock();
    const { connection } = await watched(signOfLife, clock);
    const other = new StoppedClock();
    const silent = await watched(() => {}, other);
    for (const one of [clock, other]) {
      await one.advance(3000);
      one.stoodMs = 60_000;
      await one.advance(60_000);
    }
    expect(connection.isOpen).toBe(true);
    expect((await silent.connection.closed).message).toContain('no sign of life');
  });

  it('is dropped when a message comes byte by byte and does not end', async () => {
    const { clock, connection, server, id } = await watched(() => {});
    const bytes = encodeMessage({
      id,
      operation: { type: 'searchResultEntry', dn: `cn=${'a'.repeat(1000)},o=mail`, attributes: [] },
      controls: [],
    });
    for (const byte of bytes.subarray(0, 70)) {
      server.connection.write(Buffer.of(byte));
      await clock.advance(1000);
    }
    expect((await connection.closed).message).toContain('a message has not come to its end');
  });

  it('is kept while messages come to their ends, each with the beginning of the next', async () => {
    const { clock, connection, search, server, id } = await watched(() => {});
    let read = 0;
    const reading = (async () => {
      for await (const _ of search) read += 1;
    })();
    const bytes = Buffer.concat(Array.from({ length: 11 }, () => entry(id)));
    for (let at = 0; at < bytes.length - 5; at += 5) {
      server.connection.write(bytes.subarray(at, at + 5));
      await clock.advance(3000);
    }
    expect(read).toBe(10);
    expect(connection.isOpen).toBe(true);
    connection.destroy();
    await reading.catch(() => {});
  });
});
