import { afterEach, describe, expect, it } from 'vitest';
import type { Connection, Network } from '#common/network/network.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { AddressRules } from '#frontend/guard/address-rules.ts';
import { startImap } from '#frontend/listeners/imap.ts';
import { type RunningMailListener, refusalsAtATimeMax } from '#frontend/listeners/mail-listener.ts';
import { startPop3 } from '#frontend/listeners/pop3.ts';
import { settle } from '#test/fakes/clock.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';
import { federation } from './fakes.ts';

const tls = { cert: 'cert', key: 'key' };

const started: RunningMailListener[] = [];
afterEach(() => {
  for (const listener of started.splice(0)) listener.drop();
});

/** A listener whose clients come from memory. */
async function listen(options: Partial<FrontendListener> = {}) {
  const world = federation();
  let accept: (connection: Connection) => void = () => {};
  const network: Network = {
    connect: () => Promise.reject(new Error('not here')),
    listen: async (_options, accepted) => {
      accept = accepted;
      return { address: '127.0.0.1', port: 1143, close: async () => {} };
    },
  };
  const listener: FrontendListener = {
    protocol: 'imap',
    tls: 'starttls',
    address: '127.0.0.1',
    port: 0,
    perAddressMax: 2,
    connectionsMax: 4,
    allowPlaintextLogin: false,
    ...options,
  };
  const rules = new AddressRules(world.clock);
  const start = listener.protocol === 'imap' ? startImap : startPop3;
  const running: RunningMailListener = await start(
    { listener, tls, rules, ports: { ...world.ports, network } },
    { opener: world.opener, listener, tls, loginTimeoutMs: 60_000, ports: world.ports },
  );
  started.push(running);
  const connect = async (
    from: string,
    isStubborn = false,
    prepare: (far: MemoryConnection) => void = () => {},
  ): Promise<{ connection: MemoryConnection; greeting: string; greetingNow: () => string; isClosed: () => boolean }> => {
    const [near, far] = connectionPair({ clientAddress: from });
    let greeting = '';
    let isClosed = false;
    near.handle({
      data: (chunk) => {
        greeting += chunk.toString();
      },
      ...(isStubborn ? { end: () => {} } : {}),
      close: () => {
        isClosed = true;
      },
    });
    prepare(far);
    accept(far);
    await settle();
    return { connection: near, greeting, greetingNow: () => greeting, isClosed: () => isClosed };
  };
  return { ...world, running, connect, rules };
}

describe('a listener', () => {
  it('counts what other processes of its frontend have from an address, a prefix and in all', async () => {
    const { connect, running } = await listen({ perAddressMax: 3, perPrefixMax: 5, connectionsMax: 6 });
    await connect('192.0.2.1');
    expect(running.counts(1)).toEqual({ total: 1, addresses: [['192.0.2.1', 1]], prefixes: [['192.0.2.0/24', 1]] });
    running.setElsewhere({ total: 2, addresses: new Map([['192.0.2.1', 2]]), prefixes: new Map() });
    expect((await connect('192.0.2.1')).greeting).toMatch(/^\* BYE \[LIMIT\]/);
    expect((await connect('192.0.2.2')).greeting).toMatch(/^\* OK /);
    running.setElsewhere({ total: 3, addresses: new Map(), prefixes: new Map([['192.0.2.0/24', 3]]) });
    expect((await connect('192.0.2.3')).greeting).toMatch(/^\* BYE \[LIMIT\]/);
    expect((await connect('198.51.100.1')).greeting).toMatch(/^\* OK /);
    // Three here and three elsewhere.
    expect((await connect('203.0.113.1')).greeting).toMatch(/^\* BYE \[LIMIT\]/);
    running.setElsewhere({ total: 0, addresses: new Map(), prefixes: new Map() });
    expect((await connect('192.0.2.1')).greeting).toMatch(/^\* OK /);
  });

  it('tells a client from a crowded address so in IMAP, and serves the next address', async () => {
    const { connect, running } = await listen();
    await connect('192.0.2.1');
    const second = await connect('192.0.2.1');
    const third = await connect('192.0.2.1');
    expect(third.greeting).toBe('* BYE [LIMIT] Too many connections, try again later\r\n');
    expect(third.isClosed()).toBe(true);
    expect((await connect('192.0.2.2')).greeting).toMatch(/^\* OK /);
    expect(running.connections).toBe(3);
    second.connection.end();
    await settle();
    expect((await connect('192.0.2.1')).greeting).toMatch(/^\* OK /);
  });

  it('tells a client that is one too many for the listener so in POP3', async () => {
    const { connect } = await listen({ protocol: 'pop3', perAddressMax: 10 });
    for (let i = 0; i < 4; i += 1) expect((await connect('192.0.2.1')).greeting).toBe('+OK POP3 server ready\r\n');
    expect((await connect('192.0.2.2')).greeting).toBe('-ERR [SYS/TEMP] Too many connections, try again later\r\n');
  });

  it('says goodbye to a stated number at a time, and hangs up on the rest of a flood', async () => {
    const { connect, clock } = await listen();
    await connect('192.0.2.1');
    await connect('192.0.2.1');
    // Clients that read and do not hang up.
    for (let i = 0; i < refusalsAtATimeMax; i += 1) expect((await connect('192.0.2.1', true)).greeting).toMatch(/^\* BYE/);
    const oneMore = await connect('192.0.2.1', true);
    expect([oneMore.greeting, oneMore.isClosed()]).toEqual(['', true]);
    expect((await connect('192.0.2.2')).greeting).toMatch(/^\* OK /);
    await clock.advance(1000);
    expect((await connect('192.0.2.1')).greeting).toMatch(/^\* BYE/);
  });

  it('lets nobody wait behind those whom it blocks or who are over their limit', async () => {
    const { connect, clock, rules } = await listen({ perAddressMax: 2, connectionsMax: 20, acceptPerSecond: 1 });
    rules.set({ range: '198.51.100.1', verdict: 'block', reason: 'floods', forMs: 60_000 });
    for (let i = 0; i < 20; i += 1) expect((await connect('198.51.100.1')).isClosed()).toBe(true);
    for (let i = 0; i < 2; i += 1) expect((await connect('192.0.2.1')).greeting).toMatch(/^\* OK /);
    for (let i = 0; i < 20; i += 1) expect((await connect('192.0.2.1')).greeting).toMatch(/^\* BYE \[LIMIT\]/);
    const next = await connect('192.0.2.2');
    await clock.advance(1_000);
    expect(next.greetingNow()).toMatch(/^\* OK /);
  });

  it('counts those who wait for their turn', async () => {
    const { connect, clock, running } = await listen({ perAddressMax: 3, connectionsMax: 20, acceptPerSecond: 1 });
    const first = await connect('192.0.2.1');
    await connect('192.0.2.1');
    const third = await connect('192.0.2.1');
    expect([third.greeting, running.connections]).toEqual(['', 3]);
    expect((await connect('192.0.2.1')).greeting).toMatch(/^\* BYE \[LIMIT\]/);
    await clock.advance(1_000);
    expect(third.greetingNow()).toMatch(/^\* OK /);
    for (const client of [first, third]) client.connection.end();
    await settle();
    expect([running.connections, running.connectionsOf('192.0.2.1')]).toEqual([1, 1]);
  });

  it('counts a client from the start of its handshake where TLS comes first', async () => {
    const { connect, running } = await listen({ tls: 'implicit' });
    const first = await connect('192.0.2.1');
    expect(first.greeting).toMatch(/AUTH=PLAIN/);
    expect(first.connection.peer?.tls).toBeDefined();
    expect(running.connections).toBe(1);
    await connect('192.0.2.1');
    expect((await connect('192.0.2.1')).greeting).toMatch(/^\* BYE \[LIMIT\]/);
  });

  it('does not start with TLS asked for and no certificate there', async () => {
    const world = federation();
    const listener = {
      protocol: 'imap',
      tls: 'implicit',
      address: '127.0.0.1',
      port: 0,
      perAddressMax: 1,
      connectionsMax: 1,
      allowPlaintextLogin: false,
    } as const;
    const network = {} as Network;
    const starting = startImap(
      { listener, tls: undefined, ports: { ...world.ports, network } },
      { opener: world.opener, listener, tls: undefined, loginTimeoutMs: 1000, ports: world.ports },
    );
    await expect(starting).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('ends its sessions in good order when the frontend stops', async () => {
    const { connect, running } = await listen();
    const client = await connect('192.0.2.1');
    running.stop();
    await settle();
    expect(client.isClosed()).toBe(true);
    expect(running.connections).toBe(0);
  });

  it.each<[string, Partial<FrontendListener>]>([
    ['a TLS handshake', { tls: 'implicit' }],
    ['a PROXY header', { proxyFrom: ['192.0.2.0/24'] }],
  ])('waits for nobody who stalls in %s when the frontend stops', async (_what, options) => {
    const { connect, running } = await listen(options);
    let shakeHands = (): void => {};
    const client = await connect('192.0.2.1', false, (far) => {
      far.startTls = () => new Promise((resolve) => (shakeHands = resolve));
    });
    expect(running.connections).toBe(1);
    running.stop();
    await settle();
    expect([client.isClosed(), running.connections, running.connectionsOf('192.0.2.1')]).toEqual([true, 0, 0]);
    shakeHands();
    await settle();
    expect([running.connections, client.greetingNow()]).toEqual([0, '']);
  });
});
