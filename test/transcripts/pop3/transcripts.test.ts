import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { deliverTo } from '#backend-cluster/delivery/deliver.ts';
import { servePop3 } from '#backend-cluster/sessions/pop3/server.ts';
import { parseAccountName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { silentLogger } from '#common/log/logger.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { connectionPair } from '#test/fakes/memory-connection.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { LineClient, playTranscript } from '../line-transcript.ts';

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'));

async function deliver(account: MemoryAccount, id: string, text: string): Promise<void> {
  const receivedAtMs = Date.UTC(2026, 0, 2);
  const raw = Buffer.from(text.replaceAll('\n', '\r\n'));
  await deliverTo(account, { raw, deliveryId: id, sender: 'a@b.example', receivedAtMs }, silentLogger);
}

/** Three messages: plain, with dots at line starts, without a final line end. */
async function furnished(): Promise<MemoryAccount> {
  const account = new MemoryAccount();
  await deliver(account, 'd1', 'Subject: one\n\nfirst\nsecond\nthird\n');
  await deliver(account, 'd2', 'Subject: dots\n\n.\n..\n.x\nend\n');
  await deliver(account, 'd3', 'Subject: short\n\nno line end');
  return account;
}

function start(
  account: MemoryAccount,
  clock = new FakeClock(),
  resume?: object,
): { client: LineClient; ends: () => number; bye: (text: string) => void; moveAway: () => Promise<object | undefined>; clock: FakeClock } {
  const [near, far] = connectionPair();
  let ended = 0;
  const context = {
    sessionId: 's1',
    account,
    refresh: () => undefined,
    accountName: () => parseAccountName('alice@isp.example'),
    clientAddress: '127.0.0.1',
    resume,
    clock,
    random: seededRandom(1),
    log: silentLogger,
  };
  const session = servePop3(far, context, () => {
    ended += 1;
  });
  return {
    client: new LineClient(near),
    ends: () => ended,
    bye: (text) => session.bye(text),
    moveAway: async () => session.moveAway?.(),
    clock,
  };
}

describe('POP3 as clients see it', () => {
  test('there are transcripts', () => expect(files.length).toBeGreaterThan(2));

  for (const name of files) {
    test(name.replace('.txt', '').replaceAll('-', ' '), async () => {
      const account = await furnished();
      const { client } = start(account);
      await playTranscript(readFileSync(`${import.meta.dirname}/${name}`, 'utf8'), client, async (action) => {
        if (action === 'depose') account.depose();
        else if (action === 'expunge 1') await account.expunge(1, [1], true);
        else if (action === 'deliver') await deliver(account, 'd9', 'Subject: new\n\nnew\n');
        else throw new Error(`unknown action ${action}`);
      });
    });
  }
});

/** A multi-line answer without its first line. */
async function listing(client: LineClient, command: string): Promise<string[]> {
  expect(await client.command(command)).toMatch(/^\+OK/);
  const lines: string[] = [];
  for (let line = await client.line(); line !== undefined && line !== '.'; line = await client.line()) lines.push(line);
  return lines;
}

describe('a POP3 session', () => {
  test('removes nothing when the connection is lost before QUIT', async () => {
    const account = await furnished();
    const { client, ends } = start(account);
    expect(await client.command('DELE 1')).toMatch(/^\+OK/);
    client.connection.destroy();
    await expect.poll(ends).toBe(1);
    expect(account.mailbox('INBOX')?.messageCount).toBe(3);
  });

  test('removes what was marked at QUIT', async () => {
    const account = await furnished();
    const { client, ends } = start(account);
    await client.command('DELE 1');
    await client.command('DELE 3');
    expect(await client.command('QUIT')).toBe('+OK 2 messages deleted, bye');
    await expect.poll(ends).toBe(1);
    expect([...(account.mailbox('INBOX')?.uids() ?? [])]).toEqual([2]);
  });

  test('says so when the deletions cannot be committed', async () => {
    const account = await furnished();
    const { client } = start(account);
    await client.command('DELE 1');
    account.expunge = () => Promise.reject(new PlatformError('STORE_UNAVAILABLE', 'the disk is away'));
    expect(await client.command('QUIT')).toBe('-ERR [SYS/TEMP] Deleted messages were not removed');
    expect(await client.line()).toBeUndefined();
  });

  test('is ended after ten idle minutes, and what was marked stays', async () => {
    const account = await furnished();
    const { client, clock } = start(account);
    await client.command('DELE 1');
    await clock.advance(10 * 60_000 - 1);
    expect(client.isClosed).toBe(false);
    await clock.advance(1);
    expect(await client.line()).toBe('-ERR [SYS/TEMP] Idle too long');
    expect(await client.line()).toBeUndefined();
    expect(account.mailbox('INBOX')?.messageCount).toBe(3);
  });

  test('gives the same unique ids to the next session', async () => {
    const account = await furnished();
    const listing = async (): Promise<string[]> => {
      const { client } = start(account);
      client.send('UIDL\r\nQUIT\r\n');
      const lines: string[] = [];
      for (let line = await client.line(); line !== undefined; line = await client.line()) lines.push(line);
      return lines.slice(1, 4);
    };
    const first = await listing();
    expect(new Set(first).size).toBe(3);
    expect(await listing()).toEqual(first);
  });

  test('answers pipelined commands in order, whatever the chunks', async () => {
    const account = await furnished();
    const { client } = start(account);
    for (const byte of 'STAT\r\nNOOP\r\nLIST 2\r\nQUIT\r\n') client.send(byte);
    const lines: (string | undefined)[] = [];
    for (let i = 0; i < 4; i += 1) lines.push(await client.line());
    expect(lines.map((line) => line?.slice(0, 6))).toEqual(['+OK 3 ', '+OK', '+OK 2 ', '+OK By']);
  });

  test('waits for a client that reads slowly instead of holding the mailbox in memory', async () => {
    const account = new MemoryAccount();
    await deliver(account, 'big', `Subject: big\n\n${'x'.repeat(76)}\n`.repeat(30_000));
    const { client } = start(account);
    client.connection.pause();
    client.send('RETR 1\r\nRETR 1\r\nRETR 1\r\n');
    for (let turn = 0; turn < 50; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
    const held = (client.connection as unknown as { pendingBytes: number }).pendingBytes;
    expect(held).toBeGreaterThan(0);
    expect(held).toBeLessThan(200_000);
    client.connection.resume();
    const ends = async (): Promise<number> => {
      let dots = 0;
      while (dots < 3) if ((await client.line()) === '.') dots += 1;
      return dots;
    };
    expect(await ends()).toBe(3);
  });

  test('is given up when the client reads nothing for minutes', async () => {
    const account = new MemoryAccount();
    await deliver(account, 'big', `Subject: big\n\n${'x'.repeat(76)}\n`.repeat(3000));
    const { client, ends, clock } = start(account);
    client.connection.pause();
    client.send('RETR 1\r\n');
    await expect.poll(() => (client.connection as unknown as { pendingBytes: number }).pendingBytes).toBeGreaterThan(60_000);
    await clock.advance(5 * 60_000);
    await expect.poll(ends).toBe(1);
  });

  test('goes on at another member with its numbers, sizes, ids and marks, whatever others have expunged, and with a line that was begun', async () => {
    const account = await furnished();
    const first = start(account);
    const [list, ids] = [await listing(first.client, 'LIST'), await listing(first.client, 'UIDL')];
    await first.client.command('DELE 2');
    await account.expunge(1, [1], true);
    // What has come is done before it rests; the frontend ends its side behind it.
    first.client.send('NOOP\r\nSTA');
    const moving = first.moveAway();
    first.client.connection.end();
    expect(await first.client.line()).toBe('+OK');
    const state = await moving;
    expect(state).toBeDefined();
    first.bye('must not be heard');
    expect(first.client.isClosed).toBe(false);
    await account.expunge(1, [3], true);
    await deliver(account, 'd9', 'Subject: new\n\nnew\n');

    const second = start(account, undefined, JSON.parse(JSON.stringify(state)) as object);
    second.client.send('T\r\n');
    expect(await second.client.line()).toMatch(/^\+OK 2 /);
    expect(await second.client.command('RETR 1')).toBe('-ERR The message was removed by another session');
    expect(await second.client.command('RETR 2')).toBe('-ERR No such message');
    expect(await second.client.command('RETR 4')).toBe('-ERR No such message');
    await second.client.command('RSET');
    expect([await listing(second.client, 'LIST'), await listing(second.client, 'UIDL')]).toEqual([list, ids]);
    await second.client.command('DELE 2');
    expect(await second.client.command('QUIT')).toBe('+OK 1 messages deleted, bye');
    await expect.poll(second.ends).toBe(1);
    expect(account.mailbox('INBOX')?.messageCount).toBe(1);
  });

  test('that has said QUIT is over, and not moved', async () => {
    const account = await furnished();
    const { client, moveAway, ends } = start(account);
    await client.command('DELE 1');
    client.send('QUIT\r\n');
    const moving = moveAway();
    client.connection.end();
    expect(await client.line()).toBe('+OK 1 messages deleted, bye');
    expect(await moving).toBeUndefined();
    await expect.poll(ends).toBe(1);
    expect(account.mailbox('INBOX')?.messageCount).toBe(2);
  });

  test('that cannot go on exactly ends with a temporary refusal, and nothing is deleted', async () => {
    const account = await furnished();
    const { client, moveAway } = start(account);
    await client.command('DELE 1');
    const moving = moveAway();
    client.connection.end();
    const state = (await moving) as { maildrop: object };
    const another = { ...state, maildrop: { ...state.maildrop, uidValidity: 1 } };
    const second = start(account, undefined, another);
    expect(await second.client.line()).toBe('-ERR [SYS/TEMP] The mailbox was replaced, connect again');
    expect(await second.client.line()).toBeUndefined();
    expect(account.mailbox('INBOX')?.messageCount).toBe(3);
  });

  test('ends in its own words when the server must', async () => {
    const account = await furnished();
    const { client, bye } = start(account);
    await client.command('NOOP');
    bye('The server is going down');
    expect(await client.line()).toBe('-ERR [SYS/TEMP] The server is going down');
    expect(await client.line()).toBeUndefined();
  });
});
