import { describe, expect, it } from 'vitest';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { scriptedNetwork, success } from './scripted-server.ts';

async function connected(answer: Parameters<typeof scriptedNetwork>[0][number]) {
  const clock = new FakeClock();
  const { network, connections } = scriptedNetwork({ 389: answer });
  const connection = await LdapConnection.open(network, clock, { url: 'ldap://ldap.isp.example', timeoutMs: 1000 });
  return { clock, connection, server: connections.get(389)?.[0] as NonNullable<ReturnType<typeof connections.get>>[number] };
}

describe('an LDAP client connection', () => {
  it('never sends a bind with an empty password or DN', async () => {
    const { connection, server } = await connected(() => {});
    await expect(connection.bind('cn=a', new Secret(''))).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(connection.bind('', new Secret('x'))).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await settle();
    expect(server.requests).toEqual([]);
  });

  it('sends what is asked in one turn together and matches answers in any order', async () => {
    const { connection, server } = await connected(() => {});
    const first = connection.delete('cn=a');
    const second = connection.delete('cn=b');
    await settle();
    const [a, b] = server.requests;
    server.send(b?.id ?? 0, { type: 'deleteResponse', ...success, resultCode: 32 });
    server.send(a?.id ?? 0, { type: 'deleteResponse', ...success });
    await expect(first).resolves.toMatchObject({ result: { resultCode: 0 } });
    await expect(second).rejects.toMatchObject({ code: 'DIR_NOT_FOUND' });
  });

  it('reads nothing while it rests, then all that came, and may be given up meanwhile', async () => {
    const { clock, connection, server } = await connected(({ id }, to) => to.send(id, { type: 'deleteResponse', ...success }));
    const answered: string[] = [];
    connection.rest(10);
    connection.rest(1000);
    const all = ['cn=a', 'cn=b'].map((dn) => connection.delete(dn).then(() => answered.push(dn)));
    await settle();
    expect(server.requests).toHaveLength(2);
    await clock.advance(9);
    expect(answered).toEqual([]);
    await clock.advance(1);
    await Promise.all(all);
    expect(answered).toEqual(['cn=a', 'cn=b']);
    connection.rest(10);
    const last = connection.delete('cn=c');
    connection.destroy();
    await expect(last).rejects.toMatchObject({ code: 'NET_CLOSED' });
    await clock.advance(20);
  });

  it.each([
    [32, 'DIR_NOT_FOUND'],
    [68, 'DIR_EXISTS'],
    [50, 'DIR_DENIED'],
    [49, 'DIR_DENIED'],
    [51, 'DIR_BUSY'],
    [52, 'DIR_BUSY'],
    [80, 'DIR_BUSY'],
    [65, 'DIR_REFUSED'],
    [10, 'DIR_REFUSED'],
  ])('reports result %i as %s with the server’s text', async (resultCode, code) => {
    const { connection } = await connected((message, server) => {
      server.send(message.id, { type: 'addResponse', resultCode, matchedDn: '', diagnosticMessage: 'because of this' });
    });
    const add = connection.add('cn=a', [attribute('cn', 'a')]);
    await expect(add).rejects.toMatchObject({ code, message: expect.stringContaining('because of this'), fields: { resultCode } });
  });

  it('gives a request up after its time, abandons it, and goes on with the connection', async () => {
    const { connection, server, clock } = await connected((message, scripted) => {
      if (message.operation.type === 'deleteRequest' && message.operation.dn === 'cn=b') {
        scripted.send(message.id, { type: 'deleteResponse', ...success });
      }
    });
    const slow = connection.delete('cn=a');
    const outcome = expect(slow).rejects.toMatchObject({ code: 'NET_TIMEOUT' });
    await settle();
    await clock.advance(1500);
    await outcome;
    expect(server.last('abandonRequest').operation).toMatchObject({ abandonedId: server.requests[0]?.id });
    await expect(connection.delete('cn=b')).resolves.toBeDefined();
  });

  it('abandons a search whose reader leaves early', async () => {
    const { connection, server } = await connected((message, scripted) => {
      if (message.operation.type !== 'searchRequest') return;
      for (let i = 0; i < 10; i += 1) scripted.send(message.id, { type: 'searchResultEntry', dn: `cn=${i}`, attributes: [] });
    });
    const found = await connection.searchAll({ baseDn: 'o=mail' }, 3);
    expect(found.map((one) => one.dn)).toEqual(['cn=0', 'cn=1', 'cn=2']);
    await settle();
    expect(server.last('abandonRequest')).toBeDefined();
  });

  it('holds a server back whose entries are not read', async () => {
    const { connection, server } = await connected((message, scripted) => {
      if (message.operation.type !== 'searchRequest') return;
      for (let i = 0; i < 2000; i += 1) scripted.send(message.id, { type: 'searchResultEntry', dn: `cn=${i}`, attributes: [] });
      scripted.send(message.id, { type: 'searchResultDone', ...success });
    });
    const search = connection.search({ baseDn: 'o=mail' });
    await settle();
    expect(search.queued).toBeLessThan(600);
    expect(server.connection.bufferedBytes).toBeGreaterThan(0);
    let count = 0;
    for await (const item of search) if (item.kind === 'entry') count += 1;
    expect(count).toBe(2000);
    expect(search.done).toBeDefined();
  });

  it.each(['one by one', 'in lists'])('holds a server back whose entries are large after a few of them: read %s', async (how) => {
    const attributes = [{ type: 'jpegPhoto', values: [Buffer.alloc(1_000_000)] }];
    const { connection, server } = await connected((message, scripted) => {
      if (message.operation.type !== 'searchRequest') return;
      for (let i = 0; i < 30; i += 1) scripted.send(message.id, { type: 'searchResultEntry', dn: `cn=${i}`, attributes });
      scripted.send(message.id, { type: 'searchResultDone', ...success });
    });
    const search = connection.search({ baseDn: 'o=mail' });
    await settle();
    const shares: number[] = [search.queued];
    let read = 0;
    if (how === 'in lists') {
      for await (const list of search.lists()) {
        read += list.length;
        await settle();
        shares.push(search.queued);
      }
    } else {
      for await (const _ of search) {
        read += 1;
        await settle();
        shares.push(search.queued);
      }
    }
    expect(read).toBe(30);
    expect(Math.max(...shares)).toBe(5);
    expect(server.connection.bufferedBytes).toBe(0);
  });

  it('fails everything at once when the server hangs up or sends rubbish', async () => {
    for (const end of ['hang up', 'rubbish'] as const) {
      const { connection, server } = await connected(() => {});
      const waiting = connection.delete('cn=a');
      const outcome = expect(waiting).rejects.toMatchObject({ code: end === 'rubbish' ? 'PROTO_SYNTAX' : 'NET_CLOSED' });
      await settle();
      if (end === 'rubbish') server.connection.write('HTTP/1.1 400 Bad Request\r\n');
      else server.connection.destroy();
      await outcome;
      expect(connection.isOpen).toBe(false);
      await expect(connection.delete('cn=b')).rejects.toBeDefined();
    }
  });

  it('says why when the server sends a notice of disconnection, and takes it for no answer to what was asked', async () => {
    const { connection, server } = await connected(() => {});
    const waiting = connection.delete('cn=a').catch((error: unknown) => error);
    await settle();
    server.send(0, { type: 'extendedResponse', resultCode: 52, matchedDn: '', diagnosticMessage: 'going down' });
    const error = await waiting;
    expect(error).toMatchObject({ code: 'NET_CLOSED', message: expect.stringContaining('going down') });
    expect(resultCodeOf(error)).toBeUndefined();
  });
});
