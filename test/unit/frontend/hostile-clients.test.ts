import { describe, expect, it } from 'vitest';
import { Client } from '#test/transcripts/frontend/dialogue.ts';
import { federation } from './fakes.ts';

describe('a hostile client', () => {
  it.each(['imap', 'pop3'] as const)('that sends a line without end is sent away after 12 kB (%s)', async (protocol) => {
    const client = new Client(federation(), protocol);
    await client.take();
    for (let i = 0; i < 13; i += 1) client.send(Buffer.alloc(1000, 'x'));
    expect(await client.take()).toMatch(/^(\* BYE|-ERR) Line too long\r\n$/);
    client.connection.end();
    await client.take();
    expect(client.endedDialogues).toBe(1);
  });

  it('that hoards literals gets no more than a line and a few arguments of room', async () => {
    const client = new Client(federation(), 'imap');
    await client.take();
    client.send('a LOGIN');
    let reply = '';
    for (let i = 0; i < 200 && !reply.includes('BYE'); i += 1) {
      client.send(` {4000+}\r\n${'x'.repeat(4000)}`);
      reply = await client.take();
    }
    expect(reply).toBe('* BYE Too much before login\r\n');
  });

  it('that pads its commands is sent away after 64 kB', async () => {
    const client = new Client(federation(), 'imap');
    await client.take();
    for (let i = 0; i < 10; i += 1) client.send(`a${i} ID ("x" "${'y'.repeat(8000)}")\r\n`);
    expect(await client.take()).toMatch(/\* BYE Too much before login\r\n$/);
  });

  it.each(['imap', 'pop3'] as const)(
    'that sends noise gets errors and ends, and another client logs in meanwhile (%s)',
    async (protocol) => {
      const world = federation();
      const noisy = new Client(world, protocol, { from: '203.0.113.1' });
      for (let i = 0; i < 64 && noisy.endedDialogues === 0; i += 1) {
        noisy.send(world.random.bytes(997));
        noisy.send('\r\n');
        noisy.received = '';
        await noisy.take();
      }
      noisy.connection.end();
      await noisy.take();
      expect(noisy.endedDialogues).toBe(1);
      const other = new Client(world, 'imap', { from: '127.0.0.1' });
      other.send('a LOGIN alice wonderland\r\n');
      expect(await other.take()).toContain('a OK [CAPABILITY');
    },
  );

  it('that leaves while it is logged in leaves no open channel behind', async () => {
    const world = federation();
    const gate = Promise.withResolvers<void>();
    world.link.members.set('back1.west.isp.example', async () => {
      await gate.promise;
      return { outcome: 'opened', capabilities: [], accountName: 'alice@isp.example' };
    });
    world.link.members.delete('back2.west.isp.example');
    const client = new Client(world, 'imap', { from: '127.0.0.1' });
    client.send('a LOGIN alice wonderland\r\n');
    await client.take();
    client.connection.destroy();
    await client.take();
    expect(client.endedDialogues).toBe(1);
    gate.resolve();
    await client.take();
    const channel = world.link.channels[0];
    channel?.handle({ data: () => {}, close: () => {} });
    await client.take();
    expect(channel?.isClosed).toBe(true);
  });

  it('that holds its socket open without a word in a handshake is dropped', async () => {
    const world = federation();
    const client = new Client(world, 'imap', { loginTimeoutMs: 5000 });
    await client.take();
    (client.connection.peer as { startTls: () => Promise<void> }).startTls = () => new Promise(() => {});
    client.send('a STARTTLS\r\n');
    expect(await client.take()).toBe('a OK Begin TLS\r\n');
    await world.clock.advance(5000);
    expect(await client.take()).toBe('');
    expect(client.endedDialogues).toBe(1);
  });
});

describe('a session', () => {
  it('leaves one line in the log, with who, where and how much, and no secret', async () => {
    const world = federation();
    const client = new Client(world, 'imap', { from: '127.0.0.1' });
    client.send('a LOGIN alice wonderland\r\nb NOOP\r\n');
    await client.take();
    expect(client.dialogue.snapshot()).toMatchObject({ account: 'alice@isp.example', cluster: 'west.isp.example', bytesIn: 8 });
    world.link.channels[0]?.handle({ data: () => {}, close: () => {} });
    client.connection.end();
    await client.take();
    const ended = world.lines.filter(({ message }) => message === 'session ended');
    expect(ended.length).toBe(1);
    expect(ended[0]).toMatchObject({
      level: 'info',
      fields: {
        protocol: 'imap',
        clientIp: '127.0.0.1',
        account: 'alice@isp.example',
        hostServer: 'west.isp.example',
        bytesIn: 8,
        outcome: 'ended-by-client',
      },
    });
    expect(JSON.stringify(world.lines)).not.toContain('wonderland');
  });

  it('that failed to log in names the account it tried, and no name that is no account’s', async () => {
    const world = federation();
    for (const name of ['alice', 'hunter2']) {
      const client = new Client(world, 'imap', { from: '127.0.0.1' });
      client.send(`a LOGIN ${name} wrong\r\n`);
      await client.take();
      await world.clock.advance(500);
      client.connection.end();
      await client.take();
    }
    const ended = world.lines.filter(({ message }) => message === 'session ended');
    expect(ended.map(({ fields }) => [fields.account, fields.outcome])).toEqual([
      ['alice@isp.example', 'AUTH_FAILED'],
      [undefined, 'ROUTE_UNKNOWN_ACCOUNT'],
    ]);
  });

  it('that never said a word is not worth an info line', async () => {
    const world = federation();
    const client = new Client(world, 'pop3');
    await client.take();
    client.connection.end();
    await client.take();
    expect(world.lines.map(({ level }) => level)).toEqual(['debug']);
  });
});
