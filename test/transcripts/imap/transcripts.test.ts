import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { deliver, runTranscript } from './run-transcript.ts';

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'));

/** INBOX alone, with three messages in it. */
async function furnish(account: OpenAccount): Promise<void> {
  for (const name of account.subscriptions()) await account.subscribe(name, false);
  for (const { name } of account.mailboxes()) if (name !== 'INBOX') await account.deleteMailbox(name);
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

interface Engine {
  readonly name: string;
  open(): Promise<{ readonly account: OpenAccount; readonly close: () => Promise<void> }>;
}

const uuid = parseAccountUuid('00000000-0000-4000-8000-000000000001');

const engines: readonly Engine[] = [
  { name: 'an account in memory', open: async () => ({ account: new MemoryAccount(), close: async () => {} }) },
  {
    name: 'the account store',
    async open() {
      const root = mkdtempSync(`${tmpdir()}/archipelago-imap-`);
      const store = await openAccountStore({
        root,
        files: nodeFiles,
        clock: systemClock,
        random: systemRandom,
        log: silentLogger,
        metrics: createMetrics(),
      });
      const member = parseMemberName('back1.east.isp.example');
      const account = await store.open(uuid, { member, incarnation: 'i1', openId: 'back1.i1.1' });
      const close = async (): Promise<void> => {
        await account.close();
        rmSync(root, { recursive: true });
      };
      return { account, close };
    },
  },
];

test('there are transcripts', () => expect(files.length).toBeGreaterThan(5));

describe.each(engines)('IMAP as clients see it, over $name', ({ open }) => {
  for (const name of files) {
    test(name.replace('.txt', '').replaceAll('-', ' '), async () => {
      const { account, close } = await open();
      await furnish(account);
      await runTranscript(readFileSync(`${import.meta.dirname}/${name}`, 'utf8'), account);
      await close();
    });
  }
});
