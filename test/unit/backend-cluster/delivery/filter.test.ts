import { describe, expect, it } from 'vitest';
import { deliverTo } from '#backend-cluster/delivery/deliver.ts';
import { silentLogger } from '#common/log/logger.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';

async function delivered(script: string, attempts = 1): Promise<string[]> {
  const account = new MemoryAccount();
  await account.createMailbox('Lists');
  await account.putScript('s', script);
  await account.activateScript('s');
  const raw = Buffer.from('From: a@b.example\r\nSubject: list\r\n\r\nhello\r\n');
  const message = { raw, deliveryId: 'd1', sender: 'a@b.example', recipient: 'alice@isp.example', receivedAtMs: 0 };
  for (let i = 0; i < attempts; i += 1) await deliverTo(account, message, silentLogger);
  return account
    .mailboxes()
    .flatMap((mailbox) => [...mailbox.uids()].map((uid) => [mailbox.name, ...(mailbox.message(uid)?.flags ?? [])].join(' ')));
}

describe('a delivery to an account with a script', () => {
  it.each([
    ['keep;', ['INBOX']],
    ['discard;', []],
    ['require "fileinto"; fileinto "Lists";', ['Lists']],
    [
      'require ["fileinto", "copy", "imap4flags"]; setflag "\\\\Seen"; fileinto :copy :flags "list" "Lists";',
      ['INBOX \\Seen', 'Lists list'],
    ],
    ['require ["fileinto", "envelope"]; if envelope "to" "alice@isp.example" { fileinto "Lists"; }', ['Lists']],
    // What cannot be done leads to INBOX, and once only.
    ['require "fileinto"; fileinto "No such mailbox"; keep;', ['INBOX']],
    ['this is no script', ['INBOX']],
  ])('by %s is in %j', async (script, places) => {
    expect(await delivered(script)).toEqual(places);
  });

  it('is there once, however often it is tried', async () => {
    expect(await delivered('require ["fileinto", "copy"]; fileinto :copy "Lists";', 3)).toEqual(['INBOX', 'Lists']);
  });
});
