/** Going over to TLS on a connection of every implementation of `Network`: what was said in clear before, with, and after the command. */
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { PlatformError } from '#common/errors/platform-error.ts';
import type { Network } from '#common/network/network.ts';
import {
  expectNoFaults,
  failureOf,
  type Identities,
  identities,
  implementations,
  issued,
  lacks,
  listen,
  Peer,
  peerTo,
  type Side,
  settled,
  Transport,
  within,
  withPeer,
} from './network-suite.ts';

vi.setConfig({ testTimeout: 60_000 });
afterEach(expectNoFaults);

let ids: Identities;
beforeAll(async () => {
  ids = await identities();
});

/** Node's TLS client on a plain socket that has spoken in clear before. `send` decides what becomes of its bytes. */
function tlsOver(
  plain: Peer,
  send = (bytes: Buffer) => void (plain.socket.writable && plain.socket.write(bytes)),
  more = {},
): Peer<TLSSocket> {
  const transport = new Transport(send);
  plain.socket.on('data', (chunk) => transport.push(chunk));
  plain.socket.on('close', () => transport.destroy());
  transport.on('error', () => {});
  return new Peer(connect({ socket: transport, ca: ids.ca.certificate, servername: 'localhost', ...more }));
}

/** What came of a handshake: its code where it failed. */
function outcomeOf(started: Promise<void>): Promise<string> {
  return started.then(
    () => 'secured',
    (error: PlatformError) => error.code,
  );
}

/** Client and server have come to the command and its answer; what came with the command is dropped, as every caller does. */
async function commanded(network: Network, command = 'STARTTLS\r\n'): Promise<{ side: Side; peer: Peer }> {
  const { side, peer } = await withPeer('accepted', network);
  peer.socket.write(command);
  await side.until(() => side.text().length >= command.length);
  side.chunks.length = 0;
  return { side, peer };
}

describe.each(implementations)('a server by $name that is asked for TLS', ({ name, network }) => {
  it('answers in clear before the handshake', async () => {
    const { side, peer } = await commanded(network);
    side.write('220 ');
    side.write('go ahead\r\n');
    const started = side.startTls(ids.server);
    await peer.untilText('220 go ahead\r\n');
    const secure = tlsOver(peer);
    await started;
    expect(side.connection.tls?.protocol).toBe('TLSv1.3');
    secure.socket.write('EHLO\r\n');
    await side.untilText('EHLO\r\n');
    side.write('250 OK\r\n');
    await secure.untilText('250 OK\r\n');
  });

  it('hands on nothing that was sent in clear after the command, whether it came with it or later', async () => {
    const injected = 'A2 LOGIN mallory secret\r\n';
    for (const when of ['in one segment', 'before the answer', 'before the answer, while it is paused', 'with the handshake'] as const) {
      const { side, peer } = await commanded(network, when === 'in one segment' ? `STARTTLS\r\n${injected}` : 'STARTTLS\r\n');
      if (when === 'before the answer, while it is paused') side.pause();
      let dropped = 0;
      if (when === 'before the answer' || when === 'before the answer, while it is paused') {
        peer.socket.write(injected);
        await settled();
        // A dialogue forgets what was handed to it; the rest is for the connection.
        dropped = side.chunks.length;
        side.chunks.length = 0;
      }
      side.write('go\r\n');
      const outcome = outcomeOf(side.startTls(ids.server));
      await peer.untilText('go\r\n');
      if (when === 'with the handshake') peer.socket.write(injected);
      const secure = tlsOver(peer);
      if ((await outcome) === 'secured') {
        side.resume();
        secure.socket.write('A3 NOOP\r\n');
        await side.untilText('A3 NOOP\r\n');
      } else {
        expect(await outcome).toBe('NET_TLS_FAILED');
        await side.untilClosed();
        expect(side.text()).toBe('');
      }
      // What the dialogue was given and forgot leaves nothing to stumble over.
      if (when === 'in one segment' || dropped > 0) expect(await outcome).toBe('secured');
      if (when === 'with the handshake') expect(await outcome).toBe('NET_TLS_FAILED');
      peer.socket.destroy();
    }
  });

  it('shakes hands while it is paused, and reads once it is resumed', async () => {
    const { side, peer } = await commanded(network);
    side.pause();
    side.write('go\r\n');
    const started = side.startTls(ids.server);
    await peer.untilText('go\r\n');
    const secure = tlsOver(peer);
    secure.socket.write('one');
    await started;
    side.resume();
    await side.untilText('one');
    side.pause();
    secure.socket.write(', two');
    secure.socket.end();
    await settled();
    expect(side.text()).toBe('one');
    side.resume();
    await side.untilEnd();
    expect(side.text()).toBe('one, two');
  });

  it('keeps its handlers, and takes new ones in the middle of it', async () => {
    const { side, peer } = await commanded(network);
    let heard = '';
    side.watch({
      data: (chunk) => {
        heard += chunk;
      },
    });
    const started = side.startTls(ids.server);
    const secure = tlsOver(peer);
    await started;
    secure.socket.write('first');
    await side.until(() => heard === 'first');
    side.watch();
    secure.socket.write('second');
    await side.untilText('second');
  });

  it('closes in good order after it, from either side, and with an error on a reset', async () => {
    for (const how of ['client ends', 'server ends', 'reset', 'destroyed', 'destroyed with a reason'] as const) {
      const { side, peer } = await commanded(network);
      const started = side.startTls(ids.server);
      const secure = tlsOver(peer);
      await started;
      secure.socket.write('x');
      await side.untilText('x');
      const reason = new Error('enough');
      if (how === 'client ends') {
        secure.socket.end();
        await side.untilEnd();
        side.end();
        peer.socket.end();
      } else if (how === 'server ends') {
        side.end();
        await secure.until(() => secure.hasEnded);
        secure.socket.end();
        peer.socket.end();
      } else if (how === 'reset') peer.socket.resetAndDestroy();
      else side.destroy(how === 'destroyed' ? undefined : reason);
      const error = await side.untilClosed();
      if (how === 'reset') expect(error).toBeInstanceOf(Error);
      else expect(error).toBe(how === 'destroyed with a reason' ? reason : undefined);
    }
  });

  it('fails, says with whom and is closed where the client speaks no TLS or goes', async () => {
    const hello = Buffer.from([0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
    for (const behave of ['garbage', 'end', 'reset', 'half a greeting, then end', 'half a greeting, then reset'] as const) {
      if (behave.endsWith('end') && lacks(name, 'end in a handshake')) continue;
      const { side, peer } = await commanded(network);
      const outcome = failureOf(side.startTls(ids.server));
      if (behave.startsWith('half')) {
        peer.socket.write(hello);
        await settled();
      }
      if (behave === 'garbage') peer.socket.write('EHLO in.clear.example\r\nMAIL FROM:<>\r\n');
      else if (behave.endsWith('end')) peer.socket.end();
      else peer.socket.resetAndDestroy();
      const { code, message } = await outcome;
      expect(code).toBe('NET_TLS_FAILED');
      expect(message).toContain('127.0.0.1');
      await side.untilClosed();
      expect(side.text()).toBe('');
      await peer.untilGone();
      side.write('late');
      side.end();
      side.destroy();
    }
  });

  it('fails and closes once where it is destroyed in the handshake', async () => {
    const { side } = await commanded(network);
    const outcome = failureOf(side.startTls(ids.server));
    await settled();
    side.destroy();
    expect((await outcome).code).toBe('NET_TLS_FAILED');
    await side.untilClosed();
    await settled();
    expect(side.events.filter((event) => event === 'close').length).toBe(1);
  });

  it('leaves no descriptor behind of handshakes that failed', async () => {
    const listener = await listen(network, {}, (connection) => {
      connection.handle({ data: () => {}, close: () => {} });
      connection.startTls(ids.server).catch(() => {});
    });
    const visit = async (number: number): Promise<void> => {
      const peer = await peerTo(listener.port);
      if (number % 2 === 0) peer.socket.write('no TLS at all, and long enough for a record\r\n');
      else if (lacks(name, 'end in a handshake')) peer.socket.resetAndDestroy();
      else peer.socket.end();
      await peer.untilGone();
      peer.socket.destroy();
      await peer.until(() => peer.isClosed);
    };
    await visit(0);
    await settled();
    const count = async (): Promise<number> => (await readdir('/proc/self/fd')).length;
    const before = await count();
    for (let i = 0; i < 200; i += 20) await Promise.all(Array.from({ length: 20 }, (_, j) => visit(i + j)));
    await within(
      (async () => {
        while ((await count()) > before + 5) await new Promise((resolve) => setTimeout(resolve, 20));
      })(),
      'descriptors were left open',
    );
  });
});

describe.each(implementations.filter(({ name }) => !lacks(name, 'handshake after close')))(
  'a server by $name that starts TLS too late',
  ({ network }) => {
    it('is told so at once, and of the close no second time', async () => {
      for (const how of ['destroyed', 'reset'] as const) {
        const { side, peer } = await withPeer('accepted', network);
        if (how === 'destroyed') side.destroy();
        else peer.socket.resetAndDestroy();
        await side.untilClosed();
        expect((await failureOf(side.startTls(ids.server))).code).toBe('NET_TLS_FAILED');
        await settled();
        expect(side.events).toEqual(['close']);
      }
    });
  },
);

/** How much of the client's first message was read before TLS was known to come. */
const cuts = [
  { early: 0, what: 'nothing' },
  { early: 1, what: 'one byte' },
  { early: 5, what: 'the head of the record' },
  { early: 6, what: 'one byte more than the head of the record' },
  { early: 200, what: 'some of it' },
  { early: Number.POSITIVE_INFINITY, what: 'all of it' },
] as const;
const sizes = [
  { size: 'small', more: {} },
  // Names of protocols that nobody knows make it larger than what is usually read at a time, and than one record.
  { size: '6 kB', more: { ALPNProtocols: Array.from({ length: 30 }, (_, i) => `${i}`.padEnd(200, 'x')) } },
  { size: '20 kB', more: { ALPNProtocols: Array.from({ length: 100 }, (_, i) => `${i}`.padEnd(200, 'x')) } },
] as const;

describe.each(implementations)('a server by $name that was led to TLS by something that stood before it', ({ network }) => {
  const header = 'PROXY TCP4 198.51.100.7 198.51.100.8 4711 993\r\n';
  const earlyCases = sizes.flatMap((size) =>
    cuts.flatMap((cut) => (['before', 'after'] as const).map((rest) => ({ ...size, ...cut, rest }))),
  );

  it.each(earlyCases)('goes on with $what of a $size greeting that was read already; the rest comes $rest it starts', async (given) => {
    const { side, peer } = await withPeer('accepted', network);
    const greeting: Buffer[] = [];
    let isHeld = true;
    const secure = tlsOver(
      peer,
      (bytes) => {
        if (isHeld) greeting.push(bytes);
        else peer.socket.write(bytes);
      },
      given.more,
    );
    await within(
      (async () => {
        while (greeting.length === 0) await new Promise(setImmediate);
      })(),
      'Node sent no greeting',
    );
    // What is written in several calls within one turn is one message.
    await new Promise(setImmediate);
    isHeld = false;
    const whole = Buffer.concat(greeting);
    const length = Math.min(given.early, whole.length);
    peer.socket.write(Buffer.concat([Buffer.from(header), whole.subarray(0, length)]));
    await side.until(() => side.bytes === header.length + length);
    const early = Buffer.concat(side.chunks).subarray(header.length);
    side.chunks.length = 0;
    side.pause();
    if (given.rest === 'before' && length < whole.length) {
      peer.socket.write(whole.subarray(length));
      await settled();
    }
    const started = side.startTls(ids.server, early);
    if (given.rest === 'after' && length < whole.length) {
      await settled();
      peer.socket.write(whole.subarray(length));
    }
    await started;
    side.resume();
    secure.socket.write('hello');
    await side.untilText('hello');
    side.write('hello yourself');
    await secure.untilText('hello yourself');
  });

  it('fails where what was read already is no TLS', async () => {
    const { side, peer } = await withPeer('accepted', network);
    peer.socket.write('A1 CAPABILITY\r\nA2 LOGIN mallory secret\r\n');
    await side.until(() => side.bytes === 40);
    const early = Buffer.concat(side.chunks);
    side.chunks.length = 0;
    side.pause();
    expect((await failureOf(side.startTls(ids.server, early))).code).toBe('NET_TLS_FAILED');
    await side.untilClosed();
    expect(side.text()).toBe('');
  });
});

describe.each(implementations)('a client by $name that goes over to TLS', ({ network }) => {
  const tls = (): { ca: string; serverName: string } => ({ ca: ids.ca.certificate, serverName: 'localhost' });

  it('hands on nothing that was sent in clear after the answer', async () => {
    const injected = '* OK [ALERT] send your password again\r\n';
    for (const when of ['in one segment', 'before the handshake', 'before the handshake, while it is paused'] as const) {
      const { side, peer } = await withPeer('made', network);
      const answer = when === 'in one segment' ? `go\r\n${injected}` : 'go\r\n';
      peer.socket.write(answer);
      await side.untilText(answer);
      side.chunks.length = 0;
      if (when !== 'in one segment') {
        if (when === 'before the handshake, while it is paused') side.pause();
        peer.socket.write(injected);
        await settled();
        side.chunks.length = 0;
      }
      const secure = createServer({ ...ids.server });
      const transport = new Transport((bytes) => void (peer.socket.writable && peer.socket.write(bytes)));
      transport.on('error', () => {});
      peer.socket.on('data', (chunk) => transport.push(chunk));
      peer.socket.on('close', () => transport.destroy());
      const sockets: TLSSocket[] = [];
      secure.on('tlsClientError', () => {});
      secure.on('secureConnection', (socket) => {
        sockets.push(socket);
        onTestFinished(() => void socket.destroy());
        socket.on('error', () => {});
        socket.write('said under TLS');
      });
      secure.emit('connection', transport);
      const outcome = await outcomeOf(side.startTlsAsClient(tls()));
      if (outcome === 'secured') {
        side.resume();
        await side.untilText('said under TLS');
      } else {
        expect(outcome).toBe('NET_TLS_FAILED');
        await side.untilClosed();
        expect(side.text()).toBe('');
      }
      if (when !== 'before the handshake, while it is paused') expect(outcome).toBe('secured');
      peer.socket.destroy();
    }
  });

  it('fails and closes once where it is destroyed in the handshake', async () => {
    const { side, peer } = await withPeer('made', network);
    const outcome = failureOf(side.startTlsAsClient(tls()));
    // Its greeting has come.
    await peer.until(() => peer.chunks.length > 0);
    side.destroy();
    expect((await outcome).code).toBe('NET_TLS_FAILED');
    await side.untilClosed();
    await settled();
    expect(side.events).toEqual(['close']);
    await peer.untilGone();
  });
});

describe.each(implementations)('a session by $name that is resumed', ({ network }) => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'in %s has the names of the certificate that it began with, or proves them anew',
    async (version) => {
      const names: (readonly string[] | undefined)[] = [];
      const options = { ...ids.server, ca: ids.ca.certificate, requestCert: true, ticketKey: Buffer.alloc(48, 7) };
      const listener = await listen(network, {}, (connection) => {
        connection.handle({ data: (chunk) => connection.write(chunk), close: () => {} });
        onTestFinished(() => connection.destroy());
        connection.startTls(options).then(
          () => names.push(connection.tls?.peerNames),
          () => {},
        );
      });
      const shown = await issued(ids.ca, ['client.example']);
      let session: Buffer | undefined;
      for (let i = 0; i < 3; i += 1) {
        const socket = connect({
          port: listener.port,
          host: '127.0.0.1',
          ca: ids.ca.certificate,
          servername: 'localhost',
          minVersion: version,
          maxVersion: version,
          ...shown,
          ...(session === undefined ? {} : { session }),
        });
        const peer = new Peer(socket);
        socket.on('session', (given) => {
          session = given;
        });
        await within(once(socket, 'secureConnect'), 'no TLS with Node');
        socket.write('x');
        await peer.untilText('x');
        socket.destroy();
      }
      expect(names).toEqual([['client.example'], ['client.example'], ['client.example']]);
    },
  );
});
