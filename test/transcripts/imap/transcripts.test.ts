import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { deliver, runTranscript } from './run-transcript.ts';

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'));

/** Three messages in INBOX, and a few mailboxes beside it. */
async function furnish(account: OpenAccount): Promise<void> {
  await deliver(
    account,
    'INBOX',
    'Date: Fri, 2 Jan 2026 03:04:05 +0000\nFrom: Ann <ann@isp.example>\nTo: bob@isp.example\nSubject: =?utf-8?q?Caf=C3=A9?=\nMessage-ID: <m1@isp.example>\n\nfirst body\n',
  );
  await deliver(account, 'INBOX', 'From: cy@other.example\nSubject: second\n\nsecond body\n', ['\\Seen', '$Label'], Date.UTC(2026, 1, 3));
  await deliver(
    account,
    'INBOX',
    'Subject: with attachment\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\nhello\n--b\nContent-Type: image/png; name="a b.png"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename="a b.png"\n\nAAAA\n--b--\n',
    [],
    Date.UTC(2026, 2, 4),
  );
}

describe('IMAP as clients see it', () => {
  test('there are transcripts', () => expect(files.length).toBeGreaterThan(5));

  for (const name of files) {
    test(name.replace('.txt', '').replaceAll('-', ' '), async () => {
      const account = new MemoryAccount();
      await furnish(account);
      await runTranscript(readFileSync(`${import.meta.dirname}/${name}`, 'utf8'), account);
    });
  }
});
