import { describe, expect, test } from 'vitest';
import { accountRoomBytes, MessageRoom, memberRoomBytes } from '#backend-cluster/sessions/imap/message-room.ts';
import { createImapServer } from '#backend-cluster/sessions/imap/server.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { ImapClient } from '#test/transcripts/imap/run-transcript.ts';

const uuid = (n: number) => parseAccountUuid(`00000000-0000-4000-8000-00000000000${n}`);
const chunk = 'x'.repeat(1024 * 1024);

describe('room for messages that are coming in', () => {
  test('is limited for an account and for all of them, and comes back', () => {
    const room = new MessageRoom();
    const first = room.share(uuid(1));
    expect(first.hold(accountRoomBytes)).toBe(true);
    expect(room.share(uuid(1)).hold(1)).toBe(false);
    for (let n = 2; n * accountRoomBytes <= memberRoomBytes; n += 1) expect(room.share(uuid(n)).hold(accountRoomBytes)).toBe(true);
    expect(room.share(uuid(9)).hold(1)).toBe(false);
    expect(first.hold(0)).toBe(true);
    expect(room.share(uuid(9)).hold(accountRoomBytes)).toBe(true);
    expect(room.hasRoom(uuid(8), 1)).toBe(false);
  });

  test('an account that sends many large messages at once is stopped, and can send again afterwards', async () => {
    const account = new MemoryAccount();
    const server = createImapServer();
    const clients = Array.from({ length: 4 }, () => new ImapClient(account, undefined, server));
    for (const client of clients) client.send('a APPEND INBOX {50000000+}\r\n');
    for (let sent = 0; sent < 40; sent += 1) for (const client of clients) client.send(chunk);
    const refused = clients.at(-1) as ImapClient;
    expect(await refused.line()).toMatch(/^\* BYE \[UNAVAILABLE\] Too much mail/);
    const late = new ImapClient(account, undefined, server);
    expect(await late.command('b APPEND INBOX {50000000}')).toEqual([expect.stringMatching(/^b NO \[UNAVAILABLE\]/)]);
    for (const client of clients) client.connection.destroy();
    for (let turn = 0; turn < 500 && !clients.every((client) => client.isEnded); turn += 1) {
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    late.send('c APPEND INBOX {50000000}\r\n');
    expect(await late.line()).toBe('+ Ready for literal data');
  });
});
