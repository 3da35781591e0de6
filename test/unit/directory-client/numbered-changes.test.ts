import { expect, it } from 'vitest';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { type SyncEvent, syncEvents } from '#directory/client/sync-session.ts';
import { controlOids, encodeSyncInfo, findControl, makeSyncDone, makeSyncState, readSyncRequest } from '#protocol/ldap/controls.ts';
import { present } from '#protocol/ldap/filter.ts';
import { attribute, type LdapMessage } from '#protocol/ldap/messages.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { scriptedNetwork, success } from './scripted-server.ts';

const uuidOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const cookieOf = (n: number | string): Buffer => Buffer.from(`ldap.example:389#cn=frontend:o=mail:(objectClass=*)#${n}`);
const slapdCookie = 'rid=000,csn=20260101000000.000000Z#000000#000#000000';

/** A session that begins at that cookie, with what it tells in words and what its two searches are sent. */
async function session(cookie: Buffer | undefined) {
  const { network, connections } = scriptedNetwork({ 389: () => {} });
  const clock = new FakeClock();
  const connection = await LdapConnection.open(network, clock, { url: 'ldap://a:389' });
  const heard: string[] = [];
  const events = syncEvents(connection, { baseDn: 'o=mail', filter: present('objectClass'), attributes: ['*'], cookie });
  const ended = (async () => {
    for await (const event of events) heard.push(inWords(event));
  })().catch((error: unknown) => String(error));
  await settle();
  const server = connections.get(389)?.[0];
  if (server === undefined) throw new Error('nobody connected');
  const searches = (): LdapMessage[] => server.requests.filter((one) => one.operation.type === 'searchRequest');
  const asked = (which: number) => readSyncRequest(findControl(searches()[which]?.controls ?? [], controlOids.syncRequest)?.value);
  const id = (which: number): number => searches()[which]?.id ?? -1;
  const entry = (which: number, n: number, at?: number | string): void =>
    server.send(id(which), { type: 'searchResultEntry', dn: `uid=u${n}`, attributes: [attribute('objectClass', 'top')] }, [
      makeSyncState({ state: 'add', uuid: uuidOf(n), cookie: at === undefined ? undefined : cookieOf(at) }),
    ]);
  const refreshed = (value: Buffer): void => {
    const info = encodeSyncInfo({ kind: 'refreshDelete', cookie: value, refreshDone: true });
    server.send(id(0), { type: 'intermediateResponse', oid: controlOids.syncInfo, value: info });
  };
  const gone = (which: number, n: number, at: number): void => {
    const info = encodeSyncInfo({ kind: 'syncIdSet', cookie: cookieOf(at), refreshDeletes: true, uuids: [uuidOf(n)] });
    server.send(id(which), { type: 'intermediateResponse', oid: controlOids.syncInfo, value: info });
  };
  const done = (which: number, at: number): void =>
    server.send(id(which), { type: 'searchResultDone', ...success }, [makeSyncDone({ cookie: cookieOf(at), refreshDeletes: false })]);
  return { heard, ended, searches, asked, entry, refreshed, gone, done, connection };
}

function inWords(event: SyncEvent): string {
  const cookie = event.cookie === undefined ? '' : ` #${event.cookie.toString().split('#').at(-1)}`;
  if (event.type === 'entry') return `${event.isAdd ? 'new' : 'entry'} ${event.dn}${cookie}`;
  return `${event.type}${event.type === 'delete' ? ` ${[...event.uuids].map((uuid) => Number(uuid.slice(-12))).join()}` : ''}${cookie}`;
}

it('asks a server that numbers its changes again for what fell between refresh and persist', async () => {
  const { heard, asked, entry, refreshed, gone, done, ended, connection } = await session(cookieOf(5));
  entry(0, 1);
  refreshed(cookieOf(7));
  await settle();
  expect(asked(1)).toMatchObject({ mode: 'refreshOnly', cookie: cookieOf(7) });
  // 8 and 9 are in no part of the stream; 10 is the first that it has heard of.
  entry(0, 4, 10);
  gone(1, 3, 10);
  entry(1, 2);
  done(1, 10);
  await settle();
  entry(0, 5, 11);
  await settle();
  expect(heard).toEqual(['new uid=u1', 'refreshed #7', 'new uid=u4 #10', 'entry uid=u2', 'delete 3', 'new uid=u5 #11']);
  connection.destroy();
  expect(await ended).toContain('given up here');
});

it('lets the stream’s own word stand against the second reading, and moves on to its number', async () => {
  const { heard, entry, refreshed, gone, done, connection } = await session(cookieOf(5));
  refreshed(cookieOf(7));
  await settle();
  entry(0, 1, 9);
  await settle();
  entry(1, 1);
  gone(1, 1, 12);
  entry(1, 2);
  done(1, 12);
  await settle();
  // Its number was passed by the second reading.
  entry(0, 3, 11);
  await settle();
  expect(heard).toEqual(['refreshed #7', 'new uid=u1 #9', 'entry uid=u2', 'cookie #12', 'new uid=u3']);
  connection.destroy();
});

it.each(['4294967295', '18446744073709551615'])('ends a stream whose numbers are lost at %s', async (none) => {
  const { heard, entry, refreshed, done, ended } = await session(cookieOf(5));
  refreshed(cookieOf(7));
  await settle();
  done(1, 7);
  entry(0, 1, none);
  entry(0, 2, 3);
  expect(await ended).toContain('lost count of its changes: asked again from 7');
  expect(heard).toEqual(['refreshed #7', 'new uid=u1']);
});

it('asks nothing twice after a whole refresh, nor of a server whose cookies are of another kind', async () => {
  const whole = await session(undefined);
  whole.entry(0, 1);
  whole.refreshed(cookieOf(7));
  await settle();
  whole.entry(0, 2, 8);
  await settle();
  expect([whole.searches().length, whole.heard.at(-1)]).toEqual([1, 'new uid=u2 #8']);
  const slapd = await session(Buffer.from(slapdCookie));
  slapd.refreshed(Buffer.from(slapdCookie));
  await settle();
  slapd.entry(0, 2);
  await settle();
  expect([slapd.searches().length, slapd.heard.length]).toEqual([1, 2]);
  for (const each of [whole, slapd]) each.connection.destroy();
});
