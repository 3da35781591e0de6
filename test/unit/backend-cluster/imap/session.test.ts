import { describe, expect, test } from 'vitest';
import { connectionBytesMax, stallMs } from '#backend-cluster/sessions/imap/output.ts';
import { autologoutMs, badCommandsMax, imapCapabilities } from '#backend-cluster/sessions/imap/server.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { settle } from '#test/fakes/clock.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { deliver, ImapClient } from '#test/transcripts/imap/run-transcript.ts';

const closed = async (client: ImapClient): Promise<boolean> => {
  for (let turn = 0; !client.isEnded && turn < 500; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
  return client.isEnded;
};

async function withMessages(count: number, bytes = 10): Promise<MemoryAccount> {
  const account = new MemoryAccount();
  for (let i = 0; i < count; i += 1) await deliver(account, 'INBOX', `Subject: ${i}\n\n${'x'.repeat(bytes)}\n`);
  return account;
}

describe('an IMAP session', () => {
  test('names no capability twice and none that needs a login', () => {
    expect(new Set(imapCapabilities).size).toBe(imapCapabilities.length);
    expect(imapCapabilities.some((name) => name.startsWith('AUTH=') || name === 'STARTTLS')).toBe(false);
  });

  test('is ended in IMAP words when the account is taken away, also while idle', async () => {
    const account = await withMessages(1);
    const client = new ImapClient(account);
    await client.command('a SELECT INBOX');
    client.send('b IDLE\r\n');
    expect(await client.line()).toBe('+ idling');
    account.depose();
    expect(await client.line()).toMatch(/^\* BYE \[UNAVAILABLE\] /);
    expect(await closed(client)).toBe(true);
    expect(client.session.summary()).toEqual({ commands: 2, outcome: 'ended by the server' });
  });

  test('that is told by its host to end says so and counts its commands', async () => {
    const client = new ImapClient(await withMessages(0));
    await client.command('a NOOP');
    client.session.bye('Moving, please connect again');
    expect(await client.line()).toBe('* BYE [UNAVAILABLE] Moving, please connect again');
    expect(await closed(client)).toBe(true);
    client.session.bye('again');
    expect(client.session.summary().commands).toBe(1);
  });

  test('that says nothing for half an hour is logged out, and one that talks is not', async () => {
    const client = new ImapClient(await withMessages(0));
    await client.command('a NOOP');
    await client.clock.advance(autologoutMs - 1000);
    await client.command('b NOOP');
    await client.clock.advance(autologoutMs - 1000);
    expect(client.isEnded).toBe(false);
    await client.clock.advance(2000);
    expect(await client.line()).toBe('* BYE Autologout: idle for too long');
    expect(await closed(client)).toBe(true);
  });

  test('that only makes mistakes is sent away, and a good command in between forgives', async () => {
    const client = new ImapClient(await withMessages(0));
    for (let i = 0; i < badCommandsMax - 1; i += 1) await client.command(`a${i} WHAT`);
    await client.command('b NOOP');
    for (let i = 0; i < badCommandsMax; i += 1) await client.command(`c${i} WHAT`);
    expect(await client.line()).toBe('* BYE Too many commands were not understood');
    expect(await closed(client)).toBe(true);
  });

  test('survives bytes that are no IMAP at all, and ends', async () => {
    const client = new ImapClient(await withMessages(0));
    client.send(`\u0000\u0001\r\n${'\r\n'.repeat(100)}`);
    expect(await closed(client)).toBe(true);
    expect(client.session.summary().outcome).toBe('too many bad commands');
  });

  test('that searches a long text for many things lets others have their turn', async () => {
    const account = new MemoryAccount();
    await deliver(account, 'INBOX', `Subject: long\n\n${'nothing to be found in here\n'.repeat(40_000)}`);
    const client = new ImapClient(account);
    await client.command('a SELECT INBOX');
    let turns = 0;
    let isDone = false;
    const count = (): void => {
      turns += 1;
      if (!isDone) setImmediate(count);
    };
    count();
    const answer = await client.command(`b SEARCH ${Array.from({ length: 200 }, (_, i) => `NOT BODY x${i}`).join(' ')}`);
    isDone = true;
    expect(answer).toEqual(['* SEARCH 1', 'b OK SEARCH completed']);
    expect(turns).toBeGreaterThan(200);
  });

  test('a command line without end is refused and the session goes on', async () => {
    const client = new ImapClient(await withMessages(0));
    client.send(`a ${'x'.repeat(200_000)}\r\n`);
    expect(await client.line()).toBe('a BAD [TOOBIG] A command line is longer than 65536 octets');
    expect((await client.command('b NOOP')).at(-1)).toBe('b OK NOOP completed');
  });

  test('a half-close after commands still answers them', async () => {
    const client = new ImapClient(await withMessages(0));
    client.send('a NOOP\r\nb CAPABILITY\r\n');
    client.connection.end();
    expect(await client.line()).toBe('a OK NOOP completed');
    expect(await client.line()).toMatch(/^\* CAPABILITY/);
    expect(await client.line()).toBe('b OK CAPABILITY completed');
    expect(await closed(client)).toBe(true);
  });
});

describe('a client that reads slowly', () => {
  test('holds back a big FETCH, and gets all of it in order when it reads', async () => {
    const account = await withMessages(40, 50_000);
    const client = new ImapClient(account);
    await client.command('a SELECT INBOX');
    client.connection.pause();
    client.send('b FETCH 1:* BODY.PEEK[]\r\n');
    await settle();
    await settle();
    // What is held is bounded by the connection's share, not by the two megabytes that were asked for.
    expect(client.connection.pendingBytes).toBeGreaterThan(connectionBytesMax / 2);
    expect(client.connection.pendingBytes).toBeLessThan(connectionBytesMax + 200_000);
    client.connection.resume();
    for (let i = 1; i <= 40; i += 1) expect(await client.line()).toMatch(new RegExp(`^\\* ${i} FETCH \\(BODY\\[\\] \\{`));
    expect(await client.line()).toBe('b OK FETCH completed');
  });

  test('and never reads again is cut after the stated time', async () => {
    const client = new ImapClient(await withMessages(40, 50_000));
    await client.command('a SELECT INBOX');
    client.connection.pause();
    client.send('b FETCH 1:* BODY.PEEK[]\r\n');
    await settle();
    await client.clock.advance(stallMs + 1);
    expect(await closed(client)).toBe(true);
    expect(client.session.summary().outcome).toBe('client did not read');
  });
});

describe('APPEND', () => {
  test('over quota is refused before the message is sent', async () => {
    const account = await withMessages(1);
    account.quotaBytes = 100;
    const client = new ImapClient(account);
    expect(await client.command('a APPEND INBOX {500}')).toEqual(['a NO [OVERQUOTA] Quota exceeded']);
    client.send(`b APPEND INBOX {500+}\r\n${'x'.repeat(500)}\r\nc NOOP\r\n`);
    expect(await client.line()).toBe('b NO [OVERQUOTA] Quota exceeded');
    expect(await client.line()).toBe('c OK NOOP completed');
    expect(account.mailbox('INBOX')?.messageCount).toBe(1);
  });

  test('that fills a quota is seen in GETQUOTAROOT', async () => {
    const account = await withMessages(1, 2000);
    account.quotaBytes = 10_240;
    const client = new ImapClient(account);
    const answer = ['* QUOTAROOT INBOX ""', '* QUOTA "" (STORAGE 2 10)', 'a OK GETQUOTAROOT completed'];
    expect(await client.command('a GETQUOTAROOT inbox')).toEqual(answer);
    expect(await client.command('b GETQUOTA ""')).toEqual(['* QUOTA "" (STORAGE 2 10)', 'b OK GETQUOTA completed']);
  });

  test('of a literal that nobody would read to its end closes the session', async () => {
    const client = new ImapClient(await withMessages(0));
    client.send('a APPEND INBOX {999999999999+}\r\n');
    expect(await client.line()).toBe('* BYE [TOOBIG] The literal is too large');
    expect(await closed(client)).toBe(true);
  });

  test('stores octets as they came, with any byte in them', async () => {
    const account = await withMessages(0);
    const client = new ImapClient(account);
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    client.connection.write(
      Buffer.concat([
        Buffer.from('a APPEND INBOX {258+}\r\n'),
        all.subarray(0, 10),
        Buffer.from('\r\n'),
        all.subarray(10),
        Buffer.from('\r\n'),
      ]),
    );
    expect(await client.line()).toMatch(/^a OK \[APPENDUID \d+ 1\]/);
    const stored = await account.readRaw(1, 1);
    // 0x0A after 0x09 became CRLF once more; the bare CR at 0x0D too; nothing else changed.
    expect(stored.subarray(-240)).toEqual(all.subarray(16));
  });
});

describe('FETCH', () => {
  test('of a message that cannot be read sends the others and then tells the failure', async () => {
    const account = await withMessages(3);
    account.unreadable = { uid: 2, error: new PlatformError('STORE_CORRUPT', 'a record fails its checksum') };
    const client = new ImapClient(account);
    await client.command('a SELECT INBOX');
    const lines = await client.command('b FETCH 1:3 BODY.PEEK[TEXT]');
    expect(lines.map((line) => line.split(' ').slice(0, 3).join(' '))).toEqual(['* 1 FETCH', '* 3 FETCH', 'b NO [UNAVAILABLE]']);
  });

  test('of an envelope and structure works without a readable summary', async () => {
    const account = await withMessages(0);
    const raw = Buffer.from('Subject: old record\r\n\r\nx\r\n');
    await account.append(1, [{ raw, summary: Buffer.from('from an older version'), flags: [], internalDateMs: 0 }]);
    const client = new ImapClient(account);
    await client.command('a SELECT INBOX');
    const [line] = await client.command('b FETCH 1 (ENVELOPE BODY)');
    expect(line).toMatch(/^\* 1 FETCH \(ENVELOPE \(NIL "old record" .* BODY \("text" "plain" NIL NIL NIL "7bit" 3 1\)\)$/);
  });

  test('sees a message as it is when another session changes it meanwhile', async () => {
    const account = await withMessages(2);
    const one = new ImapClient(account);
    const two = new ImapClient(account);
    await one.command('a SELECT INBOX');
    await two.command('a SELECT INBOX');
    await one.command('b STORE 1 +FLAGS \\Flagged');
    expect(await two.command('b NOOP')).toEqual(['* 1 FETCH (UID 1 FLAGS (\\Flagged))', 'b OK NOOP completed']);
    expect(await one.command('c NOOP')).toEqual(['c OK NOOP completed']);
  });

  test('catches up by comparing when the mailbox no longer remembers what happened', async () => {
    const account = await withMessages(4);
    const client = new ImapClient(account);
    await client.command('a SELECT INBOX');
    const inbox = account.mailbox('INBOX');
    if (inbox === undefined) throw new Error('no INBOX');
    await account.expunge(inbox.id, [2], true);
    await account.storeFlags(inbox.id, [3], 'add', ['New']);
    await deliver(account, 'INBOX', 'Subject: 5\n\n');
    inbox.forgottenModseq = inbox.highestModseq;
    expect(await client.command('b NOOP')).toEqual([
      '* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft New)',
      '* 2 EXPUNGE',
      '* 4 EXISTS',
      '* 2 FETCH (UID 3 FLAGS (New))',
      'b OK NOOP completed',
    ]);
  });
});
