import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { LmtpMember } from '#test/fakes/lmtp-member.ts';
import { LineClient, playTranscript } from '../line-transcript.ts';

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'));
const names = ['alice@isp.example', 'bob@isp.example', 'full@isp.example', 'moved@isp.example', 'broken@isp.example'];

function member(): LmtpMember {
  const made = new LmtpMember(new FakeClock(), names, 2000);
  made.failures.set('full@isp.example', new PlatformError('MBOX_OVER_QUOTA', 'full'));
  made.refusals.set('moved@isp.example', new PlatformError('LINK_MOVED', 'moved'));
  made.failures.set('broken@isp.example', new PlatformError('BUG_UNEXPECTED', 'a fault'));
  return made;
}

describe('LMTP as a frontend sees it', () => {
  test('there are transcripts', () => expect(files.length).toBeGreaterThan(2));

  for (const name of files) {
    test(name.replace('.txt', '').replaceAll('-', ' '), async () => {
      const lmtp = member();
      const client = new LineClient(lmtp.open());
      await playTranscript(readFileSync(`${import.meta.dirname}/${name}`, 'utf8'), client, async (action) => {
        const [verb, account = '', count = ''] = action.split(' ');
        if (verb === 'has') expect(await lmtp.texts(account), action).toHaveLength(Number(count));
        else if (verb === 'bye') lmtp.sessions[0]?.bye('Going down');
        else throw new Error(`unknown action ${action}`);
      });
      await expect.poll(() => lmtp.endedSessions).toBe(1);
    });
  }
});

describe('an LMTP session', () => {
  test('puts trace headers before the message and normalises its line ends', async () => {
    const lmtp = member();
    const client = new LineClient(lmtp.open());
    await client.reply();
    await client.command('LHLO front1.eu.isp.example');
    await client.command('MAIL FROM:<ann@other.example> XDELIVERYID=q1');
    await client.command('RCPT TO:<Alice@ISP.example>');
    await client.command('DATA');
    client.send('Subject: x\r\n\r\nbare\nlines\n.\nstay one message\r\n.\r\n');
    expect(await client.reply()).toBe('250 2.1.5 <alice@isp.example> delivered');
    const [text = ''] = await lmtp.texts('alice@isp.example');
    expect(text.split('\r\n')).toEqual([
      'Return-Path: <ann@other.example>',
      'Delivered-To: alice@isp.example',
      'Received: from front1.eu.isp.example by back1.west.isp.example with LMTP id q1',
      '\tfor <alice@isp.example>; Thu, 01 Jan 2026 00:00:00 +0000',
      'Subject: x',
      '',
      'bare',
      'lines',
      '.',
      'stay one message',
      '',
    ]);
  });

  test('stores a repeated delivery once', async () => {
    const lmtp = member();
    for (let time = 0; time < 2; time += 1) {
      const client = new LineClient(lmtp.open());
      await client.reply();
      client.send('LHLO f.example\r\nMAIL FROM:<> XDELIVERYID=same\r\nRCPT TO:<bob@isp.example>\r\nDATA\r\n');
      for (let reply = 0; reply < 4; reply += 1) await client.reply();
      client.send('Subject: x\r\n\r\ny\r\n.\r\nQUIT\r\n');
      expect(await client.reply()).toMatch(/^250 /);
    }
    expect(await lmtp.texts('bob@isp.example')).toHaveLength(1);
  });

  test('gives the answers of a message that is being stored before it says goodbye', async () => {
    const lmtp = member();
    lmtp.afterDelivery = () => lmtp.sessions[0]?.bye('Going down');
    const client = new LineClient(lmtp.open());
    await client.reply();
    client.send('LHLO f.example\r\nMAIL FROM:<> XDELIVERYID=q\r\nRCPT TO:<bob@isp.example>\r\nDATA\r\n');
    for (let reply = 0; reply < 4; reply += 1) await client.reply();
    client.send('x\r\n.\r\n');
    expect(await client.reply()).toBe('250 2.1.5 <bob@isp.example> delivered');
    expect(await client.reply()).toBe('421 4.3.2 Going down');
    expect(await client.line()).toBeUndefined();
  });

  test('stores nothing of a message whose client went away', async () => {
    const lmtp = member();
    const client = new LineClient(lmtp.open());
    await client.reply();
    client.send('LHLO f.example\r\nMAIL FROM:<> XDELIVERYID=q\r\nRCPT TO:<bob@isp.example>\r\nDATA\r\n');
    for (let reply = 0; reply < 4; reply += 1) await client.reply();
    client.send('half a mess');
    client.connection.destroy();
    await expect.poll(() => lmtp.endedSessions).toBe(1);
    expect(await lmtp.texts('bob@isp.example')).toEqual([]);
  });
});
