/** Clients of the SMTP listeners before they have a session: none takes the room of others, and none is forgotten. */
import { connect, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { systemNetwork } from '#common/network/system-network.ts';
import { beginningMs } from '#frontend/listeners/smtp-guests.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { LineClient } from '#test/transcripts/line-transcript.ts';
import { SmtpHarness } from './smtp-harness.ts';

const patient = { timeout: 30_000 } as const;
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** Says nothing; connected from an address of the loopback network. */
async function silent(port: number, localAddress: string): Promise<{ readonly socket: Socket; text: string; isClosed: boolean }> {
  const socket = connect({ host: '127.0.0.1', port, localAddress });
  const seen = { socket, text: '', isClosed: false };
  sockets.push(socket);
  socket.on('error', () => {}).on('data', (chunk: Buffer) => (seen.text += chunk.toString()));
  socket.once('close', () => (seen.isClosed = true));
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()).once('close', () => resolve()));
  return seen;
}

describe('a listener for mail', () => {
  it('keeps room for others while one address holds back its TLS handshakes', async () => {
    await using h = await SmtpHarness.start({ listener: { perAddressMax: 3, connectionsMax: 6 } });
    const flood = await Promise.all(Array.from({ length: 20 }, () => silent(h.port(2), '127.0.0.2')));
    await expect.poll(() => flood.filter(({ isClosed }) => !isClosed).length, patient).toBe(3);
    const other = await h.connect(2);
    expect(await other.reply()).toBe('220 front1.eu.isp.example ESMTP ready');
    expect(h.running.connections()).toBe(4);
  });

  it('keeps room for others while one address comes over and over', async () => {
    await using h = await SmtpHarness.start({ listener: { perAddressMax: 3, connectionsMax: 6 } });
    const flood = await Promise.all(Array.from({ length: 20 }, () => silent(h.port(0), '127.0.0.2')));
    const other = await h.connect();
    expect(await other.reply()).toBe('220 front1.eu.isp.example ESMTP ready');
    const refused = '421 4.7.0 Too many connections from your address\r\n';
    await expect.poll(() => flood.filter(({ text }) => text === refused).length, patient).toBe(17);
    await expect.poll(() => flood.filter(({ isClosed }) => !isClosed).length, patient).toBe(3);
  });

  it('has the network accept, which tells when that fails, and closes and opens the port there', async () => {
    const asked = vi.spyOn(systemNetwork, 'serverFor');
    onTestFinished(() => asked.mockRestore());
    await using h = await SmtpHarness.start();
    const doors = asked.mock.results.map(({ value }) => value as Server);
    const libraries = asked.mock.calls.map(([server]) => server);
    const states = (): boolean[][] => [doors, libraries].map((servers) => servers.map(({ listening }) => listening));
    expect(states()).toEqual([Array(4).fill(true), Array(4).fill(false)]);
    await h.running.setAccepting(false);
    expect(states().flat()).toEqual(Array(8).fill(false));
    await h.running.setAccepting(true);
    expect(states()).toEqual([Array(4).fill(true), Array(4).fill(false)]);
    expect(await (await h.connect()).reply()).toBe('220 front1.eu.isp.example ESMTP ready');
  });

  it('counts those who come by a load balancer as the clients that they are', async () => {
    await using h = await SmtpHarness.start({ listener: { perAddressMax: 3, connectionsMax: 50, proxyFrom: ['127.0.0.2'] } });
    const by = async (address: string): Promise<Awaited<ReturnType<typeof silent>>> => {
      const client = await silent(h.port(0), '127.0.0.2');
      client.socket.write(`PROXY TCP4 ${address} 192.0.2.1 40000 25\r\n`);
      return client;
    };
    const flood = await Promise.all(Array.from({ length: 20 }, () => by('198.51.100.1')));
    const other = await by('203.0.113.1');
    await expect.poll(() => other.text, patient).toBe('220 front1.eu.isp.example ESMTP ready\r\n');
    await expect.poll(() => flood.filter(({ text }) => /^421 4\.7\.0 /.test(text)).length, patient).toBe(17);
    await expect.poll(() => h.running.connections(), patient).toBe(4);
    for (const { socket } of [...flood, other]) socket.destroy();
    await expect.poll(() => h.running.connections(), patient).toBe(0);
    // None of the counts has been left behind.
    const again = await Promise.all(Array.from({ length: 3 }, () => by('198.51.100.1')));
    await expect.poll(() => again.filter(({ text }) => /^220 /.test(text)).length, patient).toBe(3);
  });

  it('hangs up on who does not end the handshake in time, however much comes', async () => {
    const clock = new FakeClock();
    await using h = await SmtpHarness.start({ clock });
    const slow = await silent(h.port(2), '127.0.0.2');
    await expect.poll(() => h.running.connections(), patient).toBe(1);
    slow.socket.write(Buffer.from([0x16, 0x03, 0x01]));
    // The library begins the handshake a turn after the connection came.
    await settle();
    await clock.advance(beginningMs);
    await expect.poll(() => slow.isClosed, patient).toBe(true);
    await expect.poll(() => h.running.connections(), patient).toBe(0);
  });

  it('counts no client any more whose session is over, after STARTTLS as well', async () => {
    await using h = await SmtpHarness.start();
    for (const index of [0, 2] as const) {
      const client = await h.connect(index);
      await client.reply();
      await client.command('EHLO client.example');
      if (index === 0) {
        await client.command('STARTTLS');
        await client.connection.startTlsAsClient?.({ ca: h.caPem, serverName: 'localhost' });
      }
      expect(await client.command('QUIT')).toMatch(/^221 /);
      client.connection.destroy();
    }
    await expect.poll(() => h.running.connections(), patient).toBe(0);
  });

  it('says at its end why to those whom it has not greeted', async () => {
    const h = await SmtpHarness.start();
    const plain = new LineClient(await systemNetwork.connect({ host: '127.0.0.1', port: h.port(0) }));
    await expect.poll(() => h.running.connections(), { ...patient, interval: 1 }).toBe(1);
    const stopped = h[Symbol.asyncDispose]();
    expect(await plain.line()).toBe('421 4.3.2 Shutting down, connect again');
    await stopped;
  });
});
