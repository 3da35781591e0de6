import nodemailer from 'nodemailer';
import { describe, expect, it } from 'vitest';
import { SmtpHarness } from './smtp-harness.ts';

const plain = (name: string, password: string): string => `AUTH PLAIN ${Buffer.from(`\0${name}\0${password}`).toString('base64')}`;

async function loggedIn(h: SmtpHarness): Promise<Awaited<ReturnType<SmtpHarness['connect']>>> {
  const client = await h.connect(2);
  await client.reply();
  await client.command('EHLO client.example');
  expect(await client.command(plain('alice', 'open sesame'))).toMatch(/^235 /);
  return client;
}

describe('submission', () => {
  it.each([
    ['STARTTLS', 1 as const],
    ['implicit TLS', 2 as const],
  ])('takes mail of an account over %s', async (_how, index) => {
    await using h = await SmtpHarness.start();
    const transport = nodemailer.createTransport({
      host: '127.0.0.1',
      port: h.port(index),
      secure: index === 2,
      requireTLS: index === 1,
      auth: { user: 'alice', pass: 'open sesame' },
      tls: { ca: h.caPem, servername: 'localhost' },
    });
    await transport.sendMail({ from: 'alice@isp.example', to: 'bob@isp.example', text: 'hello' });
    transport.close();
    await expect.poll(async () => (await h.member.texts('bob@isp.example')).length).toBe(1);
    expect((await h.member.texts('bob@isp.example'))[0]).toContain('with ESMTPSA id ');
    expect(h.logins[0]).toMatchObject({ loginName: 'alice', client: { address: '127.0.0.1', tls: true } });
  });

  it('takes AUTH LOGIN as well', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect(2);
    await client.reply();
    await client.command('EHLO client.example');
    expect(await client.command('AUTH LOGIN')).toBe('334 VXNlcm5hbWU6');
    expect(await client.command(Buffer.from('alice').toString('base64'))).toBe('334 UGFzc3dvcmQ6');
    expect(await client.command(Buffer.from('open sesame').toString('base64'))).toMatch(/^235 /);
  });

  it('takes no mail before the login', async () => {
    await using h = await SmtpHarness.start();
    for (const index of [1, 2] as const) {
      const client = await h.connect(index);
      await client.reply();
      await client.command('EHLO client.example');
      expect(await client.command('MAIL FROM:<alice@isp.example>')).toMatch(/^530 5\.7\.0 /);
    }
  });

  it('ends the connection at the third failed login', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect(2);
    await client.reply();
    await client.command('EHLO client.example');
    expect(await client.command(plain('alice', 'guess 1'))).toBe('535 5.7.8 Authentication credentials invalid');
    expect(await client.command(plain('nobody', 'guess 2'))).toBe('535 5.7.8 Authentication credentials invalid');
    expect(await client.command(plain('alice', 'guess 3'))).toBe('421 4.7.0 Too many failed logins');
    expect(await client.line()).toBeUndefined();
    expect(h.logins).toHaveLength(3);
  });

  it('closes a session that does not log in in time, and no other', async () => {
    await using h = await SmtpHarness.start({ config: { loginTimeoutMs: 300 } });
    const client = await loggedIn(h);
    const idle = await h.connect(1);
    await idle.reply();
    expect(await idle.line()).toBe('421 4.4.2 No login in time');
    expect(await idle.line()).toBeUndefined();
    expect(await client.command('NOOP')).toMatch(/^250 /);
  });

  it('does not call a password wrong when nobody could look', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect(2);
    await client.reply();
    await client.command('EHLO client.example');
    h.router.isDown = true;
    expect(await client.command(plain('alice', 'open sesame'))).toMatch(/^454 4\.7\.0 /);
  });

  it('lets an account send under its own addresses only', async () => {
    await using h = await SmtpHarness.start();
    const alice = h.router.routes.get('alice@isp.example');
    if (alice === undefined) throw new Error('no route');
    h.router.routes.set('al@isp.example', alice);
    const client = await loggedIn(h);
    for (const foreign of ['bob@isp.example', 'alice@other.example', 'nobody@isp.example']) {
      expect(await client.command(`MAIL FROM:<${foreign}>`)).toBe('550 5.7.1 The sender address does not belong to your account');
    }
    for (const own of ['Alice@isp.example', 'al@isp.example', '']) {
      expect(await client.command(`MAIL FROM:<${own}>`)).toBe('250 Accepted');
      await client.command('RSET');
    }
    h.router.isDown = true;
    expect(await client.command('MAIL FROM:<al@isp.example>')).toMatch(/^451 /);
  });

  it('sends to other domains only where a relay is configured', async () => {
    await using without = await SmtpHarness.start();
    const refused = await loggedIn(without);
    await refused.command('MAIL FROM:<alice@isp.example>');
    expect(await refused.command('RCPT TO:<x@other.example>')).toBe('550 5.7.1 This server sends no mail to other domains');

    await using world = await SmtpHarness.start();
    world.router.add('x@other.example');
    world.member.accounts.set('x@other.example', world.member.accounts.get('bob@isp.example') as never);
    await using h = await SmtpHarness.start({ config: { relay: { host: '127.0.0.1', port: world.port(0) } } });
    const client = await loggedIn(h);
    await client.command('MAIL FROM:<alice@isp.example>');
    expect(await client.command('RCPT TO:<x@other.example>')).toBe('250 Accepted');
    expect(await client.command('RCPT TO:<gone@isp.example>')).toMatch(/^550 5\.1\.1/);
    await client.command('DATA');
    client.send('Subject: abroad\r\n\r\n..dot\r\n.\r\n');
    expect(await client.reply()).toMatch(/^250 /);
    await expect.poll(async () => (await world.member.texts('x@other.example')).length).toBe(1);
    const [text = ''] = await world.member.texts('x@other.example');
    expect(text).toContain('Return-Path: <alice@isp.example>');
    expect(text).toContain('\r\n\r\n.dot\r\n');
    await expect.poll(() => h.running.queue()).toMatchObject({ messages: 0, delivered: 1 });
  });

  it('bounces what the relay refuses for good', async () => {
    await using world = await SmtpHarness.start();
    await using h = await SmtpHarness.start({ config: { relay: { host: '127.0.0.1', port: world.port(0) } } });
    const client = await loggedIn(h);
    await client.command('MAIL FROM:<alice@isp.example>');
    await client.command('RCPT TO:<x@refused.example>');
    await client.command('DATA');
    client.send('Subject: abroad\r\n\r\nx\r\n.\r\n');
    await client.reply();
    await expect.poll(async () => (await h.member.texts('alice@isp.example')).length).toBe(1);
    const [bounce = ''] = await h.member.texts('alice@isp.example');
    expect(bounce).toContain('Final-Recipient: rfc822; x@refused.example\r\nAction: failed\r\nStatus: 5.7.1\r\n');
  });

  it('gives a message the Date and Message-ID that it lacks, and leaves those it has', async () => {
    await using h = await SmtpHarness.start();
    const client = await loggedIn(h);
    for (const header of ['Subject: none', 'Subject: both\r\nDATE: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-Id: <mine@isp.example>']) {
      await client.command('MAIL FROM:<alice@isp.example>');
      await client.command('RCPT TO:<bob@isp.example>');
      await client.command('DATA');
      client.send(`${header}\r\n\r\nx\r\n.\r\n`);
      await client.reply();
    }
    await expect.poll(async () => (await h.member.texts('bob@isp.example')).length).toBe(2);
    const [none = '', both = ''] = (await h.member.texts('bob@isp.example')).sort((a, b) =>
      a.includes('none') ? -1 : b.includes('none') ? 1 : 0,
    );
    expect(none.match(/^(?:Date|Message-ID): /gm)).toHaveLength(2);
    expect(both.match(/^(?:Date|Message-ID): /gim)).toHaveLength(2);
    expect(both).toContain('<mine@isp.example>');
  });
});

describe('a submission client with an access token', () => {
  const sasl = { tokens: { verifier: { accountOf: async () => 'alice@isp.example' }, hints: {} } };
  const message = (token: string): string => Buffer.from(`n,a=alice@isp.example,\x01auth=Bearer ${token}\x01\x01`).toString('base64');

  it('logs in by OAUTHBEARER or XOAUTH2, and hears why where it may not', async () => {
    await using h = await SmtpHarness.start({ sasl });
    const client = await h.connect(2);
    await client.reply();
    await client.command('EHLO client.example');
    expect(await client.command(`AUTH OAUTHBEARER ${message('bad-token')}`)).toMatch(/^334 eyJ/);
    expect(await client.command('AQ==')).toMatch(/^535 5\.7\.8 /);
    expect(await client.command('AUTH OAUTHBEARER')).toBe('334 ');
    expect(await client.command('*')).toBe('501 5.5.2 Cancelled');
    expect(await client.command('AUTH SCRAM-SHA-256')).toMatch(/^504 /);
    expect(await client.command(`AUTH OAUTHBEARER ${message('good-token')}`)).toMatch(/^235 /);
    expect(h.logins.at(-1)).toMatchObject({ loginName: 'alice@isp.example', credentials: { kind: 'token', mechanism: 'OAUTHBEARER' } });
    const transport = nodemailer.createTransport({
      host: '127.0.0.1',
      port: h.port(2),
      secure: true,
      auth: { type: 'OAUTH2', user: 'alice@isp.example', accessToken: 'good-token' },
      tls: { ca: h.caPem, servername: 'localhost' },
    });
    await transport.sendMail({ from: 'alice@isp.example', to: 'bob@isp.example', text: 'hello' });
    transport.close();
    await expect.poll(async () => (await h.member.texts('bob@isp.example')).length, { timeout: 20_000 }).toBe(1);
  });

  it('is not offered them where nothing judges tokens, and may not act for another account', async () => {
    await using h = await SmtpHarness.start();
    const client = await h.connect(2);
    await client.reply();
    await client.command('EHLO client.example');
    expect(await client.command(`AUTH XOAUTH2 ${message('good-token')}`)).toMatch(/^504 /);
    const forAnother = Buffer.from('bob@isp.example\0alice\0open sesame').toString('base64');
    expect(await client.command(`AUTH PLAIN ${forAnother}`)).toBe('535 5.7.8 Not permitted');
  });
});
