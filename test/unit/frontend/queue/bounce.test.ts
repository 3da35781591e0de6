import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { bounceMessage } from '#frontend/queue/bounce.ts';
import type { RecipientResult } from '#frontend/queue/lmtp-client.ts';
import { QueueHarness } from './queue-harness.ts';

let h: QueueHarness;

beforeEach(async () => {
  h = new QueueHarness();
  await h.open();
});

afterEach(async () => {
  await h.close();
});

const drained = (): Promise<void> => expect.poll(() => h.queue.status().messages).toBe(0);

describe('a message that cannot be delivered', () => {
  it('comes back to its sender as a delivery status notification, while the others get it', async () => {
    await h.accept(['bob@isp.example', 'gone@isp.example'], { text: 'Subject: hello\nX-Mine: 1\n\nsecret body\n' });
    await drained();
    expect(await h.west.texts('bob@isp.example')).toHaveLength(1);
    const [bounce = ''] = await h.west.texts('alice@isp.example');
    expect(bounce).toContain('Return-Path: <>\r\n');
    expect(bounce).toContain('Content-Type: multipart/report; report-type=delivery-status;');
    expect(bounce).toContain('Reporting-MTA: dns; front1.eu.isp.example\r\n');
    expect(bounce).toContain('Final-Recipient: rfc822; gone@isp.example\r\nAction: failed\r\nStatus: 5.1.1\r\n');
    expect(bounce).toContain('X-Mine: 1\r\n');
    expect(bounce).not.toContain('secret body');
    expect(bounce).not.toContain('bob@isp.example');
    expect(h.queue.status()).toMatchObject({ bounced: 1 });
  });

  it('is never bounced when it is a bounce itself', async () => {
    await h.accept(['gone@isp.example'], { sender: '' });
    await drained();
    expect(h.west.deliveries).toEqual([]);
  });

  it('whose sender is unknown too ends there', async () => {
    await h.accept(['gone@isp.example'], { sender: 'lost@isp.example' });
    await drained();
    expect(h.west.deliveries).toEqual([]);
  });

  it('comes back after five days of temporary failures, not before', async () => {
    h.west.failures.set('bob@isp.example', new PlatformError('STORE_UNAVAILABLE', 'storage away'));
    await h.accept(['bob@isp.example']);
    const day = 24 * 60;
    const advance = async (minutes: number): Promise<void> => {
      for (let i = 0; i < minutes; i += 10) await h.clock.advance(600_000);
    };
    await advance(5 * day - 30);
    expect(h.queue.status()).toMatchObject({ messages: 1, bounced: 0 });
    await advance(60);
    await drained();
    const [bounce = ''] = await h.west.texts('alice@isp.example');
    expect(bounce).toContain('Status: 4.4.7\r\n');
    expect(bounce).toContain('Given up after five days');
  }, 60_000);

  it('waits while the directory cannot say whether the account exists', async () => {
    h.router.isDown = true;
    await h.accept(['gone@isp.example']);
    await expect.poll(() => h.queue.status().deferred).toBe(1);
    await h.clock.advance(600_000);
    expect(h.queue.status()).toMatchObject({ messages: 1, bounced: 0 });
  });

  it('for another domain is bounced where no relay is configured', async () => {
    await h.accept(['x@other.example']);
    await drained();
    const [bounce = ''] = await h.west.texts('alice@isp.example');
    expect(bounce).toContain('Status: 5.7.1\r\n');
  });
});

describe('mail for other domains', () => {
  it('goes to the relay, and each recipient has its own result', async () => {
    await h.queue[Symbol.asyncDispose]();
    const sent: { sender: string; recipients: readonly string[]; raw: string }[] = [];
    h.relay = {
      async send({ sender, recipients, raw }) {
        sent.push({ sender, recipients, raw: raw.toString() });
        return recipients.map((recipient): RecipientResult => {
          if (recipient.startsWith('no')) return { kind: 'permanent', status: '5.1.1', text: '550 5.1.1 no' };
          if (recipient.startsWith('later') && sent.length === 1) return { kind: 'temporary', status: '4.2.0', text: '450 later' };
          return { kind: 'delivered' };
        });
      },
    };
    await h.open();
    await h.accept(['x@other.example', 'no@other.example', 'later@other.example', 'bob@isp.example']);
    await expect.poll(() => h.queue.status().deferred).toBe(1);
    await h.clock.advance(10_000);
    await drained();
    expect(sent.map((entry) => entry.recipients)).toEqual([
      ['x@other.example', 'no@other.example', 'later@other.example'],
      ['later@other.example'],
    ]);
    expect(sent[0]).toMatchObject({ sender: 'alice@isp.example', raw: 'Subject: hello\r\n\r\nbody\r\n' });
    const [bounce = ''] = await h.west.texts('alice@isp.example');
    expect(bounce).toContain('Final-Recipient: rfc822; no@other.example\r\n');
    expect(bounce).not.toContain('later@');
  });
});

describe('the text of a bounce', () => {
  const facts = {
    hostName: 'front1.eu.isp.example',
    id: 'q1-b0',
    originalId: 'q1',
    sender: 'alice@isp.example',
    acceptedAtMs: 0,
    nowMs: 0,
  };

  it('cannot be made to carry header lines by what a peer answered', () => {
    const failed = [{ address: 'a@b.example', status: '5.0.0', text: 'no\r\nBcc: everyone@isp.example' }];
    expect(bounceMessage({ ...facts, failed, originalRaw: Buffer.from('x') }).toString()).not.toMatch(/^Bcc:/m);
  });

  it('shortens a long header and writes addresses beyond ASCII as RFC 6533 wants', () => {
    const failed = [{ address: 'jörg@b.example', status: '5.1.1', text: 'no' }];
    const originalRaw = Buffer.from(`${'X-Long: yes\r\n'.repeat(5000)}\r\nbody`);
    const text = bounceMessage({ ...facts, failed, originalRaw }).toString();
    expect(text.length).toBeLessThan(20_000);
    expect(text).toContain('Final-Recipient: utf-8; j\\x{F6}rg@b.example\r\n');
    expect(text).toContain('X-Long: yes\r\n\r\n--=_q1-b0--\r\n');
  });
});
