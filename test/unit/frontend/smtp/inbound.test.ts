import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import nodemailer from 'nodemailer';
import { describe, expect, it, onTestFinished } from 'vitest';
import { nodeFiles } from '#common/files/node-files.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import type { LineClient } from '#test/transcripts/line-transcript.ts';
import { SmtpHarness } from './smtp-harness.ts';

async function greeted(h: SmtpHarness): Promise<LineClient> {
  const client = await h.connect();
  expect(await client.reply()).toBe('220 front1.eu.isp.example ESMTP ready');
  await client.command('EHLO client.example');
  return client;
}

const inbox = (h: SmtpHarness, name = 'bob@isp.example'): Promise<string[]> => h.member.texts(name);

describe('inbound SMTP', () => {
  it('takes a message from another program and delivers it with its trace', async () => {
    await using h = await SmtpHarness.start();
    const transport = nodemailer.createTransport({ host: '127.0.0.1', port: h.port(0), tls: { ca: h.caPem, servername: 'localhost' } });
    const sent = await transport.sendMail({ from: 'x@other.example', to: 'Bob@ISP.example', subject: 'Grüße', text: 'hello\n.\n..\n' });
    transport.close();
    expect(sent.response).toMatch(/^250 2\.0\.0 Queued as /);
    await expect.poll(async () => (await inbox(h)).length).toBe(1);
    const [text = ''] = await inbox(h);
    expect(text).toMatch(
      /^Return-Path: <x@other\.example>\r\nDelivered-To: bob@isp\.example\r\nReceived: from front1\.eu\.isp\.example by /,
    );
    expect(text).toMatch(
      /\r\nReceived: from \S+ \(\[127\.0\.0\.1\]\)\r\n\tby front1\.eu\.isp\.example with ESMTPS id \S+\r\n\t\(session [0-9a-f-]{36}\); /,
    );
    expect(text).toContain('\r\n\r\nhello\r\n.\r\n..\r\n');
  });

  it('speaks LMTP where the listener says so, with an answer for each recipient, for accounts only', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect(3);
    expect(await client.reply()).toBe('220 front1.eu.isp.example LMTP ready');
    expect(await client.command('EHLO client.example')).toMatch(/^50/);
    await client.command('LHLO client.example');
    await client.command('MAIL FROM:<x@other.example>');
    expect(await client.command('RCPT TO:<alice@isp.example>')).toMatch(/^250/);
    expect(await client.command('RCPT TO:<nobody@isp.example>')).toMatch(/^550 5\.1\.1/);
    expect(await client.command('RCPT TO:<x@elsewhere.example>')).toMatch(/^55/);
    expect(await client.command('RCPT TO:<bob@isp.example>')).toMatch(/^250/);
    await client.command('DATA');
    client.send('Subject: x\r\n\r\nhello\r\n.\r\n');
    expect([await client.reply(), await client.reply()]).toEqual([expect.stringMatching(/^250/), expect.stringMatching(/^250/)]);
    await expect.poll(async () => (await inbox(h)).length + (await inbox(h, 'alice@isp.example')).length).toBe(2);
  });

  it('answers by LMTP for each RCPT that it took, also of an address that is named twice, and of a message that it does not take', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect(3);
    await client.reply();
    await client.command('LHLO client.example');
    for (const [body, code] of [
      ['hello', /^250/],
      ['x'.repeat(2_000_001), /^552/],
    ] as const) {
      await client.command('MAIL FROM:<x@other.example>');
      for (const name of ['bob', 'BOB', 'bob']) expect(await client.command(`RCPT TO:<${name}@isp.example>`)).toMatch(/^250/);
      await client.command('DATA');
      client.send(`Subject: x\r\n\r\n${body}\r\n.\r\nNOOP\r\n`);
      for (const expected of [code, code, code, /^250 OK/]) expect(await client.reply()).toMatch(expected);
    }
    await expect.poll(async () => (await inbox(h)).length).toBe(1);
  });

  it('offers no login', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect();
    await client.reply();
    client.send('EHLO client.example\r\n');
    const lines: string[] = [];
    for (let line = await client.line(); line !== undefined; line = line.startsWith('250-') ? await client.line() : undefined)
      lines.push(line);
    expect(lines).toEqual([
      '250-front1.eu.isp.example',
      '250-PIPELINING',
      '250-8BITMIME',
      '250-SMTPUTF8',
      '250-STARTTLS',
      '250 SIZE 2000000',
    ]);
    expect(await client.command('AUTH PLAIN AGFsaWNlAG9wZW4gc2VzYW1l')).toMatch(/^500 /);
  });

  it('refuses for good only what the master knows to be unknown, and takes mail for its own domains only', async () => {
    await using h = await SmtpHarness.start();
    const client = await greeted(h);
    await client.command('MAIL FROM:<x@other.example>');
    expect(await client.command('RCPT TO:<nobody@isp.example>')).toBe('550 5.1.1 No such recipient here');
    expect(await client.command('RCPT TO:<"odd one"@isp.example>')).toMatch(/^(?:550 5\.1\.1|501) /);
    expect(await client.command('RCPT TO:<x@other.example>')).toBe(
      '550 5.7.1 Relaying denied: this server takes mail for its own domains only',
    );
    expect(await client.command('RCPT TO:<x@[127.0.0.1]>')).toMatch(/^550 5\.7\.1 /);
    expect(await client.command('RCPT TO:<bob%other.example@isp.example>')).toBe('550 5.1.1 No such recipient here');
    h.router.isDown = true;
    expect(await client.command('RCPT TO:<bob@isp.example>')).toBe('451 4.3.0 Temporarily unavailable, try again later');
    h.router.isDown = false;
    expect(await client.command('RCPT TO:<bob@isp.example>')).toBe('250 Accepted');
  });

  it('keeps a message that carries any other end mark as one message', async () => {
    await using h = await SmtpHarness.start();
    const marks = ['\n.\n', '\n.\r\n', '\r\n.\n', '\r.\r', '\r.\r\n', '\r\n.\r', '\n\n.\n\n', '\r.\n', '\r\n\0.\r\n'];
    for (const mark of marks) {
      const client = await greeted(h);
      await client.command('MAIL FROM:<x@other.example>');
      await client.command('RCPT TO:<bob@isp.example>');
      await client.command('DATA');
      client.send(
        `Subject: first\r\n\r\nbody${mark}MAIL FROM:<evil@isp.example>\r\nRCPT TO:<alice@isp.example>\r\nDATA\r\nSubject: second\r\n\r\nsmuggled\r\n.\r\n`,
      );
      expect(await client.reply()).toMatch(/^250 2\.0\.0 Queued/);
      expect(await client.command('QUIT')).toMatch(/^221/);
    }
    await expect.poll(async () => (await inbox(h)).length).toBe(marks.length);
    expect(await inbox(h, 'alice@isp.example')).toEqual([]);
    for (const text of await inbox(h)) {
      expect(text).toContain('smuggled');
      expect(text).not.toMatch(/[^\r]\n|\r[^\n]/);
    }
  });

  it('acknowledges a message only after the queue’s file and directory are fsynced', async () => {
    const steps: string[] = [];
    let letGo: (() => void) | undefined;
    const held = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const files = {
      ...nodeFiles,
      async writeNew(path: string, parts: readonly Uint8Array[]) {
        await nodeFiles.writeNew(path, parts);
        steps.push('written and fsynced');
      },
      async syncDirectory(path: string) {
        if (path.endsWith('messages') && steps.length > 0) {
          await held;
          steps.push('directory fsynced');
        }
        await nodeFiles.syncDirectory(path);
      },
    };
    await using h = await SmtpHarness.start({ files });
    const client = await greeted(h);
    await client.command('MAIL FROM:<>');
    await client.command('RCPT TO:<bob@isp.example>');
    await client.command('DATA');
    client.send('x\r\n.\r\n');
    await expect.poll(() => readdirSync(join(h.directory, 'messages'))).toHaveLength(1);
    expect(client.unread).toBe('');
    letGo?.();
    expect(await client.reply()).toMatch(/^250 2\.0\.0 Queued/);
    expect(steps).toEqual(['written and fsynced', 'directory fsynced']);
  });

  it('asks the client to keep the message when the disk refuses it', async () => {
    const writeNew = (): Promise<void> => Promise.reject(Object.assign(new Error('disk'), { code: 'ENOSPC' }));
    await using h = await SmtpHarness.start({ files: { ...nodeFiles, writeNew } });
    const client = await greeted(h);
    await client.command('MAIL FROM:<>');
    await client.command('RCPT TO:<bob@isp.example>');
    await client.command('DATA');
    client.send('x\r\n.\r\n');
    expect(await client.reply()).toBe('452 4.3.1 The queue is full, try again later');
  });

  it('refuses a message over the limit, announced or not, and goes on', async () => {
    await using h = await SmtpHarness.start();
    const client = await greeted(h);
    expect(await client.command('MAIL FROM:<x@other.example> SIZE=2000001')).toMatch(/^552 /);
    await client.command('MAIL FROM:<x@other.example>');
    await client.command('RCPT TO:<bob@isp.example>');
    await client.command('DATA');
    for (let i = 0; i < 21; i += 1) client.send(`${'x'.repeat(998)}\r\n`.repeat(100));
    client.send('.\r\n');
    expect(await client.reply()).toBe('552 5.3.4 Message is larger than 2000000 bytes');
    expect(await client.command('NOOP')).toMatch(/^250 /);
    expect(readdirSync(join(h.directory, 'messages'))).toEqual([]);
  });

  it('takes 500 recipients and asks for the others in another message', async () => {
    await using h = await SmtpHarness.start();
    for (let i = 0; i < 501; i += 1) h.router.add(`user${i}@isp.example`);
    const client = await greeted(h);
    client.send(`MAIL FROM:<>\r\n${Array.from({ length: 501 }, (_, i) => `RCPT TO:<user${i}@isp.example>\r\n`).join('')}`);
    await client.reply();
    const replies: string[] = [];
    for (let i = 0; i < 501; i += 1) replies.push(await client.reply());
    expect(replies.slice(0, 500).every((reply) => reply === '250 Accepted')).toBe(true);
    expect(replies[500]).toMatch(/^452 /);
  });

  it('ends a session that tries out addresses', async () => {
    await using h = await SmtpHarness.start();
    const client = await greeted(h);
    await client.command('MAIL FROM:<>');
    for (let i = 1; i < 100; i += 1) expect(await client.command(`RCPT TO:<guess${i}@isp.example>`)).toMatch(/^550 5\.1\.1 /);
    expect(await client.command('RCPT TO:<bob@isp.example>')).toBe('250 Accepted');
    expect(await client.command('RCPT TO:<guess100@isp.example>')).toBe('421 4.7.0 Too many refused commands');
    expect(await client.line()).toBeUndefined();
  });

  it('stops a message that goes round in circles', async () => {
    await using h = await SmtpHarness.start();
    const client = await greeted(h);
    await client.command('MAIL FROM:<>');
    await client.command('RCPT TO:<bob@isp.example>');
    await client.command('DATA');
    client.send(`${'Received: from a by b; date\r\n'.repeat(101)}\r\nbody\r\n.\r\n`);
    expect(await client.reply()).toMatch(/^554 5\.4\.6 /);
  });

  it('stores nothing of a message whose client went away', async () => {
    await using h = await SmtpHarness.start();
    const client = await greeted(h);
    await client.command('MAIL FROM:<>');
    await client.command('RCPT TO:<bob@isp.example>');
    await client.command('DATA');
    client.send('half a mess');
    client.connection.destroy();
    await expect.poll(() => h.running.listeners()[0]?.sessions).toBe(0);
    expect(readdirSync(join(h.directory, 'messages'))).toEqual([]);
  });

  it('refuses more connections from one address than allowed, and counts those that left', async () => {
    await using h = await SmtpHarness.start({ listener: { perAddressMax: 2 } });
    const first = await greeted(h);
    await greeted(h);
    const third = await h.connect();
    expect(await third.reply()).toMatch(/^421 4\.7\.0 Too many connections/);
    expect(await third.line()).toBeUndefined();
    first.connection.destroy();
    await expect.poll(() => h.running.listeners()[0]?.sessions).toBe(1);
    await greeted(h);
  });

  it('drops what was sent in clear behind STARTTLS', async () => {
    await using h = await SmtpHarness.start();
    const client = await greeted(h);
    client.send('STARTTLS\r\nMAIL FROM:<evil@other.example>\r\n');
    expect(await client.reply()).toMatch(/^220 /);
    await new Promise<void>((resolve) => setImmediate(resolve));
    expect(client.unread).toBe('');
  });

  it.each([
    ['an endless line', 'x'.repeat(20_000)],
    ['an HTTP request', 'GET / HTTP/1.1\r\n'],
    ['garbage', 'a\r\n'.repeat(20)],
  ])('ends a session that sends %s and serves the others', async (_what, bytes) => {
    await using h = await SmtpHarness.start();
    const innocent = await greeted(h);
    const client = await greeted(h);
    client.send(bytes);
    let last = '';
    for (let line = await client.line(); line !== undefined; line = await client.line()) last = line;
    expect(last).toMatch(/^421 /);
    expect(await innocent.command('NOOP')).toMatch(/^250 /);
  });

  it('frees its port when it is stopped, tells who is idle, and lets a transaction be finished first', async () => {
    await using h = await SmtpHarness.start({ config: { drainMs: 60_000 } });
    const [idle, busy, late, local] = [await greeted(h), await greeted(h), await greeted(h), await h.connect(3)];
    const secure = await h.connect(2);
    for (const client of [secure, local]) await client.reply();
    for (const client of [busy, late]) await client.command('MAIL FROM:<x@other.example>');
    await busy.command('RCPT TO:<bob@isp.example>');
    await busy.command('DATA');
    const port = h.port(0);
    const stopped = h.running[Symbol.asyncDispose]();
    for (const client of [idle, secure, local]) {
      expect(await client.line()).toBe('421 4.3.2 Shutting down, connect again');
      expect(await client.line()).toBeUndefined();
    }
    await expect(systemNetwork.connect({ host: '127.0.0.1', port })).rejects.toMatchObject({ code: 'NET_CONNECT_FAILED' });
    busy.send('Subject: in time\r\n\r\nhello\r\n.\r\n');
    expect(await busy.line()).toMatch(/^250 2\.0\.0 Queued as /);
    expect(await busy.line()).toBe('421 4.3.2 Shutting down, connect again');
    // Whoever begins anew instead hears it as the answer.
    await late.command('RSET');
    expect(await late.command('MAIL FROM:<x@other.example>')).toBe('421 4.3.2 Shutting down, connect again');
    for (const client of [busy, late]) {
      expect(await client.line()).toBeUndefined();
      client.connection.destroy();
    }
    await stopped;
  });

  it('tells a client that does not end its transaction when the time is over', async () => {
    const h = await SmtpHarness.start();
    onTestFinished(() => h[Symbol.asyncDispose]());
    const client = await greeted(h);
    await client.command('MAIL FROM:<x@other.example>');
    const stopped = h.running[Symbol.asyncDispose]();
    expect(await client.line()).toBe('421 4.3.2 Shutting down, connect again');
    await stopped;
  });

  it('ends sessions one by one while it goes on', async () => {
    await using h = await SmtpHarness.start();
    const [first, second] = [await greeted(h), await greeted(h)];
    await first.command('MAIL FROM:<x@other.example>');
    const sessions = [...h.running.sessions()];
    expect(sessions.length).toBe(2);
    expect([...h.running.sessions()].every((session) => sessions.includes(session))).toBe(true);
    for (const session of sessions) await session.bye('Going, connect again');
    expect(await second.line()).toBe('421 4.3.2 Going, connect again');
    expect(await first.command('RCPT TO:<bob@isp.example>')).toMatch(/^250 /);
    for (const session of h.running.sessions()) session.drop();
    expect(await first.line()).toBe('421 4.3.2 Going, connect again');
    expect(await (await greeted(h)).command('NOOP')).toMatch(/^250 /);
  });
});
